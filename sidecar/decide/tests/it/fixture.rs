//! What the tables are made of: documents from JSON, certificates as facts, parts joined to a snapshot.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use http::{HeaderMap, Method};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sidecar_decide::route::{Request, Sent};
use sidecar_decide::{
    Certificate, CertificateFacts, Files, Parts, Problem, Reason, RevocationList, Snapshot, accept, link,
};

/// Reads a part's document as its type.
pub(crate) fn read<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("a document of the contract")
}

/// A certificate of these names. `digest` fills its fingerprint, and its key is told apart by the same byte.
pub(crate) fn facts(subject: &str, digest: u8) -> CertificateFacts {
    CertificateFacts {
        subject: format!("CN={subject}"),
        issuer: "CN=issuer".to_owned(),
        common_name: Some(subject.to_owned()),
        serial: "01".to_owned(),
        uris: Vec::new(),
        dns_names: Vec::new(),
        addresses: Vec::new(),
        san: String::new(),
        not_before: 0,
        not_after: 1,
        sha256: [digest; 32],
        spki: vec![digest],
        self_issued: false,
        is_ca: false,
        signs_crls: true,
    }
}

/// A certificate that may be a root.
pub(crate) fn root(subject: &str, digest: u8) -> Certificate {
    Certificate { der: vec![digest], facts: CertificateFacts { is_ca: true, ..facts(subject, digest) } }
}

/// A certificate that may not.
pub(crate) fn leaf(subject: &str, digest: u8) -> Certificate {
    Certificate { der: vec![digest], facts: facts(subject, digest) }
}

/// A revocation list that the authorities of these digests have signed; it revokes the number 5.
pub(crate) fn list(issuer: &str, signers: &[u8]) -> RevocationList {
    RevocationList {
        issuer: format!("CN={issuer}"),
        issuer_sum: [1; 32],
        this_update: 0,
        next_update: 1,
        scope: None,
        serials: Arc::new(HashSet::from([Box::from([5].as_slice())])),
        sha256: [2; 32],
        signers: signers.iter().map(|digest| [*digest; 32]).collect(),
    }
}

/// The files of [`trust_document`] and of an identity: two roots, a leaf and its key.
pub(crate) fn files() -> Files {
    let mut files = Files::default();
    let mut certificates = |name: &str, list: Vec<Certificate>| files.certificates.insert(name.to_owned(), Ok(list));
    certificates("ours.pem", vec![root("ours", 0xa0)]);
    certificates("partner.pem", vec![root("partner", 0xb0)]);
    certificates("server.pem", vec![leaf("server", 0xc0), root("intermediate", 0xc1)]);
    certificates("not-ca.pem", vec![leaf("device", 0xd0)]);
    let dns_names = vec!["*.shop.example".to_owned(), "shop.example".to_owned()];
    let shop = Certificate { der: vec![0xe0], facts: CertificateFacts { dns_names, ..facts("shop", 0xe0) } };
    certificates("shop.pem", vec![shop]);
    files.public_keys.insert("shop.key".to_owned(), Ok(vec![0xe0]));
    certificates("empty.pem", Vec::new());
    files.certificates.insert("torn.pem".to_owned(), Err("`torn.pem` ends in the middle of a block".to_owned()));
    let mut lists = |name: &str, list: Result<Vec<RevocationList>, String>| {
        files.revocation_lists.insert(name.to_owned(), list);
    };
    lists("ours.crl", Ok(vec![list("ours", &[0xa0])]));
    lists("partner.crl", Ok(vec![list("partner", &[0xb0])]));
    lists("stray.crl", Ok(vec![list("ours", &[])]));
    lists("empty.crl", Ok(Vec::new()));
    lists("torn.crl", Err("`torn.crl`: not a list".to_owned()));
    files.public_keys.insert("server.key".to_owned(), Ok(vec![0xc0]));
    files.public_keys.insert("other.key".to_owned(), Ok(vec![0xc9]));
    files.public_keys.insert("torn.key".to_owned(), Err("`torn.key` holds no private key".to_owned()));
    files
}

