//! Settings: flags, below them `POSTERN_OPERATOR_…` variables, below those the defaults. The only place that reads the
//! environment. Everything that is wrong is told at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use sidecar_config::settings::Tracing;
use sidecar_config::{Duration, Ratio};
use tracing_subscriber::filter::LevelFilter;

use crate::index::Scope;
use crate::lease::Times;
use crate::pki::issue::{POD_MAX_SECONDS, POD_MIN_SECONDS};
use crate::pki::key::Algorithm;

const PREFIX: &str = "POSTERN_OPERATOR_";

/// Flags of `run`. Each may be given as a variable as well: `--trust-domain` is `POSTERN_OPERATOR_TRUST_DOMAIN`.
#[derive(Args, Clone, Debug, Default)]
pub struct Flags {
    /// SPIFFE trust domain of the certificates that are issued [cluster.local]
    #[arg(long, value_name = "DOMAIN")]
    trust_domain: Option<String>,
    /// DNS domain of the cluster, which names of Services end in [cluster.local]
    #[arg(long, value_name = "DOMAIN")]
    cluster_domain: Option<String>,
    /// The operator's own namespace, where authorities and ledgers are kept [postern-system]
    #[arg(long, value_name = "NAMESPACE")]
    operator_namespace: Option<String>,
    /// Namespaces that are served: `enabled` for those that `kubectl postern enable` names, as long as it does; names with
    /// commas between them; or `all` [enabled]
    #[arg(long, value_name = "NAMESPACES")]
    namespaces: Option<String>,
    /// Port of the sidecars' /status [6190]
    #[arg(long, value_name = "PORT")]
    status_port: Option<String>,
    /// ClientIdentities that a namespace may have [1000]
    #[arg(long, value_name = "COUNT")]
    identities_per_namespace: Option<String>,
    /// How long certificates of gates are valid; they are renewed after two thirds of it. From 1m to 720h [24h]
    #[arg(long, value_name = "DURATION")]
    gate_certificate_duration: Option<String>,
    /// Keys of the authorities that the operator makes: ECDSA-P256, ECDSA-P384, Ed25519, RSA-2048, RSA-3072, RSA-4096 [ECDSA-P256]
    #[arg(long, value_name = "ALGORITHM")]
    authority_algorithm: Option<String>,
    /// DNS names that namespaces may have in certificates beside those of their Services: `shop=*.shop.example.com,api.example.com;web=…`
    #[arg(long, value_name = "NAMES")]
    extra_dns_names: Option<String>,
    /// Beginnings of URIs that namespaces may have in certificates: `shop=urn:shop:;web=…`. Never SPIFFE IDs
    #[arg(long, value_name = "PREFIXES")]
    extra_uri_prefixes: Option<String>,
    /// Where /livez, /readyz and /metrics are answered [0.0.0.0:8080]
    #[arg(long, value_name = "ADDRESS")]
    status_address: Option<String>,
    /// Whether processes agree on who leads: On, Off. Off only where there is never more than one [On]
    #[arg(long, value_name = "SWITCH")]
    leader_election: Option<String>,
    /// How long a Lease that is not renewed keeps others from leading [15s]
    #[arg(long, value_name = "DURATION")]
    lease_duration: Option<String>,
    /// How long whoever leads may go on without having renewed the Lease before it ends [10s]
    #[arg(long, value_name = "DURATION")]
    lease_renew_deadline: Option<String>,
    /// Time between two tries to get or renew the Lease [2s]
    #[arg(long, value_name = "DURATION")]
    lease_retry_period: Option<String>,
    /// DNS names by which the webhook is reached beside those of its Service, with commas between them
    #[arg(long, value_name = "NAMES")]
    webhook_names: Option<String>,
    /// Least severe diagnostic that is printed: Error, Warn, Info, Debug [Info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// How diagnostics are written: Json, Text [Json]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Collector that traces of turns are sent to, `http://HOST:PORT`; without it there are none
    #[arg(long, value_name = "URL")]
    tracing_endpoint: Option<String>,
    /// Which part of the turns is traced, 0 to 1 [1]
    #[arg(long, value_name = "RATIO")]
    tracing_sampling_ratio: Option<String>,
    /// What the operator is called in traces [postern-operator]
    #[arg(long, value_name = "NAME")]
    tracing_service_name: Option<String>,
    /// File that says where the API server is [that of the service account, or $KUBECONFIG]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<String>,
}

