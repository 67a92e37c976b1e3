//! Accepts what was read, part by part, and makes the next generation of what was accepted.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::json;
use sidecar_config::endpoints::EndpointSet;
use sidecar_config::identities::KnownIdentity;
use sidecar_config::identity::Identity;
use sidecar_config::status::{MESSAGE_MAX_BYTES, PartStatus};
use sidecar_config::trust::Trust;
use sidecar_config::{CONTRACT_MIN, Document, Part, Readable};
use sidecar_decide::{Files, Parts, Problem, Refusal, Resolved, Revision, Snapshot, accept, link};

use super::generation::{Generation, Upstreams};
use super::keep::Kept;
use super::read::{Offered, Reading};
use crate::health::Ejections;
use crate::limit::Room;
use crate::tls::{ServerKey, TicketKeys};

/// In place of a revision where what was offered could not be parsed.
const UNREADABLE: &str = "unreadable";
/// In place of a revision before the first.
const NONE: &str = "none";

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

/// What became of the offers of a part.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reloads {
    /// Those that were accepted.
    pub accepted: u64,
    /// Those that were refused.
    pub refused: u64,
    /// When one was accepted last.
    pub last_accepted: Option<SystemTime>,
}

/// Keeps the last good of every part.
#[derive(Debug)]
pub struct Publisher {
    path: PathBuf,
    /// What addresses that are all addresses stand for, where it is one.
    listen_address: Option<IpAddr>,
    /// How much clients may take unasked.
    room: Room,
    parts: Parts,
    /// Of the accepted certificates, in their order.
    keys: Vec<ServerKey>,
    tickets: TicketKeys,
    upstreams: Upstreams,
    states: [PartStatus; 5],
    findings: Vec<Finding>,
    /// What was strange about the last offer, and is served as it is.
    advice: Vec<Finding>,
    /// What was accepted from the last offer.
    accepted: Vec<Part>,
    /// What became of the offers of every part.
    reloads: [Reloads; 5],
    /// What was accepted before this start, for parts that the first offer does not give.
    kept: BTreeMap<Part, Kept>,
}

impl Publisher {
    /// Nothing accepted yet, for the configuration at a path.
    pub fn new(path: &Path) -> Self {
        let none = PartStatus { loaded: NONE.to_owned(), ..PartStatus::default() };
        Self {
            path: path.to_owned(),
            listen_address: None,
            room: Room::default(),
            parts: Parts::default(),
            keys: Vec::new(),
            tickets: TicketKeys::new(),
            upstreams: Upstreams::default(),
            states: std::array::from_fn(|_| none.clone()),
            findings: Vec::new(),
            advice: Vec::new(),
            accepted: Vec::new(),
            reloads: [Reloads::default(); 5],
            kept: BTreeMap::new(),
        }
    }

    /// The same, listening on this address where a listener says all.
    pub fn listening_on(self, listen_address: Option<IpAddr>) -> Self {
        Self { listen_address, ..self }
    }

    /// The same, with so much room for clients.
    pub fn with_room(self, room: Room) -> Self {
        Self { room, ..self }
    }

    /// Falls back on these parts where the first offer gives none.
    pub fn fall_back(&mut self, kept: BTreeMap<Part, Kept>) {
        self.kept = kept;
    }

    /// Offers what was read. Every part is accepted or keeps its last good; the result is what to serve from now on.
    pub fn offer(&mut self, reading: &mut Reading) -> Generation {
        self.findings = reading.broken.iter().map(|(file, detail)| finding(file, detail)).collect();
        self.advice = reading.advice.iter().map(|(file, detail)| finding(file, detail)).collect();
        if let Some(labels) = reading.labels.take() {
            self.parts.pod_labels = Some(labels);
        }
        let files = std::mem::take(&mut reading.files);
        if reading.is_complete() {
            self.say_empty(reading);
        }
        self.accepted = Part::ALL.into_iter().filter(|part| self.take(*part, reading, &files)).collect();
        self.take_good(reading);
        self.recall();
        let (snapshot, missing) = self.linked();
        for part in Part::ALL {
            let of_part: Vec<_> = missing.iter().filter(|problem| problem.part == part).cloned().collect();
            if !of_part.is_empty() {
                self.note_missing(part, &of_part, reading);
            }
        }
        Generation::new(snapshot, &self.room, &self.keys, &self.tickets, &mut self.upstreams)
    }

