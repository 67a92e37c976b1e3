//! What messages are about: written, chosen by, and brought into files that did not know it.

use sidecar_decide::MessageType;

use super::*;
use crate::message_type::Message;

fn about(number: u64, message: Message) -> Record {
    Record { message_type: Some(message), ..request(number) }
}

fn found(path: &Path, message_type: &str) -> String {
    let filter = Filter { message_type: Some(message_type.to_owned()), limit: 100, ..Filter::default() };
    let mut out = Vec::new();
    block_on(query::rows(path, &filter, Output::Json, &mut out, &Unread::default())).unwrap();
    let rows = String::from_utf8(out).unwrap();
    let rows = rows.lines().map(|row| serde_json::from_str::<serde_json::Value>(row).unwrap());
    rows.map(|row| row["path"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_type_comes_back_and_chooses_its_rows() {
    let (_folder, path) = folder();
    let known = MessageType::all().map(Message::Known);
    let mut records: Vec<_> = (0..).zip(known).map(|(number, message)| about(number, message)).collect();
    // A stranger's row is in another table.
    let json = || Message::Known(MessageType::JSON);
    records.push(Record { peer: None, verdict: Verdict::Refused, ..about(900, json()) });
    records.push(request(901));
    records.push(about(902, Message::Call("shop.v1.Stock/Count".into())));
    written(&path, records);
    for (number, message) in MessageType::all().enumerate() {
        let more = if message == MessageType::JSON { " /orders/900" } else { "" };
        assert_eq!(found(&path, message.name()), format!("/orders/{number}{more}"), "{message}");
    }
    assert_eq!(found(&path, "shop.v1.Stock/Count"), "/orders/902");
    assert_eq!(ask(&path, "SELECT message_type IS NULL FROM requests WHERE path = '/orders/901'"), "1");
    assert_eq!(
        ask(&path, "SELECT DISTINCT typeof(message_type) FROM decision WHERE message_type IS NOT NULL"),
        "integer"
    );
}

/// What version 5 left: its schema, the row of a known client and of a stranger.
const VERSION_5: &str = concat!(
    include_str!("schema-5.sql"),
    "INSERT INTO scope (id, hash, last, listener) VALUES (1, 7, 1, 'main');
     INSERT INTO word (id, text) VALUES (1, 'limits.maxStreams');
     INSERT INTO decision (seq, time, kind, verdict, scope, path, limiter) VALUES (1, 1700000000000000, 0, 0, 1, '/old/0', 1);
     INSERT INTO refusal (seq, time, kind, verdict, scope, path, subject) VALUES (2, 1700000000000001, 0, 1, 1, '/old/1', 'CN=a');
     PRAGMA user_version = 5"
);

#[test]
fn a_file_without_types_keeps_its_rows_and_gets_types() {
    let (_folder, path) = folder();
    std::fs::write(&path, "").unwrap();
    execute(&path, VERSION_5);
    // A copy is read as it is.
    assert_eq!(found(&path, "EndDevice"), "");
    let message = || Message::Known(MessageType::named("EndDevice").unwrap());
    let stranger = Record { peer: None, verdict: Verdict::Refused, ..about(1, message()) };
    written(&path, vec![about(0, message()), stranger]);
    assert_eq!(
        ask(&path, "SELECT path, subject, limiter, message_type FROM requests ORDER BY time"),
        "/old/0,,limits.maxStreams,\n\
         /old/1,CN=a,,\n\
         /orders/0,CN=meter-7,,EndDevice\n\
         /orders/1,,,EndDevice"
    );
    assert_eq!(ask(&path, "SELECT user_version FROM pragma_user_version"), "8");
    assert_columns_of_a_new_file(&path);
}
