//! Names in documents are names of something: metrics, reasons, flags, labels and annotations, values of the chart, files of
//! the checkout, and the tests that are said to prove a claim.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use sidecar_decide::Reason;

use super::{documents, first_cells, page, root};

/// Stages of reasons, with which their codes begin.
const STAGES: [&str; 7] = ["tls_", "policy_", "route_", "limit_", "upstream_", "client_", "gate_"];
/// Pages whose inline flags are those of our own programs.
const OF_FLAGS: [&str; 7] = [
    "docs/configuration.md",
    "docs/injection.md",
    "docs/install.md",
    "docs/log-reports.md",
    "docs/operations.md",
    "docs/operator.md",
    "docs/request-log.md",
];
/// What these pages name of other programs.
const FOREIGN_FLAGS: [&str; 3] = ["--set", "--help", "--dry-run"];

/// Fails with every name that is of nothing.
fn assert_known(what: &str, named: impl IntoIterator<Item = (String, String)>, is_known: impl Fn(&str) -> bool) {
    let mut count = 0;
    let mut unknown = BTreeSet::new();
    for (document, name) in named {
        count += 1;
        if !is_known(&name) {
            unknown.insert(format!("{document}: `{name}`"));
        }
    }
    assert!(count > 0, "no document names {what}: it is no longer found");
    assert!(unknown.is_empty(), "{what} that do not exist:\n{}", Vec::from_iter(unknown).join("\n"));
}

/// All words of documents that a function takes, with the document. A word is what may stand in a name.
fn words(takes: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for document in documents() {
        let text = page(&document);
        let words = text.split(|c: char| !(c.is_alphanumeric() || "_-./".contains(c)));
        let words = words.map(|word| word.trim_end_matches(['.', '/', '-']));
        found.extend(words.filter(|word| takes(word)).map(|word| (document.clone(), word.to_owned())));
    }
    found
}

/// What stands in backticks in one line each.
fn codes(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// All files of ours of some ending below some folders, as one text.
fn sources(folders: &[&str], ending: &str) -> String {
    let mut text = String::new();
    for folder in folders {
        gather(&root().join(folder), ending, &mut text);
    }
    text
}

fn gather(folder: &Path, ending: &str, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            gather(&path, ending, text);
        } else if path.extension().is_some_and(|found| found == ending) {
            text.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn metrics_are_some_programs() {
    let rust = sources(&["sidecar/src", "operator/src", "telemetry/src"], "rs");
    // Roles are called alike.
    let sql = sources(&["postgres/src"], "sql");
    let named = words(|word| word.starts_with("postern_") && !word.ends_with('_') && !word.contains(['/', '.', '-']));
    assert_known("metrics", named, |name| {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
        // What both programs tell is put together of a prefix and the rest.
        let rest = family.trim_start_matches("postern_operator").trim_start_matches("postern");
        [name, family].iter().any(|name| rust.contains(*name) || sql.contains(*name))
            || rust.contains(&format!("{{prefix}}{rest}"))
    });
}

#[test]
fn reasons_are_those_of_the_table() {
    let is_code = |word: &str| STAGES.iter().any(|stage| word.starts_with(stage) && word.len() > stage.len());
    let mut named = Vec::new();
    // One page is about the words of others.
    let ours = |name: &String| name.starts_with("docs/") && name != "docs/coming-from.md" || name == "README.md";
    for document in documents().into_iter().filter(ours) {
        let text = page(&document);
        let inline =
            codes(&text).filter(|code| is_code(code) && code.chars().all(|c| c == '_' || c.is_ascii_lowercase()));
        named.extend(inline.map(|code| (document.clone(), code.to_owned())));
    }
    let columns = first_cells(&page("docs/request-log.md"), "## Columns");
    assert_known("reasons", named, |name| {
        Reason::ALL.iter().any(|reason| reason.code() == name) || columns.iter().any(|column| column == name)
    });
}

#[test]
fn labels_and_annotations_are_read_by_something() {
    let text = sources(&["operator/src", "sidecar/src"], "rs") + &sources(&["charts", "deploy"], "yaml");
    let overrides = page("operator/src/inject/overrides.rs");
    let is_ours = |word: &str| word.starts_with("postern.dev/") || word.starts_with("config.postern.dev/");
    assert_known("labels and annotations", words(is_ours), |name| match name.strip_prefix("config.postern.dev/") {
        Some(name) => overrides.contains(&format!("\"{name}\"")),
        None => text.contains(name),
    });
}

#[test]
fn flags_are_those_of_our_programs() {
    let rust = sources(&["sidecar/src", "operator/src"], "rs");
    let mut named = Vec::new();
    for document in OF_FLAGS {
        let text = page(document);
        let flags = codes(&text).filter(|code| code.starts_with("--"));
        let flags = flags.map(|code| code.split([' ', '=']).next().unwrap());
        let flags = flags.filter(|flag| !FOREIGN_FLAGS.contains(flag));
        named.extend(flags.map(|flag| (document.to_owned(), flag.to_owned())));
    }
    assert_known("flags", named, |flag| {
        let name = flag.trim_start_matches('-');
        rust.contains(&format!("{}: ", name.replace('-', "_"))) || rust.contains(&format!("\"{name}\""))
    });
}

#[test]
fn values_are_those_of_the_chart() {
    let values = first_cells(&page("charts/postern/README.md"), "## Values");
    let mut named = Vec::new();
    for document in documents() {
        let text = page(&document);
        let set = text.split("--set ").skip(1).filter_map(|rest| rest.split_once('='));
        named.extend(set.map(|(value, _)| (document.clone(), value.to_owned())));
    }
    assert_known("values of the chart", named, |name| {
        values.iter().any(|value| name == value || name.starts_with(&format!("{value}.")))
    });
}

#[test]
fn files_that_are_named_are_there() {
    let folders =
        ["sidecar/", "operator/", "crds/", "tests/", "charts/", "deploy/", "scripts/", "bench/", "telemetry/src/"];
    let named = words(|word| {
        let (_, name) = word.rsplit_once('/').unwrap_or_default();
        let is_file = name.rsplit_once('.').is_some_and(|(_, ending)| ["rs", "yaml", "md", "json"].contains(&ending));
        is_file && folders.iter().any(|folder| word.starts_with(folder))
    });
    // In a page of a subfolder a path may be relative to it; links are looked at elsewhere.
    assert_known("files", named, |name| root().join(name).exists());
}

#[test]
fn tests_that_prove_a_claim_are_there() {
    let rust = sources(&["sidecar", "operator", "crds", "telemetry", "tests"], "rs");
    let mut named = Vec::new();
    for document in ["ARCHITECTURE.md", "docs/security.md"] {
        let text = page(document);
        let rows = text.lines().filter(|line| line.starts_with("| "));
        let last_cells = rows.filter_map(|row| row.trim_end_matches([' ', '|']).rsplit(" | ").next());
        let names = last_cells.flat_map(codes).filter(|code| code.matches('_').count() >= 2);
        let names = names.filter(|code| code.chars().all(|c| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit()));
        let names = names
            .filter(|code| !code.starts_with("postern_") && Reason::ALL.iter().all(|reason| reason.code() != *code));
        named.extend(names.map(|name| (document.to_owned(), name.to_owned())));
    }
    assert_known("tests", named, |name| rust.contains(&format!("fn {name}(")));
}
