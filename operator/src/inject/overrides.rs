//! What a pod's annotations `config.postern.dev/…` say of its sidecar. Everything that is wrong is told at once.

use std::collections::BTreeMap;

use sidecar_config::settings::{Chain, ClientAddress, LogLevel};
use sidecar_config::{Duration, Size};
use sidecar_decide::budget;

use super::quantity::Quantity;

/// What the names of these annotations begin with.
pub const PREFIX: &str = "config.postern.dev/";
/// What the policy takes.
const CONNECTIONS_MAX: u64 = 1_000_000;
/// What the sidecar takes.
const WORKERS_MAX: u64 = 64;
/// Largest number of a user that every node knows.
const USER_MAX: i64 = i32::MAX as i64;
/// Below this the log would be all pruning.
const LOG_BYTES_MIN: u64 = 1 << 20;

/// What a pod says of its sidecar.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `image`
    pub image: Option<String>,
    /// `image-pull-policy`
    pub image_pull_policy: Option<String>,
    /// `cpu-request`
    pub cpu_request: Option<String>,
    /// `cpu-limit`
    pub cpu_limit: Option<String>,
    /// `memory-request`
    pub memory_request: Option<String>,
    /// `memory-limit`, or what `max-connections` needs.
    pub memory_limit: Option<String>,
    /// `workers`
    pub workers: Option<u64>,
    /// `drain-timeout`
    pub drain_timeout: Option<Duration>,
    /// `log-level`
    pub log_level: Option<String>,
    /// `log-size`
    pub log_size: Option<Size>,
    /// `log-client-address`
    pub log_client_address: Option<String>,
    /// `log-chain`
    pub log_chain: Option<Chain>,
    /// `log-schema`: whether the gate makes it.
    pub apply_log_schema: Option<bool>,
    /// `log-volume-claim`
    pub log_volume_claim: Option<String>,
    /// `run-as-user`
    pub run_as_user: Option<i64>,
    /// `probes`: whether they go the way of the gate.
    pub forward_probes: Option<bool>,
    /// `hooks`: whether they do.
    pub forward_hooks: Option<bool>,
}

/// Reads an annotation's value into its place.
type Read = fn(&mut Overrides, &str) -> Result<(), String>;

/// The annotations there are.
const KNOWN: [(&str, Read); 18] = [
    ("image", |to, text| set(&mut to.image, image(text))),
    ("image-pull-policy", |to, text| set(&mut to.image_pull_policy, pull_policy(text))),
    ("cpu-request", |to, text| set(&mut to.cpu_request, quantity(text, "100m"))),
    ("cpu-limit", |to, text| set(&mut to.cpu_limit, quantity(text, "500m"))),
    ("memory-request", |to, text| set(&mut to.memory_request, quantity(text, "16Mi"))),
    ("memory-limit", |to, text| set(&mut to.memory_limit, quantity(text, "64Mi"))),
    // Read after `memory-limit`, which goes before it.
    ("max-connections", |to, text| {
        let connections = number(text, CONNECTIONS_MAX)?;
        to.memory_limit.get_or_insert_with(|| memory_for(connections));
        Ok(())
    }),
    ("workers", |to, text| set(&mut to.workers, number(text, WORKERS_MAX))),
    ("drain-timeout", |to, text| set(&mut to.drain_timeout, duration(text))),
    ("log-level", |to, text| set(&mut to.log_level, level(text))),
    ("log-size", |to, text| set(&mut to.log_size, log_size(text))),
    ("log-client-address", |to, text| set(&mut to.log_client_address, client_address(text))),
    ("log-chain", |to, text| set(&mut to.log_chain, chain(text))),
    ("log-schema", |to, text| set(&mut to.apply_log_schema, one_of(text, "apply", "keep"))),
    ("log-volume-claim", |to, text| set(&mut to.log_volume_claim, claim(text))),
    ("run-as-user", |to, text| set(&mut to.run_as_user, user(text))),
    ("probes", |to, text| set(&mut to.forward_probes, one_of(text, "forward", "keep"))),
    ("hooks", |to, text| set(&mut to.forward_hooks, one_of(text, "forward", "keep"))),
];

