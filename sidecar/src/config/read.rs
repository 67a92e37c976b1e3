//! Files to documents: one file with everything, or a folder of files that have a part or more each.
//!
//! Nothing is judged here beyond what a file's own bytes say; a file that cannot be read says so in every part that it
//! might have had.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use sha2::{Digest, Sha256};
use sidecar_config::identity::Identity;
use sidecar_config::trust::Trust;
use sidecar_config::{Document, Format, Part};
use sidecar_decide::{Certificate, Files};
use thiserror::Error;

use crate::limits::{CONFIG_FILE_BYTES, CONFIG_FILES};
use crate::tls::{ServerKey, UnverifiedList};

/// What was found at a configuration's path.
#[derive(Debug, Default)]
pub struct Reading {
    /// The values of `settings`, with the file they are in.
    pub settings: Option<(PathBuf, Value)>,
    /// The values of each part that was found, with the file it is in.
    pub parts: BTreeMap<Part, (PathBuf, Value)>,
    /// Files that could not be read, and parts that were found twice.
    pub broken: Vec<(PathBuf, String)>,
    /// Whether absent parts are empty: a single file is the whole configuration, a file missing from a folder is not.
    pub is_whole: bool,
    /// Certificates and public keys of the files the parts refer to.
    pub files: Files,
    /// Private keys by the names the documents use.
    pub keys: BTreeMap<String, ServerKey>,
    /// Folders of all files that were read or looked for.
    pub folders: BTreeSet<PathBuf>,
    /// Names of those files.
    pub names: BTreeSet<OsString>,
    /// When the youngest of the files was changed last.
    pub changed: Option<SystemTime>,
    /// Digest over every byte that was read: what has not changed need not be looked at again.
    pub digest: [u8; 32],
}

/// There is no configuration to read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The path itself.
    #[error("{}: {why}; give the path of a configuration file or folder", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// A folder without documents.
    #[error("{}: no .toml, .yaml, .yml or .json file in this folder", .0.display())]
    Empty(PathBuf),
    /// A folder with too many.
    #[error("{}: more than {CONFIG_FILES} documents in this folder", .0.display())]
    TooMany(PathBuf),
}

impl Reading {
    /// A folder with nothing in it yet.
    pub fn empty(folder: &Path) -> Self {
        Self { folders: BTreeSet::from([folder.to_owned()]), ..Self::default() }
    }
}

/// Reads a file, or every document of a folder, and the PEM files they refer to.
///
/// # Errors
/// When there is nothing at the path.
pub fn read(path: &Path) -> Result<Reading, ReadError> {
    let metadata = path.metadata().map_err(|why| ReadError::Path { path: path.to_owned(), why })?;
    let is_whole = !metadata.is_dir();
    let paths = if is_whole { vec![path.to_owned()] } else { documents_of(path)? };
    let mut reader = Reader { reading: Reading { is_whole, ..Reading::default() }, hasher: Sha256::new() };
    for path in &paths {
        if let Err(error) = reader.document(path) {
            reader.reading.broken.push((path.clone(), error));
        }
    }
    reader.references();
    reader.reading.digest = reader.hasher.finalize().into();
    Ok(reader.reading)
}

fn documents_of(folder: &Path) -> Result<Vec<PathBuf>, ReadError> {
    let error = |why| ReadError::Path { path: folder.to_owned(), why };
    let mut paths = Vec::new();
    for entry in folder.read_dir().map_err(error)? {
        let path = entry.map_err(error)?.path();
        // Kubernetes keeps the real files in hidden folders beside the links; editors hide their own.
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !is_hidden && Format::of(&path).is_some() && path.is_file() {
            paths.push(path);
        }
    }
    match paths.len() {
        0 => Err(ReadError::Empty(folder.to_owned())),
        count if count > CONFIG_FILES => Err(ReadError::TooMany(folder.to_owned())),
        _ => {
            paths.sort_unstable();
            Ok(paths)
        }
    }
}

struct Reader {
    reading: Reading,
    hasher: Sha256,
}

impl Reader {
    fn bytes(&mut self, path: &Path) -> Result<Vec<u8>, String> {
        self.reading.folders.insert(path.parent().unwrap_or(Path::new("")).to_owned());
        self.reading.names.extend(path.file_name().map(ToOwned::to_owned));
        let (bytes, changed) = bounded_bytes(path)?;
        self.reading.changed = self.reading.changed.max(changed);
        self.hasher.update(path.as_os_str().as_encoded_bytes());
        self.hasher.update(bytes.len().to_le_bytes());
        self.hasher.update(&bytes);
        Ok(bytes)
    }

