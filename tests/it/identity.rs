//! Who a rule allows without naming them, and what is revoked: through the real binary.

use postern_tests::ca::{Authority, Issued, LeafOptions};
use postern_tests::config::client_uri;
use postern_tests::gate::Gate;
use serde_json::{Value, json};
use sidecar_decide::Reason;
use time::{Duration, OffsetDateTime};

use crate::observed::{columns, newest, status, wait_until};
use crate::reload::KeepAlive;

const REQUEST: &str = "GET /orders HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
const ACCOUNT: &str = "spiffe://demo.local/ns/web/sa/front";

fn issue(gate: &Gate, name: &str, leaf: &LeafOptions) -> Issued {
    let issued = gate.authority.issue(leaf).unwrap();
    gate.keep(name, &issued).unwrap();
    issued
}

/// Changes part `trust` and waits until it is in use.
fn change_trust(gate: &mut Gate, change: impl FnOnce(&mut Value)) {
    let before = status(&gate.sidecar).parts.trust.loaded;
    change(&mut gate.document["trust"]);
    gate.folder.write_document(&gate.document).unwrap();
    wait_until("another revision", || status(&gate.sidecar).parts.trust.loaded != before);
}

/// Status and reason of a call.
fn call(gate: &Gate, certificate: &str) -> (Option<u16>, Option<String>) {
    let answer = gate.curl(Some(certificate), "/orders").unwrap().call().unwrap();
    (answer.status, answer.header("postern-reason").map(str::to_owned))
}

fn refused(reason: Reason) -> (Option<u16>, Option<String>) {
    (reason.facts().http, Some(reason.code().to_owned()))
}

const ALLOWED: (Option<u16>, Option<String>) = (Some(200), None);

#[test]
fn a_revoked_serial_number_ends_the_handshake_and_open_connections() {
    let mut gate = Gate::start().unwrap();
    let issued = issue(&gate, "lost", &LeafOptions::client("billing", &client_uri("billing")));
    let mut connection = KeepAlive::open(&gate, "lost");
    assert_eq!(connection.ask("/orders"), 200);
    // In the other notation than rows have.
    let serial = issued.serial().unwrap().to_ascii_uppercase();
    change_trust(&mut gate, |trust| {
        trust["revocations"]["serials"] = json!([{ "bundle": "ours", "serial": serial }]);
    });
    wait_until("the connection's end", || connection.has_ended());
    assert_eq!(
        columns(&newest(&gate.sidecar, 2), &["kind", "verdict", "reason", "identity", "status"]),
        json!(["cut", "refused", "policy_certificate_revoked", "demo/billing", null])
    );
    for (count, flag) in (3..).zip(["-tls1_3", "-tls1_2"]) {
        let handshake = gate.openssl(Some("lost")).unwrap().arg(flag).talk(REQUEST).unwrap();
        assert_eq!((handshake.status(), handshake.alert()), (None, Some(44)), "{flag}");
        let row = newest(&gate.sidecar, count);
        let shown = ["kind", "verdict", "reason", "identity", "bundle", "subject", "fingerprint"];
        let fingerprint = format!("sha256:{}", issued.fingerprint().unwrap());
        let expected = json!(["handshake", "refused", "tls_revoked", null, null, "CN=billing", fingerprint]);
        assert_eq!(columns(&row, &shown), expected, "{flag}");
    }
    assert_eq!(call(&gate, "billing"), ALLOWED, "another certificate of the same identity");
}

#[test]
fn an_older_certificate_is_refused_and_a_newer_is_not() {
    let mut gate = Gate::start().unwrap();
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap();
    let bound = now - Duration::minutes(10);
    let billing = || LeafOptions::client("billing", &client_uri("billing"));
    issue(&gate, "old", &LeafOptions { not_before: bound - Duration::seconds(1), ..billing() });
    issue(&gate, "new", &LeafOptions { not_before: bound, ..billing() });
    assert_eq!((call(&gate, "old"), call(&gate, "new")), (ALLOWED, ALLOWED));
    let (date, hour, minute, second) = (bound.date(), bound.hour(), bound.minute(), bound.second());
    let time = format!("{date}T{hour:02}:{minute:02}:{second:02}Z");
    change_trust(&mut gate, |trust| {
        trust["revocations"]["identities"] = json!([{ "name": "demo/billing", "acceptIssuedAfter": time }]);
    });
    wait_until("refused", || call(&gate, "old") == refused(Reason::PolicyIssuedTooEarly));
    assert_eq!(call(&gate, "new"), ALLOWED);
}