impl Overrides {
    /// Reads a pod's annotations.
    ///
    /// # Errors
    /// With each that is not known or says what cannot be, by name, and what is allowed.
    pub fn read(annotations: &BTreeMap<String, String>) -> Result<Self, Vec<String>> {
        let mut read = Self::default();
        let given = annotations.iter().filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value)));
        let given: BTreeMap<_, _> = given.collect();
        let unknown = given.keys().filter(|name| !KNOWN.iter().any(|(known, _)| known == *name));
        let names = KNOWN.map(|(name, _)| name).join(", ");
        let mut wrong: Vec<_> =
            unknown.map(|name| format!("annotation {PREFIX}{name} is not known; there are {names}")).collect();
        for (name, place) in KNOWN {
            if let Some(value) = given.get(name)
                && let Err(why) = place(&mut read, value)
            {
                wrong.push(format!("annotation {PREFIX}{name}: `{value}` {why}"));
            }
        }
        if wrong.is_empty() { Ok(read) } else { Err(wrong) }
    }
}

/// The limit of memory within which so many connections fit.
fn memory_for(connections: u64) -> String {
    format!("{}Mi", budget::mebibytes_for(connections))
}

fn set<T>(place: &mut Option<T>, read: Result<T, String>) -> Result<(), String> {
    *place = Some(read?);
    Ok(())
}

/// An image.
pub(super) fn image(text: &str) -> Result<String, String> {
    let is_one = (1..=512).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_one { Ok(text.to_owned()) } else { Err("is no image; write one such as registry/name:tag".to_owned()) }
}

/// When an image is pulled.
pub(super) fn pull_policy(text: &str) -> Result<String, String> {
    let policies = ["Always", "IfNotPresent", "Never"];
    if policies.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(format!("is none of what there is; write {}", policies.join(", ")))
}

fn quantity(text: &str, example: &str) -> Result<String, String> {
    match text.parse::<Quantity>() {
        Ok(quantity) if quantity > Quantity::ZERO => Ok(text.to_owned()),
        _ => Err(format!("is no quantity above zero; write one such as {example}")),
    }
}

fn number(text: &str, most: u64) -> Result<u64, String> {
    let read = text.parse().ok().filter(|number| (1..=most).contains(number));
    read.ok_or_else(|| format!("is no number from 1 to {most}"))
}

fn level(text: &str) -> Result<String, String> {
    match serde_json::from_value::<LogLevel>(text.into()) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("is no level; write Error, Warn, Info or Debug".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    text.parse().map_err(|_| "is no duration; write one such as 25s".to_owned())
}

fn log_size(text: &str) -> Result<Size, String> {
    let size = text.parse::<Size>().map_err(|_| "is no size; write one such as 256Mi")?;
    if size.bytes() < LOG_BYTES_MIN { Err("is too little; write at least 1Mi".to_owned()) } else { Ok(size) }
}

fn client_address(text: &str) -> Result<String, String> {
    match serde_json::from_value::<ClientAddress>(text.into()) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("is none of what there is; write Full, Network or None".to_owned()),
    }
}

fn chain(text: &str) -> Result<Chain, String> {
    serde_json::from_value(text.into()).map_err(|_| "is none of what there is; write Off, Unkeyed or Keyed".to_owned())
}

fn claim(text: &str) -> Result<String, String> {
    let is_one = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    if (1..=253).contains(&text.len()) && text.bytes().all(is_one) {
        return Ok(text.to_owned());
    }
    Err("is no name of a PersistentVolumeClaim".to_owned())
}

/// Whether it is the first of two words.
fn one_of(text: &str, yes: &str, no: &str) -> Result<bool, String> {
    if text == yes || text == no {
        Ok(text == yes)
    } else {
        Err(format!("is none of what there is; write {yes} or {no}"))
    }
}

