//! Files to documents: one file with everything, or a folder of files that have a part or more each.
//!
//! Nothing is judged here beyond what a file's own bytes say; a file that cannot be read says so in every part that it
//! might have had.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use sha2::{Digest, Sha256};
use sidecar_config::identity::Identity;
use sidecar_config::trust::Trust;
use sidecar_config::{ContractVersion, Document, Format, Part, Readable, newer_places};
use sidecar_decide::{Certificate, Files};
use thiserror::Error;

use super::{FileBytes, volume};
use crate::limits::{CONFIG_FILE_BYTES, CONFIG_FILES};
use crate::tls::{ServerKey, UnverifiedList};

/// What was found at a configuration's path.
#[derive(Debug, Default)]
pub struct Reading {
    /// The values of `settings`, with the file they are in.
    pub settings: Option<(PathBuf, Value)>,
    /// Each part that was found.
    pub parts: BTreeMap<Part, Offered>,
    /// Files that could not be read, and parts that were found twice.
    pub broken: Vec<(PathBuf, String)>,
    /// What a document has that the version it names does not.
    pub advice: Vec<(PathBuf, String)>,
    /// Whether absent parts are empty: a single file is the whole configuration, a file missing from a folder is not.
    pub is_whole: bool,
    /// The newest policy that all pods of the workload have accepted.
    pub good_policy: Option<Offered>,
    /// Labels of the pod.
    pub labels: Option<BTreeMap<String, String>>,
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

/// A part as it was found.
#[derive(Debug)]
pub struct Offered {
    /// The file it is in.
    pub file: PathBuf,
    /// The contract version of that file.
    pub version: ContractVersion,
    /// Its values.
    pub value: Value,
    /// The files it refers to, by the names it uses; those that could be read.
    pub sources: BTreeMap<String, FileBytes>,
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

impl ReadError {
    /// What is wrong, without the path.
    fn detail(&self) -> String {
        match self {
            Self::Path { why, .. } => format!("cannot be read: {why}"),
            Self::Empty(_) | Self::TooMany(_) => self.to_string(),
        }
    }
}

impl Reading {
    /// Nothing yet at a path: a folder without documents, or a file that is not there.
    pub fn nothing(path: &Path, error: &ReadError) -> Self {
        if path.is_dir() {
            return Self { folders: BTreeSet::from([path.to_owned()]), ..Self::default() };
        }
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let broken = vec![(path.to_owned(), error.detail())];
        Self { folders: BTreeSet::from([folder]), is_whole: true, broken, ..Self::default() }
    }

    /// Whether what is not there says that it is empty.
    pub fn is_complete(&self) -> bool {
        self.is_whole && self.broken.is_empty()
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
    let reading = Reading { is_whole, ..Reading::default() };
    let mut reader = Reader { reading, hasher: Sha256::new(), is_kept: false };
    for path in &paths {
        if let Err(error) = reader.document(path) {
            reader.reading.broken.push((path.clone(), error));
        }
    }
    if !is_whole {
        reader.volume(path);
    }
    reader.references();
    reader.reading.digest = reader.hasher.finalize().into();
    Ok(reader.reading)
}

/// A part from the state directory with its files, none of which is looked for elsewhere.
pub(super) fn kept(part: Part, offered: Offered) -> Reading {
    let reading = Reading { parts: BTreeMap::from([(part, offered)]), ..Reading::default() };
    let mut reader = Reader { reading, hasher: Sha256::new(), is_kept: true };
    reader.references();
    reader.reading
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
        0 if !volume::is_volume(folder) => Err(ReadError::Empty(folder.to_owned())),
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
    /// Whether all there is was kept.
    is_kept: bool,
}

impl Reader {
    fn bytes(&mut self, path: &Path) -> Result<FileBytes, String> {
        self.reading.folders.insert(path.parent().unwrap_or(Path::new("")).to_owned());
        self.reading.names.extend(path.file_name().map(ToOwned::to_owned));
        let (bytes, changed) = bounded_bytes(path)?;
        self.reading.changed = self.reading.changed.max(changed);
        self.hasher.update(path.as_os_str().as_encoded_bytes());
        self.hasher.update(bytes.len().to_le_bytes());
        self.hasher.update(&*bytes);
        Ok(bytes)
    }

