//! Probes of an application that the gate makes for whoever asks its status port: which of them can be made.

use http::header::HeaderName;
use http::{HeaderValue, Uri};
use sidecar_config::probe::Probe;

/// Probes that can be asked for: three for each of some twenty containers.
pub const PROBES: usize = 64;
/// Fields of a probe's request.
const HEADERS: usize = 16;
/// The longest that one may take, which is how long the status port keeps a connection.
pub const TIMEOUT_SECONDS: u64 = 10;

/// What is wrong with the probes of settings.
#[must_use]
pub fn problems(probes: &[Probe]) -> Vec<String> {
    let mut wrong = Vec::new();
    if probes.len() > PROBES {
        wrong.push(format!("`settings.probes`: are {}; at most {PROBES} can be made", probes.len()));
    }
    for (index, probe) in probes.iter().enumerate() {
        let mut tell = |what: &str| wrong.push(format!("`settings.probes[{index}]`: {what}"));
        if probes[..index].iter().any(|earlier| earlier.name == probe.name) {
            tell("another one has this `name`");
        }
        problems_of(probe).iter().for_each(|what| tell(what));
    }
    wrong
}

/// What is wrong with one of them by itself.
#[must_use]
pub fn problems_of(probe: &Probe) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut tell = |what: &str| wrong.push(what.to_owned());
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/".contains(&byte);
    if probe.name.is_empty() || !probe.name.bytes().all(is_plain) {
        tell("`name` is no path; write one such as `app/readiness`");
    }
    if probe.port == 0 {
        tell("`port` is 0");
    }
    if [probe.http.is_some(), probe.tcp.is_some(), probe.grpc.is_some()].iter().filter(|one| **one).count() != 1 {
        tell("say exactly one of `http`, `tcp`, `grpc`");
    }
    let milliseconds = probe.timeout.as_std().as_millis();
    if milliseconds == 0 || milliseconds > u128::from(TIMEOUT_SECONDS) * 1000 {
        tell(&format!("`timeout` has to be above zero, and at most {TIMEOUT_SECONDS}s"));
    }
    let Some(http) = &probe.http else { return wrong };
    if !http.path.starts_with('/') || http.path.parse::<Uri>().is_err() {
        tell("`http.path` is no path; write one such as `/healthz`");
    }
    let is_field = |name: &str, value: &str| HeaderName::try_from(name).is_ok() && HeaderValue::try_from(value).is_ok();
    if http.headers.len() > HEADERS || !http.headers.iter().all(|one| is_field(&one.name, &one.value)) {
        tell(&format!("`http.headers` are no fields of a request, or more than {HEADERS}"));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use sidecar_config::probe::Probe;

    use super::problems;

    #[test]
    fn what_cannot_be_asked_is_told() {
        let good = json!({"name": "app/readiness", "port": 80, "http": {"path": "/a?b", "headers": [{"name": "Host", "value": "x"}]}});
        let with = |field: &str, value: Value| {
            let mut probe = good.clone();
            probe[field] = value;
            probe
        };
        let of = |probes: &[Value]| {
            let probes: Vec<Probe> = serde_json::from_value(probes.into()).unwrap();
            problems(&probes)
        };
        assert_eq!(of(&[good.clone(), with("name", json!("app/liveness"))]), [""; 0]);
        let told = |what: &str| vec![format!("`settings.probes[0]`: {what}")];
        let rows = [
            (with("name", json!("a b")), told("`name` is no path; write one such as `app/readiness`")),
            (with("port", json!(0)), told("`port` is 0")),
            (with("tcp", json!({})), told("say exactly one of `http`, `tcp`, `grpc`")),
            (with("http", Value::Null), told("say exactly one of `http`, `tcp`, `grpc`")),
            (with("timeout", json!("11s")), told("`timeout` has to be above zero, and at most 10s")),
            (with("http", json!({"path": "a"})), told("`http.path` is no path; write one such as `/healthz`")),
            (
                with("http", json!({"path": "/", "headers": [{"name": "a b", "value": ""}]})),
                told("`http.headers` are no fields of a request, or more than 16"),
            ),
        ];
        for (probe, expected) in rows {
            assert_eq!(of(std::slice::from_ref(&probe)), expected, "{probe}");
        }
        assert_eq!(of(&[good.clone(), good.clone()]), ["`settings.probes[1]`: another one has this `name`"]);
        assert_eq!(of(&vec![good; 65]).len(), 65);
    }
}