#[test]
fn labels_service_accounts_and_patterns_allow_whom_they_name() {
    let gate = Gate::start_with(|document| {
        document["identities"][1]["labels"] = json!({ "tier": "gold" });
        document["policy"]["routes"][0]["rules"][0]["allow"] = json!([
            { "identitySelector": { "matchLabels": { "tier": "gold" } } },
            { "serviceAccount": { "namespace": "web", "name": "front" } },
            { "spiffe": "spiffe://demo.local/ns/shop/*" },
        ]);
    })
    .unwrap();
    let accounts = [
        ("front", ACCOUNT, ALLOWED),
        ("back", "spiffe://demo.local/ns/web/sa/back", refused(Reason::PolicyNoIdentity)),
        ("shop", "spiffe://demo.local/ns/shop/sa/any", ALLOWED),
        ("shops", "spiffe://demo.local/ns/shops/sa/any", refused(Reason::PolicyNoIdentity)),
    ];
    for (name, uri, expected) in accounts {
        issue(&gate, name, &LeafOptions::client(name, uri));
        assert_eq!(call(&gate, name), expected, "{uri}");
    }
    assert_eq!(call(&gate, "reports"), ALLOWED);
    assert_eq!(call(&gate, "billing"), refused(Reason::PolicyNotAllowed));
    let row = newest(&gate.sidecar, 6);
    assert_eq!(columns(&row, &["identity", "reason"]), json!(["demo/billing", "policy_not_allowed"]));
}

#[test]
fn a_partner_that_claims_our_service_account_is_refused() {
    let partner = Authority::new("Partner authority").unwrap();
    let mut gate = Gate::start_with(|document| {
        let account = json!({ "namespace": "web", "name": "front", "trustDomain": "demo.local" });
        document["policy"]["routes"][0]["rules"][0]["allow"] =
            json!([{ "serviceAccount": account }, { "spiffe": "spiffe://demo.local/*" }]);
        document["policy"]["listeners"][0]["tls"]["trust"] = json!(["ours", "partner"]);
    })
    .unwrap();
    gate.folder.write("partner.pem", partner.root_pem()).unwrap();
    change_trust(&mut gate, |trust| {
        trust["bundles"]["partner"] =
            json!({ "roots": ["partner.pem"], "vouchesFor": { "spiffe": ["partner.example"] } });
    });
    issue(&gate, "ours", &LeafOptions::client("front", ACCOUNT));
    let theirs = "spiffe://partner.example/ns/web/sa/front";
    for (name, uri) in [("claims-ours", ACCOUNT), ("has-its-own", theirs)] {
        gate.keep(name, &partner.issue(&LeafOptions::client("front", uri)).unwrap()).unwrap();
        wait_until(name, || call(&gate, name) == refused(Reason::PolicyNoIdentity));
    }
    assert_eq!(call(&gate, "ours"), ALLOWED);
}

#[test]
fn a_device_is_known_by_its_short_form_and_its_row_has_both() {
    let mut gate = Gate::start().unwrap();
    let issued = issue(&gate, "meter", &LeafOptions::client("meter", "urn:dev:meter"));
    let lfdi = issued.fingerprint().unwrap()[..40].to_owned();
    // By hand, and not as the gate does it: nine hex digits, and what is missing to the next ten.
    let digits = format!("{:011}", u64::from_str_radix(&lfdi[..9], 16).unwrap());
    let sum: u32 = digits.chars().map(|digit| digit.to_digit(10).unwrap()).sum();
    let sfdi = format!("{digits}{}", sum.next_multiple_of(10) - sum);
    assert_eq!(call(&gate, "meter"), refused(Reason::PolicyNoIdentity));
    gate.document["identities"][0]["recognise"] = json!([{ "bundle": "ours", "sfdi": sfdi }]);
    gate.folder.write_document(&gate.document).unwrap();
    wait_until("the meter is known", || call(&gate, "meter") == ALLOWED);
    let rows = gate.rows(2).unwrap();
    assert_eq!(columns(&rows[0], &["identity", "lfdi", "sfdi"]), json!([null, lfdi, sfdi]));
    assert_eq!(columns(rows.last().unwrap(), &["lfdi", "sfdi"]), json!([lfdi, sfdi]));
}
