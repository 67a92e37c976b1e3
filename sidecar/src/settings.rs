//! Settings: from the configuration's file, over it `POSTERN__…` variables, over those flags. The only place that reads
//! the environment.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use postern_postgres::Target;
use serde_json::{Map, Value};
use sidecar_config::Document;
use sidecar_config::settings::{Chain, Dns, Postgres, Settings};
use sidecar_decide::probe;

use crate::config::{Reading, recall_settings};
use crate::log::{Chained, QUEUE_ROWS, ShipOptions, Sizes};
use crate::processors::{self, Why, Workers};

/// Kubernetes injects `POSTERN_SERVICE_HOST` and the like for a Service of that name; two underscores are ours.
const PREFIX: &str = "POSTERN__";
const WORKERS_MAX: u16 = 64;
/// Below this the log would be all pruning.
const LOG_SIZE_MIN: u64 = 1 << 20;
/// Below this most of a segment would be its empty tables; above, reading one would take too much of a pod's memory.
const LOG_SEGMENT_MIN: u64 = 128 << 10;
const LOG_SEGMENT_MAX: u64 = 8 << 20;
/// Below this a log would be more files than rows.
const LOG_AGE_MIN: Duration = Duration::from_secs(60);
/// Most that the C library takes.
const NDOTS_MAX: u8 = 15;
/// What the state directory is called in the documentation's examples.
const STATE_DIR_USUAL: &str = "state";
/// Where a gate in a pod has these. A variable that says so would be refused by an older sidecar that a pod names.
const CAPTURE_SALT_USUAL: &str = "log/capture-salt";
const BODY_KEY_USUAL: &str = "log/body-key";

/// Settings on the command line.
#[derive(Args, Clone, Debug, Default)]
pub struct Flags {
    /// Where /livez, /readyz, /startupz, /metrics and /status are served
    #[arg(long, value_name = "ADDRESS:PORT")]
    status_address: Option<String>,
    /// What listeners on 0.0.0.0 and [::] listen on instead
    #[arg(long, value_name = "ADDRESS")]
    listen_address: Option<String>,
    /// Threads that serve connections
    #[arg(long, value_name = "COUNT")]
    workers: Option<String>,
    /// Time for requests in flight to finish after SIGTERM
    #[arg(long, value_name = "DURATION")]
    drain_timeout: Option<String>,
    /// Least severe diagnostic that is printed: Error, Warn, Info, Debug
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// The request log's database file
    #[arg(long, value_name = "FILE")]
    log_path: Option<String>,
    /// Folder in which the last accepted parts are kept for the next start
    #[arg(long, value_name = "FOLDER")]
    state_dir: Option<String>,
    /// Unix socket for the commands that ask a running sidecar
    #[arg(long, value_name = "FILE")]
    admin_socket: Option<String>,
}

impl Flags {
    fn overrides(&self) -> Vec<Override> {
        let flags = [
            ("--status-address", "statusAddress", &self.status_address),
            ("--listen-address", "listenAddress", &self.listen_address),
            ("--workers", "workers", &self.workers),
            ("--drain-timeout", "drainTimeout", &self.drain_timeout),
            ("--log-level", "logLevel", &self.log_level),
            ("--log-path", "log.path", &self.log_path),
            ("--state-dir", "stateDir", &self.state_dir),
            ("--admin-socket", "admin.socket", &self.admin_socket),
        ];
        let given = flags.into_iter().filter_map(|(flag, path, value)| Some((flag, path, value.clone()?)));
        given
            .map(|(flag, path, value)| Override::new(flag, path.split('.').map(str::to_owned).collect(), value))
            .collect()
    }
}

/// A setting from outside the file.
#[derive(Clone, Debug)]
struct Override {
    /// What the user wrote, for errors.
    source: String,
    path: Vec<String>,
    text: String,
}

impl Override {
    fn new(source: &str, path: Vec<String>, text: String) -> Self {
        Self { source: source.to_owned(), path, text }
    }

    /// `POSTERN__LOG__FLUSH_EVERY` sets `log.flushEvery`.
    fn of_variable(name: &str, text: String) -> Option<Self> {
        let path = name.strip_prefix(PREFIX)?.split("__").map(camel_case).collect();
        Some(Self::new(name, path, text))
    }

