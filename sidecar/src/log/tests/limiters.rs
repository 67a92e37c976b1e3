//! Which limit refused something: written, chosen by, and brought into files that did not know it.

use sidecar_decide::{Limiter, Reason, Verdict};

use super::*;

fn refused(number: u64, limiter: Limiter) -> Record {
    let reason = Some(Reason::LimitStreams);
    Record { verdict: Verdict::Refused, reason, limiter: Some(limiter), ..request(number) }
}

fn found(path: &Path, limiter: &str) -> String {
    let filter = Filter { limiter: Some(limiter.to_owned()), limit: 100, ..Filter::default() };
    let mut out = Vec::new();
    block_on(query::rows(path, &filter, Output::Json, &mut out, &Unread::default())).unwrap();
    let rows = String::from_utf8(out).unwrap();
    let rows = rows.lines().map(|row| serde_json::from_str::<serde_json::Value>(row).unwrap());
    rows.map(|row| row["path"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_limiter_comes_back_and_chooses_its_rows() {
    let (_folder, path) = folder();
    let mut records: Vec<_> = (0..).zip(Limiter::ALL).map(|(number, limiter)| refused(number, limiter)).collect();
    // A stranger's row is in another table.
    let stranger = Record { peer: None, ..refused(90, Limiter::MaxStreams) };
    records.extend([stranger, request(91)]);
    written(&path, records);
    for (number, limiter) in Limiter::ALL.into_iter().enumerate() {
        let more = if limiter == Limiter::MaxStreams { " /orders/90" } else { "" };
        assert_eq!(found(&path, limiter.name()), format!("/orders/{number}{more}"), "{limiter}");
    }
    assert_eq!(ask(&path, "SELECT limiter FROM requests WHERE path = '/orders/91'"), "");
}

/// What version 4 left: its schema, the row of a known client and of a stranger.
const VERSION_4: &str = concat!(
    include_str!("schema-4.sql"),
    "INSERT INTO scope (id, hash, last, listener) VALUES (1, 7, 1, 'main');
     INSERT INTO decision (seq, time, kind, verdict, scope, path, grpc_status) VALUES (1, 1700000000000000, 0, 0, 1, '/old/0', 8);
     INSERT INTO refusal (seq, time, kind, verdict, scope, path, subject) VALUES (2, 1700000000000001, 0, 1, 1, '/old/1', 'CN=a');
     PRAGMA user_version = 4"
);

#[test]
fn a_file_without_limiters_keeps_its_rows_and_gets_limiters() {
    let (_folder, path) = folder();
    std::fs::write(&path, "").unwrap();
    execute(&path, VERSION_4);
    // A copy is read as it is.
    assert_eq!(found(&path, "limits.maxStreams"), "");
    let stranger = Record { peer: None, ..refused(1, Limiter::MaxTunnels) };
    written(&path, vec![refused(0, Limiter::MaxStreams), stranger]);
    assert_eq!(
        ask(&path, "SELECT path, subject, grpc_status, limiter FROM requests ORDER BY time"),
        "/old/0,,8,\n\
         /old/1,CN=a,,\n\
         /orders/0,CN=meter-7,,limits.maxStreams\n\
         /orders/1,,,limits.maxTunnels"
    );
    assert_eq!(ask(&path, "SELECT user_version FROM pragma_user_version"), "8");
    assert_columns_of_a_new_file(&path);
}
