//! The status document survives the way to its reader.

use std::collections::BTreeMap;

use serde_json::json;
use sidecar_config::status::{ContractRange, PartStatus, Parts, Shipping, Status};
use sidecar_config::{CONTRACT_MAX, CONTRACT_MIN};

fn status() -> Status {
    let refused = PartStatus {
        loaded: "0123456789ab".to_owned(),
        refused: Some("ba9876543210".to_owned()),
        why: Some("bundle `ours` has no roots".to_owned()),
        kept_since: Some("2026-11-21T00:00:00Z".to_owned()),
    };
    let none = || PartStatus { loaded: "none".to_owned(), ..PartStatus::default() };
    Status {
        contract: ContractRange { min: CONTRACT_MIN, max: CONTRACT_MAX },
        pod_uid: String::new(),
        parts: Parts { trust: refused, identity: none(), identities: none(), policy: none(), endpoints: none() },
        routes: BTreeMap::from([("demo/orders".to_owned(), "aabbccddeeff".to_owned())]),
        leaf_serial: Some("5a01".to_owned()),
        leaf_not_after: None,
        ready: false,
        exposed_ports: Some(vec![8080]),
        version: Some("0.1.0".to_owned()),
        shipping: Some(Shipping {
            failing: Some("connect".to_owned()),
            backlog_rows: 700,
            backlog_bytes: 70_000,
            backlog_age_seconds: 60,
            watermark: Some("2026-11-21T00:00:00Z".to_owned()),
            dropped_rows: 0,
        }),
    }
}

#[test]
fn its_words_are_fixed() {
    let expected = json!({
        "contract": { "min": "1.0", "max": "1.8" },
        "podUid": "",
        "parts": {
            "trust": { "loaded": "0123456789ab", "refused": "ba9876543210", "why": "bundle `ours` has no roots", "keptSince": "2026-11-21T00:00:00Z" },
            "identity": { "loaded": "none" },
            "identities": { "loaded": "none" },
            "policy": { "loaded": "none" },
            "endpoints": { "loaded": "none" },
        },
        "routes": { "demo/orders": "aabbccddeeff" },
        "leafSerial": "5a01",
        "ready": false,
        "exposedPorts": [8080],
        "version": "0.1.0",
        "shipping": {
            "failing": "connect", "backlogRows": 700, "backlogBytes": 70_000, "backlogAgeSeconds": 60,
            "watermark": "2026-11-21T00:00:00Z", "droppedRows": 0,
        },
    });
    assert_eq!(serde_json::to_value(status()).unwrap(), expected);
}

#[test]
fn it_reads_back_as_it_was() {
    let text = serde_json::to_string(&status()).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status());
}
