//! What the process needs of its machine: no rights, few files, little time to start, an end in time, its memory given back.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use postern_tests::clients::run;
use postern_tests::disk::Disk;
use postern_tests::gate::Gate;
use postern_tests::process::{Launch, anonymous_kib, built_sidecar};
use postern_tests::python::python;
use postern_tests::wait::PATIENCE;
use serde_json::json;

use crate::observed::{columns, metric, rows, wait_metric, wait_until};

/// A user that no machine knows.
const SOMEBODY: &str = "12345";

/// A program that runs the sidecar as nobody known, without any capability and where only one folder can be written;
/// `None` where that cannot be made.
fn confined(gate: &Gate) -> Option<Launch> {
    let (folder, program) = (gate.folder.path().display(), gate.folder.file("confined"));
    // Others must be able to read it, and the build folder may be below somebody's home.
    fs::copy(built_sidecar().unwrap(), gate.folder.file("sidecar")).unwrap();
    let text = format!(
        "#!/bin/sh
exec unshare --mount sh -e -c '
mount --make-rprivate /
mount --bind {folder} {folder}
mount --bind {folder}/data {folder}/data
mount -o remount,bind,ro {folder}
mount -o remount,bind,ro /
! touch {folder}/file /file 2>/dev/null
cd /
exec setpriv --reuid {SOMEBODY} --regid {SOMEBODY} --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all \"$0\" \"$@\"
' {folder}/sidecar \"$@\"
"
    );
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let owned = run(Command::new("chown").arg("-R").arg(SOMEBODY).arg(gate.folder.path()), b"", PATIENCE).unwrap();
    let works = Command::new(&program).arg("version").output().unwrap();
    (owned.code == Some(0) && works.status.success()).then(|| Launch::of(program, gate.folder.path()))
}

#[test]
fn it_runs_as_any_user_without_rights_on_a_read_only_root() {
    let mut gate = Gate::start_with(|document| {
        document["settings"]["log"]["path"] = json!("data/requests.db");
        document["settings"]["stateDir"] = json!("data/state");
    })
    .unwrap();
    gate.sidecar.kill().unwrap();
    let data = gate.folder.file("data");
    fs::remove_dir_all(&data).unwrap();
    fs::create_dir(&data).unwrap();
    let Some(launch) = confined(&gate) else {
        writeln!(std::io::stderr(), "skipped: users and mounts cannot be changed here").unwrap();
        return;
    };
    gate.sidecar = launch.start_ready().unwrap();
    let answer = gate.curl(Some("billing"), "/orders").unwrap().call().unwrap();
    assert_eq!(answer.status, Some(200));
    wait_metric(&gate.sidecar, "postern_state_unsaved", 0);
    wait_metric(&gate.sidecar, "postern_log_rows_written_total", 1);
    let status = fs::read_to_string(format!("/proc/{}/status", gate.sidecar.id())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(field("Uid:"), [SOMEBODY; 4].join(" "));
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(u64::from_str_radix(&field(set), 16), Ok(0), "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    gate.sidecar.terminate().unwrap();
    assert_eq!(gate.sidecar.wait_exit().unwrap().code(), Some(0));
    let written = run(Command::new("find").arg(&data).args(["-type", "f", "-not", "-user", SOMEBODY]), b"", PATIENCE);
    assert_eq!(written.unwrap().text(), "");
}

/// The least of some starts counts: a machine that does other things delays each.
#[test]
fn it_is_ready_soon_with_many_routes_and_a_large_log() {
    let gate = Gate::stopped_large(built_sidecar().unwrap()).unwrap();
    let start = || gate.sidecar.launch().start_ready().unwrap();
    let times = (0..5).map(|_| start().wait_ready().unwrap());
    let least = times.min().unwrap();
    assert!(least < Duration::from_millis(500), "{least:?}");
}

/// Holds the log's only place for a writer until it is dropped.
struct Lock(Child);

impl Lock {
    fn take(database: &Path) -> Self {
        let mut command = Command::new("sqlite3");
        let mut shell = command.arg(database).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        shell.stdin.as_mut().unwrap().write_all(b".timeout 10000\nBEGIN IMMEDIATE;\n.print locked\n").unwrap();
        let mut said = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "locked\n");
        Self(shell)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Stops a gate whose log cannot be written, after so many decisions: it ends well, and tells what is in no row.
fn stops(case: &str, mut gate: Gate, decided: u64) {
    gate.sidecar.terminate().unwrap();
    assert_eq!(gate.sidecar.wait_exit().unwrap().code(), Some(0), "{case}");
    let stopped = gate.sidecar.lines().into_iter().find(|line| line.message() == "stopped").unwrap();
    assert_eq!(columns(&json!(stopped.fields), &["rows", "lost"]), json!([1, decided - 1]), "{case}");
}

fn call(gate: &Gate, count: u64) {
    let curl = gate.curl(Some("billing"), &format!("/orders/[1-{count}]")).unwrap();
    assert_eq!(curl.arg("-o").arg("/dev/null").call().unwrap().exit_code, Some(0));
}

#[test]
fn a_log_that_cannot_be_written_does_not_hold_up_the_end() {
    let gate = Gate::start().unwrap();
    call(&gate, 1);
    assert_eq!(rows(&gate.sidecar, 1).len(), 1);
    let lock = Lock::take(&gate.folder.file("requests.db"));
    call(&gate, 50);
    stops("locked", gate, 51);
    drop(lock);

    let Some(disk) = Disk::mount("2m").unwrap() else {
        writeln!(std::io::stderr(), "skipped: no file system may be mounted here").unwrap();
        return;
    };
    let path = disk.path().join("requests.db");
    let gate = Gate::start_with(|document| document["settings"]["log"]["path"] = json!(path)).unwrap();
    call(&gate, 1);
    wait_metric(&gate.sidecar, "postern_log_rows_written_total", 1);
    disk.fill().unwrap();
    call(&gate, 1000);
    stops("full", gate, 1001);
}

/// Opens so many connections, asks once on each, and closes them when all are open.
fn burst(gate: &Gate, connections: usize) {
    let script = format!(
        "
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, [resource.getrlimit(resource.RLIMIT_NOFILE)[1]] * 2)
context = ssl.create_default_context(cafile='ca.pem')
context.load_cert_chain('billing.pem', 'billing.key')
opened = []
for _ in range({connections}):
    client = context.wrap_socket(socket.create_connection(ADDRESS, timeout=30), server_hostname='localhost')
    client.sendall(b'GET /orders HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n')
    assert client.recv(65536).startswith(b'HTTP/1.1 200 ')
    opened.append(client)
for client in opened:
    client.close()
"
    );
    let address = gate.sidecar.listener("gate").unwrap();
    let finished = python(gate.folder.path(), address, &script).unwrap();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
}

/// glibc would keep some 40 KiB for each.
#[cfg(target_env = "gnu")]
#[test]
fn a_burst_of_connections_leaves_no_memory_behind() {
    const CONNECTIONS: usize = 2000;
    const LEFT_KIB: u64 = 16_000;

    let gate = Gate::start().unwrap();
    // What is made once is there: chains, pools, caches.
    burst(&gate, 50);
    let before = anonymous_kib(gate.sidecar.id()).unwrap();
    burst(&gate, CONNECTIONS);
    let now = || anonymous_kib(gate.sidecar.id()).unwrap();
    wait_until("memory to be given back", || metric(&gate.sidecar, "postern_memory_trims_total") > 0);
    assert_eq!(metric(&gate.sidecar, "postern_connections_open"), 0);
    assert!(now() < before + LEFT_KIB, "{before} KiB before, {} after", now());
}