    /// The value as text, or as the number, the list in JSON, `true` or `false` that it spells where the setting is one.
    fn value(&self) -> Result<Value, String> {
        let number = self.text.parse::<u64>().map(Value::from).ok();
        let fraction = self.text.parse::<f64>().map(Value::from).ok();
        let list = serde_json::from_str(&self.text).ok().filter(|value: &Value| value.is_array() || value.is_boolean());
        let mut error = String::new();
        for value in [Some(Value::from(self.text.clone())), number, fraction, list].into_iter().flatten() {
            let mut alone = Value::Object(Map::new());
            insert(&mut alone, &self.path, value.clone());
            match Document::read::<Settings>("settings", alone) {
                Ok(_) => return Ok(value),
                Err(refused) => error = refused.to_string(),
            }
        }
        Err(format!("{}: {error}", self.source))
    }
}

fn camel_case(segment: &str) -> String {
    let mut words = segment.split('_').map(str::to_ascii_lowercase);
    let first = words.next().unwrap_or_default();
    words.fold(first, |name, word| {
        let mut letters = word.chars();
        let capital = letters.next().map(|letter| letter.to_ascii_uppercase());
        name.chars().chain(capital).chain(letters).collect()
    })
}

fn insert(settings: &mut Value, path: &[String], value: Value) {
    let Some((last, parents)) = path.split_last() else { return };
    let mut table = settings;
    for parent in parents {
        if !table.get(parent).is_some_and(Value::is_object) {
            table[parent] = Value::Object(Map::new());
        }
        table = &mut table[parent];
    }
    table[last] = value;
}

/// Joins what the file says with the environment and the flags.
///
/// # Errors
/// Every setting that is wrong, each with where it came from.
pub fn load(reading: &Reading, flags: &Flags) -> Result<Settings, Vec<String>> {
    merge(reading, overrides(flags))
}

/// What variables and flags say, in the order in which they count.
fn overrides(flags: &Flags) -> impl Iterator<Item = Override> {
    let variables = std::env::vars_os().filter_map(|(name, text)| Some((name.into_string().ok()?, text)));
    let ours = variables.filter(|(name, _)| name.starts_with(PREFIX));
    let mut sorted: Vec<_> = ours.map(|(name, text)| (name, text.to_string_lossy().into_owned())).collect();
    sorted.sort_unstable();
    let variables = sorted.into_iter().filter_map(|(name, text)| Override::of_variable(&name, text));
    variables.chain(flags.overrides())
}

/// The settings that were kept by the last start, for a start whose own cannot be read, with the file they are in.
///
/// Where neither a variable nor a flag names the state directory it is looked for under its usual name, and used if
/// what is in there says that it is the one: a file that cannot be read cannot name it.
pub fn recall(config: &Path, flags: &Flags) -> Option<(PathBuf, Value)> {
    let named = merge(&Reading::default(), overrides(flags).filter(|setting| setting.path == ["stateDir"]));
    let named = named.ok().and_then(|settings| state_path(&settings, config));
    let is_named = named.is_some();
    let (file, kept) = recall_settings(&named.unwrap_or_else(|| config_folder(config).join(STATE_DIR_USUAL)))?;
    let is_it = is_named || kept.get("stateDir").is_some_and(|name| name == STATE_DIR_USUAL);
    // What another version kept may not be for this one: that costs these settings and not the start.
    let reading = Reading { settings: Some((file, kept)), ..Reading::default() };
    if is_it && merge(&reading, std::iter::empty()).is_ok() { reading.settings } else { None }
}

fn merge(reading: &Reading, overrides: impl Iterator<Item = Override>) -> Result<Settings, Vec<String>> {
    let mut errors = Vec::new();
    let mut settings = Value::Object(Map::new());
    if let Some((file, value)) = &reading.settings {
        match Document::read::<Settings>("settings", value.clone()) {
            Ok(_) => settings = value.clone(),
            Err(error) => errors.push(format!("{}: {error}", file.display())),
        }
    }
    for setting in overrides {
        match setting.value() {
            Ok(value) => insert(&mut settings, &setting.path, value),
            Err(error) => errors.push(error),
        }
    }
    match Document::read::<Settings>("settings", settings) {
        Ok(settings) => {
            errors.extend(out_of_range(&settings));
            if errors.is_empty() { Ok(settings) } else { Err(errors) }
        }
        Err(error) => {
            errors.push(error.to_string());
            Err(errors)
        }
    }
}

