//! Settings: flags, below them `POSTERN_OPERATOR_…` variables, below those the defaults. The only place that reads the
//! environment. Everything that is wrong is told at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use tracing_subscriber::filter::LevelFilter;

use crate::index::Scope;
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
    /// Namespaces that are served, with commas between them, or `all` [all]
    #[arg(long, value_name = "NAMESPACES")]
    namespaces: Option<String>,
    /// Port of the sidecars' /status [6190]
    #[arg(long, value_name = "PORT")]
    status_port: Option<String>,
    /// ClientIdentities that a namespace may have [1000]
    #[arg(long, value_name = "COUNT")]
    identities_per_namespace: Option<String>,
    /// Keys of the authorities that the operator makes: ECDSA-P256, ECDSA-P384, Ed25519, RSA-2048, RSA-3072, RSA-4096 [ECDSA-P256]
    #[arg(long, value_name = "ALGORITHM")]
    authority_algorithm: Option<String>,
    /// DNS names that namespaces may have in certificates beside those of their Services: `shop=*.shop.example.com,api.example.com;web=…`
    #[arg(long, value_name = "NAMES")]
    extra_dns_names: Option<String>,
    /// Beginnings of URIs that namespaces may have in certificates: `shop=urn:shop:;web=…`. Never SPIFFE IDs
    #[arg(long, value_name = "PREFIXES")]
    extra_uri_prefixes: Option<String>,
    /// DNS names by which the webhook is reached beside those of its Service, with commas between them
    #[arg(long, value_name = "NAMES")]
    webhook_names: Option<String>,
    /// Least severe diagnostic that is printed: Error, Warn, Info, Debug [Info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
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
    /// Keys of the authorities that the operator makes.
    pub authority_algorithm: Algorithm,
    /// DNS names beyond their own, by namespace.
    pub extra_dns_names: BTreeMap<String, Vec<String>>,
    /// Beginnings of URIs, by namespace.
    pub extra_uri_prefixes: BTreeMap<String, Vec<String>>,
    /// Names of the webhook beside those of its Service.
    pub webhook_names: Vec<String>,
    /// Least severe diagnostic.
    pub log_level: LogLevel,
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
            scope: reader.value("--namespaces", flags.namespaces, "all", scope),
            status_port: reader.value("--status-port", flags.status_port, "6190", port),
            identities_per_namespace: reader.value(
                "--identities-per-namespace",
                flags.identities_per_namespace,
                "1000",
                count,
            ),
            authority_algorithm: reader.value(
                "--authority-algorithm",
                flags.authority_algorithm,
                "ECDSA-P256",
                algorithm,
            ),
            extra_dns_names: reader.value("--extra-dns-names", flags.extra_dns_names, "", by_namespace),
            extra_uri_prefixes: reader.value("--extra-uri-prefixes", flags.extra_uri_prefixes, "", by_namespace),
            webhook_names: reader.value("--webhook-names", flags.webhook_names, "", dns_names),
            log_level: reader.value("--log-level", flags.log_level, "Info", level),
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

/// The variable of a flag.
fn variable_of(flag: &str) -> String {
    format!("{PREFIX}{}", flag.trim_start_matches('-').replace('-', "_").to_ascii_uppercase())
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
    if text == "all" {
        return Ok(Scope::Cluster);
    }
    let names = text.split(',').map(str::trim).map(label).collect::<Result<BTreeSet<_>, _>>();
    let names = names.map_err(|_| "are not namespaces; write `all`, or names with commas between them")?;
    Ok(Scope::Namespaces(names))
}

