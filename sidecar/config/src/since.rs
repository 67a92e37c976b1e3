//! What each version of the contract added, so that a document that says too old a version can be told.

use serde_json::Value;

use crate::{CONTRACT_MIN, ContractVersion};

/// Places of a document that came after 1.0, and the minor version they came with. `[]` is every entry of a list, `*`
/// every key of a map, `=` a text and `~` the beginning of one.
const SINCE: &[(&str, u16)] = &[
    ("endpoints/[]/addresses/[]/ready", 4),
    ("endpoints/[]/addresses/[]/serving", 4),
    ("endpoints/[]/addresses/[]/terminating", 4),
    ("settings/log/allowedRatio", 6),
    ("settings/log/bodyKeyFile", 8),
    ("settings/log/captureSaltFile", 8),
    ("settings/log/postgres/applySchema", 8),
    ("settings/log/chain", 7),
    ("settings/log/chainKeyFile", 7),
    ("settings/log/clientAddress", 7),
    ("settings/log/maxAge", 6),
    ("settings/log/segmentAge", 6),
    ("settings/log/segmentSize", 6),
    ("settings/stateDir", 2),
    ("settings/tracing", 3),
    ("settings/admin", 3),
    ("settings/dns", 3),
    ("settings/log/postgres", 6),
    ("settings/listenAddress", 3),
    ("settings/probes", 4),
    ("settings/probes/[]/http/tls", 5),
    ("policy/routes/[]/capture", 8),
    ("policy/routes/[]/podSelector", 3),
    ("policy/routes/[]/rules/[]/backends/[]/host", 3),
    ("policy/routes/[]/rules/[]/backends/[]/port", 3),
    ("trust/bundles/*/intermediates", 2),
    ("trust/bundles/*/crls", 2),
    ("identity/certificates", 2),
    ("identity/certificates/[]/name", 5),
    ("policy/listeners/[]/tls/unknownServerName", 2),
    ("policy/listeners/[]/tls/certificates", 5),
    ("trust/revocations/serials", 1),
    ("trust/revocations/identities/[]/acceptIssuedAfter", 1),
    ("identities/[]/labels", 1),
    ("identities/[]/recognise/[]/sfdi", 1),
    ("identities/[]/recognise/[]/serial", 1),
    ("identities/[]/recognise/[]/spki", 1),
    ("policy/listeners/[]/protocol/=HTTP", 2),
    ("policy/listeners/[]/protocol/=TLS", 2),
    ("policy/forwarding", 2),
    ("policy/limits/maxPendingRequests", 2),
    ("policy/limits/pendingTimeout", 2),
    ("policy/limits/maxStreams", 2),
    ("policy/limits/maxTunnels", 3),
    ("policy/routes/[]/backendPolicy", 2),
    ("policy/routes/[]/backendPolicy/healthCheck", 3),
    ("policy/routes/[]/backendPolicy/outlierDetection", 3),
    ("policy/routes/[]/rules/[]/timeouts", 2),
    ("policy/routes/[]/rules/[]/backends/[]/weight", 2),
    ("policy/routes/[]/rules/[]/backends/[]/protocol", 3),
    ("policy/routes/[]/rules/[]/backends/[]/tls", 3),
    ("policy/routes/[]/hostnames/[]/~*.", 1),
    ("policy/routes/[]/rules/[]/matches/[]/path/type/=Template", 1),
    ("policy/routes/[]/rules/[]/matches/[]/path/type/=RegularExpression", 1),
    ("policy/routes/[]/rules/[]/matches/[]/headers", 1),
    ("policy/routes/[]/rules/[]/matches/[]/queryParams", 1),
    ("policy/routes/[]/rules/[]/matches/[]/messageType", 6),
    ("policy/routes/[]/rules/[]/allow/[]/identitySelector", 1),
    ("policy/routes/[]/rules/[]/allow/[]/serviceAccount", 1),
    ("policy/routes/[]/rules/[]/allow/[]/spiffe", 1),
    ("policy/routes/[]/rules/[]/filters", 2),
    ("policy/routes/[]/rules/[]/filters/[]/requestRedirect", 3),
    ("policy/routes/[]/rules/[]/filters/[]/urlRewrite", 3),
];

