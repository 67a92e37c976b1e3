//! What the application is told of a caller: as Envoy, nginx and RFC 9440 write it, and nothing nobody vouches for.

use http::HeaderValue;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};
use sidecar_decide::filter::{Client, FORWARDED_MAX_BYTES};
use sidecar_decide::{CertificateFacts, Reason, Snapshot};

use crate::fixture::{Documents, facts, listener, read, rule};

/// A snapshot whose one rule has this filter.
fn told(filter: &Value) -> Snapshot {
    let mut telling = rule("telling", &json!([]), &json!([{"anyone": {}}]));
    telling["filters"] = json!([{"forwardIdentity": filter}]);
    let route = json!({"name": "a/b", "listener": "main", "rules": [telling]});
    let policy = json!({"listeners": [listener("main", 8443)], "routes": [route]});
    let (snapshot, problems) = Documents { policy, ..Documents::default() }.link();
    assert_eq!(problems, []);
    snapshot
}

/// What a caller under bundle `ours` is told by a filter: names and values.
fn fields(filter: &Value, facts: &CertificateFacts, chain: &[&[u8]]) -> Result<Vec<(String, String)>, Reason> {
    let snapshot = told(filter);
    let bundles = [&snapshot.bundles[snapshot.bundle("ours").expect("a bundle of the fixture")]];
    let client = Client { chain, facts, identity: Some("demo/billing"), bundles: &bundles };
    let written = snapshot.rules[0].filters.identity.as_ref().expect("the filter").of_client(&client)?;
    let text = |value: HeaderValue| String::from_utf8(value.as_bytes().to_vec()).expect("text");
    Ok(written.into_iter().map(|(name, value)| (name.to_string(), text(value))).collect())
}

fn named(uris: &[&str], dns_names: &[&str]) -> CertificateFacts {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    CertificateFacts { uris: owned(uris), dns_names: owned(dns_names), ..facts("billing", 0xab) }
}

#[test]
fn envoys_field_says_what_was_asked_for_in_that_order() {
    let hash = "ab".repeat(32);
    let good = named(&["spiffe://demo.local/billing", "urn:a"], &["a.example", "b.example"]);
    let table: [(Value, &CertificateFacts, Result<String, Reason>); 9] = [
        (json!(["Hash"]), &good, Ok(format!("Hash={hash}"))),
        (json!(["URI", "Hash"]), &good, Ok(format!("URI=spiffe://demo.local/billing;URI=urn:a;Hash={hash}"))),
        (json!(["DNS"]), &good, Ok("DNS=a.example;DNS=b.example".to_owned())),
        // A partner's client does not become ours by what it calls itself.
        (json!(["Hash", "URI"]), &named(&["spiffe://partner.example/x"], &[]), Ok(format!("Hash={hash}"))),
        (json!(["Hash", "URI"]), &named(&["SPIFFE://demo.local/x"], &[]), Ok(format!("Hash={hash}"))),
        (
            json!(["URI"]),
            &named(&["urn:a;URI=spiffe://demo.local/b"], &[]),
            Ok("URI=\"urn:a;URI=spiffe://demo.local/b\"".to_owned()),
        ),
        (json!(["URI"]), &named(&["urn:a\";URI=urn:b"], &[]), Err(Reason::PolicyIdentityUnwritable)),
        (json!(["DNS"]), &named(&[], &["a b"]), Err(Reason::PolicyIdentityUnwritable)),
        // The fact's certificate is no certificate here.
        (json!(["Subject"]), &good, Err(Reason::PolicyIdentityUnwritable)),
    ];
    for (asked, facts, expected) in table {
        let expected = expected.map(|value| vec![("x-forwarded-client-cert".to_owned(), value)]);
        assert_eq!(fields(&json!({ "xForwardedClientCert": asked }), facts, &[&[1]]), expected, "{asked}");
    }
    let nothing = fields(&json!({"xForwardedClientCert": ["URI", "DNS"]}), &named(&[], &[]), &[&[1]]);
    assert_eq!(nothing, Ok(vec![]), "what is not there is absent, not empty");
}