    /// The same parts, now that other addresses of their names are known.
    pub fn relink(&mut self, resolved: Resolved) -> Generation {
        self.parts.resolved = resolved;
        let (snapshot, _told) = self.linked();
        Generation::new(snapshot, &self.room, &self.keys, &self.tickets, &mut self.upstreams)
    }

    fn linked(&self) -> (Snapshot, Vec<Problem>) {
        let (mut snapshot, told) = link(&self.parts);
        if let Some(address) = self.listen_address {
            let all = snapshot.listeners.iter_mut().filter(|listener| listener.address.ip().is_unspecified());
            all.for_each(|listener| listener.address.set_ip(address));
        }
        (snapshot, told)
    }

    /// A single file that could be read and does not have a part says that the part is empty. There is no empty pair of
    /// chain and key.
    fn say_empty(&self, reading: &mut Reading) {
        let empty = [
            (Part::Trust, json!({})),
            (Part::Identities, json!([])),
            (Part::Policy, json!({})),
            (Part::Endpoints, json!([])),
        ];
        for (part, value) in empty {
            let (file, sources) = (self.path.clone(), BTreeMap::new());
            reading.parts.entry(part).or_insert(Offered { file, version: CONTRACT_MIN, value, sources });
        }
    }

    /// Where no policy is accepted yet, the one is that all pods of the workload have accepted.
    fn take_good(&mut self, reading: &mut Reading) {
        let Some(good) = reading.good_policy.take() else { return };
        let mut good = Reading { parts: BTreeMap::from([(Part::Policy, good)]), ..Reading::default() };
        let advice = "not there; what all pods accepted is in use";
        if self.take_instead(Part::Policy, &good, &Files::default(), None, advice) {
            // From now on it is what this pod has accepted last, for its next start as well.
            reading.parts.append(&mut good.parts);
            self.accepted.push(Part::Policy);
        }
    }

    /// What the first offer did not give, and was accepted before, is accepted once more.
    fn recall(&mut self) {
        for (part, mut kept) in std::mem::take(&mut self.kept) {
            let files = std::mem::take(&mut kept.reading.files);
            let advice = "not there; what was accepted last is in use";
            self.take_instead(part, &kept.reading, &files, Some(kept.since), advice);
        }
    }

    /// Takes a part from elsewhere if the offer gave none. Its state goes on saying what is wrong with the offer.
    /// Whether it was.
    fn take_instead(&mut self, part: Part, from: &Reading, files: &Files, since: Option<String>, advice: &str) -> bool {
        let offered = self.states[part as usize].clone();
        if offered.loaded != NONE {
            return false;
        }
        let taken = self.take(part, from, files);
        let state = &mut self.states[part as usize];
        *state = if taken {
            let why = offered.why.or_else(|| Some(advice.to_owned()));
            PartStatus { loaded: state.loaded.clone(), kept_since: since, why, ..offered }
        } else {
            offered
        };
        taken
    }

    /// One part's way. Whether it was accepted; else its last good stays.
    fn take(&mut self, part: Part, reading: &Reading, files: &Files) -> bool {
        match part {
            Part::Trust => {
                let accept = |document: &Trust| accept::trust(document, files);
                put(self.accept(part, reading, accept, |part| &part.revision), &mut self.parts.trust)
            }
            Part::Identity => {
                let accept = |document: &Identity| accept::identity(document, files);
                let accepted = self.accept(part, reading, accept, |part| &part.revision);
                if let Some(part) = &accepted {
                    let files = part.certificates.iter().map(|certificate| &certificate.key_file);
                    self.keys = files.filter_map(|file| reading.keys.get(file)).cloned().collect();
                }
                put(accepted, &mut self.parts.identity)
            }
            Part::Identities => {
                let accept = |document: &Vec<KnownIdentity>| accept::identities(document);
                put(self.accept(part, reading, accept, |part| &part.revision), &mut self.parts.identities)
            }
            Part::Policy => {
                put(self.accept(part, reading, accept::policy, |part| &part.revision), &mut self.parts.policy)
            }
            Part::Endpoints => {
                let accept = |document: &Vec<EndpointSet>| accept::endpoints(document);
                put(self.accept(part, reading, accept, |part| &part.revision), &mut self.parts.endpoints)
            }
        }
    }

    /// The last good of every part.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// What became of the offers of every part.
    pub fn reloads(&self) -> [Reloads; 5] {
        self.reloads
    }

    /// What was accepted from the last offer.
    pub fn accepted(&self) -> &[Part] {
        &self.accepted
    }