/// How the operator runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// SPIFFE trust domain.
    pub trust_domain: String,
    /// DNS domain of the cluster.
    pub cluster_domain: String,
    /// The operator's own namespace.
    pub operator_namespace: String,
    /// Namespaces that are served.
    pub scope: Scope,
    /// Port of `/status`.
    pub status_port: u16,
    /// ClientIdentities that a namespace may have.
    pub identities_per_namespace: usize,
    /// How long certificates of gates are valid.
    pub gate_certificate_seconds: i64,
    /// Keys of the authorities that the operator makes.
    pub authority_algorithm: Algorithm,
    /// DNS names beyond their own, by namespace.
    pub extra_dns_names: BTreeMap<String, Vec<String>>,
    /// Beginnings of URIs, by namespace.
    pub extra_uri_prefixes: BTreeMap<String, Vec<String>>,
    /// Where probes and metrics are answered.
    pub status_address: SocketAddr,
    /// How it is agreed who leads; `None` where nobody else is there.
    pub lease: Option<Times>,
    /// Names of the webhook beside those of its Service.
    pub webhook_names: Vec<String>,
    /// What is logged, and how.
    pub log: Log,
    /// Where traces go, if anywhere.
    pub tracing: Option<Tracing>,
    /// Where the API server is; `None` for the usual places.
    pub kubeconfig: Option<PathBuf>,
}

/// What is wrong with the settings: a line for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError(pub(crate) Vec<String>);

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for SettingsError {}

impl Settings {
    /// Reads flags and the environment.
    ///
    /// # Errors
    /// With everything that is wrong.
    pub fn read(flags: Flags) -> Result<Self, SettingsError> {
        Self::of(flags, environment)
    }

    fn of(flags: Flags, variable: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let mut reader = Reader { variable, errors: Vec::new() };
        let settings = Self {
            trust_domain: reader.value("--trust-domain", flags.trust_domain, "cluster.local", trust_domain),
            cluster_domain: reader.value("--cluster-domain", flags.cluster_domain, "cluster.local", dns_name),
            operator_namespace: reader.value("--operator-namespace", flags.operator_namespace, "postern-system", label),
            scope: reader.value("--namespaces", flags.namespaces, "enabled", scope),
            status_port: reader.value("--status-port", flags.status_port, "6190", port),
            identities_per_namespace: reader.value(
                "--identities-per-namespace",
                flags.identities_per_namespace,
                "1000",
                count,
            ),
            gate_certificate_seconds: reader.value(
                "--gate-certificate-duration",
                flags.gate_certificate_duration,
                "24h",
                gate_certificate,
            ),
            authority_algorithm: reader.value(
                "--authority-algorithm",
                flags.authority_algorithm,
                "ECDSA-P256",
                algorithm,
            ),
            extra_dns_names: reader.value("--extra-dns-names", flags.extra_dns_names, "", by_namespace),
            extra_uri_prefixes: reader.value("--extra-uri-prefixes", flags.extra_uri_prefixes, "", by_namespace),
            status_address: reader
                .value("--status-address", flags.status_address, "0.0.0.0:8080", |text| address(text).map(Some))
                .unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0))),
            lease: reader.lease(
                flags.leader_election,
                flags.lease_duration,
                flags.lease_renew_deadline,
                flags.lease_retry_period,
            ),
            webhook_names: reader.value("--webhook-names", flags.webhook_names, "", dns_names),
            log: reader.log(flags.log_level, flags.log_format),
            tracing: reader.tracing(flags.tracing_endpoint, flags.tracing_sampling_ratio, flags.tracing_service_name),
            kubeconfig: reader.value("--kubeconfig", flags.kubeconfig, "", |text| {
                Ok((!text.is_empty()).then(|| PathBuf::from(text)))
            }),
        };
        if reader.errors.is_empty() { Ok(settings) } else { Err(SettingsError(reader.errors)) }
    }
}

pub(crate) struct Reader<V> {
    pub(crate) variable: V,
    pub(crate) errors: Vec<String>,
}