fn user(text: &str) -> Result<i64, String> {
    let read = text.parse().ok().filter(|user| (1..=USER_MAX).contains(user));
    read.ok_or_else(|| format!("is no user that a gate can run as; write a number from 1 to {USER_MAX}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{KNOWN, Overrides, PREFIX};

    fn read(annotations: &[(&str, &str)]) -> Result<Overrides, Vec<String>> {
        let all = annotations.iter().map(|(name, value)| (format!("{PREFIX}{name}"), (*value).to_owned()));
        let other = [("example.com/image".to_owned(), "other".to_owned())];
        Overrides::read(&all.chain(other).collect::<BTreeMap<_, _>>())
    }

    #[test]
    fn what_can_be_is_taken() {
        assert_eq!(read(&[]), Ok(Overrides::default()));
        let rows = [
            ("image", "registry.example/postern-sidecar@sha256:00"),
            ("image-pull-policy", "Never"),
            ("cpu-request", "0.5"),
            ("cpu-limit", "2"),
            ("memory-request", "20Mi"),
            ("memory-limit", "1Gi"),
            ("max-connections", "1000000"),
            ("workers", "64"),
            ("drain-timeout", "5m"),
            ("log-level", "Debug"),
            ("log-size", "1Mi"),
            ("log-client-address", "Network"),
            ("log-chain", "Keyed"),
            ("log-schema", "apply"),
            ("log-volume-claim", "logs-0"),
            ("run-as-user", "1000"),
            ("probes", "forward"),
            ("hooks", "keep"),
        ];
        assert_eq!(rows.map(|(name, _)| name), KNOWN.map(|(name, _)| name), "a row for each");
        let all = read(&rows).expect("good annotations");
        assert_eq!(all.memory_limit.as_deref(), Some("1Gi"), "what is said itself goes before what is worked out");
        assert_eq!((all.run_as_user, all.workers), (Some(1000), Some(64)));
    }

    #[test]
    fn memory_follows_the_connections() {
        for (connections, expected) in [("1", "23Mi"), ("800", "64Mi"), ("10000", "537Mi")] {
            let read = read(&[("max-connections", connections)]).expect("good");
            assert_eq!(read.memory_limit.as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_cannot_be_is_refused_by_name_with_what_is_allowed() {
        let rows = [
            (
                "colour",
                "red",
                " is not known; there are image, image-pull-policy, cpu-request, cpu-limit, memory-request, memory-limit, max-connections, workers, drain-timeout, log-level, log-size, log-client-address, log-chain, log-schema, log-volume-claim, run-as-user, probes, hooks",
            ),
            ("image", "a b", ": `a b` is no image; write one such as registry/name:tag"),
            ("image-pull-policy", "always", ": `always` is none of what there is; write Always, IfNotPresent, Never"),
            ("cpu-limit", "some", ": `some` is no quantity above zero; write one such as 500m"),
            ("memory-limit", "0", ": `0` is no quantity above zero; write one such as 64Mi"),
            ("max-connections", "0", ": `0` is no number from 1 to 1000000"),
            ("workers", "65", ": `65` is no number from 1 to 64"),
            ("drain-timeout", "soon", ": `soon` is no duration; write one such as 25s"),
            ("log-level", "Loud", ": `Loud` is no level; write Error, Warn, Info or Debug"),
            ("log-size", "big", ": `big` is no size; write one such as 256Mi"),
            ("log-size", "1", ": `1` is too little; write at least 1Mi"),
            ("log-client-address", "full", ": `full` is none of what there is; write Full, Network or None"),
            ("log-chain", "on", ": `on` is none of what there is; write Off, Unkeyed or Keyed"),
            ("log-schema", "true", ": `true` is none of what there is; write apply or keep"),
            ("log-volume-claim", "A", ": `A` is no name of a PersistentVolumeClaim"),
            ("probes", "yes", ": `yes` is none of what there is; write forward or keep"),
            ("run-as-user", "0", ": `0` is no user that a gate can run as; write a number from 1 to 2147483647"),
        ];
        for (name, value, why) in rows {
            assert_eq!(read(&[(name, value)]), Err(vec![format!("annotation {PREFIX}{name}{why}")]));
        }
        assert_eq!(read(&[("workers", "x"), ("run-as-user", "x"), ("y", "x")]).map_err(|wrong| wrong.len()), Err(3));
    }
}