/// The first place of each kind in a part (or `settings`) that `version` does not have, with the version that has it.
#[must_use]
pub fn newer_places(version: ContractVersion, name: &str, value: &Value) -> Vec<(String, ContractVersion)> {
    let newer = SINCE.iter().map(|(place, minor)| (place, ContractVersion { minor: *minor, ..CONTRACT_MIN }));
    let newer = newer.filter(|(_, since)| *since > version);
    let found = newer.filter_map(|(place, since)| {
        let (part, inner) = place.split_once('/')?;
        if part == name { Some((first(value, name.to_owned(), inner)?, since)) } else { None }
    });
    found.collect()
}

/// The first place below `path` that `pattern` describes.
fn first(value: &Value, path: String, pattern: &str) -> Option<String> {
    let (step, rest) = pattern.split_once('/').map_or((pattern, None), |(step, rest)| (step, Some(rest)));
    let below = |inner: &Value, path: String| match rest {
        Some(rest) => first(inner, path, rest),
        None => Some(path),
    };
    match (step, value) {
        ("[]", Value::Array(entries)) => {
            let mut entries = entries.iter().enumerate();
            entries.find_map(|(index, entry)| below(entry, format!("{path}[{index}]")))
        }
        ("*", Value::Object(fields)) => fields.iter().find_map(|(name, field)| below(field, format!("{path}.{name}"))),
        (step, Value::String(text)) => {
            let is_it = step.strip_prefix('=').is_some_and(|wanted| wanted == text)
                || step.strip_prefix('~').is_some_and(|start| text.starts_with(start));
            is_it.then_some(path)
        }
        (step, Value::Object(fields)) => below(fields.get(step)?, format!("{path}.{step}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{SINCE, newer_places};
    use crate::{CONTRACT_MAX, CONTRACT_MIN};

    #[test]
    fn the_first_place_of_each_kind_is_found() {
        let rule = json!({
            "matches": [{ "path": { "type": "Exact", "value": "Template" } }, { "path": { "type": "Template" } }],
            "allow": [{ "identity": "spiffe" }, { "spiffe": "spiffe://a/b" }],
        });
        let policy = json!({ "routes": [{ "hostnames": ["a", "*.b"], "rules": [rule] }, { "hostnames": ["*.c"] }] });
        let found = newer_places(CONTRACT_MIN, "policy", &policy);
        let found: Vec<_> = found.iter().map(|(path, since)| (path.as_str(), since.minor)).collect();
        let expected = [
            ("policy.routes[0].hostnames[1]", 1),
            ("policy.routes[0].rules[0].matches[1].path.type", 1),
            ("policy.routes[0].rules[0].allow[1].spiffe", 1),
        ];
        assert_eq!(found, expected);
        assert_eq!(newer_places("1.1".parse().unwrap(), "policy", &policy), []);
        let trust = json!({ "bundles": { "a": { "roots": [] }, "b": { "crls": [], "intermediates": [] } } });
        let found = newer_places("1.1".parse().unwrap(), "trust", &trust);
        let found: Vec<_> = found.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(found, ["trust.bundles.b.intermediates", "trust.bundles.b.crls"]);
        assert_eq!(newer_places(CONTRACT_MIN, "trust", &policy), []);
        assert_eq!(newer_places(CONTRACT_MIN, "policy", &json!([{}, 1, null])), []);
    }

    #[test]
    fn no_row_is_of_a_version_that_is_not_read() {
        assert!(SINCE.iter().all(|(_, minor)| (1..=CONTRACT_MAX.minor).contains(minor)));
    }
}
