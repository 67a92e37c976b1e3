//! The configuration in use, as the admin socket tells it: what was accepted of every part, and never a key. What is
//! told of certificates are facts, not files, so that no key could come along.

use serde_json::{Map, Value, json};
use sidecar_config::settings::Settings;
use sidecar_decide::snapshot::{
    AcceptedEndpoints, AcceptedIdentities, AcceptedIdentity, AcceptedPolicy, AcceptedTrust, Bundle,
};
use sidecar_decide::{Certificate, CertificateFacts};

use super::answers::rfc3339;
use crate::state::State;

/// In place of what is nobody's to read.
const REDACTED: &str = "[redacted]";
/// What the names of secrets contain. No setting is one today; one that comes is not to be told by oversight.
const SECRET: [&str; 8] = ["password", "secret", "token", "credential", "dsn", "url", "header", "authorization"];

/// All of it.
pub(super) fn document(state: &State) -> Value {
    let (status, parts) = (state.status(), state.accepted());
    let revisions: Map<_, _> =
        status.parts.named().into_iter().map(|(name, part)| (name.to_owned(), json!(part.loaded))).collect();
    json!({
        "version": status.contract.max,
        "revisions": revisions,
        "settings": settings(&state.settings),
        "trust": parts.trust.as_deref().map(trust),
        "identity": parts.identity.as_deref().map(identity),
        "identities": parts.identities.as_deref().map(identities),
        "policy": parts.policy.as_deref().map(policy),
        "endpoints": parts.endpoints.as_deref().map(endpoints),
    })
}

fn settings(settings: &Settings) -> Value {
    let mut value = json!(settings);
    redact(&mut value);
    value
}

/// Hides what is called like a secret, however deep it lies.
fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let name = name.to_ascii_lowercase();
                let is_secret = SECRET.iter().any(|word| name.contains(word));
                if is_secret && !field.is_null() { *field = json!(REDACTED) } else { redact(field) }
            }
        }
        Value::Array(entries) => entries.iter_mut().for_each(redact),
        _ => {}
    }
}

/// What rules write into heads may be a password for the application, and what checks ask for may have one in its query.
fn redact_values(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match name.as_str() {
                    "requestHeaderModifier" | "responseHeaderModifier" => redact_fields(field),
                    "healthCheck" => {
                        if let Some(path) = field.pointer_mut("/http/path")
                            && let Some((before, _)) = path.as_str().and_then(|path| path.split_once('?'))
                        {
                            *path = json!(format!("{before}?{REDACTED}"));
                        }
                    }
                    _ => redact_values(field),
                }
            }
        }
        Value::Array(entries) => entries.iter_mut().for_each(redact_values),
        _ => {}
    }
}

fn redact_fields(modifier: &mut Value) {
    let lists = ["set", "add"].into_iter();
    let lists =
        lists.filter_map(|list| modifier[list].as_array().map(|fields| (list, fields.len()))).collect::<Vec<_>>();
    for (list, count) in lists {
        for index in 0..count {
            modifier[list][index]["value"] = json!(REDACTED);
        }
    }
}

fn trust(part: &AcceptedTrust) -> Value {
    let bundles: Map<_, _> =
        part.bundles.iter().map(|bundle| (bundle.name.to_string(), self::bundle(bundle))).collect();
    let revocations = part.revocations.iter().map(|(name, revocation)| {
        json!({
            "name": name,
            "state": revocation.state,
            "acceptIssuedAfter": revocation.accept_issued_after.and_then(rfc3339),
        })
    });
    let revocations: Vec<_> = revocations.collect();
    json!({ "bundles": bundles, "revocations": { "identities": revocations } })
}

fn bundle(bundle: &Bundle) -> Value {
    json!({
        "roots": facts_of(&bundle.roots),
        "intermediates": facts_of(&bundle.intermediates),
        "crlNextUpdate": bundle.listed.next_update().and_then(rfc3339),
        "vouchesFor": bundle.vouches_for,
        "revokedSerials": bundle.revoked.len(),
    })
}

fn identity(part: &AcceptedIdentity) -> Value {
    let certificates = part.certificates.iter().map(|certificate| {
        json!({
            "name": certificate.name,
            "chain": facts_of(&certificate.chain),
            "key": { "file": certificate.key_file, "content": REDACTED },
            "isDefault": certificate.is_default,
        })
    });
    json!({ "certificates": certificates.collect::<Vec<_>>() })
}

/// How many there are: `/identities` tells them by the page.
fn identities(part: &AcceptedIdentities) -> Value {
    json!({ "known": part.identities.len() })
}

fn policy(part: &AcceptedPolicy) -> Value {
    let routes: Vec<_> = part.routes.iter().map(|(route, _)| route).collect();
    let mut routes = json!(routes);
    redact_values(&mut routes);
    json!({
        "listeners": part.listeners,
        "routes": routes,
        "limits": part.limits,
        "forwarding": { "trustedHops": part.trusted_hops },
    })
}

fn endpoints(part: &AcceptedEndpoints) -> Value {
    json!(part.sets)
}

fn facts_of(certificates: &[Certificate]) -> Vec<Value> {
    certificates.iter().map(|certificate| facts(&certificate.facts)).collect()
}

fn facts(facts: &CertificateFacts) -> Value {
    json!({
        "subject": facts.subject,
        "san": facts.san,
        "issuer": facts.issuer,
        "serial": facts.serial,
        "notBefore": rfc3339(facts.not_before),
        "notAfter": rfc3339(facts.not_after),
        "sha256": facts.sha256.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{redact, redact_values};

    #[test]
    fn what_is_called_like_a_secret_is_hidden() {
        let mut value = json!({
            "log": { "postgres": { "host": "db", "Password": "p", "url": "postgres://u:p@db", "list": [{ "token": 1 }] } },
            "workers": 2,
            "tokens": null,
        });
        redact(&mut value);
        let hidden = "[redacted]";
        let expected = json!({
            "log": { "postgres": { "host": "db", "Password": hidden, "url": hidden, "list": [{ "token": hidden }] } },
            "workers": 2,
            "tokens": null,
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn what_could_be_a_password_is_not_told() {
        let mut routes = json!([{
            "backendPolicy": { "healthCheck": { "http": { "path": "/live?token=x" } } },
            "rules": [{ "filters": [{
                "requestHeaderModifier": {
                    "set": [{ "name": "authorization", "value": "Bearer x" }],
                    "add": [{ "name": "b", "value": "x" }],
                    "remove": ["c"],
                },
            }, { "responseHeaderModifier": { "set": [{ "name": "d", "value": "x" }] } }] }],
        }]);
        redact_values(&mut routes);
        let hidden = "[redacted]";
        let expected = json!([{
            "backendPolicy": { "healthCheck": { "http": { "path": "/live?[redacted]" } } },
            "rules": [{ "filters": [{
                "requestHeaderModifier": {
                    "set": [{ "name": "authorization", "value": hidden }],
                    "add": [{ "name": "b", "value": hidden }],
                    "remove": ["c"],
                },
            }, { "responseHeaderModifier": { "set": [{ "name": "d", "value": hidden }] } }] }],
        }]);
        assert_eq!(routes, expected);
    }
}
