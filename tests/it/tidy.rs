//! The rules of this repository that a program can check (CONTRIBUTING.md says why). Each names file, line and remedy.

mod dependencies;
mod reach;
mod scan;
mod selftest;
mod source;

use self::scan::Finding;
use self::source::{SourceFile, Workspace};

/// Longest source file, in lines.
const FILE_LIMIT_LINES: usize = 500;
/// Longest file of tests, whose tables may be long.
const TEST_FILE_LIMIT_LINES: usize = 800;

/// Fails with every finding, one a line.
fn assert_none(rule: &str, findings: &[Finding]) {
    let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "{rule}:\n{}\n", lines.join("\n"));
}

/// Applies a scanner to every source file.
fn scan_all(rule: &str, scanner: impl Fn(&SourceFile) -> Vec<Finding>) {
    let workspace = Workspace::load();
    let findings: Vec<_> = workspace.sources.iter().flat_map(scanner).collect();
    assert_none(rule, &findings);
}

#[test]
fn files_are_short() {
    scan_all("a file is at most 500 lines, a file of tests 800", |file| {
        let limit = if file.is_test() { TEST_FILE_LIMIT_LINES } else { FILE_LIMIT_LINES };
        scan::long_file(file, limit)
    });
}

#[test]
fn functions_are_short() {
    scan_all("a function is at most 70 lines", scan::long_functions);
}

#[test]
fn files_say_what_they_are_for() {
    scan_all("the first line of a file is its `//!` purpose", scan::missing_purpose);
}

#[test]
fn nothing_is_left_half_done() {
    scan_all("no leftovers and no skipped tests", scan::leftovers);
}

#[test]
fn exceptions_from_lints_give_a_reason() {
    scan_all("every #[allow] and #[expect] has a reason", scan::exceptions_without_reason);
}

#[test]
fn module_names_say_what_is_inside() {
    scan_all("no module is called util, common, helpers, misc or types", scan::vague_names);
}

#[test]
fn only_protocol_knows_hyper() {
    scan_all("in the sidecar only src/protocol knows hyper", scan::hyper_outside_protocol);
}

#[test]
fn every_file_is_compiled() {
    let workspace = Workspace::load();
    assert_none("a `mod` line reaches every .rs file", &reach::orphans(&workspace));
}

#[test]
fn dependencies_point_one_way() {
    let workspace = Workspace::load();
    assert_none("the arrows between crates", &dependencies::wrong_arrows(&workspace.metadata));
}

#[test]
fn pure_crates_stay_pure() {
    let workspace = Workspace::load();
    assert_none("no runtime, sockets or database in pure crates", &dependencies::impure(&workspace.metadata));
}

#[test]
fn documents_name_existing_make_targets() {
    let workspace = Workspace::load();
    let makefile = workspace.text("Makefile");
    let texts = workspace.texts();
    let documents = texts.iter().filter(|(path, _)| path.ends_with(".md"));
    let findings: Vec<_> =
        documents.flat_map(|(path, text)| scan::unknown_make_targets(path, text, &makefile)).collect();
    assert_none("documents name only make targets that exist", &findings);
}

#[test]
fn nothing_depends_on_one_machine() {
    let workspace = Workspace::load();
    let findings: Vec<_> = workspace.texts().iter().flat_map(|(path, text)| scan::machine_paths(path, text)).collect();
    assert_none("no absolute paths of one machine", &findings);
}
