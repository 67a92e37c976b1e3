//! Accepts what was read, part by part, and makes the next generation of what was accepted.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sidecar_config::endpoints::EndpointSet;
use sidecar_config::identities::KnownIdentity;
use sidecar_config::identity::Identity;
use sidecar_config::status::{MESSAGE_MAX_BYTES, PartStatus};
use sidecar_config::trust::Trust;
use sidecar_config::{Document, Part};
use sidecar_decide::{Files, Parts, Problem, Refusal, Revision, Snapshot, accept, link};

use super::generation::Generation;
use super::read::Reading;
use crate::tls::{ServerKey, TicketKeys};
use crate::upstream::Endpoints;

/// In place of a revision where what was offered could not be parsed.
const UNREADABLE: &str = "unreadable";

/// Something wrong with a configuration: the file, and the place in it with what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// The place and the remedy.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.detail)
    }
}

/// Keeps the last good of every part.
#[derive(Debug)]
pub struct Publisher {
    path: PathBuf,
    parts: Parts,
    key: Option<ServerKey>,
    tickets: TicketKeys,
    endpoints: Endpoints,
    states: [PartStatus; 5],
    findings: Vec<Finding>,
}

impl Publisher {
    /// Nothing accepted yet, for the configuration at a path.
    pub fn new(path: &Path) -> Self {
        let none = PartStatus { loaded: "none".to_owned(), ..PartStatus::default() };
        Self {
            path: path.to_owned(),
            parts: Parts::default(),
            key: None,
            tickets: TicketKeys::new(),
            endpoints: Endpoints::default(),
            states: std::array::from_fn(|_| none.clone()),
            findings: Vec::new(),
        }
    }

    /// Offers what was read. Every part is accepted or keeps its last good; the result is what to serve from now on.
    pub fn offer(&mut self, reading: &mut Reading) -> Generation {
        self.findings = reading.broken.iter().map(|(file, detail)| finding(file, detail)).collect();
        let files = std::mem::take(&mut reading.files);
        self.take_all(reading, &files);
        let (snapshot, missing) = link(&self.parts);
        for part in Part::ALL {
            let of_part: Vec<_> = missing.iter().filter(|problem| problem.part == part).cloned().collect();
            if !of_part.is_empty() {
                self.note_missing(part, &of_part, reading);
            }
        }
        let endpoints = self.endpoints.of(&snapshot.endpoints);
        Generation::new(snapshot, self.key.as_ref(), &self.tickets, endpoints)
    }

    fn take_all(&mut self, reading: &Reading, files: &Files) {
        let (table, list) = (Some(json!({})), Some(json!([])));
        let trust = |document: &Trust| accept::trust(document, files);
        if let Some(part) = self.take(Part::Trust, reading, table.clone(), trust, |part| &part.revision) {
            self.parts.trust = Some(part);
        }
        let identity = |document: &Identity| accept::identity(document, files);
        if let Some(part) = self.take(Part::Identity, reading, None, identity, |part| &part.revision) {
            self.key = reading.keys.get(&part.key_file).cloned();
            self.parts.identity = Some(part);
        }
        let identities = |document: &Vec<KnownIdentity>| accept::identities(document);
        if let Some(part) = self.take(Part::Identities, reading, list.clone(), identities, |part| &part.revision) {
            self.parts.identities = Some(part);
        }
        if let Some(part) = self.take(Part::Policy, reading, table, accept::policy, |part| &part.revision) {
            self.parts.policy = Some(part);
        }
        let endpoints = |document: &Vec<EndpointSet>| accept::endpoints(document);
        if let Some(part) = self.take(Part::Endpoints, reading, list, endpoints, |part| &part.revision) {
            self.parts.endpoints = Some(part);
        }
    }

    /// What is served before the first offer.
    pub fn nothing(&self) -> Generation {
        Generation::new(Snapshot::default(), None, &self.tickets, Vec::new())
    }