#[test]
fn one_fact_a_field() {
    let good = named(&["urn:a", "spiffe://demo.local/billing"], &[]);
    let two = named(&["spiffe://demo.local/billing", "spiffe://demo.local/other"], &[]);
    let foreign = named(&["spiffe://partner.example/billing"], &[]);
    let chain: [&[u8]; 3] = [&[0xfb, 0xff], b"foo", b"foobar"];
    let table: [(&str, &CertificateFacts, Option<&str>); 12] = [
        ("Identity", &good, Some("demo/billing")),
        ("Bundle", &good, Some("ours")),
        ("SpiffeId", &good, Some("spiffe://demo.local/billing")),
        ("SpiffeId", &two, None),
        ("SpiffeId", &foreign, None),
        ("SpiffeId", &named(&[], &[]), None),
        ("Sha256", &good, Some("abababababababababababababababababababababababababababababababab")),
        ("Lfdi", &good, Some("abababababababababababababababababababab")),
        ("Sfdi", &good, Some("460824726344")),
        ("EscapedPem", &good, Some("-----BEGIN%20CERTIFICATE-----%0A%2B%2F8%3D%0A-----END%20CERTIFICATE-----%0A")),
        ("Rfc9440", &good, Some(":+/8=:")),
        ("Rfc9440Chain", &good, Some(":Zm9v:, :Zm9vYmFy:")),
    ];
    for (value, facts, expected) in table {
        let mut headers = vec![json!({"name": "X-Told", "value": value})];
        if value == "Rfc9440Chain" {
            headers.push(json!({"name": "Client-Cert", "value": "Rfc9440"}));
        }
        let written = fields(&json!({ "headers": headers }), facts, &chain).unwrap();
        let told = written.iter().find(|(name, _)| name == "x-told").map(|(_, value)| value.as_str());
        assert_eq!(told, expected, "{value}");
    }
    let alone = json!({"headers": [
        {"name": "client-cert", "value": "Rfc9440"}, {"name": "client-cert-chain", "value": "Rfc9440Chain"},
    ]});
    assert_eq!(fields(&alone, &good, &chain[..1]).unwrap(), [("client-cert".to_owned(), ":+/8=:".to_owned())]);
}

#[test]
fn names_are_told_whole_and_unambiguous() {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CountryName, "DE");
    parameters.distinguished_name.push(DnType::OrganizationName, "Muster, \"Söhne\" + Co;");
    parameters.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 97]), "x");
    parameters.distinguished_name.push(DnType::CommonName, "c".repeat(2000));
    let certificate = parameters.self_signed(&KeyPair::generate().unwrap()).unwrap();
    let filter = json!({
        "xForwardedClientCert": ["Subject"],
        "headers": [{"name": "x-subject", "value": "Subject"}, {"name": "x-issuer", "value": "Issuer"}],
    });
    let written = fields(&filter, &facts("unused", 1), &[certificate.der()]).unwrap();
    let organisation = "O=Muster\\2C \\22S\\C3\\B6hne\\22 \\2B Co\\3B";
    let name = format!("CN={},2.5.4.97=#0c0178,{organisation},C=DE", "c".repeat(2000));
    let expected = [
        ("x-forwarded-client-cert".to_owned(), format!("Subject=\"{name}\"")),
        ("x-subject".to_owned(), name.clone()),
        ("x-issuer".to_owned(), name),
    ];
    assert_eq!(written, expected);
}

#[test]
fn too_much_is_refused_and_never_cut() {
    let filter = json!({"headers": [{"name": "x-der", "value": "Rfc9440"}]});
    // Two colons and five letters of the name beside four letters for three bytes.
    let fits = vec![0; (FORWARDED_MAX_BYTES - 7) / 4 * 3];
    assert!(fields(&filter, &facts("a", 1), &[&fits]).is_ok());
    let more = vec![0; fits.len() + 3];
    assert_eq!(fields(&filter, &facts("a", 1), &[&more]), Err(Reason::LimitIdentitySize));
}

#[test]
fn what_several_rules_tell_alike_is_one() {
    let telling = |name: &str, value: &str| {
        let mut rule = rule(name, &json!([]), &json!([{"anyone": {}}]));
        rule["filters"] = json!([{"forwardIdentity": {"headers": [{"name": "x-told", "value": value}]}}]);
        rule
    };
    let rules = [telling("a", "Lfdi"), telling("b", "Lfdi"), telling("c", "Sfdi")];
    let route = json!({"name": "a/b", "listener": "main", "rules": rules});
    let policy: Value = read(json!({"listeners": [listener("main", 8443)], "routes": [route]}));
    let (snapshot, _) = Documents { policy, ..Documents::default() }.link();
    let told: Vec<_> = snapshot.rules.iter().filter_map(|rule| rule.filters.identity.clone()).collect();
    let same = |a: usize, b: usize| std::sync::Arc::ptr_eq(&told[a], &told[b]);
    assert_eq!((same(0, 1), same(0, 2)), (true, false));
}
