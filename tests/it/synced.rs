//! Files of the log that get their name when they are whole: on the disk before that, and the name before what it stands for
//! goes. What a power cut would show is seen by the calls that the gate makes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use postern_tests::gate::Gate;

use crate::log::call;
use crate::observed::wait_until;
use crate::outages::{cut_often, segments};

/// What one thread has done so far.
#[derive(Default)]
struct Thread {
    /// Files that are on the disk as they are.
    synced: BTreeSet<String>,
    /// Names that were given, and may be gone after a power cut.
    unsure: BTreeSet<String>,
}

/// Segments that got their names, by how these end; each as it should be.
fn renamed(trace: &str, folder: &Path) -> BTreeMap<&'static str, usize> {
    let (folder, mut threads, mut renamed) = (folder.to_str().unwrap(), BTreeMap::new(), BTreeMap::new());
    for line in trace.lines() {
        let (thread, call) = line.split_once(' ').unwrap();
        let thread: &mut Thread = threads.entry(thread).or_default();
        let call = call.trim_start();
        let names: Vec<_> = call.split('"').skip(1).step_by(2).collect();
        if call.starts_with("fsync(") || call.starts_with("fdatasync(") {
            let file = call.split(['<', '>']).nth(1).unwrap();
            thread.synced.insert(file.to_owned());
            if file == folder {
                thread.unsure.clear();
            }
        } else if call.starts_with("rename") {
            let (from, to) = (names[0], names[1]);
            if from.contains("requests.db.") && from.ends_with(".part") {
                assert!(thread.synced.remove(from), "{from} is not on the disk when it becomes {to}");
                thread.unsure.insert(to.to_owned());
                *renamed.entry(if to.ends_with(".zst") { "compressed" } else { "plain" }).or_default() += 1;
            }
        } else if call.starts_with("unlink") {
            let is_one = names[0].contains("requests.db.0");
            assert!(!is_one || thread.unsure.is_empty(), "{} goes, and {:?} may be gone, too", names[0], thread.unsure);
        }
    }
    for thread in threads.values() {
        assert!(thread.unsure.is_empty(), "{:?} may be gone after a power cut", thread.unsure);
    }
    renamed
}

#[test]
fn a_segment_is_on_the_disk_before_it_has_its_name_and_has_it_before_what_it_was_made_of_goes() {
    let mut gate = Gate::start_with(cut_often("64Mi")).unwrap();
    gate.sidecar.terminate().unwrap();
    gate.sidecar.wait_exit().unwrap();
    let trace = gate.folder.file("trace");
    gate.sidecar = gate.sidecar.launch().clone().traced(&trace).start_ready().unwrap();
    call(&gate, "billing", 4000);
    wait_until("small segments", || segments(&gate.sidecar, "compressed") > 0 && segments(&gate.sidecar, "plain") == 0);
    gate.sidecar.terminate().unwrap();
    gate.sidecar.wait_exit().unwrap();
    // Who traces may end after the one that is traced.
    let ended = format!("{} +++ exited with 0 +++", gate.sidecar.id());
    let read = || fs::read_to_string(&trace).unwrap();
    wait_until("all of the trace", || read().lines().any(|line| line.split_whitespace().eq(ended.split_whitespace())));
    let renamed = renamed(&read(), &gate.folder.path().canonicalize().unwrap());
    assert!(renamed.len() == 2 && renamed["plain"] >= renamed["compressed"], "{renamed:?}");
}
