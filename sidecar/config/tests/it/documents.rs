//! Frozen documents: good ones are read alike in every notation, bad ones are refused with the very words expected.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;
use sidecar_config::endpoints::EndpointSet;
use sidecar_config::identities::KnownIdentity;
use sidecar_config::identity::Identity;
use sidecar_config::policy::Policy;
use sidecar_config::settings::Settings;
use sidecar_config::trust::Trust;
use sidecar_config::{Document, Format, Readable};

fn folder(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/examples")).join(name)
}

/// Reads a file as a sidecar would, every part of it, and returns its values with all defaults filled in.
pub(crate) fn read_file(path: &Path) -> Result<Document, String> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let format = Format::of(path).ok_or("not a document's name")?;
    read_value(format.parse(&text).map_err(|error| error.to_string())?)
}

/// Reads a file's values, every part of them; all errors at once, one a line.
pub(crate) fn read_value(value: Value) -> Result<Document, String> {
    let mut document = Document::from_value(value).map_err(|error| error.to_string())?;
    let mut errors = Vec::new();
    fill::<Settings>("settings", &mut document.settings, &mut errors);
    fill::<Trust>("trust", &mut document.trust, &mut errors);
    fill::<Identity>("identity", &mut document.identity, &mut errors);
    fill::<Vec<KnownIdentity>>("identities", &mut document.identities, &mut errors);
    fill::<Policy>("policy", &mut document.policy, &mut errors);
    fill::<Vec<EndpointSet>>("endpoints", &mut document.endpoints, &mut errors);
    if errors.is_empty() { Ok(document) } else { Err(errors.join("\n")) }
}

/// Replaces a part's values by what they mean.
fn fill<T: Readable + Serialize>(name: &str, part: &mut Option<Value>, errors: &mut Vec<String>) {
    let Some(value) = part.take() else { return };
    match Document::read::<T>(name, value) {
        Ok(meaning) => *part = Some(serde_json::to_value(meaning).unwrap()),
        Err(error) => errors.push(error.to_string()),
    }
}

#[test]
fn notations_agree() {
    for name in [
        "minimal",
        "full",
        "routes",
        "identity-1.1",
        "settings-1.2",
        "settings-1.3",
        "listeners",
        "tls-1.2",
        "tls-1.5",
        "messages-1.6",
        "log-1.7",
        "capture-1.8",
        "backends",
        "filters",
        "health",
        "limits-1.3",
        "rewrites-1.3",
        "tracing-1.3",
        "names",
        "pod-1.3",
        "endpoints-1.4",
        "upstream-tls",
    ] {
        let read = |ending| read_file(&folder("good").join(format!("{name}.{ending}"))).unwrap();
        let json = read("json");
        assert_eq!(read("toml"), json, "{name}.toml");
        assert_eq!(read("yaml"), json, "{name}.yaml");
    }
}

#[test]
fn what_is_written_back_reads_the_same() {
    let names = [
        "full.json",
        "routes.json",
        "identity-1.1.json",
        "settings-1.2.json",
        "settings-1.3.json",
        "listeners.json",
        "tls-1.2.json",
        "tls-1.5.json",
        "messages-1.6.json",
        "log-1.7.json",
        "capture-1.8.json",
        "backends.json",
        "filters.json",
        "health.json",
        "endpoints-1.4.json",
        "limits-1.3.json",
        "names.json",
        "pod-1.3.json",
        "rewrites-1.3.json",
        "tracing-1.3.json",
        "upstream-tls.json",
    ];
    for name in names {
        let read = read_file(&folder("good").join(name)).unwrap();
        assert_eq!(read_value(serde_json::to_value(&read).unwrap()).unwrap(), read, "{name}");
    }
}

#[test]
fn names_tell_the_notation() {
    let table = [
        ("a.json", Some(Format::Json)),
        ("a.yaml", Some(Format::Yaml)),
        ("a.yml", Some(Format::Yaml)),
        ("a.toml", Some(Format::Toml)),
        ("a.TOML", None),
        ("a.txt", None),
        ("toml", None),
        (".toml", None),
    ];
    for (name, format) in table {
        assert_eq!(Format::of(Path::new(name)), format, "{name}");
    }
}

