//! The commands that ask a running sidecar, and how they print its answers.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sidecar_config::status::Status;

use super::{ConfigPath, runtime};
use crate::admin::{DrainState, EndpointLine, Identities, Upstreams};
use crate::config::{self, Reading};
use crate::limits::{ADMIN_ANSWER_BYTES, ADMIN_TIMEOUT};
use crate::settings::{self, Flags};
use crate::status;

/// How often a drain is looked at.
const DRAIN_LOOK: Duration = Duration::from_millis(100);

#[derive(Args, Debug)]
pub(super) struct StatusArgs {
    /// Its status port
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:6190", conflicts_with = "socket")]
    address: String,
    /// Its admin socket, in place of the port
    #[arg(long, value_name = "FILE")]
    socket: Option<PathBuf>,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Args, Debug)]
pub(super) struct AdminArgs {
    #[command(flatten)]
    asked: Asked,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Args, Debug)]
pub(super) struct IdentitiesArgs {
    #[command(flatten)]
    asked: Asked,
    /// Only those whose names contain this
    #[arg(long, value_name = "TEXT", default_value = "")]
    name: String,
    /// How they are printed
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Args, Debug)]
pub(super) struct DrainArgs {
    #[command(flatten)]
    asked: Asked,
    /// Do not wait for the end
    #[arg(long)]
    no_wait: bool,
}

/// Which sidecar is asked.
#[derive(Args, Debug)]
struct Asked {
    #[command(flatten)]
    config: ConfigPath,
    /// Its admin socket; by default the one that the configuration names
    #[arg(long, value_name = "FILE")]
    socket: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

impl Asked {
    fn socket(&self) -> Result<PathBuf> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        let config = &self.config.config;
        // A variable may name it where there is no file.
        let reading = config::read(config).unwrap_or_else(|error| Reading::nothing(config, &error));
        let settings =
            settings::load(&reading, &Flags::default()).map_err(|errors| anyhow!("{}", errors.join("\n")))?;
        let none = "there is no admin socket: set settings.admin.socket, or name one with --socket";
        settings::socket_path(&settings, config).context(none)
    }
}

pub(super) fn status(args: &StatusArgs) -> Result<()> {
    let status = match &args.socket {
        Some(socket) => read(&ask(socket, "GET", "/status")?)?,
        None => ask_port(&args.address)?,
    };
    let mut out = io::stdout().lock();
    if args.output == Format::Json {
        writeln!(out, "{}", serde_json::to_string_pretty(&status)?)?;
        return Ok(());
    }
    let absent = || "-".to_owned();
    let parts = status.parts.named().map(|(name, part)| {
        let why = part.why.clone().unwrap_or_default();
        [name.to_owned(), part.loaded.clone(), part.refused.clone().unwrap_or_else(absent), why]
    });
    print_table(&mut out, ["part", "loaded", "refused", "why"], &parts)?;
    writeln!(out)?;
    let mut facts = vec![
        ["ready".to_owned(), if status.ready { "yes" } else { "no" }.to_owned()],
        ["routes".to_owned(), status.routes.len().to_string()],
        ["certificate".to_owned(), status.leaf_serial.unwrap_or_else(absent)],
        ["valid until".to_owned(), status.leaf_not_after.unwrap_or_else(absent)],
        ["contract".to_owned(), format!("{} to {}", status.contract.min, status.contract.max)],
    ];
    if let Some(shipping) = status.shipping {
        let rows = format!("{}, {} bytes", shipping.backlog_rows, shipping.backlog_bytes);
        facts.extend([
            ["rows to send".to_owned(), rows],
            ["sent until".to_owned(), shipping.watermark.unwrap_or_else(absent)],
            ["sending fails".to_owned(), shipping.failing.unwrap_or_else(absent)],
        ]);
    }
    print_rows(&mut out, &facts)
}