    /// What is served before the first offer.
    pub fn nothing(&self) -> Generation {
        Generation::new(Snapshot::default(), &self.room, &[], &self.tickets, &mut Upstreams::default())
    }

    /// Counts of endpoints that were left out.
    pub fn ejections(&self) -> &Arc<Ejections> {
        self.upstreams.ejections()
    }

    /// What was wrong with the last offer.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// What was strange about the last offer, and is served as it is.
    pub fn advice(&self) -> &[Finding] {
        &self.advice
    }

    /// Revocations of identities that the same file does not have. In a folder it may well be so: the revocations of a
    /// namespace concern all its workloads, and each knows its own clients only.
    pub fn unknown_revocations(&self, reading: &Reading) -> Vec<Finding> {
        let (Some(trust), Some(identities)) = (&self.parts.trust, &self.parts.identities) else { return Vec::new() };
        if !reading.is_complete() {
            return Vec::new();
        }
        let known: HashSet<_> = identities.identities.iter().map(|identity| &identity.name).collect();
        let unknown = trust.revocations.keys().filter(|name| !known.contains(name));
        let told = unknown.map(|name| {
            let place = "`trust.revocations.identities`";
            let detail =
                format!("{place}: there is no identity `{name}`, so this refuses nobody; name one of identities");
            finding(&self.path, &detail)
        });
        told.collect()
    }

    /// The state of every part, for `/status`.
    pub fn states(&self) -> sidecar_config::status::Parts {
        let [trust, identity, identities, policy, endpoints] = self.states.clone();
        sidecar_config::status::Parts { trust, identity, identities, policy, endpoints }
    }

    /// A part's document, accepted or refused, entered into its state.
    fn accept<D: Readable, A>(
        &mut self,
        part: Part,
        reading: &Reading,
        accept: impl FnOnce(&D) -> Result<A, Refusal>,
        revision: fn(&A) -> &Revision,
    ) -> Option<Arc<A>> {
        let Some(offered) = reading.parts.get(&part) else {
            self.absent(part, reading);
            return None;
        };
        let document = match Document::read(part.name(), offered.value.clone()) {
            Ok(document) => document,
            Err(error) => {
                self.refuse(part, UNREADABLE, &[error.to_string()], &offered.file);
                return None;
            }
        };
        match accept(&document) {
            Ok(accepted) => {
                let loaded = revision(&accepted).to_string();
                self.states[part as usize] = PartStatus { loaded, ..PartStatus::default() };
                let reloads = &mut self.reloads[part as usize];
                reloads.accepted += 1;
                reloads.last_accepted = Some(SystemTime::now());
                Some(Arc::new(accepted))
            }
            Err(refusal) => {
                let details: Vec<_> = refusal.problems.iter().map(ToString::to_string).collect();
                self.refuse(part, refusal.revision.as_str(), &details, &offered.file);
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
            None if state.loaded != NONE => Some("not there any more; the last good stays in use".to_owned()),
            None => None,
        };
    }

    fn refuse(&mut self, part: Part, offered: &str, details: &[String], file: &Path) {
        self.reloads[part as usize].refused += 1;
        let state = &mut self.states[part as usize];
        state.refused = Some(offered.to_owned());
        state.why = Some(message(&details.join("; ")));
        self.findings.extend(details.iter().map(|detail| finding(file, detail)));
    }

    /// The part is in use; what it names elsewhere is missing.
    fn note_missing(&mut self, part: Part, problems: &[Problem], reading: &Reading) {
        let file = reading.parts.get(&part).map_or(&self.path, |offered| &offered.file).clone();
        let details: Vec<_> = problems.iter().map(ToString::to_string).collect();
        let why = &mut self.states[part as usize].why;
        *why = Some(message(&why.iter().chain(&details).cloned().collect::<Vec<_>>().join("; ")));
        // Where a part was refused and there is no other, it was told why: what names its contents has no fault of its own.
        let refused = |part: Part| {
            let state = &self.states[part as usize];
            state.loaded == NONE && state.refused.is_some()
        };
        let own = problems.iter().filter(|problem| !problem.missing_in.is_some_and(refused));
        let own: Vec<_> = own.map(|problem| finding(&file, &problem.to_string())).collect();
        self.findings.extend(own);
    }
}

fn put<A>(accepted: Option<Arc<A>>, place: &mut Option<Arc<A>>) -> bool {
    let taken = accepted.is_some();
    if taken {
        *place = accepted;
    }
    taken
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
