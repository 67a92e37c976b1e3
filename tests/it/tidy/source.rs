//! The files of the workspace, as the rules see them.

use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{Metadata, MetadataCommand};

/// Files that may name paths, by the end of their name.
const TEXT_ENDINGS: [&str; 11] =
    [".rs", ".toml", ".md", ".json", ".yaml", ".yml", ".sql", ".sh", "Makefile", ".ci/run", "scripts/need"];

/// The workspace and its sources.
pub(crate) struct Workspace {
    /// What cargo knows of it.
    pub(crate) metadata: Metadata,
    /// All Rust files.
    pub(crate) sources: Vec<SourceFile>,
    files: Vec<PathBuf>,
}

impl Workspace {
    /// Reads it.
    pub(crate) fn load() -> Self {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let metadata = MetadataCommand::new().manifest_path(manifest).exec().unwrap();
        let root = metadata.workspace_root.as_std_path();
        let mut files = Vec::new();
        walk(root, &mut files);
        files.sort();
        let rust = files.iter().filter(|file| file.extension().is_some_and(|ending| ending == "rs"));
        let sources = rust.map(|file| SourceFile::new(&relative(root, file), &fs::read_to_string(file).unwrap()));
        Self { sources: sources.collect(), files, metadata }
    }

    /// The text of a file that must be there.
    pub(crate) fn text(&self, path: &str) -> String {
        let file = self.metadata.workspace_root.join(path);
        fs::read_to_string(&file).unwrap_or_else(|error| panic!("{path}: {error}; every checkout has this file"))
    }

    /// All files that people write, with their paths.
    pub(crate) fn texts(&self) -> Vec<(String, String)> {
        let root = self.metadata.workspace_root.as_std_path();
        let paths = self.files.iter().map(|file| (relative(root, file), file));
        let texts = paths.filter(|(path, _)| TEXT_ENDINGS.iter().any(|ending| path.ends_with(ending)));
        texts.map(|(path, file)| (path, fs::read_to_string(file).unwrap())).collect()
    }
}

fn relative(root: &Path, file: &Path) -> String {
    file.strip_prefix(root).unwrap().to_str().unwrap().to_owned()
}

/// All files below a folder but those of git, of editors and of cargo, which marks its folders.
fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            let hidden = name.starts_with('.') && name != ".ci";
            if !hidden && name != "target" && !path.join("CACHEDIR.TAG").exists() {
                walk(&path, files);
            }
        } else if !path.is_symlink() {
            files.push(path);
        }
    }
}

/// A Rust file.
pub(crate) struct SourceFile {
    /// Its path from the workspace's root.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
    /// Its text with comments and the insides of strings blanked, line by line the same.
    pub(crate) code: String,
}

impl SourceFile {
    /// Takes a file's text apart.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), code: blank(text) }
    }

    /// Whether it holds nothing but tests.
    pub(crate) fn is_test(&self) -> bool {
        let in_tests = |folder: &str| self.path.contains(folder);
        in_tests("tests/it/") || self.path.ends_with("/tests.rs") || in_tests("/tests/") && !in_tests("tests/src/")
    }

    /// Its code by line, counted from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.code.lines())
    }
}

/// Replaces comments and the insides of strings and characters by spaces; line ends stay.
pub(crate) fn blank(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = token_length(rest);
        let (token, tail) = rest.split_at(length.unwrap_or(first.len_utf8()));
        if length.is_none() {
            code.push_str(token);
        } else {
            code.extend(token.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        }
        rest = tail;
        // A word is copied whole: its last letter must not be taken for the `r` of a raw string.
        if length.is_none() && is_word(first) {
            let word = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
            code.push_str(&rest[..word]);
            rest = &rest[word..];
        }
    }
    code
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Length of the comment, string or character that `text` begins with, if it begins with one.
fn token_length(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(block_comment_length(text));
    }
    let prefix = text.find(|c| c != 'b' && c != 'c').unwrap_or(0);
    let literal = &text[prefix..];
    if let Some(raw) = literal.strip_prefix('r') {
        let hashes = raw.find(|c| c != '#').unwrap_or(0);
        let body = raw[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        let length = body.find(&end).map_or(body.len(), |at| at + end.len());
        return Some(text.len() - body.len() + length);
    }
    match literal.chars().next()? {
        '"' => Some(prefix + quoted_length(literal, '"')),
        '\'' if is_character(literal) => Some(prefix + quoted_length(literal, '\'')),
        _ => None,
    }
}

/// Block comments nest.
fn block_comment_length(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// A lifetime has no closing quote after one character.
fn is_character(text: &str) -> bool {
    let mut characters = text.chars().skip(1);
    characters.next() == Some('\\') || characters.next() == Some('\'')
}

fn quoted_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + quote.len_utf8(),
            _ => {}
        }
    }
    text.len()
}