fn ask_port(address: &str) -> Result<Status> {
    const TIMEOUT: Duration = Duration::from_secs(5);
    let asked = runtime()?.block_on(async { tokio::time::timeout(TIMEOUT, status::ask(address)).await });
    asked
        .map_err(|_| anyhow!("no answer within {TIMEOUT:?}"))
        .and_then(|answer| answer)
        .with_context(|| format!("asking {address} (is the sidecar running, and is that its status port?)"))
}

pub(super) fn upstreams(args: &AdminArgs) -> Result<()> {
    let answer = ask(&args.asked.socket()?, "GET", "/upstreams")?;
    if args.output == Format::Json {
        return print_json(&answer);
    }
    let upstreams: Upstreams = read(&answer)?;
    let mut out = io::stdout().lock();
    let rows: Vec<_> = upstreams.endpoints.iter().map(endpoint_row).collect();
    print_table(
        &mut out,
        ["endpoint", "condition", "connections", "in flight", "pending", "last failure", "routes"],
        &rows,
    )?;
    for rule in &upstreams.without_endpoint {
        writeln!(out, "no endpoint: {rule}")?;
    }
    for rule in &upstreams.invalid {
        writeln!(out, "names endpoints that do not exist: {rule}")?;
    }
    Ok(())
}

fn endpoint_row(line: &EndpointLine) -> [String; 7] {
    let more = if line.more_routes > 0 { format!(" and {} more", line.more_routes) } else { String::new() };
    [
        line.address.clone(),
        line.ejected_ms.map_or_else(|| line.condition.clone(), |time| format!("{} {time} ms", line.condition)),
        format!("{}/{}", line.connections, line.max_connections),
        line.in_flight.to_string(),
        format!("{}/{}", line.pending, line.max_pending),
        line.last_failure.as_ref().map_or_else(|| "-".to_owned(), |last| format!("{} {}", last.reason, last.time)),
        format!("{}{more}", line.routes.join(" ")),
    ]
}

/// Page by page, as they come: there may be many.
pub(super) fn identities(args: &IdentitiesArgs) -> Result<()> {
    let socket = args.asked.socket()?;
    let mut out = io::stdout().lock();
    let (mut from, mut revision, mut widths) = (Some(0), None, None);
    while let Some(first) = from {
        let page: Identities =
            read(&ask(&socket, "GET", &format!("/identities?name={}&from={first}", escape(&args.name)))?)?;
        if revision.get_or_insert_with(|| page.revision.clone()) != &page.revision {
            bail!("the identities were replaced while they were read; ask again");
        }
        for line in page.identities.iter().filter(|_| args.output == Format::Json) {
            writeln!(out, "{}", serde_json::to_string(line)?)?;
        }
        if args.output == Format::Table {
            let mut rows: Vec<_> = page
                .identities
                .into_iter()
                .map(|line| {
                    let issued_after = line.accept_issued_after.unwrap_or_else(|| "-".to_owned());
                    [line.name, line.state, line.recognisers.to_string(), issued_after]
                })
                .collect();
            if first == 0 {
                rows.insert(0, ["identity", "state", "recognisers", "issued after"].map(str::to_owned));
            }
            // Later pages keep the columns of the first.
            let widths = widths.get_or_insert_with(|| column_widths(&rows));
            rows.iter().try_for_each(|row| print_row(&mut out, widths, row))?;
        }
        from = page.next;
    }
    Ok(())
}

/// The same for people and programs: it is a document.
pub(super) fn config(args: &AdminArgs) -> Result<()> {
    print_json(&ask(&args.asked.socket()?, "GET", "/config")?)
}