/// A variable of the environment.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl<V: Fn(&str) -> Option<String>> Reader<V> {
    /// The value of a setting; what is wrong with it is remembered, and what is the default stands in.
    pub(crate) fn value<T>(
        &mut self,
        flag: &str,
        given: Option<String>,
        default: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> T
    where
        T: Default,
    {
        let variable = variable_of(flag);
        let (source, text) = match (given, (self.variable)(&variable)) {
            (Some(text), _) => (flag.to_owned(), text),
            (None, Some(text)) => (variable, text),
            (None, None) => (flag.to_owned(), default.to_owned()),
        };
        read(text.trim()).unwrap_or_else(|error| {
            self.errors.push(format!("{source}: `{text}` {error}"));
            // To read on with; it is never used.
            T::default()
        })
    }
}

impl<V: Fn(&str) -> Option<String>> Reader<V> {
    pub(crate) fn log(&mut self, level: Option<String>, format: Option<String>) -> Log {
        Log {
            level: self.value("--log-level", level, "Info", log_level),
            format: self.value("--log-format", format, "Json", log_format),
        }
    }

    fn tracing(&mut self, endpoint: Option<String>, ratio: Option<String>, name: Option<String>) -> Option<Tracing> {
        let endpoint = self.value("--tracing-endpoint", endpoint, "", collector);
        let ratio = self.value("--tracing-sampling-ratio", ratio, "1", |text| part_of_whole(text).map(Some));
        let name = self.value("--tracing-service-name", name, "postern-operator", |text| Ok(text.to_owned()));
        // Of what is not traced nothing is to be told; a ratio that is wrong is told all the same.
        endpoint.zip(ratio).map(|(endpoint, sampling_ratio)| Tracing {
            endpoint,
            sampling_ratio,
            service_name: Some(name),
        })
    }

    fn lease(
        &mut self,
        election: Option<String>,
        lasts: Option<String>,
        deadline: Option<String>,
        retry: Option<String>,
    ) -> Option<Times> {
        let is_on = self.value("--leader-election", election, "On", switch);
        let known = self.errors.len();
        let times = Times {
            duration: self.value("--lease-duration", lasts, "15s", duration),
            renew_deadline: self.value("--lease-renew-deadline", deadline, "10s", duration),
            retry: self.value("--lease-retry-period", retry, "2s", duration),
        };
        // As client-go demands it, with the spread of tries.
        if self.errors.len() == known && times.duration <= times.renew_deadline {
            let why = "--lease-renew-deadline: has to be shorter than --lease-duration, or two processes may lead";
            self.errors.push(why.to_owned());
        }
        if self.errors.len() == known && times.renew_deadline <= times.retry + times.retry / 5 {
            let why = "--lease-retry-period: times 1.2 has to be shorter than --lease-renew-deadline, or none may lead";
            self.errors.push(why.to_owned());
        }
        is_on.then_some(times)
    }
}

/// The variable of a flag.
fn variable_of(flag: &str) -> String {
    format!("{PREFIX}{}", flag.trim_start_matches('-').replace('-', "_").to_ascii_uppercase())
}

/// What is logged, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// Least severe diagnostic that is printed.
    pub level: LogLevel,
    /// What a line is.
    pub format: LogFormat,
}

/// What a line of the log is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// An object of JSON, as the sidecar writes it: for whatever gathers a pod's output.
    #[default]
    Json,
    /// Words, for people.
    Text,
}

/// Least severe diagnostic that is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLevel(pub LevelFilter);

impl Default for LogLevel {
    fn default() -> Self {
        Self(LevelFilter::INFO)
    }
}

fn trust_domain(text: &str) -> Result<String, String> {
    let is_one = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    if (1..=255).contains(&text.len()) && text.bytes().all(is_one) {
        return Ok(text.to_owned());
    }
    Err("is not a SPIFFE trust domain; write lower-case letters, digits, dots, hyphens and underscores".to_owned())
}

fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn dns_name(text: &str) -> Result<String, String> {
    if text.len() <= 253 && text.split('.').all(is_label) {
        return Ok(text.to_owned());
    }
    Err("is not a DNS name; write lower-case labels such as `cluster.local`".to_owned())
}

fn dns_names(text: &str) -> Result<Vec<String>, String> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    let names = names.map(dns_name).collect::<Result<_, _>>();
    names.map_err(|_| "are not DNS names; write them with commas between them".to_owned())
}

fn label(text: &str) -> Result<String, String> {
    if is_label(text) { Ok(text.to_owned()) } else { Err("is not the name of a namespace".to_owned()) }
}

