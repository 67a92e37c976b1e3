//! Settings: how this process runs. Read once at start; also from flags and `POSTERN__…` variables.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::backend::is_default;
use crate::probe::Probe;
use crate::words::{address, addresses, some_ip};
use crate::{Duration, Ratio, Size};

/// How this process runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// Where `/livez`, `/readyz`, `/startupz`, `/metrics` and `/status` are served, over plain HTTP.
    #[serde(default = "default_status_address", deserialize_with = "address")]
    pub status_address: SocketAddr,
    /// What `0.0.0.0` and `[::]` of listeners stand for, so that gates with one policy can share a machine. Absent: all its
    /// addresses. Since 1.3.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_ip")]
    pub listen_address: Option<IpAddr>,
    /// Threads that serve connections, 1 to 64. Absent: as many as the CPU limit allows, at most 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<u16>,
    /// Time for requests in flight to finish after SIGTERM.
    #[serde(default = "default_drain_timeout")]
    pub drain_timeout: Duration,
    /// Least severe diagnostic that is printed.
    #[serde(default)]
    pub log_level: LogLevel,
    /// The request log.
    #[serde(default)]
    pub log: Log,
    /// Folder in which the last accepted parts are kept for the next start, relative to the configuration's folder; made
    /// if it is not there. Nothing is kept where it is absent. Since 1.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_dir: Option<String>,
    /// Where traces of requests go. None are made where it is absent. Since 1.3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracing: Option<Tracing>,
    /// What is for the owner of the process only. Since 1.3.
    #[serde(default, skip_serializing_if = "is_default")]
    pub admin: Admin,
    /// Whom names of backends are asked of. Since 1.3.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dns: Dns,
    /// Probes of the application that are made on 127.0.0.1 when `/probe/<name>` of the status port is asked for; at most
    /// 64. Since 1.4.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<Probe>,
    /// Which pod this is, for the request log and `/status`.
    #[serde(default)]
    pub pod: Pod,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            status_address: default_status_address(),
            listen_address: None,
            workers: None,
            drain_timeout: default_drain_timeout(),
            log_level: LogLevel::default(),
            log: Log::default(),
            state_dir: None,
            tracing: None,
            admin: Admin::default(),
            dns: Dns::default(),
            probes: Vec::new(),
            pod: Pod::default(),
        }
    }
}

/// What is for the owner of the process only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Admin {
    /// The unix socket that the commands `upstreams`, `identities`, `config` and `drain` ask, relative to the
    /// configuration's folder. There is none where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
}

/// The request log: one row a decision, in SQLite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Log {
    /// The database file, relative to the configuration's folder; made if it is not there.
    #[serde(default = "default_log_path")]
    pub path: String,
    /// Rows that are written at once, 1 to 8192; fewer when `flushEvery` comes first.
    #[serde(default = "default_flush_rows")]
    pub flush_rows: u32,
    /// The longest a row waits in memory; what a kill loses at most.
    #[serde(default = "default_flush_every")]
    pub flush_every: Duration,
    /// Bytes that all files of the log may take; the oldest rows make room for new ones.
    #[serde(default = "default_log_max_size")]
    pub max_size: Size,
    /// Where rows are sent to, besides. Nowhere where it is absent. Since 1.6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<Postgres>,
    /// Size at which the database file is cut: its rows become a closed file beside it, a segment. 128Ki to 8Mi, and at
    /// most a sixteenth of `maxSize`. Since 1.6.
    #[serde(default = "default_segment_size", skip_serializing_if = "is_default_segment_size")]
    pub segment_size: Size,
    /// Age of its oldest row at which the database file is cut, however small it is; at least 1m. Since 1.6.
    #[serde(default = "default_segment_age", skip_serializing_if = "is_default_segment_age")]
    pub segment_age: Duration,
    /// Age at which a segment is deleted, counted from its newest row; at least 1m. None is deleted for its age where it is
    /// absent. Since 1.6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
    /// Which part of what is allowed, and goes well, is in rows; 0 to 1. The rest is counted. What is refused, or would be,
    /// or fails is always in a row. Since 1.6.
    #[serde(default = "whole", skip_serializing_if = "is_whole")]
    pub allowed_ratio: Ratio,
    /// What rows, and spans of traces, tell of a client's address. Since 1.7.
    #[serde(default, skip_serializing_if = "is_default")]
    pub client_address: ClientAddress,
    /// Whether each row has a hash that covers the row before, so that `postern-sidecar log verify` finds one that was
    /// changed or taken away. Since 1.7.
    #[serde(default, skip_serializing_if = "is_default")]
    pub chain: Chain,
    /// File with the key of a chain that is `Keyed`, at least 16 bytes, relative to the configuration's folder. Since 1.7.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_key_file: Option<String>,
    /// File with the salt of what is captured `as` `Sha256`, at least 16 bytes, relative to the configuration's folder;
    /// `log/capture-salt` where it is absent. While it is not there such values are masked. Since 1.8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture_salt_file: Option<String>,
    /// File with the key that bodies are encrypted with, relative to the configuration's folder; `log/body-key` where it is
    /// absent. It may be missing. Since 1.8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_key_file: Option<String>,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            path: default_log_path(),
            flush_rows: default_flush_rows(),
            flush_every: default_flush_every(),
            max_size: default_log_max_size(),
            postgres: None,
            segment_size: default_segment_size(),
            segment_age: default_segment_age(),
            max_age: None,
            allowed_ratio: whole(),
            client_address: ClientAddress::default(),
            chain: Chain::default(),
            chain_key_file: None,
            capture_salt_file: None,
            body_key_file: None,
        }
    }
}