/// Each bad example, and what its writer is told.
const BAD: &[(&str, &str)] = &[
    ("admin-port.toml", "`settings.admin.address`: unknown field `address`, expected `socket`"),
    (
        "allow-nobody-known.yaml",
        "`policy.routes[0].rules[0].allow[0]`: unknown variant `everybody`, expected one of `identity`, `identitySelector`, `serviceAccount`, `spiffe`, `verified`, `anyone`",
    ),
    ("allow-two-keys.yaml", "`policy.routes[0].rules[0].allow[0]`: invalid value: map, expected map with a single key"),
    (
        "listen-address.json",
        "`settings.listenAddress`: `all` is not an IP address; write it in numbers, such as `10.0.0.7` or `::1`",
    ),
    (
        "pod-selector-expressions.yaml",
        "`policy.routes[0].podSelector.matchExpressions`: unknown field `matchExpressions`, expected `matchLabels`",
    ),
    (
        "bad-address.json",
        "`endpoints[0].addresses[0].address`: `orders:8080` is not an address and port; write it in numbers, such as `127.0.0.1:8080` or `[::1]:8080`",
    ),
    (
        "bad-duration.toml",
        "`settings.log.flushEvery`: `0.1s` is not a duration; write digits with h, m, s or ms, such as `10s`, `100ms` or `1h30m`",
    ),
    (
        "bad-size.toml",
        "`policy.limits.maxRequestBodySize`: `16MB` is not a size; write digits with Ki, Mi or Gi, such as `256Mi`",
    ),
    (
        "bad-state.toml",
        "`trust.revocations.identities[0].state`: unknown variant `revoked`, expected `Suspended` or `Revoked`",
    ),
    (
        "bad-time.toml",
        "`trust.revocations.identities[0].acceptIssuedAfter`: `2026-02-29T00:00:00Z` is not a time; write it in UTC and to the second, such as `2026-11-20T00:00:00Z`",
    ),
    (
        "bad-tls-version.yaml",
        "`policy.listeners[0].tls.minVersion`: invalid type: floating point `1.1`, expected string or map",
    ),
    (
        "balancer.yaml",
        "`policy.routes[0].backendPolicy.loadBalancer.type`: unknown variant `Random`, expected `RoundRobin` or `LeastRequest`",
    ),
    (
        "capture-as.toml",
        "`policy.routes[0].capture.headers[0].as`: unknown variant `keep`, expected one of `Keep`, `Mask`, `Sha256`, `Drop`",
    ),
    (
        "capture-name.yaml",
        "`policy.routes[0].capture.query[0]`: invalid type: string \"page\", expected struct Captured",
    ),
    ("certificate-without-key.yaml", "`identity.certificates[0]`: missing field `key`"),
    (
        "dns-server.toml",
        "`settings.dns.servers`: `10.0.0.53` is not an address and port; write it in numbers, such as `127.0.0.1:8080` or `[::1]:8080`",
    ),
    ("duplicate-key.json", "not valid JSON: line 1, column 42: duplicate key `policy`; keep one"),
    ("duplicate-key.toml", "not valid TOML: line 2, column 1: duplicate key"),
    ("duplicate-key.yaml", "not valid YAML: line 2, column 1: duplicate mapping key: version not allowed here"),
    ("header-no-value.yaml", "`policy.routes[0].rules[0].matches[0].headers[0]`: missing field `value`"),
    (
        "filter-client-cert.yaml",
        "`policy.routes[0].rules[0].filters[0].forwardIdentity.xForwardedClientCert[0]`: unknown variant `By`, expected one of `Hash`, `Cert`, `Chain`, `Subject`, `URI`, `DNS`",
    ),
    (
        "filter-fact.yaml",
        "`policy.routes[0].rules[0].filters[0].forwardIdentity.headers[0].value`: unknown variant `Password`, expected one of `Identity`, `SpiffeId`, `Bundle`, `Subject`, `Issuer`, `Sha256`, `Lfdi`, `Sfdi`, `EscapedPem`, `Rfc9440`, `Rfc9440Chain`",
    ),
    (
        "filter-two-keys.yaml",
        "`policy.routes[0].rules[0].filters[0]`: invalid value: map, expected map with a single key",
    ),
    (
        "filter-unknown.yaml",
        "`policy.routes[0].rules[0].filters[0]`: unknown variant `corsPolicy`, expected one of `forwardIdentity`, `requestHeaderModifier`, `responseHeaderModifier`, `requestRedirect`, `urlRewrite`",
    ),
    ("host-port.yaml", "`policy.routes[0].rules[0].backends[0].port`: invalid value: integer `80000`, expected u16"),
    ("health-path.yaml", "`policy.routes[0].backendPolicy.healthCheck.http`: missing field `path`"),
    (
        "listener-protocol.yaml",
        "`policy.listeners[0].protocol`: unknown variant `TCP`, expected one of `HTTPS`, `HTTP`, `TLS`",
    ),
    ("malformed.json", "not valid JSON: line 1, column 21: trailing comma"),
    ("malformed.toml", "not valid TOML: line 2, column 10: unclosed table, expected `]`"),
    ("malformed.yaml", "not valid YAML: line 2, column 19: mismatched bracket '[' closed by '}'"),
    ("no-allow.toml", "`policy.routes[0].rules[0]`: missing field `allow`"),
    ("no-version.toml", r#"`version` is missing; write `version = "1.8"` at the top"#),
    ("not-a-table.json", r#"the top level is not a table of parts; start with `version = "1.8"`"#),
    (
        "outlier.yaml",
        "`policy.routes[0].backendPolicy.outlierDetection.interval`: unknown field `interval`, expected one of `consecutiveLocalOriginFailures`, `consecutiveGatewayErrors`, `baseEjectionTime`, `maxEjectionTime`, `maxEjectionPercent`",
    ),
    (
        "path-type.json",
        "`policy.routes[0].rules[0].matches[0].path.type`: unknown variant `Regex`, expected one of `Exact`, `PathPrefix`, `Template`, `RegularExpression`",
    ),
    (
        "query-template.toml",
        "`policy.routes[0].rules[0].matches[0].queryParams[0].type`: unknown variant `Template`, expected `Exact` or `RegularExpression`",
    ),
    (
        "selector-expressions.yaml",
        "`policy.routes[0].rules[0].allow[0].identitySelector.matchExpressions`: unknown field `matchExpressions`, expected `matchLabels`",
    ),
    (
        "redirect-port.yaml",
        "`policy.routes[0].rules[0].filters[0].requestRedirect.port`: invalid value: integer `65536`, expected u16",
    ),
    (
        "redirect-scheme.yaml",
        "`policy.routes[0].rules[0].filters[0].requestRedirect.scheme`: unknown variant `HTTPS`, expected `http` or `https`",
    ),
    (
        "rewrite-path.yaml",
        "`policy.routes[0].rules[0].filters[0].urlRewrite.path.type`: unknown variant `ReplacePrefix`, expected `ReplaceFullPath` or `ReplacePrefixMatch`",
    ),
    (
        "sampling-ratio.yaml",
        "`settings.tracing.samplingRatio`: 25 is no part of a whole; write a number from 0 to 1, such as `0.05`",
    ),
    ("serial-number.json", "`trust.revocations.serials[0].serial`: invalid type: integer `5`, expected a string"),
    (
        "server-name-word.toml",
        "`policy.listeners[0].tls.unknownServerName`: unknown variant `refuse`, expected `Default` or `Refuse`",
    ),
    ("service-account-half.json", "`policy.routes[0].rules[0].allow[0].serviceAccount`: missing field `namespace`"),
    ("state-dir-number.json", "`settings.stateDir`: invalid type: integer `1`, expected a string"),
    ("tunnels-word.toml", "`policy.limits.maxTunnels`: invalid type: string \"many\", expected u32"),
    (
        "two-parts.toml",
        r#"`identity`: missing field `key`
`identities[0].recognise`: invalid type: string "spiffe://demo.local/billing", expected a sequence"#,
    ),
    (
        "unknown-field.toml",
        "`policy.routes[0].rules[0].alow`: unknown field `alow`, expected one of `name`, `matches`, `allow`, `mode`, `filters`, `backends`, `timeouts`",
    ),
    (
        "unknown-part.toml",
        "`setings` is not a part; the parts are settings, trust, identity, identities, policy and endpoints",
    ),
    (
        "upstream-protocol.json",
        "`policy.routes[0].rules[0].backends[0].protocol`: unknown variant `h2c`, expected `HTTP` or `HTTP2`",
    ),
    (
        "upstream-tls-insecure.toml",
        "`policy.routes[0].rules[0].backends[0].tls.insecureSkipVerify`: unknown field `insecureSkipVerify`, expected one of `mode`, `serverName`, `trust`, `peers`",
    ),
    (
        "upstream-tls-mode.yaml",
        "`policy.routes[0].rules[0].backends[0].tls.mode`: unknown variant `None`, expected `Simple` or `Mutual`",
    ),
    ("upstream-tls-no-trust.json", "`policy.routes[0].rules[0].backends[0].tls`: missing field `trust`"),
    ("version-number.json", r#"`version`: 1.0 is not text; write it in quotes, `"1.8"`"#),
    (
        "version-unsupported.yaml",
        "`version`: 2.0 is not supported; this sidecar reads 1.0 to 1.8: use one of those, or a sidecar that reads 2.0",
    ),
    ("version-word.toml", "`version`: `one` is not a contract version; write it as `1.8`"),
    ("weight.json", "`policy.routes[0].rules[0].backends[0].weight`: invalid value: integer `-1`, expected u32"),
    ("wrong-type.json", "`identities`: invalid type: map, expected a sequence"),
];

#[test]
fn bad_documents_are_refused_with_place_and_remedy() {
    for (name, expected) in BAD {
        assert_eq!(read_file(&folder("bad").join(name)).unwrap_err(), *expected, "{name}");
    }
}

#[test]
fn every_bad_example_is_in_the_table() {
    let files = fs::read_dir(folder("bad")).unwrap();
    let files: BTreeSet<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    let table: BTreeSet<String> = BAD.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(files, table);
}