fn out_of_range(settings: &Settings) -> Vec<String> {
    let mut errors = Vec::new();
    if settings.workers.is_some_and(|workers| !(1..=WORKERS_MAX).contains(&workers)) {
        errors.push(format!("`settings.workers`: write a number from 1 to {WORKERS_MAX}"));
    }
    let rows = usize::try_from(settings.log.flush_rows).unwrap_or(usize::MAX);
    if !(1..=QUEUE_ROWS).contains(&rows) {
        errors.push(format!("`settings.log.flushRows`: write a number from 1 to {QUEUE_ROWS}"));
    }
    if settings.log.flush_every.as_std().is_zero() {
        errors.push("`settings.log.flushEvery`: is zero; write at least `1ms`".to_owned());
    }
    if settings.log.max_size.bytes() < LOG_SIZE_MIN {
        errors.push("`settings.log.maxSize`: write at least `1Mi`".to_owned());
    }
    if !(LOG_SEGMENT_MIN..=LOG_SEGMENT_MAX).contains(&settings.log.segment_size.bytes()) {
        errors.push("`settings.log.segmentSize`: write a size from `128Ki` to `8Mi`".to_owned());
    }
    if settings.log.segment_age.as_std() < LOG_AGE_MIN {
        errors.push("`settings.log.segmentAge`: write at least `1m`".to_owned());
    }
    if settings.log.max_age.is_some_and(|age| age.as_std() < LOG_AGE_MIN) {
        errors.push(
            "`settings.log.maxAge`: write at least `1m`, or leave it out to delete nothing for its age".to_owned(),
        );
    }
    if (settings.log.chain == Chain::Keyed) != settings.log.chain_key_file.is_some() {
        errors.push("`settings.log.chainKeyFile`: is for `chain` `Keyed`, which needs it".to_owned());
    }
    errors.extend(settings.log.postgres.as_ref().into_iter().flat_map(wrong_postgres));
    if settings.state_dir.as_deref() == Some("") {
        errors.push("`settings.stateDir`: is empty; name a folder, or leave it out to keep nothing".to_owned());
    }
    if let Some(Err(error)) = settings.tracing.as_ref().map(|tracing| postern_telemetry::collector(&tracing.endpoint)) {
        errors.push(format!("`settings.tracing.endpoint`: {error}"));
    }
    errors.extend(probe::problems(&settings.probes));
    if settings.admin.socket.as_deref() == Some("") {
        errors.push("`settings.admin.socket`: is empty; name a file, or leave it out to have none".to_owned());
    }
    if settings.dns.ndots > NDOTS_MAX {
        errors.push(format!("`settings.dns.ndots`: write a number from 0 to {NDOTS_MAX}"));
    }
    if settings.dns.servers.is_empty() && settings.dns != Dns::default() {
        errors.push(
            "`settings.dns`: search and ndots count only with servers; name some, or leave both to /etc/resolv.conf"
                .to_owned(),
        );
    }
    errors
}

fn wrong_postgres(postgres: &Postgres) -> Vec<String> {
    let mut errors = Vec::new();
    match (&postgres.url, &postgres.url_file) {
        (Some(url), None) => {
            let error = Target::parse(url).err();
            errors.extend(error.map(|error| format!("`settings.log.postgres.url`: {error}")));
        }
        (None, Some(_)) => {}
        _ => errors.push("`settings.log.postgres`: write either `url` or `urlFile`".to_owned()),
    }
    let rows = usize::try_from(postgres.batch_rows).unwrap_or(usize::MAX);
    if !(1..=QUEUE_ROWS).contains(&rows) {
        errors.push(format!("`settings.log.postgres.batchRows`: write a number from 1 to {QUEUE_ROWS}"));
    }
    if postgres.every.as_std().is_zero() {
        errors.push("`settings.log.postgres.every`: is zero; write at least `1ms`".to_owned());
    }
    errors
}