/// How rows are chained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Chain {
    /// They are not.
    #[default]
    Off,
    /// By SHA-256: who can write the file can make such a chain, too.
    Unkeyed,
    /// By HMAC with SHA-256 and a key.
    Keyed,
}

/// What is told of a client's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ClientAddress {
    /// All of it, and the port.
    #[default]
    Full,
    /// Its network: the first 24 bits of IPv4, 48 of IPv6.
    Network,
    /// Nothing.
    None,
}

/// Postgres, to which the rows of the request log are sent. Where it is, `url` or a file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Postgres {
    /// `postgres://USER@HOST:PORT/DATABASE`. The server is verified unless it says `sslmode=disable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// File with the URL, in place of `url`; while it is not there nothing is sent. Relative to the configuration's folder,
    /// as are the others, and read again for each connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_file: Option<String>,
    /// File with the password, where the URL has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<String>,
    /// File with the authorities that may vouch for the server, in PEM; no others are believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// Rows that are sent at once, 1 to 8192.
    #[serde(default = "default_batch_rows")]
    pub batch_rows: u32,
    /// Time between two looks for new rows.
    #[serde(default = "default_ship_every")]
    pub every: Duration,
    /// Whether the gate makes the schema where there is none, and brings an earlier one up to date: its user needs the right
    /// to. Since 1.8.
    #[serde(default)]
    pub apply_schema: bool,
}

/// Traces of requests, sent by OTLP over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tracing {
    /// The collector, `http://HOST:PORT`; spans go to `/v1/traces` below it. Required.
    // An override is read alone, and may be one of the others.
    #[serde(default)]
    pub endpoint: String,
    /// Which part of the requests is traced that do not say themselves, in `traceparent`, whether they are; 0 to 1.
    #[serde(default = "default_sampling_ratio")]
    pub sampling_ratio: Ratio,
    /// What the gate is called in traces, `service.name`. Absent: `pod.workload`, or `postern`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_name: Option<String>,
}

/// Whom names of backends are asked of, where it is not for `/etc/resolv.conf` to say. `/etc/hosts` goes before both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dns {
    /// Address and port of each server, asked in this order; empty means those of `/etc/resolv.conf`, with its `search`
    /// and `ndots`.
    #[serde(default, deserialize_with = "addresses")]
    pub servers: Vec<SocketAddr>,
    /// Domains in which names are looked for; only with `servers`.
    #[serde(default)]
    pub search: Vec<String>,
    /// Dots that a name has at least to be looked up as it is first; 0 to 15, and only with `servers`.
    #[serde(default = "default_ndots")]
    pub ndots: u8,
}

impl Default for Dns {
    fn default() -> Self {
        Self { servers: Vec::new(), search: Vec::new(), ndots: default_ndots() }
    }
}

/// Which pod this is. Kubernetes tells it through the downward API; standalone it may stay empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pod {
    /// The pod's name.
    #[serde(default)]
    pub name: String,
    /// The pod's UID.
    #[serde(default)]
    pub uid: String,
    /// The pod's namespace.
    #[serde(default)]
    pub namespace: String,
    /// The workload's name, label `postern.dev/workload`.
    #[serde(default)]
    pub workload: String,
}

/// How severe a diagnostic must be to be printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum LogLevel {
    /// Something failed and needs a person.
    Error,
    /// Something is not as it should be, and is handled.
    Warn,
    /// What changed: started, loaded, refused, stopped.
    #[default]
    Info,
    /// One line a connection.
    Debug,
}

/// 6190: outside the ranges of Istio, Linkerd and Prometheus exporters. Loopback, because `/status` names routes.
fn default_status_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 6190))
}

/// Five seconds less than Kubernetes' default grace period, for the log's last flush.
fn default_drain_timeout() -> Duration {
    Duration::from_millis(25_000)
}

/// Enough to see where time goes, too little to cost any.
fn default_sampling_ratio() -> Ratio {
    Ratio::from_millionths(10_000)
}

/// As the C library has it.
fn default_ndots() -> u8 {
    1
}

fn default_log_path() -> String {
    "requests.db".to_owned()
}

/// Large enough that a transaction's cost is spread thin, small enough to be written within milliseconds.
fn default_flush_rows() -> u32 {
    500
}

/// What a kill may lose, against one `fsync`-free transaction ten times a second.
fn default_flush_every() -> Duration {
    Duration::from_millis(100)
}

/// Some 400 KB, and a transaction of some ten milliseconds.
fn default_batch_rows() -> u32 {
    1000
}

/// Soon enough for whoever looks, and few transactions for a server that many gates send to.
fn default_ship_every() -> Duration {
    Duration::from_millis(1000)
}

fn default_log_max_size() -> Size {
    Size::from_bytes(256 << 20)
}

/// Some 40,000 rows: few enough to be read from memory in a small pod, and for damage to cost little; enough that cutting
/// costs nothing.
fn default_segment_size() -> Size {
    Size::from_bytes(4 << 20)
}

fn is_default_segment_size(size: &Size) -> bool {
    *size == default_segment_size()
}

/// A quiet gate has few files, and what is deleted for its age is so within an hour.
fn default_segment_age() -> Duration {
    Duration::from_millis(60 * 60 * 1000)
}

/// A log of every decision, unless somebody chooses otherwise.
fn whole() -> Ratio {
    Ratio::from_millionths(Ratio::MILLION)
}

fn is_whole(ratio: &Ratio) -> bool {
    *ratio == whole()
}

fn is_default_segment_age(age: &Duration) -> bool {
    *age == default_segment_age()
}
