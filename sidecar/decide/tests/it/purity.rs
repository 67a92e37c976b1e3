//! Decisions do no IO, know no clock and never wait: what their sources may not name.

use std::fs;
use std::path::{Path, PathBuf};

/// IO, clocks, randomness and waiting.
const FORBIDDEN: &[&str] = &[
    "std::fs",
    "std::io",
    "std::env",
    "std::process",
    "std::thread",
    "std::time",
    "TcpListener",
    "TcpStream",
    "UdpSocket",
    "UnixStream",
    "SystemTime",
    "Instant::",
    "async ",
    ".await",
    "tokio",
    "println!",
    "tracing",
    "rand::",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry of it").path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Code without its comments, which may say what they like ("no async").
fn code(text: &str) -> String {
    let code_of = |line: &str| line.split_once("//").map_or_else(|| line.to_owned(), |(code, _)| code.to_owned());
    text.lines().map(code_of).collect::<Vec<_>>().join("\n")
}

#[test]
fn sources_name_nothing_impure() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    assert!(files.iter().any(|file| file.ends_with("src/policy.rs")), "looked in the wrong place: {files:?}");
    for file in files {
        let code = code(&fs::read_to_string(&file).expect("a source file"));
        let named: Vec<_> = FORBIDDEN.iter().filter(|word| code.contains(**word)).collect();
        assert_eq!(named, Vec::<&&str>::new(), "{}", file.display());
    }
}