pub(super) fn drain(args: &DrainArgs) -> Result<()> {
    let socket = args.asked.socket()?;
    let mut state: DrainState = read(&ask(&socket, "POST", "/drain")?)?;
    let mut out = io::stdout().lock();
    writeln!(out, "draining: {} connections open", state.connections)?;
    let begun = Instant::now();
    while !args.no_wait && !state.drained {
        sleep(DRAIN_LOOK);
        match ask(&socket, "GET", "/drain") {
            Ok(answer) => state = read(&answer)?,
            // Told to stop meanwhile, it ends when it has drained.
            Err(_) if UnixStream::connect(&socket).is_err() => {
                writeln!(out, "the sidecar has ended after {:.1} s", begun.elapsed().as_secs_f64())?;
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        if !state.draining && !state.drained {
            writeln!(out, "the sidecar has ended, and another one answers")?;
            return Ok(());
        }
    }
    if state.drained {
        writeln!(out, "drained after {:.1} s", begun.elapsed().as_secs_f64())?;
    }
    Ok(())
}

/// What the sidecar behind a socket answers. HTTP/1.0, so that the answer ends with the connection.
fn ask(socket: &Path, method: &str, target: &str) -> Result<Vec<u8>> {
    let asking = || format!("asking {}", socket.display());
    let mut stream = UnixStream::connect(socket).map_err(|error| {
        let why = match error.kind() {
            ErrorKind::NotFound => {
                "there is no such socket; is the sidecar running, with this as settings.admin.socket?"
            }
            ErrorKind::ConnectionRefused => "nobody listens; is the sidecar running?",
            ErrorKind::PermissionDenied => "it is its owner's only; ask as the user the sidecar runs as",
            _ => return anyhow!(error).context(asking()),
        };
        anyhow!(why).context(asking())
    })?;
    stream.set_read_timeout(Some(ADMIN_TIMEOUT))?;
    stream.set_write_timeout(Some(ADMIN_TIMEOUT))?;
    write!(stream, "{method} {target} HTTP/1.0\r\nHost: localhost\r\n\r\n").with_context(asking)?;
    let mut answer = Vec::new();
    let most = u64::try_from(ADMIN_ANSWER_BYTES).unwrap_or(u64::MAX);
    stream.take(most).read_to_end(&mut answer).with_context(asking)?;
    body(answer).with_context(asking)
}

/// The body of a whole answer of 200.
fn body(mut answer: Vec<u8>) -> Result<Vec<u8>> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").context("it answered nothing")? + 4;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    answer.drain(..end);
    if length.is_some_and(|length| length != answer.len()) {
        bail!("its answer is incomplete, or longer than {ADMIN_ANSWER_BYTES} bytes");
    }
    match head.split(' ').nth(1) {
        Some("200") => Ok(answer),
        Some(status) => bail!("it answered {status}: {}", String::from_utf8_lossy(&answer).trim()),
        None => bail!("it does not speak HTTP"),
    }
}

fn read<T: DeserializeOwned>(answer: &[u8]) -> Result<T> {
    serde_json::from_slice(answer).context("its answer is not the document that was asked for; is it of this version?")
}

/// What a query's value may not have as it is (RFC 3986 §3.4).
fn escape(text: &str) -> String {
    let escaped = text.bytes().map(|byte| {
        let is_plain = byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
        if is_plain { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    });
    escaped.collect()
}

fn print_json(answer: &[u8]) -> Result<()> {
    let document: Value = read(answer)?;
    writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&document)?)?;
    Ok(())
}

fn print_table<const COLUMNS: usize>(
    out: &mut impl Write,
    names: [&str; COLUMNS],
    rows: &[[String; COLUMNS]],
) -> Result<()> {
    let mut all = vec![names.map(str::to_owned)];
    all.extend_from_slice(rows);
    print_rows(out, &all)
}

fn print_rows<const COLUMNS: usize>(out: &mut impl Write, rows: &[[String; COLUMNS]]) -> Result<()> {
    let widths = column_widths(rows);
    rows.iter().try_for_each(|row| print_row(out, &widths, row))
}

fn column_widths<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> [usize; COLUMNS] {
    std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default())
}

fn print_row<const COLUMNS: usize>(
    out: &mut impl Write,
    widths: &[usize; COLUMNS],
    row: &[String; COLUMNS],
) -> Result<()> {
    let cells = row.iter().zip(widths).map(|(cell, width)| format!("{:width$}", printable(cell)));
    writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    Ok(())
}

/// Names come from documents, which a terminal need not obey.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}
