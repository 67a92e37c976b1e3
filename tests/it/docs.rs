//! What the documents say is what the program does: configurations are accepted, and every name in them exists.

mod links;
mod names;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use postern_tests::ca::{Authority, LeafOptions};
use postern_tests::clients::Curl;
use postern_tests::config::ConfigFolder;
use postern_tests::gate::Gate;
use postern_tests::process::Launch;
use serde_json::json;
use sidecar_decide::{Limiter, Reason};

use crate::monitoring::assert_documented;
use crate::observed::wait_until;
use crate::reload::KeepAlive;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// All documents: Markdown below the checkout's root, but for what is hidden or built.
fn documents() -> Vec<String> {
    let mut found = Vec::new();
    gather(&root(), &mut found);
    let base = root();
    let mut names: Vec<_> =
        found.iter().map(|path| path.strip_prefix(&base).unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

fn gather(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() {
            if !is_hidden && !path.ends_with("target") && !path.join("CACHEDIR.TAG").exists() {
                gather(&path, found);
            }
        } else if path.extension().is_some_and(|ending| ending == "md") {
            found.push(path);
        }
    }
}

/// Fenced blocks of a language.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// The first cells of all tables under a heading, up to the next heading of the same depth, without their backticks.
fn first_cells(page: &str, heading: &str) -> Vec<String> {
    let depth = heading.split(' ').next().unwrap();
    let section = page.split(&format!("\n{heading}\n")).nth(1).unwrap();
    let section = section.split(&format!("\n{depth} ")).next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| row.split('`').next().unwrap().to_owned()).collect()
}

#[test]
fn complete_configurations_are_valid() {
    let mut checked = 0;
    for name in ["README.md", "docs/configuration.md"] {
        let page = page(name);
        for block in blocks(&page, "toml").into_iter().filter(|block| block.starts_with("version = ")) {
            let folder = ConfigFolder::new().unwrap();
            let authority = Authority::new("docs").unwrap();
            folder.write("ca.pem", authority.root_pem()).unwrap();
            authority.issue(&LeafOptions::server("server")).unwrap().write(folder.path(), "server").unwrap();
            folder.write("postern.toml", block).unwrap();
            let checking = Launch::new(&folder.file("postern.toml")).unwrap().subcommand("validate", &[]).unwrap();
            assert_eq!(checking.code, Some(0), "{name}: {}{block}", checking.text());
            checked += 1;
        }
    }
    assert!(checked >= 2, "only {checked} complete configurations found");
}

#[test]
fn reason_codes_are_the_tables() {
    let cells = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let expected = Reason::ALL.map(|reason| {
        let facts = reason.facts();
        let [http, grpc, alert] = [
            facts.http.map(|status| status.to_string()),
            facts.grpc.map(|status| status.to_string()),
            facts.alert.map(|alert| alert.to_string()),
        ];
        let (code, words) = (facts.code, reason.explanation());
        let [http, grpc, alert] = [http, grpc, alert].map(cells);
        format!("| `{code}` | {http} | {grpc} | {alert} | {} | {} |", words.cause, words.remedy)
    });
    let page = page("docs/request-log.md");
    let lines: Vec<String> = page.lines().filter(|line| line.matches(" | ").count() == 5).map(without_links).collect();
    for row in &expected {
        assert_eq!(lines.iter().filter(|line| *line == row).count(), 1, "{row}");
    }
    let documented = first_cells(&page, "## Reason codes");
    assert_eq!(documented, Reason::ALL.map(|reason| reason.code().to_owned()));
}

/// A line without what leads to other places: links in parentheses of their own go, of others the words stay.
fn without_links(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, (words, after))) = rest
        .split_once('[')
        .and_then(|(before, link)| Some((before, link.split_once("](")?)))
        .and_then(|(before, (words, after))| Some((before, (words, after.split_once(')')?.1))))
    {
        match (before.strip_suffix(" ("), after.strip_prefix(')')) {
            (Some(before), Some(after)) => {
                text.push_str(before);
                rest = after;
            }
            _ => {
                text.extend([before, words]);
                rest = after;
            }
        }
    }
    text + rest
}

#[test]
fn limiters_are_the_tables() {
    let documented = first_cells(&page("docs/request-log.md"), "## Limiters");
    assert_eq!(documented, Limiter::ALL.map(|limiter| limiter.name().to_owned()));
}

#[test]
fn columns_are_the_views() {
    assert_eq!(first_cells(&page("docs/request-log.md"), "## Columns"), view_columns());
}

/// The columns as the schema's own text has them.
fn view_columns() -> Vec<String> {
    let schema = page("sidecar/src/log/views.sql");
    let list = schema.split("CREATE VIEW requests AS SELECT").nth(1).unwrap().split("FROM").next().unwrap();
    list.split(',').map(|column| column.trim().to_owned()).collect()
}

/// What a gate tells to which everything has happened that it counts.
fn eventful() -> String {
    let mut gate = Gate::start_with(|document| {
        document["version"] = json!("1.6");
        let raw =
            json!({ "name": "raw", "address": "127.0.0.1:0", "protocol": "TLS", "tls": { "clientAuth": "None" } });
        document["policy"]["listeners"].as_array_mut().unwrap().push(raw);
        document["settings"]["tracing"] = json!({ "endpoint": "http://127.9.9.9:9" });
        document["settings"]["log"]["postgres"] = json!({ "url": "postgres://gate@127.9.9.9:9/log?sslmode=disable" });
    })
    .unwrap();
    let raw = format!("https://localhost:{}/", gate.sidecar.listener("raw").unwrap().port());
    Curl::new(raw).authority("ca.pem").folder(gate.folder.path()).call().unwrap();
    KeepAlive::open(&gate, "billing").ask("/orders/7");
    gate.curl(None, "/orders/7").unwrap().call().unwrap();
    let message = gate.curl(Some("billing"), "/close").unwrap().arg("-HContent-Type: application/sep+xml");
    message.arg("-d<Time/>").call().unwrap();
    let switch = gate.curl(Some("billing"), "/switch").unwrap().arg("--http1.1").arg("-H").arg("Connection: Upgrade");
    switch.arg("-H").arg("Upgrade: raw").call().unwrap();
    let mut cut = KeepAlive::open(&gate, "reports");
    cut.ask("/orders/7");
    let other = Authority::new("Another authority").unwrap();
    gate.folder.write("other.pem", other.root_pem()).unwrap();
    gate.folder.write("other.crl", &other.revocation_list(&[], 60).unwrap().pem).unwrap();
    gate.document["trust"]["bundles"] = json!({ "other": { "roots": ["other.pem"], "crls": ["other.crl"] } });
    gate.folder.write_document(&gate.document).unwrap();
    wait_until("the connection's end", || cut.has_ended());
    gate.rows(6).unwrap();
    let status = gate.sidecar.status_address().unwrap();
    Curl::new(format!("http://{status}/metrics")).call().unwrap().text()
}

#[test]
fn metrics_are_the_pages() {
    let text = eventful();
    assert_documented(&text);
    let told: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect();
    let documented = first_cells(&page("docs/operations.md"), "## Metrics");
    let documented: BTreeSet<String> =
        documented.into_iter().filter(|name| name.starts_with("postern_") || name.starts_with("process_")).collect();
    let documented = documented.into_iter().filter(|name| !name.contains([' ', '(', '{'])).collect::<BTreeSet<_>>();
    assert_eq!(documented, told);
}