    fn document(&mut self, path: &Path) -> Result<(), String> {
        let bytes = self.bytes(path)?;
        let document = parse_document(&bytes, Format::of(path).unwrap_or(Format::Toml))?;
        self.take_parts(path, document);
        Ok(())
    }

    fn take_parts(&mut self, path: &Path, mut document: Document) {
        if let Some(settings) = document.settings.take() {
            self.check_version(path, document.version, "settings", &settings);
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
            self.check_version(path, document.version, part.name(), &value);
            if let Some(earlier) = self.reading.parts.get(&part) {
                let detail = format!("`{part}` is already in {}; keep it in one file", earlier.file.display());
                self.reading.broken.push((path.to_owned(), detail));
            } else {
                let (file, version) = (path.to_owned(), document.version);
                self.reading.parts.insert(part, Offered { file, version, value, sources: BTreeMap::new() });
            }
        }
    }

    /// What a pod's volume has beside documents; each is there or not.
    fn volume(&mut self, folder: &Path) {
        let [labels, good, sum] =
            [volume::LABELS, volume::GOOD_POLICY, volume::IDENTITIES_SUM].map(|name| folder.join(name));
        let results = [
            labels.is_file().then(|| self.labels(&labels)).map(|result| (labels, result)),
            sum.is_file().then(|| self.identities(folder, &sum)).map(|result| (sum, result)),
        ];
        for (file, result) in results.into_iter().flatten() {
            if let Err(error) = result {
                self.reading.broken.push((file, error));
            }
        }
        if good.is_file() {
            // It is for need, so that what is wrong with it breaks nothing.
            if let Err(error) = self.good_policy(&good) {
                self.reading.advice.push((good, error));
            }
        }
    }

    fn labels(&mut self, path: &Path) -> Result<(), String> {
        let bytes = self.bytes(path)?;
        self.reading.labels = Some(volume::labels(text_of(&bytes)?)?);
        Ok(())
    }

    fn good_policy(&mut self, path: &Path) -> Result<(), String> {
        let bytes = self.bytes(path)?;
        let mut document = parse_document(&bytes, Format::Json)?;
        let value = document.take(Part::Policy).ok_or("has no `policy`")?;
        let (file, version) = (path.to_owned(), document.version);
        self.reading.good_policy = Some(Offered { file, version, value, sources: BTreeMap::new() });
        Ok(())
    }

    /// The document that the chunks make together, or none: half of the identities are others.
    fn identities(&mut self, folder: &Path, sum: &Path) -> Result<(), String> {
        let bytes = self.bytes(sum)?;
        let mut document = Vec::new();
        for (index, sum) in volume::sums(text_of(&bytes)?)?.iter().enumerate() {
            let name = volume::chunk_name(index);
            let chunk = self.bytes(&folder.join(&name));
            let unpacked = chunk.and_then(|chunk| volume::unpack(&chunk, sum, &mut document));
            unpacked.map_err(|error| in_file(&name, &error))?;
        }
        let document = parse_document(&document, Format::Json)?;
        self.take_parts(sum, document);
        Ok(())
    }

    /// A field that is newer than its document says is read all the same: it is known here, and refusing it could cost a
    /// revocation. But a sidecar that reads no more than the document says refuses it.
    fn check_version(&mut self, path: &Path, version: ContractVersion, name: &str, value: &Value) {
        let newest = newer_places(version, name, value).into_iter().map(|(place, since)| {
            let detail = format!(
                "`{place}`: is since {since}, and the document says {version}: older sidecars may refuse it; write `version = \"{since}\"`"
            );
            (path.to_owned(), detail)
        });
        self.reading.advice.extend(newest);
    }

