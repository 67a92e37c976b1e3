//! Any text as a document in each notation: it is accepted, or every problem has a place and says what to do.
#![no_main]

use std::sync::Arc;

use http::{HeaderMap, Method};
use libfuzzer_sys::fuzz_target;
use postern_fuzz::root;
use serde_json::Value;
use sidecar_config::endpoints::EndpointSet;
use sidecar_config::identities::KnownIdentity;
use sidecar_config::identity::Identity;
use sidecar_config::policy::Policy;
use sidecar_config::settings::Settings;
use sidecar_config::trust::Trust;
use sidecar_config::{Document, Format, Part, Readable};
use sidecar_decide::route::{Request, Sent};
use sidecar_decide::{Caller, Files, Parts, Refusal, accept, link};

fuzz_target!(|text: &str| {
    for format in [Format::Toml, Format::Yaml, Format::Json] {
        let Ok(value) = format.parse(text) else { continue };
        let json = serde_json::to_string(&value).expect("a value is JSON");
        assert_eq!(Format::Json.parse(&json).ok().as_ref(), Some(&value), "{json}");
        if let Ok(document) = Document::from_value(value) {
            serve(document);
        }
    }
});

fn serve(mut document: Document) {
    if let Some(settings) = document.settings.take() {
        drop(Document::read::<Settings>("settings", settings));
    }
    let trust: Option<Trust> = read(&mut document, Part::Trust);
    let identity: Option<Identity> = read(&mut document, Part::Identity);
    let identities: Option<Vec<KnownIdentity>> = read(&mut document, Part::Identities);
    let policy: Option<Policy> = read(&mut document, Part::Policy);
    let endpoints: Option<Vec<EndpointSet>> = read(&mut document, Part::Endpoints);
    let files = files(trust.as_ref(), identity.as_ref());
    let parts = Parts {
        trust: trust.and_then(|part| accepted(accept::trust(&part, &files))),
        identity: identity.and_then(|part| accepted(accept::identity(&part, &files))),
        identities: identities.and_then(|part| accepted(accept::identities(&part))),
        policy: policy.and_then(|part| accepted(accept::policy(&part))),
        endpoints: endpoints.and_then(|part| accepted(accept::endpoints(&part))),
        ..Parts::default()
    };
    let (snapshot, problems) = link(&parts);
    assert!(problems.iter().all(|problem| !problem.path.is_empty() && !problem.detail.is_empty()));
    let headers = HeaderMap::new();
    for listener in &snapshot.listeners {
        let request = Request {
            host: "localhost",
            path: "/",
            method: &Method::GET,
            headers: &headers,
            query: None,
            message: Sent::Nothing,
        };
        if let Ok(rule) = listener.table.find(&request) {
            let _ = snapshot.decide(&snapshot.rules[rule], &Caller::ANONYMOUS);
        }
    }
}

fn read<T: Readable>(document: &mut Document, part: Part) -> Option<T> {
    let value: Value = document.take(part)?;
    match Document::read(part.name(), value) {
        Ok(part) => Some(part),
        Err(error) => {
            assert!(error.path.starts_with(part.name()) && !error.detail.is_empty(), "{error}");
            None
        }
    }
}

fn accepted<T>(result: Result<T, Refusal>) -> Option<Arc<T>> {
    match result {
        Ok(part) => Some(Arc::new(part)),
        Err(refusal) => {
            assert!(!refusal.problems.is_empty());
            assert!(refusal.problems.iter().all(|problem| !problem.path.is_empty() && !problem.detail.is_empty()));
            None
        }
    }
}

/// Good files, whatever they are called.
fn files(trust: Option<&Trust>, identity: Option<&Identity>) -> Files {
    let mut files = Files::default();
    let bundles = trust.into_iter().flat_map(|trust| trust.bundles.values());
    let authorities = bundles.flat_map(|bundle| bundle.roots.iter().chain(&bundle.intermediates));
    let pairs = identity.into_iter().flat_map(|identity| {
        let further = identity.certificates.iter().map(|pair| (&pair.chain, &pair.key));
        std::iter::once((&identity.chain, &identity.key)).chain(further)
    });
    for name in authorities.chain(pairs.clone().map(|(chain, _)| chain)) {
        files.certificates.insert(name.clone(), Ok(vec![root()]));
    }
    files.public_keys.extend(pairs.map(|(_, key)| (key.clone(), Ok(Vec::new()))));
    files
}
