//! The scanners find what they look for: each is fed text that breaks its rule, and text that only seems to.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::scan::{self, Finding};
use super::source::{SourceFile, blank};
use super::{dependencies, reach};

/// Runs a scanner over one file's text and returns the lines it complains about.
fn lines(scanner: impl Fn(&SourceFile) -> Vec<Finding>, path: &str, text: &str) -> Vec<usize> {
    scanner(&SourceFile::new(path, text)).iter().map(|finding| finding.line).collect()
}

#[test]
fn blanking_keeps_code_and_lines() {
    let table = [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        (r#"f("x\"y") g"#, "f(      ) g"),
        ("r#\"a\"b\"# c", "         c"),
        ("'x' 'static '\\n' b'\\''", "    'static           "),
        ("\"a\nb\" c", "  \n   c"),
        ("char\"x\"", "char   "),
    ];
    for (text, code) in table {
        assert_eq!(blank(text), code, "{text}");
    }
}

#[test]
fn long_files_are_found() {
    let text = "x\n".repeat(4);
    assert_eq!(lines(|file| scan::long_file(file, 3), "a.rs", &text), [4]);
    assert_eq!(lines(|file| scan::long_file(file, 4), "a.rs", &text), [0_usize; 0]);
}

/// A function of so many lines, with what could be taken for its end.
fn function(lines: usize) -> String {
    let body = "        if a {\n        }\n".repeat((lines - 4) / 2);
    format!("impl A {{\n    pub(crate) async fn f(\n        b: B,\n    ) -> C {{\n{body}    }}\n}}\n")
}

#[test]
fn long_functions_are_found() {
    let declaration = "trait A {\n    fn f(&self);\n}\nfn g() {}\n";
    let table =
        [(function(70), vec![]), (function(72), vec![2]), (declaration.to_owned() + &"x;\n".repeat(99), vec![])];
    for (text, expected) in table {
        assert_eq!(lines(scan::long_functions, "a.rs", &text), expected);
    }
    let in_a_string = format!("fn f() {{\n    let a = \"\n}}\n\";\n{}}}\n", "    b();\n".repeat(70));
    assert_eq!(lines(scan::long_functions, "a.rs", &in_a_string), [1]);
}

#[test]
fn missing_purposes_are_found() {
    assert_eq!(lines(scan::missing_purpose, "a.rs", "use b;\n//! Late.\n"), [1]);
    assert_eq!(lines(scan::missing_purpose, "a.rs", "//! In time.\n"), [0_usize; 0]);
}

#[test]
fn leftovers_are_found() {
    let table = [
        ("fn f() {\n    todo!()\n}\n", vec![2]),
        ("dbg!(a); unimplemented!()", vec![1, 1]),
        ("#[ignore = \"slow\"]\n#[test]\n", vec![1]),
        ("#[path = \"b.rs\"]\nmod a;\n", vec![1]),
        ("// todo!()\nlet a = \"dbg!\"; my_dbg!(a)\n", vec![]),
    ];
    for (text, expected) in table {
        assert_eq!(lines(scan::leftovers, "a.rs", text), expected, "{text}");
    }
}

#[test]
fn exceptions_without_reason_are_found() {
    let table = [
        ("\n#[allow(dead_code)]\n", vec![2]),
        ("#![expect(clippy::a)]\n", vec![1]),
        ("#[expect(\n    clippy::a,\n    reason = \"b\"\n)]\n", vec![]),
        ("#[allow(a)] // reason = none\n", vec![1]),
    ];
    for (text, expected) in table {
        assert_eq!(lines(scan::exceptions_without_reason, "a.rs", text), expected, "{text}");
    }
}

#[test]
fn vague_names_are_found() {
    let table = [
        ("sidecar/src/util.rs", "", vec![1]),
        ("sidecar/src/helpers/mod.rs", "", vec![1]),
        ("sidecar/src/tls.rs", "use a;\npub(crate) mod common;\nmod types {\n", vec![2, 3]),
        ("sidecar/src/types_of_tea.rs", "mod commons;\n", vec![]),
    ];
    for (path, text, expected) in table {
        assert_eq!(lines(scan::vague_names, path, text), expected, "{path}");
    }
}

#[test]
fn hyper_outside_protocol_is_found() {
    let text = "use bytes::Bytes;\nuse hyper::Request;\n";
    let table =
        [("sidecar/src/flow/http.rs", vec![2]), ("sidecar/src/protocol/body.rs", vec![]), ("tests/src/a.rs", vec![])];
    for (path, expected) in table {
        assert_eq!(lines(scan::hyper_outside_protocol, path, text), expected, "{path}");
    }
}

#[test]
fn orphans_are_found() {
    let files = [
        ("a/src/lib.rs", "mod b;\n// mod lost;\npub mod c;\nmod inline {\n}\n"),
        ("a/src/b.rs", "mod deep;\n"),
        ("a/src/b/deep.rs", ""),
        ("a/src/c/mod.rs", "mod leaf;\n"),
        ("a/src/c/leaf.rs", ""),
        ("a/src/lost.rs", ""),
        ("a/src/deep.rs", ""),
    ];
    let sources = files.map(|(path, text)| SourceFile::new(path, text));
    let found = reach::unreached(&[PathBuf::from("a/src/lib.rs")], &sources);
    let names: Vec<&str> = found.iter().map(|finding| finding.file.as_str()).collect();
    assert_eq!(names, ["a/src/lost.rs", "a/src/deep.rs"]);
}

#[test]
fn wrong_arrows_are_found() {
    let members = BTreeSet::from(["below", "above"]);
    let remedies = |names: &[&str], allowed: &[&str]| dependencies::beyond("below", names, &members, allowed).len();
    assert_eq!(remedies(&["above", "serde"], &[]), 1);
    assert_eq!(remedies(&["above", "serde"], &["above"]), 0);
}

#[test]
fn unknown_make_targets_are_found() {
    let makefile = "demo: ## Show\n\t@true\n";
    let text = "make sure `make demo`\n`make KEEP=1 demo` and `make nothing`\n```\nmake demo KEEP=1\n$ make gone\n```\n`make`\n";
    let found: Vec<usize> = scan::unknown_make_targets("R", text, makefile).iter().map(|found| found.line).collect();
    assert_eq!(found, [2, 5]);
}

#[test]
fn machine_paths_are_found() {
    // Put together here, because this file is scanned, too.
    let folder = format!("/{}/me/a", "home");
    let text = format!("see {folder}\nb{folder}\n$HOME/a\n\"{folder}\"\n");
    let found: Vec<usize> = scan::machine_paths("R", &text).iter().map(|found| found.line).collect();
    assert_eq!(found, [1, 4]);
}