pub(crate) fn port(text: &str) -> Result<u16, String> {
    u16::from_str(text).ok().filter(|port| *port > 0).ok_or_else(|| "is not a port; write 1 to 65535".to_owned())
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

pub(crate) fn level(text: &str) -> Result<LogLevel, String> {
    let levels = [
        ("error", LevelFilter::ERROR),
        ("warn", LevelFilter::WARN),
        ("info", LevelFilter::INFO),
        ("debug", LevelFilter::DEBUG),
    ];
    let found = levels.into_iter().find(|(name, _)| text.eq_ignore_ascii_case(name));
    found.map(|(_, level)| LogLevel(level)).ok_or_else(|| "is not a level; write Error, Warn, Info or Debug".to_owned())
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
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::PathBuf;

    use clap::Args;
    use tracing_subscriber::filter::LevelFilter;

    use super::{Flags, LogLevel, Settings};
    use crate::index::Scope;
    use crate::pki::key::Algorithm;

    fn read(flags: Flags, variables: &[(&str, &str)]) -> Result<Settings, String> {
        let variables: BTreeMap<_, _> = variables.iter().copied().collect();
        Settings::of(flags, |name| variables.get(name).map(|value| (*value).to_owned()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn flags_go_before_variables_and_those_before_defaults() {
        let defaults = read(Flags::default(), &[]).expect("good defaults");
        assert_eq!((defaults.trust_domain.as_str(), defaults.status_port), ("cluster.local", 6190));
        assert_eq!((defaults.scope, defaults.kubeconfig), (Scope::Cluster, None));
        let flags = Flags { trust_domain: Some("flag.local".to_owned()), ..Flags::default() };
        let variables = [
            ("POSTERN_OPERATOR_TRUST_DOMAIN", "variable.local"),
            ("POSTERN_OPERATOR_NAMESPACES", "shop, web"),
            ("POSTERN_OPERATOR_STATUS_PORT", "7190"),
            ("POSTERN_OPERATOR_LOG_LEVEL", "debug"),
            ("POSTERN_OPERATOR_KUBECONFIG", "some/where"),
            ("POSTERN_OPERATOR_AUTHORITY_ALGORITHM", "rsa-3072"),
            ("POSTERN_OPERATOR_EXTRA_DNS_NAMES", "shop=*.a.example, b.example; web=c.example"),
            // What Kubernetes says of a Service of that name.
            ("POSTERN_OPERATOR_PORT", "tcp://10.0.0.1:443"),
        ];
        let settings = read(flags, &variables).expect("good settings");
        assert_eq!(settings.trust_domain, "flag.local");
        assert_eq!(settings.scope, Scope::Namespaces(BTreeSet::from(["shop".to_owned(), "web".to_owned()])));
        assert_eq!((settings.status_port, settings.authority_algorithm), (7190, Algorithm::Rsa3072));
        assert_eq!(settings.log_level, LogLevel(LevelFilter::DEBUG));
        assert_eq!(settings.kubeconfig, Some(PathBuf::from("some/where")));
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let expected = [("shop", names(&["*.a.example", "b.example"])), ("web", names(&["c.example"]))];
        assert_eq!(settings.extra_dns_names, expected.map(|(name, list)| (name.to_owned(), list)).into());
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let flags =
            Flags { status_port: Some("0".to_owned()), trust_domain: Some("A B".to_owned()), ..Flags::default() };
        let variables = [
            ("POSTERN_OPERATOR_NAMESPACES", "shop,,web"),
            ("POSTERN_OPERATOR_AUTHORITY_ALGORITHM", "RSA-1024"),
            ("POSTERN_OPERATOR_LOG_LEVEL", "loud"),
        ];
        let expected = "\
            --trust-domain: `A B` is not a SPIFFE trust domain; write lower-case letters, digits, dots, hyphens and underscores\n\
            POSTERN_OPERATOR_NAMESPACES: `shop,,web` are not namespaces; write `all`, or names with commas between them\n\
            --status-port: `0` is not a port; write 1 to 65535\n\
            POSTERN_OPERATOR_AUTHORITY_ALGORITHM: `RSA-1024` is not a kind of keys; write one of ECDSA-P256, ECDSA-P384, Ed25519, RSA-2048, RSA-3072, RSA-4096\n\
            POSTERN_OPERATOR_LOG_LEVEL: `loud` is not a level; write Error, Warn, Info or Debug";
        assert_eq!(read(flags, &variables), Err(expected.to_owned()));
    }

    #[test]
    fn what_namespaces_may_have_more_is_said_by_namespace() {
        for text in ["example.com", "Shop=a", "shop=a;=b"] {
            assert!(
                read(Flags { extra_uri_prefixes: Some(text.to_owned()), ..Flags::default() }, &[]).is_err(),
                "{text}"
            );
        }
    }

    #[test]
    fn every_flag_is_documented_with_its_default() {
        let page =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operator.md")).expect("the page");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `--")?.split_once("` | "));
        let told: BTreeMap<_, _> = rows
            .map(|(flag, rest)| {
                (flag.to_owned(), rest.split('|').next().unwrap_or_default().trim().trim_matches('`').to_owned())
            })
            .collect();
        let command = Flags::augment_args(clap::Command::new("run"));
        let flags: Vec<_> = command.get_arguments().collect();
        assert_eq!(told.len(), flags.len(), "{told:?}");
        for flag in flags {
            let name = flag.get_long().expect("all are long");
            let help = flag.get_help().expect("each says what it is").to_string();
            let default = help.rsplit_once(" [").map(|(_, default)| default.trim_end_matches(']').to_owned());
            let default = default.filter(|_| name != "kubeconfig").unwrap_or_default();
            assert_eq!(told.get(name), Some(&default), "--{name}");
        }
    }
}
