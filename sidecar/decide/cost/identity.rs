//! What resolving a caller and deciding costs among many known identities, in instructions: `make decide-figures` counts
//! those of `resolve_and_decide`.
//!
//! `decide-identity-cost COUNT`: so many identities.

#![expect(clippy::print_stdout, reason = "it is a program, and this is its answer")]

use std::error::Error;
use std::sync::Arc;

use serde_json::{Value, json};
use sidecar_decide::{Certificate, CertificateFacts, Files, Parts, Snapshot, Verdict, accept, link};

/// Callers that are resolved, each asking once of each rule.
const CALLERS: usize = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    let count: usize = std::env::args().nth(1).unwrap_or_else(|| "10".to_owned()).parse()?;
    let (snapshot, problems) = link(&parts(count)?);
    if let Some(problem) = problems.first() {
        return Err(problem.to_string().into());
    }
    let callers: Vec<_> = (0..CALLERS).map(|number| caller(number * 7919 % count)).collect();
    let allowed: usize = callers.iter().map(|caller| resolve_and_decide(&snapshot, caller)).sum();
    println!("{count} identities, {CALLERS} callers: {allowed} requests allowed");
    Ok(())
}

/// A client's part of a connection and its requests: how many of them may pass.
#[inline(never)]
fn resolve_and_decide(snapshot: &Snapshot, facts: &CertificateFacts) -> usize {
    let caller = snapshot.directory.resolve(facts, vec![0]);
    let decisions = snapshot.rules.iter().map(|rule| snapshot.decide(rule, &caller));
    decisions.filter(|decision| decision.verdict == Verdict::Allowed).count()
}

fn uri(number: usize) -> String {
    format!("spiffe://demo.local/ns/demo/client/{number:06}")
}

fn caller(number: usize) -> CertificateFacts {
    let sha256 = [u8::try_from(number % 256).unwrap_or_default(); 32];
    CertificateFacts { uris: vec![uri(number)], sha256, is_ca: false, ..root() }
}

fn root() -> CertificateFacts {
    CertificateFacts {
        subject: "CN=ours".to_owned(),
        issuer: "CN=ours".to_owned(),
        common_name: Some("ours".to_owned()),
        serial: "5a:01".to_owned(),
        addresses: Vec::new(),
        uris: Vec::new(),
        dns_names: Vec::new(),
        san: String::new(),
        not_before: 0,
        not_after: i64::MAX,
        sha256: [0; 32],
        spki: vec![0; 91],
        self_issued: true,
        is_ca: true,
        signs_crls: true,
    }
}

/// Rules by name, by label, by SPIFFE pattern and by service account, over so many identities.
fn parts(count: usize) -> Result<Parts, Box<dyn Error>> {
    let identities: Vec<Value> = (0..count)
        .map(|number| {
            let tier = if number % 2 == 0 { "even" } else { "odd" };
            let recognise = json!([{"bundle": "ours", "uri": uri(number)}]);
            json!({"name": format!("demo/{number}"), "labels": {"tier": tier}, "recognise": recognise})
        })
        .collect();
    let named: Vec<Value> = (0..count).map(|number| json!({"identity": format!("demo/{number}")})).collect();
    let rule = |name: &str, allow: Value| json!({"name": name, "allow": allow, "backends": [{"endpoints": "none"}]});
    let rules = json!([
        rule("named", json!(named)),
        rule("labels", json!([{"identitySelector": {"matchLabels": {"tier": "even"}}}])),
        rule("pattern", json!([{"spiffe": "spiffe://demo.local/ns/demo/*"}])),
        rule("account", json!([{"serviceAccount": {"namespace": "demo", "name": "front"}}])),
    ]);
    let trust = json!({"bundles": {"ours": {"roots": ["ca.pem"], "vouchesFor": {"spiffe": ["demo.local"]}}}});
    let tls = json!({"trust": ["ours"]});
    let listener = json!({"name": "gate", "address": "127.0.0.1:8443", "protocol": "HTTPS", "tls": tls});
    let policy = json!({"listeners": [listener], "routes": [{"name": "demo/all", "listener": "gate", "rules": rules}]});
    let endpoints = json!([{"name": "none"}]);
    let mut files = Files::default();
    files.certificates.insert("ca.pem".to_owned(), Ok(vec![Certificate { der: vec![0], facts: root() }]));
    let told = |refusal: sidecar_decide::Refusal| format!("{:?}", refusal.problems);
    let identities: Vec<_> = serde_json::from_value(Value::from(identities))?;
    let endpoints: Vec<_> = serde_json::from_value(endpoints)?;
    Ok(Parts {
        trust: Some(Arc::new(accept::trust(&serde_json::from_value(trust)?, &files).map_err(told)?)),
        identity: None,
        identities: Some(Arc::new(accept::identities(&identities).map_err(told)?)),
        policy: Some(Arc::new(accept::policy(&serde_json::from_value(policy)?).map_err(told)?)),
        endpoints: Some(Arc::new(accept::endpoints(&endpoints).map_err(told)?)),
        ..Parts::default()
    })
}
