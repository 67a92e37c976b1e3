//! The chain over rows with the real binary: kept through a kill, verified beside a running gate, and broken by a change.

use std::fs;
use std::process::Command;

use postern_tests::clients::run;
use postern_tests::gate::Gate;
use postern_tests::wait::PATIENCE;
use serde_json::json;

use crate::log::call;
use crate::observed::rows;

#[test]
fn a_row_that_is_changed_is_found_by_its_id() {
    let gate = Gate::start_with(|document| {
        document["version"] = json!("1.7");
        document["settings"]["log"]["chain"] = json!("Keyed");
        document["settings"]["log"]["chainKeyFile"] = json!("chain.key");
    });
    // The key comes late: rows wait for it.
    let gate = gate.unwrap();
    call(&gate, "billing", 20);
    fs::write(gate.folder.file("chain.key"), "0123456789abcdef\n").unwrap();
    let written = rows(&gate.sidecar, 20);
    let verify = || gate.sidecar.launch().subcommand("log", &["verify"]).unwrap();
    let verified = verify();
    assert_eq!((verified.code, verified.stderr.as_str()), (Some(0), ""));
    let said = verified.text();
    let (counts, newest) = said.split_once('\n').unwrap();
    assert_eq!(counts, "20 rows fit; 0 more the log has deleted itself; 0 are from before the chain");
    assert!(newest.starts_with("the newest is row 20, "), "{newest}");

    let database = gate.folder.file("requests.db");
    let change = "update decision set path = '/other' where seq = 7";
    let changed = run(Command::new("sqlite3").arg(&database).arg(change), b"", PATIENCE).unwrap();
    assert_eq!((changed.code, changed.stderr.as_str()), (Some(0), ""));
    let found = verify();
    let (id, time) = (written[6]["id"].as_str().unwrap(), written[6]["time"].as_str().unwrap());
    let place = format!("{}: row 7, {id}, of {time}: it was changed, or", database.display());
    assert_eq!(found.code, Some(1));
    assert!(found.stderr.contains(&place), "{}", found.stderr);
}