    /// What was wrong with the last offer.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The state of every part, for `/status`.
    pub fn states(&self) -> sidecar_config::status::Parts {
        let [trust, identity, identities, policy, endpoints] = self.states.clone();
        sidecar_config::status::Parts { trust, identity, identities, policy, endpoints }
    }

    /// One part's way: its document, accepted or refused, entered into its state. `None` keeps the last good.
    fn take<D: DeserializeOwned, A>(
        &mut self,
        part: Part,
        reading: &Reading,
        empty: Option<Value>,
        accept: impl FnOnce(&D) -> Result<A, Refusal>,
        revision: fn(&A) -> &Revision,
    ) -> Option<Arc<A>> {
        let (document, file) = self.document(part, reading, empty)?;
        match accept(&document) {
            Ok(accepted) => {
                let loaded = revision(&accepted).to_string();
                self.states[part as usize] = PartStatus { loaded, refused: None, why: None };
                Some(Arc::new(accepted))
            }
            Err(refusal) => {
                let details: Vec<_> = refusal.problems.iter().map(ToString::to_string).collect();
                self.refuse(part, refusal.revision.as_str(), &details, &file);
                None
            }
        }
    }

    /// The typed document of a part with the file it is in; `None` where there is nothing to accept.
    fn document<T: DeserializeOwned>(
        &mut self,
        part: Part,
        reading: &Reading,
        empty: Option<Value>,
    ) -> Option<(T, PathBuf)> {
        let (file, value) = match (reading.parts.get(&part), empty) {
            (Some((file, value)), _) => (file.clone(), value.clone()),
            // A single file that could be read and does not have the part says that the part is empty.
            (None, Some(empty)) if reading.is_whole && reading.broken.is_empty() => (self.path.clone(), empty),
            (None, _) => {
                self.absent(part, reading);
                return None;
            }
        };
        match Document::read(part.name(), value) {
            Ok(document) => Some((document, file)),
            Err(error) => {
                self.refuse(part, UNREADABLE, &[error.to_string()], &file);
                None
            }
        }
    }

    /// A part that is not there: never a change. Where a file could not be read, the part may have been in it.
    fn absent(&mut self, part: Part, reading: &Reading) {
        let state = &mut self.states[part as usize];
        let broken = reading.broken.first();
        state.refused = broken.map(|_| UNREADABLE.to_owned());
        state.why = match broken {
            Some((file, detail)) => Some(message(&finding(file, detail).to_string())),
            None if state.loaded != "none" => Some("not there any more; the last good stays in use".to_owned()),
            None => None,
        };
    }

    fn refuse(&mut self, part: Part, offered: &str, details: &[String], file: &Path) {
        let state = &mut self.states[part as usize];
        state.refused = Some(offered.to_owned());
        state.why = Some(message(&details.join("; ")));
        self.findings.extend(details.iter().map(|detail| finding(file, detail)));
    }

    /// The part is in use; what it names elsewhere is missing.
    fn note_missing(&mut self, part: Part, problems: &[Problem], reading: &Reading) {
        let file = reading.parts.get(&part).map_or(&self.path, |(file, _)| file).clone();
        let details: Vec<_> = problems.iter().map(ToString::to_string).collect();
        let why = &mut self.states[part as usize].why;
        *why = Some(message(&why.iter().chain(&details).cloned().collect::<Vec<_>>().join("; ")));
        self.findings.extend(details.iter().map(|detail| finding(&file, detail)));
    }
}

fn finding(file: &Path, detail: &str) -> Finding {
    Finding { file: file.to_owned(), detail: detail.to_owned() }
}

/// A message as a status document may carry it.
fn message(text: &str) -> String {
    const ELLIPSIS: &str = "…";
    if text.len() <= MESSAGE_MAX_BYTES {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(MESSAGE_MAX_BYTES - ELLIPSIS.len());
    format!("{}{ELLIPSIS}", &text[..end])
}