    fn document(&mut self, path: &Path) -> Result<(), String> {
        let text = String::from_utf8(self.bytes(path)?).map_err(|error| format!("not UTF-8 text: {error}"))?;
        if text.trim().is_empty() {
            return Err("the file is empty, which is never a change; write the document, or an empty part".to_owned());
        }
        let format = Format::of(path).unwrap_or(Format::Toml);
        let value = format.parse(&text).map_err(|error| error.to_string())?;
        let mut document = Document::from_value(value).map_err(|error| error.to_string())?;
        if let Some(settings) = document.settings.take() {
            match &self.reading.settings {
                Some((earlier, _)) => {
                    let detail = format!("`settings` is already in {}; keep it in one file", earlier.display());
                    self.reading.broken.push((path.to_owned(), detail));
                }
                None => self.reading.settings = Some((path.to_owned(), settings)),
            }
        }
        for part in Part::ALL {
            let Some(value) = document.take(part) else { continue };
            if let Some((earlier, _)) = self.reading.parts.get(&part) {
                let detail = format!("`{part}` is already in {}; keep it in one file", earlier.display());
                self.reading.broken.push((path.to_owned(), detail));
            } else {
                self.reading.parts.insert(part, (path.to_owned(), value));
            }
        }
        Ok(())
    }

    /// Reads the PEM files that the parts refer to, relative to the file the part is in. What a part that cannot be
    /// read refers to is nobody's concern.
    fn references(&mut self) {
        if let Some((path, trust)) = self.part::<Trust>(Part::Trust) {
            let mut lists = Vec::new();
            for bundle in trust.bundles.into_values() {
                let authorities = bundle.roots.into_iter().chain(bundle.intermediates);
                authorities.for_each(|name| self.certificates(&path, name));
                lists.extend(bundle.crls);
            }
            // Their signers are among the certificates, so they come last.
            lists.into_iter().for_each(|name| self.revocation_lists(&path, name));
        }
        if let Some((path, identity)) = self.part::<Identity>(Part::Identity) {
            let more = identity.certificates.into_iter().map(|pair| (pair.chain, pair.key));
            for (chain, key) in [(identity.chain, identity.key)].into_iter().chain(more) {
                self.certificates(&path, chain);
                self.key(&path, key);
            }
        }
    }

    fn part<T: serde::de::DeserializeOwned>(&self, part: Part) -> Option<(PathBuf, T)> {
        let (path, value) = self.reading.parts.get(&part)?;
        Some((path.clone(), Document::read(part.name(), value.clone()).ok()?))
    }

    fn certificates(&mut self, document: &Path, name: String) {
        if !self.reading.files.certificates.contains_key(&name) {
            let read = self.bytes(&beside(document, &name));
            let certificates =
                read.and_then(|bytes| parse_certificates(&bytes)).map_err(|error| in_file(&name, &error));
            self.reading.files.certificates.insert(name, certificates);
        }
    }

    fn revocation_lists(&mut self, document: &Path, name: String) {
        if !self.reading.files.revocation_lists.contains_key(&name) {
            let read = self.bytes(&beside(document, &name)).and_then(|bytes| UnverifiedList::read_all(&bytes));
            let lists = read.map_err(|error| in_file(&name, &error)).map(|lists| {
                let known = self.reading.files.certificates.values().flatten().flatten();
                lists.into_iter().map(|list| list.signed_by(known.clone())).collect()
            });
            self.reading.files.revocation_lists.insert(name, lists);
        }
    }

    fn key(&mut self, document: &Path, name: String) {
        if self.reading.files.public_keys.contains_key(&name) {
            return;
        }
        let read = self.bytes(&beside(document, &name));
        let key = read.and_then(|bytes| ServerKey::from_pem(&bytes)).map_err(|error| in_file(&name, &error));
        let public_key = key.as_ref().map_err(Clone::clone).and_then(|key| {
            key.public_key().ok_or_else(|| in_file(&name, "holds a key whose public half cannot be told; use ECDSA"))
        });
        self.reading.files.public_keys.insert(name.clone(), public_key);
        if let Ok(key) = key {
            self.reading.keys.insert(name, key);
        }
    }
}

fn beside(document: &Path, name: &str) -> PathBuf {
    document.parent().unwrap_or(Path::new("")).join(name)
}

fn in_file(name: &str, error: &str) -> String {
    format!("`{name}`: {error}")
}

/// The bytes of a file and when they were changed last.
fn bounded_bytes(path: &Path) -> Result<(Vec<u8>, Option<SystemTime>), String> {
    let told = |error: io::Error| format!("cannot be read: {error}");
    let metadata = path.metadata().map_err(told)?;
    if !metadata.is_file() {
        // Opening a pipe would wait for its other end, and everything else would wait too.
        return Err("is not a file".to_owned());
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(told)?.take(CONFIG_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(told)?;
    if bytes.len() as u64 > CONFIG_FILE_BYTES {
        return Err(format!("is larger than {CONFIG_FILE_BYTES} bytes"));
    }
    Ok((bytes, metadata.modified().ok()))
}

fn parse_certificates(pem: &[u8]) -> Result<Vec<Certificate>, String> {
    let mut certificates = Vec::new();
    for der in CertificateDer::pem_slice_iter(pem) {
        let der = der.map_err(|error| format!("not valid PEM: {error}"))?;
        certificates.push(Certificate::from_der(der.to_vec()).map_err(|error| error.to_string())?);
    }
    Ok(certificates)
}