    /// Reads the PEM files that the parts refer to, relative to the file the part is in. What a part that cannot be
    /// read refers to is nobody's concern.
    fn references(&mut self) {
        if let Some(trust) = self.part::<Trust>(Part::Trust) {
            let mut lists = Vec::new();
            for bundle in trust.bundles.into_values() {
                let authorities = bundle.roots.into_iter().chain(bundle.intermediates);
                authorities.for_each(|name| self.certificates(Part::Trust, name));
                lists.extend(bundle.crls);
            }
            // Their signers are among the certificates, so they come last.
            lists.into_iter().for_each(|name| self.revocation_lists(Part::Trust, name));
        }
        if let Some(identity) = self.part::<Identity>(Part::Identity) {
            let more = identity.certificates.into_iter().map(|pair| (pair.chain, pair.key));
            for (chain, key) in [(identity.chain, identity.key)].into_iter().chain(more) {
                self.certificates(Part::Identity, chain);
                self.key(Part::Identity, key);
            }
        }
    }

    fn part<T: Readable>(&self, part: Part) -> Option<T> {
        Document::read(part.name(), self.reading.parts.get(&part)?.value.clone()).ok()
    }

    /// The bytes of a file that a part refers to, which stay with the part: they are kept along with it.
    fn source(&mut self, part: Part, name: &str) -> Result<FileBytes, String> {
        let offered = self.reading.parts.get(&part).ok_or("is not referred to")?;
        if let Some(bytes) = offered.sources.get(name) {
            return Ok(bytes.clone());
        }
        if self.is_kept {
            return Err("was not kept".to_owned());
        }
        let bytes = self.bytes(&beside(&offered.file.clone(), name))?;
        if let Some(offered) = self.reading.parts.get_mut(&part) {
            offered.sources.insert(name.to_owned(), bytes.clone());
        }
        Ok(bytes)
    }

    fn certificates(&mut self, part: Part, name: String) {
        let read = self.source(part, &name);
        let read =
            |name: &str| read.and_then(|bytes| parse_certificates(&bytes)).map_err(|error| in_file(name, &error));
        self.reading.files.certificates.entry(name).or_insert_with_key(|name| read(name));
    }

    fn revocation_lists(&mut self, part: Part, name: String) {
        let read = self.source(part, &name).and_then(|bytes| UnverifiedList::read_all(&bytes));
        let lists = read.map_err(|error| in_file(&name, &error)).map(|lists| {
            let known = self.reading.files.certificates.values().flatten().flatten();
            lists.into_iter().map(|list| list.signed_by(known.clone())).collect()
        });
        self.reading.files.revocation_lists.insert(name, lists);
    }

    fn key(&mut self, part: Part, name: String) {
        let read = self.source(part, &name);
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

fn text_of(bytes: &[u8]) -> Result<&str, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("not UTF-8 text: {error}"))?;
    if text.trim().is_empty() {
        return Err("the file is empty, which is never a change; write the document, or an empty part".to_owned());
    }
    Ok(text)
}

fn parse_document(bytes: &[u8], format: Format) -> Result<Document, String> {
    let value = format.parse(text_of(bytes)?).map_err(|error| error.to_string())?;
    Document::from_value(value).map_err(|error| error.to_string())
}

fn beside(document: &Path, name: &str) -> PathBuf {
    document.parent().unwrap_or(Path::new("")).join(name)
}

fn in_file(name: &str, error: &str) -> String {
    format!("`{name}`: {error}")
}

/// The bytes of a file and when they were changed last.
fn bounded_bytes(path: &Path) -> Result<(FileBytes, Option<SystemTime>), String> {
    let told = |error: io::Error| format!("cannot be read: {error}");
    let metadata = path.metadata().map_err(told)?;
    if !metadata.is_file() {
        // Opening a pipe would wait for its other end, and everything else would wait too.
        return Err("is not a file; name one".to_owned());
    }
    let file = File::open(path).map_err(told)?;
    let bytes = FileBytes::read(file, metadata.len(), CONFIG_FILE_BYTES).map_err(told)?;
    let bytes = bytes.ok_or_else(|| format!("is larger than {CONFIG_FILE_BYTES} bytes"))?;
    Ok((bytes, metadata.modified().ok()))
}

fn parse_certificates(pem: &[u8]) -> Result<Vec<Certificate>, String> {
    let mut certificates = Vec::new();
    for der in CertificateDer::pem_slice_iter(pem) {
        let der = der.map_err(|error| format!("not valid PEM: {error}; write it again"))?;
        let certificate = Certificate::from_der(der.to_vec()).map_err(|error| format!("{error}; write it again"))?;
        certificates.push(certificate);
    }
    Ok(certificates)
}