/// Two bundles: `ours` vouches for `demo.local` and common names, `partner` for `partner.example` alone.
pub(crate) fn trust_document(states: &Value) -> Value {
    json!({
        "bundles": {
            "ours": {"roots": ["ours.pem"], "vouchesFor": {"spiffe": ["demo.local"], "commonName": true}},
            "partner": {"roots": ["partner.pem"], "vouchesFor": {"spiffe": ["partner.example"]}},
        },
        "revocations": {"identities": states},
    })
}

/// A listener that trusts both bundles.
pub(crate) fn listener(name: &str, port: u16) -> Value {
    json!({
        "name": name,
        "address": format!("127.0.0.1:{port}"),
        "protocol": "HTTPS",
        "tls": {"trust": ["ours", "partner"]},
    })
}

/// A rule that forwards to one address.
pub(crate) fn rule(name: &str, matches: &Value, allow: &Value) -> Value {
    json!({"name": name, "matches": matches, "allow": allow, "backends": [{"address": "127.0.0.1:8080"}]})
}

/// Parts `trust`, `identities`, `policy` and `endpoints` of a snapshot, accepted.
pub(crate) struct Documents {
    pub(crate) trust: Value,
    pub(crate) identities: Value,
    pub(crate) policy: Value,
    pub(crate) endpoints: Value,
}

impl Default for Documents {
    fn default() -> Self {
        Self {
            trust: trust_document(&json!([])),
            identities: json!([]),
            policy: json!({"listeners": [listener("main", 8443)]}),
            endpoints: json!([]),
        }
    }
}

impl Documents {
    /// Accepts each part; all of them must be good.
    pub(crate) fn accept(self) -> Parts {
        let files = files();
        let identities: Vec<_> = read(self.identities);
        let endpoints: Vec<_> = read(self.endpoints);
        Parts {
            trust: Some(Arc::new(accept::trust(&read(self.trust), &files).expect("a good trust part"))),
            identity: None,
            identities: Some(Arc::new(accept::identities(&identities).expect("a good identities part"))),
            policy: Some(Arc::new(accept::policy(&read(self.policy)).expect("a good policy part"))),
            endpoints: Some(Arc::new(accept::endpoints(&endpoints).expect("a good endpoints part"))),
            ..Parts::default()
        }
    }

    /// Accepts and joins the parts.
    pub(crate) fn link(self) -> (Snapshot, Vec<Problem>) {
        link(&self.accept())
    }
}

/// A policy of routes on listeners `main` and `other`, linked without a problem.
pub(crate) fn routed(routes: &Value) -> Snapshot {
    let listeners = [listener("main", 8443), listener("other", 9443)];
    let documents = Documents { policy: json!({"listeners": listeners, "routes": routes}), ..Documents::default() };
    let (snapshot, problems) = documents.link();
    assert_eq!(problems, []);
    snapshot
}

/// A route of one rule `r` on listener `main` that lets anyone in.
pub(crate) fn route(name: &str, hostnames: &Value, matches: &Value) -> Value {
    let rules = [rule("r", matches, &json!([{"anyone": {}}]))];
    json!({"name": name, "listener": "main", "hostnames": hostnames, "rules": rules})
}

/// A request without headers and query.
pub(crate) fn asked<'a>(host: &'a str, path: &'a str, method: &'a Method) -> Request<'a> {
    static NONE: LazyLock<HeaderMap> = LazyLock::new(HeaderMap::new);
    Request { host, path, method, headers: &NONE, query: None, message: Sent::Nothing }
}

/// The route of the rule that a request falls under.
pub(crate) fn found<'a>(snapshot: &'a Snapshot, listener: &str, request: &Request<'_>) -> Result<&'a str, Reason> {
    let found = snapshot.listener(listener).expect("a listener of the document").table.find(request);
    found.map(|index| &*snapshot.rules[index].route)
}

/// Problems as `(path, detail)`, to be compared whole.
pub(crate) fn told(problems: &[Problem]) -> Vec<(String, String)> {
    problems.iter().map(|problem| (problem.path.clone(), problem.detail.clone())).collect()
}

/// Expected problems in the same form.
pub(crate) fn expected(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    rows.iter().map(|(path, detail)| ((*path).to_owned(), (*detail).to_owned())).collect()
}
