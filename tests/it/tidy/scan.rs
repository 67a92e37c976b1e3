//! The rules over text: each takes a file and returns what is wrong in it.

use std::fmt;

use super::source::SourceFile;

/// Longest function, in lines from its signature to its closing brace.
const FUNCTION_LIMIT_LINES: usize = 70;

/// A place that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// File, from the workspace's root.
    pub(crate) file: String,
    /// Line, from 1.
    pub(crate) line: usize,
    /// What is wrong and what to do.
    pub(crate) remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.remedy)
    }
}

/// A finding in this file.
pub(crate) fn finding(file: &str, line: usize, remedy: impl Into<String>) -> Finding {
    Finding { file: file.to_owned(), line, remedy: remedy.into() }
}

/// Files that are too long.
pub(crate) fn long_file(file: &SourceFile, limit: usize) -> Vec<Finding> {
    let length = file.text.lines().count();
    if length <= limit {
        return Vec::new();
    }
    vec![finding(&file.path, length, format!("{length} lines; split the file at a seam so that each has {limit}"))]
}

/// Functions that are too long. Relies on rustfmt: a body ends at the first brace that stands where its `fn` line starts.
pub(crate) fn long_functions(file: &SourceFile) -> Vec<Finding> {
    let lines: Vec<&str> = file.code.lines().collect();
    let starts = lines.iter().enumerate().filter(|(_, line)| is_function(line));
    let measured = starts.map(|(start, _)| (start + 1, function_length(&lines[start..])));
    let long = measured.filter(|(_, length)| *length > FUNCTION_LIMIT_LINES);
    long.map(|(line, length)| {
        let remedy = format!("{length} lines; give steps of the function names of their own, until it has 70");
        finding(&file.path, line, remedy)
    })
    .collect()
}

fn is_function(line: &str) -> bool {
    let mut words = line.split_whitespace().skip_while(|word| {
        matches!(*word, "pub" | "const" | "async" | "unsafe" | "extern" | "default") || word.starts_with("pub(")
    });
    words.next() == Some("fn")
}

/// Lines from a `fn` line to the end of its body; 1 for a declaration or a body on the same line.
fn function_length(lines: &[&str]) -> usize {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let column = indent(lines[0]);
    let opened = lines.iter().position(|line| line.trim_end().ends_with(['{', ';', '}']));
    let Some(opened) = opened.filter(|at| lines[*at].trim_end().ends_with('{')) else { return 1 };
    let is_end = |line: &&str| line.trim_end() == format!("{}}}", " ".repeat(column));
    let body = lines[opened + 1..].iter().position(is_end);
    body.map_or(lines.len(), |length| opened + length + 2)
}

/// Files whose first line does not say what they are for.
pub(crate) fn missing_purpose(file: &SourceFile) -> Vec<Finding> {
    if file.text.starts_with("//! ") {
        return Vec::new();
    }
    vec![finding(&file.path, 1, "begin the file with a `//!` line that says what it is for")]
}

/// Unfinished code, debug output and tests that do not run.
pub(crate) fn leftovers(file: &SourceFile) -> Vec<Finding> {
    const FORBIDDEN: [(&str, &str); 5] = [
        ("todo!", "finish it, or leave the feature out of the contract"),
        ("unimplemented!", "finish it, or leave the feature out of the contract"),
        ("dbg!", "remove it"),
        ("#[ignore", "mend the test or remove it: one that nobody runs is a comment that lies"),
        ("#[path", "put the file where its `mod` line looks for it"),
    ];
    occurrences(file, &FORBIDDEN)
}

/// Lint exceptions without a reason.
pub(crate) fn exceptions_without_reason(file: &SourceFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    for start in ["[allow(", "[expect("] {
        for (at, _) in file.code.match_indices(start) {
            let end = file.code[at..].find(']').map_or(file.code.len(), |length| at + length);
            if !file.code[at..end].contains("reason =") {
                let line = file.code[..at].lines().count();
                findings.push(finding(&file.path, line, "add `reason = \"…\"`, so that somebody dares to remove it"));
            }
        }
    }
    findings
}

/// Modules whose names would let anything in.
pub(crate) fn vague_names(file: &SourceFile) -> Vec<Finding> {
    const VAGUE: [&str; 7] = ["util", "utils", "common", "helper", "helpers", "misc", "types"];
    const REMEDY: &str = "name the module for the one thing it is about";
    let stem = file.path.trim_end_matches(".rs").trim_end_matches("/mod");
    let of_file = stem.rsplit('/').next().filter(|name| VAGUE.contains(name)).map(|_| finding(&file.path, 1, REMEDY));
    let inline = file.lines().filter(|(_, line)| declared_module(line).is_some_and(|name| VAGUE.contains(&name)));
    of_file.into_iter().chain(inline.map(|(line, _)| finding(&file.path, line, REMEDY))).collect()
}

/// The name in a `mod` line.
pub(crate) fn declared_module(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub"));
    if words.next()? != "mod" {
        return None;
    }
    words.next().map(|name| name.trim_end_matches(';'))
}

/// Uses of hyper where only our own HTTP types belong.
pub(crate) fn hyper_outside_protocol(file: &SourceFile) -> Vec<Finding> {
    if !file.path.starts_with("sidecar/src/") || file.path.starts_with("sidecar/src/protocol/") {
        return Vec::new();
    }
    let remedy = "go through `crate::protocol`: it is the seam behind which the codec can change";
    occurrences(file, &[("hyper::", remedy), ("hyper_util::", remedy)])
}

/// Lines whose code contains one of these words, not as the end of a longer one.
fn occurrences(file: &SourceFile, forbidden: &[(&str, &str)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in file.lines() {
        for (word, remedy) in forbidden {
            let whole = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            if line.match_indices(word).any(|(at, _)| whole(at)) {
                findings.push(finding(&file.path, number, format!("`{word}`: {remedy}")));
            }
        }
    }
    findings
}

/// Commands in a document's code that name a make target which does not exist.
pub(crate) fn unknown_make_targets(path: &str, text: &str, makefile: &str) -> Vec<Finding> {
    let targets: Vec<&str> = makefile.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name).collect();
    let mut findings = Vec::new();
    let mut fenced = false;
    for (number, line) in (1..).zip(text.lines()) {
        fenced ^= line.starts_with("```");
        for command in commands(line, fenced) {
            let named =
                command.strip_prefix("make ").and_then(|rest| rest.split([' ', '`']).find(|word| !word.contains('=')));
            if let Some(target) = named.filter(|target| !targets.contains(target)) {
                findings.push(finding(path, number, format!("the Makefile has no target `{target}`")));
            }
        }
    }
    findings
}

/// The commands in a line of Markdown: a whole line inside a fence, else what stands in backticks.
fn commands(line: &str, fenced: bool) -> Vec<&str> {
    if fenced {
        return vec![line.trim_start().trim_start_matches("$ ")];
    }
    line.split('`').skip(1).step_by(2).collect()
}

/// Paths that exist on somebody's machine only.
pub(crate) fn machine_paths(path: &str, text: &str) -> Vec<Finding> {
    let roots = ["home", "root", "Users", "work"].map(|folder| format!("/{folder}/"));
    let begins = |line: &str, at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "_.-/}*)~".contains(c));
    let is_bad =
        |line: &str| roots.iter().any(|root| line.match_indices(root.as_str()).any(|(at, _)| begins(line, at)));
    let bad = (1..).zip(text.lines()).filter(|(_, line)| is_bad(line));
    bad.map(|(line, _)| finding(path, line, "write the path relative to the checkout, or with $HOME")).collect()
}