/// Where rows are sent to, if anywhere: files are relative to the configuration's folder.
pub fn shipping(settings: &Settings, config: &Path) -> Option<ShipOptions> {
    let postgres = settings.log.postgres.as_ref()?;
    let file = |name: &Option<String>| name.as_ref().map(|name| config_folder(config).join(name));
    Some(ShipOptions {
        log: log_path(settings, config),
        url: postgres.url.clone(),
        url_file: file(&postgres.url_file),
        password_file: file(&postgres.password_file),
        ca_file: file(&postgres.ca_file),
        batch_rows: postgres.batch_rows,
        every: postgres.every.as_std(),
        applies_schema: postgres.apply_schema,
    })
}

/// The admin socket's file, if there is to be one: relative to the configuration's folder.
pub fn socket_path(settings: &Settings, config: &Path) -> Option<PathBuf> {
    Some(config_folder(config).join(settings.admin.socket.as_ref()?))
}

/// Whether a terminal may be shown colours (no-color.org).
pub fn may_be_coloured() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// The password for PostgreSQL where libpq looks for it, too.
pub fn postgres_password() -> Option<Vec<u8>> {
    std::env::var_os("PGPASSWORD").map(std::os::unix::ffi::OsStringExt::into_vec)
}

/// The request log's file: relative to the configuration's folder.
pub fn log_path(settings: &Settings, config: &Path) -> PathBuf {
    config_folder(config).join(&settings.log.path)
}

/// How the request log is cut, and what it may take.
pub fn log_sizes(settings: &Settings) -> Sizes {
    let log = &settings.log;
    let keep = log.max_age.map(|age| age.as_std());
    Sizes::new(log.segment_size.bytes(), log.segment_age.as_std(), log.max_size.bytes(), keep)
}

/// Whether rows are chained: the key's file is relative to the configuration's folder.
pub fn log_chain(settings: &Settings, config: &Path) -> Chained {
    match (settings.log.chain, &settings.log.chain_key_file) {
        (Chain::Off, _) => Chained::Off,
        (Chain::Unkeyed, _) | (Chain::Keyed, None) => Chained::Unkeyed,
        (Chain::Keyed, Some(file)) => Chained::Keyed(config_folder(config).join(file)),
    }
}

/// The file with the salt of captured values, which need not be there: relative to the configuration's folder.
pub fn capture_salt(settings: &Settings, config: &Path) -> PathBuf {
    config_folder(config).join(settings.log.capture_salt_file.as_deref().unwrap_or(CAPTURE_SALT_USUAL))
}

/// The file with the key for bodies, likewise.
pub fn log_body_key(settings: &Settings, config: &Path) -> PathBuf {
    config_folder(config).join(settings.log.body_key_file.as_deref().unwrap_or(BODY_KEY_USUAL))
}

/// The state directory, if there is to be one: relative to the configuration's folder.
pub fn state_path(settings: &Settings, config: &Path) -> Option<PathBuf> {
    Some(config_folder(config).join(settings.state_dir.as_ref()?))
}

fn config_folder(config: &Path) -> &Path {
    if config.is_dir() { config } else { config.parent().unwrap_or(Path::new("")) }
}

/// How many workers to start, and why so many.
pub fn workers(settings: &Settings) -> Workers {
    match settings.workers {
        Some(count) => Workers { count: usize::from(count), why: Why::Setting },
        None => processors::workers(std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_about_postgres_is_told_without_its_password() {
        let either = "`settings.log.postgres`: write either `url` or `urlFile`";
        let rows = "`settings.log.postgres.batchRows`: write a number from 1 to 8192";
        let table = [
            (r#"{"urlFile": "log/url"}"#, vec![]),
            (r#"{"url": "postgres://a:secret@db/log", "batchRows": 8192}"#, vec![]),
            (r#"{}"#, vec![either]),
            (r#"{"url": "postgres://a@db", "urlFile": "log/url", "batchRows": 0}"#, vec![either, rows]),
            (r#"{"urlFile": "log/url", "batchRows": 8193}"#, vec![rows]),
            (
                r#"{"urlFile": "log/url", "every": "0s"}"#,
                vec!["`settings.log.postgres.every`: is zero; write at least `1ms`"],
            ),
            (
                r#"{"url": "postgres://:secret@db"}"#,
                vec!["`settings.log.postgres.url`: it names no user; write postgres://USER@HOST/DATABASE"],
            ),
        ];
        for (text, expected) in table {
            let postgres: Postgres = serde_json::from_str(text).expect("a table");
            assert_eq!(wrong_postgres(&postgres), expected, "{text}");
        }
    }
}