fn scope(text: &str) -> Result<Scope, String> {
    match text {
        "all" => return Ok(Scope::Cluster),
        "enabled" => return Ok(Scope::Enabled),
        _ => {}
    }
    let names = text.split(',').map(str::trim).map(label).collect::<Result<BTreeSet<_>, _>>();
    let names = names.map_err(|_| "are not namespaces; write `enabled`, `all`, or names with commas between them")?;
    Ok(Scope::Namespaces(names))
}

pub(crate) fn port(text: &str) -> Result<u16, String> {
    u16::from_str(text).ok().filter(|port| *port > 0).ok_or_else(|| "is not a port; write 1 to 65535".to_owned())
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "is not an address with a port, such as `0.0.0.0:8080` or `[::]:8080`".to_owned())
}

fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("is not a switch; write On or Off".to_owned()),
    }
}

fn duration(text: &str) -> Result<std::time::Duration, String> {
    let read = text.parse::<Duration>().ok().map(Duration::as_std).filter(|duration| !duration.is_zero());
    read.ok_or_else(|| "is not a length of time; write digits with h, m, s or ms, such as `15s`".to_owned())
}

/// In whole seconds, as certificates have them.
fn gate_certificate(text: &str) -> Result<i64, String> {
    let seconds = text.parse::<Duration>().ok().and_then(|duration| i64::try_from(duration.as_std().as_secs()).ok());
    let allowed = seconds.filter(|seconds| (POD_MIN_SECONDS..=POD_MAX_SECONDS).contains(seconds));
    allowed.ok_or_else(|| "is not a length of time from 1m to 720h".to_owned())
}

fn count(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "is not a number".to_owned())
}

fn algorithm(text: &str) -> Result<Algorithm, String> {
    let algorithms = [
        ("ECDSA-P256", Algorithm::EcdsaP256),
        ("ECDSA-P384", Algorithm::EcdsaP384),
        ("Ed25519", Algorithm::Ed25519),
        ("RSA-2048", Algorithm::Rsa2048),
        ("RSA-3072", Algorithm::Rsa3072),
        ("RSA-4096", Algorithm::Rsa4096),
    ];
    let found = algorithms.iter().find(|(name, _)| text.eq_ignore_ascii_case(name)).map(|(_, algorithm)| *algorithm);
    let names = algorithms.map(|(name, _)| name).join(", ");
    found.ok_or_else(|| format!("is not a kind of keys; write one of {names}"))
}

/// The address of a collector, if one is named.
fn collector(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = "is no address of a collector; write `http://HOST:PORT`, TLS is not spoken";
    postern_telemetry::collector(text).map(|_| Some(text.to_owned())).map_err(|_| wrong.to_owned())
}

fn part_of_whole(text: &str) -> Result<Ratio, String> {
    let ratio = serde_json::from_str::<Ratio>(text);
    ratio.map_err(|_| "is no part of a whole; write a number from 0 to 1, such as `0.05`".to_owned())
}

fn log_level(text: &str) -> Result<LogLevel, String> {
    let levels = [
        ("error", LevelFilter::ERROR),
        ("warn", LevelFilter::WARN),
        ("info", LevelFilter::INFO),
        ("debug", LevelFilter::DEBUG),
    ];
    let found = levels.into_iter().find(|(name, _)| text.eq_ignore_ascii_case(name));
    found.map(|(_, level)| LogLevel(level)).ok_or_else(|| "is not a level; write Error, Warn, Info or Debug".to_owned())
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    let formats = [("json", LogFormat::Json), ("text", LogFormat::Text)];
    let found = formats.into_iter().find(|(name, _)| text.eq_ignore_ascii_case(name));
    found.map(|(_, format)| format).ok_or_else(|| "is not a format; write Json or Text".to_owned())
}

/// `shop=a,b;web=c`.
fn by_namespace(text: &str) -> Result<BTreeMap<String, Vec<String>>, String> {
    let mut found = BTreeMap::<_, Vec<_>>::new();
    for entry in text.split(';').map(str::trim).filter(|entry| !entry.is_empty()) {
        let (namespace, values) =
            entry.split_once('=').ok_or("has an entry without a namespace; write `shop=one,two;web=three`")?;
        let namespace = label(namespace.trim()).map_err(|error| format!("has a `{namespace}`, which {error}"))?;
        let values = values.split(',').map(str::trim).filter(|value| !value.is_empty()).map(str::to_owned);
        found.entry(namespace).or_default().extend(values);
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
