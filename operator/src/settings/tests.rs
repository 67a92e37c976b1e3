//! Settings by their source, and what is wrong with them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tracing_subscriber::filter::LevelFilter;

use super::{Flags, Log, LogFormat, LogLevel, Settings};
use crate::index::Scope;
use crate::pki::key::Algorithm;

fn read(flags: Flags, variables: &[(&str, &str)]) -> Result<Settings, String> {
    let variables: BTreeMap<_, _> = variables.iter().copied().collect();
    Settings::of(flags, |name| variables.get(name).map(|value| (*value).to_owned())).map_err(|error| error.to_string())
}

#[test]
fn flags_go_before_variables_and_those_before_defaults() {
    let defaults = read(Flags::default(), &[]).expect("good defaults");
    assert_eq!((defaults.trust_domain.as_str(), defaults.status_port), ("cluster.local", 6190));
    assert_eq!((defaults.scope, defaults.kubeconfig), (Scope::Enabled, None));
    let flags = Flags { trust_domain: Some("flag.local".to_owned()), ..Flags::default() };
    let variables = [
        ("POSTERN_OPERATOR_TRUST_DOMAIN", "variable.local"),
        ("POSTERN_OPERATOR_NAMESPACES", "shop, web"),
        ("POSTERN_OPERATOR_STATUS_PORT", "7190"),
        ("POSTERN_OPERATOR_LOG_LEVEL", "debug"),
        ("POSTERN_OPERATOR_LOG_FORMAT", "text"),
        ("POSTERN_OPERATOR_TRACING_ENDPOINT", "http://collector:4318"),
        ("POSTERN_OPERATOR_TRACING_SAMPLING_RATIO", "0.25"),
        ("POSTERN_OPERATOR_KUBECONFIG", "some/where"),
        ("POSTERN_OPERATOR_AUTHORITY_ALGORITHM", "rsa-3072"),
        ("POSTERN_OPERATOR_GATE_CERTIFICATE_DURATION", "1m"),
        ("POSTERN_OPERATOR_EXTRA_DNS_NAMES", "shop=*.a.example, b.example; web=c.example"),
        // What Kubernetes says of a Service of that name.
        ("POSTERN_OPERATOR_PORT", "tcp://10.0.0.1:443"),
    ];
    let settings = read(flags, &variables).expect("good settings");
    assert_eq!(settings.trust_domain, "flag.local");
    assert_eq!(settings.scope, Scope::Namespaces(BTreeSet::from(["shop".to_owned(), "web".to_owned()])));
    assert_eq!((settings.status_port, settings.authority_algorithm), (7190, Algorithm::Rsa3072));
    assert_eq!((settings.gate_certificate_seconds, defaults.gate_certificate_seconds), (60, 24 * 3600));
    assert_eq!(settings.log, Log { level: LogLevel(LevelFilter::DEBUG), format: LogFormat::Text });
    assert_eq!(defaults.log, Log { level: LogLevel(LevelFilter::INFO), format: LogFormat::Json });
    let tracing = settings.tracing.expect("a collector");
    assert_eq!((&*tracing.endpoint, tracing.sampling_ratio.millionths()), ("http://collector:4318", 250_000));
    assert_eq!((tracing.service_name.as_deref(), defaults.tracing), (Some("postern-operator"), None));
    assert_eq!(settings.kubeconfig, Some(PathBuf::from("some/where")));
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let expected = [("shop", names(&["*.a.example", "b.example"])), ("web", names(&["c.example"]))];
    assert_eq!(settings.extra_dns_names, expected.map(|(name, list)| (name.to_owned(), list)).into());
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let flags = Flags { status_port: Some("0".to_owned()), trust_domain: Some("A B".to_owned()), ..Flags::default() };
    let variables = [
        ("POSTERN_OPERATOR_NAMESPACES", "shop,,web"),
        ("POSTERN_OPERATOR_GATE_CERTIFICATE_DURATION", "59s"),
        ("POSTERN_OPERATOR_AUTHORITY_ALGORITHM", "RSA-1024"),
        ("POSTERN_OPERATOR_LOG_LEVEL", "loud"),
        ("POSTERN_OPERATOR_LOG_FORMAT", "logfmt"),
        ("POSTERN_OPERATOR_TRACING_ENDPOINT", "https://collector:4318"),
        ("POSTERN_OPERATOR_TRACING_SAMPLING_RATIO", "1.5"),
    ];
    let expected = "\
        --trust-domain: `A B` is not a SPIFFE trust domain; write lower-case letters, digits, dots, hyphens and underscores\n\
        POSTERN_OPERATOR_NAMESPACES: `shop,,web` are not namespaces; write `enabled`, `all`, or names with commas between them\n\
        --status-port: `0` is not a port; write 1 to 65535\n\
        POSTERN_OPERATOR_GATE_CERTIFICATE_DURATION: `59s` is not a length of time from 1m to 720h\n\
        POSTERN_OPERATOR_AUTHORITY_ALGORITHM: `RSA-1024` is not a kind of keys; write one of ECDSA-P256, ECDSA-P384, Ed25519, RSA-2048, RSA-3072, RSA-4096\n\
        POSTERN_OPERATOR_LOG_LEVEL: `loud` is not a level; write Error, Warn, Info or Debug\n\
        POSTERN_OPERATOR_LOG_FORMAT: `logfmt` is not a format; write Json or Text\n\
        POSTERN_OPERATOR_TRACING_ENDPOINT: `https://collector:4318` is no address of a collector; write `http://HOST:PORT`, TLS is not spoken\n\
        POSTERN_OPERATOR_TRACING_SAMPLING_RATIO: `1.5` is no part of a whole; write a number from 0 to 1, such as `0.05`";
    assert_eq!(read(flags, &variables), Err(expected.to_owned()));
}

#[test]
fn two_processes_never_lead_at_once_by_the_settings() {
    let lease = |duration: &str, deadline: &str, retry: &str| {
        let flag = |text: &str| Some(text.to_owned());
        let flags = Flags {
            lease_duration: flag(duration),
            lease_renew_deadline: flag(deadline),
            lease_retry_period: flag(retry),
            ..Flags::default()
        };
        read(flags, &[]).map(|settings| settings.lease.expect("it is on").retry)
    };
    assert_eq!(lease("3s", "2s", "500ms"), Ok(Duration::from_millis(500)));
    for (duration, deadline, retry, flag) in [
        ("10s", "10s", "2s", "--lease-renew-deadline"),
        ("15s", "2s", "2s", "--lease-retry-period"),
        ("15s", "12s", "10s", "--lease-retry-period"),
        ("0s", "10s", "2s", "--lease-duration"),
        ("15 s", "10s", "2s", "--lease-duration"),
    ] {
        let error = lease(duration, deadline, retry).expect_err("settings that cannot work");
        assert!(error.starts_with(flag) && error.lines().count() == 1, "{error}");
    }
    let off = Flags { leader_election: Some("off".to_owned()), ..Flags::default() };
    assert_eq!(read(off, &[]).expect("good settings").lease, None);
}

#[test]
fn what_namespaces_may_have_more_is_said_by_namespace() {
    for text in ["example.com", "Shop=a", "shop=a;=b"] {
        assert!(read(Flags { extra_uri_prefixes: Some(text.to_owned()), ..Flags::default() }, &[]).is_err(), "{text}");
    }
}

#[test]
fn every_flag_is_documented_with_its_default() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operator.md")).expect("the page");
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
