//! What was issued and still verifies: serial numbers by identity, and which of them are revoked. Kept until they expire,
//! because an identity that is deleted leaves certificates behind.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sidecar_config::UtcTime;
use thiserror::Error;

/// How long an entry stays after its certificate has expired: clocks differ.
pub const KEPT_SECONDS: i64 = 3600;
/// By how much a certificate that is made anew under a remembered number may outlast what is remembered: an entry stays for
/// [`KEPT_SECONDS`] longer, half of which is left for clocks.
const OUTLASTING_SECONDS: i64 = KEPT_SECONDS / 2;
/// Most certificates of one identity that still verify. At one every two months there are two; where there are more,
/// somebody undoes what the operator writes, and another certificate would be undone, too.
pub const LIVE_MAX: usize = 32;
/// Longest document, in bytes: an object holds 1 MiB with its metadata.
pub const DOCUMENT_MAX_BYTES: usize = 900 * 1024;
/// The form of the document.
const VERSION: u32 = 1;

/// The ledger of one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// By serial number, as certificates' facts write it.
    entries: BTreeMap<String, Entry>,
}

/// A certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Entry {
    /// Name of the identity it was issued to, in the ledger's namespace.
    pub identity: String,
    /// UID of that identity: another one of the same name is another.
    pub uid: String,
    /// Until when it is valid.
    pub not_after: UtcTime,
    /// What it was to take the place of: the version of an object, which is another one as soon as it has. As long as it is
    /// the same, nobody was given the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<String>,
    /// Whether it is refused.
    #[serde(default, skip_serializing_if = "is_false")]
    pub revoked: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_false(value: &bool) -> bool {
    !value
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    version: u32,
    certificates: BTreeMap<String, Entry>,
}

/// Why a ledger cannot be read or written. Nothing is issued or forgotten while it cannot.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LedgerError {
    /// Not such a document.
    #[error("the ledger cannot be read: {0}")]
    Unreadable(String),
    /// Of a newer operator.
    #[error("the ledger has version {0}; this operator reads {VERSION}")]
    Newer(u32),
    /// As much as an object holds.
    #[error(
        "the ledger has {0} bytes, more than the {DOCUMENT_MAX_BYTES} an object holds; wait until certificates expire"
    )]
    Full(usize),
    /// Too many certificates of one identity.
    #[error(
        "{LIVE_MAX} certificates of this identity are still valid, so no other is issued; see who changes its Secret or its spec again and again"
    )]
    TooMany,
}

impl Ledger {
    /// Reads a document; without one it is empty.
    ///
    /// # Errors
    /// When it is none of ours.
    pub fn read(document: Option<&str>) -> Result<Self, LedgerError> {
        let Some(text) = document else { return Ok(Self::default()) };
        let document: Document = serde_json::from_str(text).map_err(|e| LedgerError::Unreadable(e.to_string()))?;
        if document.version > VERSION {
            return Err(LedgerError::Newer(document.version));
        }
        Ok(Self { entries: document.certificates })
    }

    /// The document: the same ledger is the same text.
    ///
    /// # Errors
    /// When an object does not hold it.
    pub fn document(&self) -> Result<String, LedgerError> {
        let document = Document { version: VERSION, certificates: self.entries.clone() };
        let text = serde_json::to_string(&document).map_err(|error| LedgerError::Unreadable(error.to_string()))?;
        if text.len() > DOCUMENT_MAX_BYTES { Err(LedgerError::Full(text.len())) } else { Ok(text) }
    }

    /// Remembers a certificate, before it is given to anybody; `false` where nothing changes, because another one of this
    /// number was remembered that nobody was given.
    ///
    /// # Errors
    /// When the identity has too many that are valid.
    pub fn remember(&mut self, serial: &str, entry: Entry, now: i64) -> Result<bool, LedgerError> {
        if let Some(known) = self.entries.get_mut(serial) {
            let covers = known.not_after.seconds() + OUTLASTING_SECONDS >= entry.not_after.seconds();
            if !covers {
                // What was refused meanwhile stays so.
                *known = Entry { revoked: known.revoked, ..entry };
            }
            return Ok(!covers);
        }
        if self.live(&entry.uid, now).count() >= LIVE_MAX {
            return Err(LedgerError::TooMany);
        }
        self.entries.insert(serial.to_owned(), entry);
        Ok(true)
    }

    /// The number of a certificate of an identity that was to take the place of just what is there now: whoever made it
    /// has ended before it was written. The next one is made under its number, so that none is used up. Should the first
    /// be written nonetheless, by a request that was still on its way, the next cannot be, and the number is both's.
    pub fn unpublished(&self, uid: &str, over: &str, now: i64) -> Option<&str> {
        let is_meant = |entry: &Entry| entry.uid == uid && !entry.revoked && entry.over.as_deref() == Some(over);
        let is_live = |entry: &Entry| entry.not_after.seconds() > now;
        let found = self.entries.iter().find(|(_, entry)| is_meant(entry) && is_live(entry));
        found.map(|(serial, _)| serial.as_str())
    }

    /// Takes out a certificate that was given to nobody; `false` where it is not there. What is revoked stays revoked.
    pub fn take_back(&mut self, serial: &str) -> bool {
        let is_there = self.entries.get(serial).is_some_and(|entry| !entry.revoked);
        if is_there {
            self.entries.remove(serial);
        }
        is_there
    }

    /// Revokes all certificates of an identity; `false` where nothing changes.
    pub fn revoke(&mut self, uid: &str) -> bool {
        self.revoke_where(|entry| entry.uid == uid)
    }

    /// Revokes the certificates of identities that do not exist any more, whoever removed them and however.
    pub fn revoke_all_but(&mut self, uids: &BTreeSet<String>) -> bool {
        self.revoke_where(|entry| !uids.contains(&entry.uid))
    }

    fn revoke_where(&mut self, is_meant: impl Fn(&Entry) -> bool) -> bool {
        let mut changed = false;
        for entry in self.entries.values_mut().filter(|entry| !entry.revoked && is_meant(entry)) {
            entry.revoked = true;
            changed = true;
        }
        changed
    }

    /// Forgets what has expired; `false` where nothing has.
    pub fn forget(&mut self, now: i64) -> bool {
        let before = self.entries.len();
        self.entries.retain(|_, entry| entry.not_after.seconds() + KEPT_SECONDS > now);
        self.entries.len() != before
    }

    /// Serial numbers of an identity that are still valid, revoked or not.
    pub fn live(&self, uid: &str, now: i64) -> impl Iterator<Item = &str> {
        let is_live = move |entry: &Entry| entry.uid == uid && entry.not_after.seconds() > now;
        self.entries.iter().filter(move |(_, entry)| is_live(entry)).map(|(serial, _)| serial.as_str())
    }

    /// Serial numbers of an identity that are not refused, valid or not.
    pub fn issued<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a str> {
        let is_meant = move |entry: &Entry| entry.uid == uid && !entry.revoked;
        self.entries.iter().filter(move |(_, entry)| is_meant(entry)).map(|(serial, _)| serial.as_str())
    }

    /// Whether an identity has certificates that are not revoked.
    #[must_use]
    pub fn has_unrevoked(&self, uid: &str) -> bool {
        self.issued(uid).next().is_some()
    }

    /// Serial numbers of an identity that are refused.
    pub fn revoked_of<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a str> {
        let is_meant = move |entry: &Entry| entry.uid == uid && entry.revoked;
        self.entries.iter().filter(move |(_, entry)| is_meant(entry)).map(|(serial, _)| serial.as_str())
    }

    /// Serial numbers that are refused.
    pub fn revoked(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter(|(_, entry)| entry.revoked).map(|(serial, _)| serial.as_str())
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Entry, KEPT_SECONDS, LIVE_MAX, Ledger, LedgerError};

    const END: i64 = 1_800_000_000;

    fn entry(name: &str, uid: &str) -> Entry {
        let not_after = "2027-01-15T08:00:00Z".parse().unwrap();
        Entry { identity: name.into(), uid: uid.into(), not_after, over: None, revoked: false }
    }

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.remember("0a:01", entry("billing", "u1"), 0).unwrap();
        ledger.remember("0a:02", entry("billing", "u1"), 0).unwrap();
        ledger.remember("0b:01", entry("front", "u2"), 0).unwrap();
        ledger
    }

    #[test]
    fn what_is_taken_back_is_gone_unless_it_is_revoked() {
        let mut ledger = ledger();
        assert!(ledger.take_back("0a:01") && !ledger.take_back("0a:01"));
        assert_eq!(ledger.live("u1", 0).collect::<Vec<_>>(), ["0a:02"]);
        assert!(ledger.revoke("u1") && !ledger.take_back("0a:02"));
        assert_eq!(ledger.revoked().collect::<Vec<_>>(), ["0a:02"]);
    }

    #[test]
    fn the_document_is_canonical_and_reads_back() {
        let mut ledger = ledger();
        assert!(ledger.revoke("u2"));
        let text = ledger.document().unwrap();
        let expected = concat!(
            r#"{"version":1,"certificates":{"#,
            r#""0a:01":{"identity":"billing","uid":"u1","notAfter":"2027-01-15T08:00:00Z"},"#,
            r#""0a:02":{"identity":"billing","uid":"u1","notAfter":"2027-01-15T08:00:00Z"},"#,
            r#""0b:01":{"identity":"front","uid":"u2","notAfter":"2027-01-15T08:00:00Z","revoked":true}}}"#,
        );
        assert_eq!(text, expected);
        assert_eq!(Ledger::read(Some(&text)).unwrap(), ledger);
        assert_eq!(Ledger::read(None).unwrap(), Ledger::default());
    }

    #[test]
    fn what_is_not_understood_is_not_forgotten() {
        assert_eq!(Ledger::read(Some(r#"{"version":2,"certificates":{}}"#)), Err(LedgerError::Newer(2)));
        for text in ["", "{}", "[]", r#"{"version":1,"certificates":{"a":{}}}"#] {
            assert!(matches!(Ledger::read(Some(text)), Err(LedgerError::Unreadable(_))), "{text}");
        }
    }

    #[test]
    fn all_certificates_of_an_identity_are_revoked_and_stay_so() {
        let mut ledger = ledger();
        assert!(ledger.revoke("u1"));
        assert!(!ledger.revoke("u1"), "nothing changes the second time");
        assert_eq!(ledger.revoked().collect::<Vec<_>>(), ["0a:01", "0a:02"]);
        assert_eq!(ledger.live("u1", 0).count(), 2, "revoked, and still valid");
        assert_eq!((ledger.issued("u1").count(), ledger.has_unrevoked("u1")), (0, false));
        assert_eq!(ledger.revoked_of("u1").count(), 2);
        assert!(ledger.has_unrevoked("u2"));
    }

    #[test]
    fn who_does_not_exist_any_more_is_revoked() {
        let mut ledger = ledger();
        assert!(ledger.revoke_all_but(&BTreeSet::from(["u1".to_owned()])));
        assert_eq!(ledger.revoked().collect::<Vec<_>>(), ["0b:01"]);
    }

    #[test]
    fn entries_are_forgotten_once_they_are_expired_everywhere() {
        let mut ledger = ledger();
        assert!(!ledger.forget(END + KEPT_SECONDS - 1));
        assert_eq!(ledger.live("u1", END).count(), 0);
        assert!(ledger.forget(END + KEPT_SECONDS));
        assert!(ledger.is_empty());
    }

    #[test]
    fn a_number_that_nobody_was_given_is_used_for_the_next() {
        let over = |version: &str| Entry { over: Some(version.to_owned()), ..entry("billing", "u1") };
        let mut ledger = Ledger::default();
        assert_eq!(ledger.remember("0a:01", over("s7"), 0), Ok(true));
        assert_eq!(ledger.unpublished("u1", "s7", 0), Some("0a:01"));
        let others = [("u2", "s7", 0, "of another"), ("u1", "s8", 0, "written since"), ("u1", "s7", END, "expired")];
        for (uid, version, now, why) in others {
            assert_eq!(ledger.unpublished(uid, version, now), None, "{why}");
        }
        // However often whoever makes it ends, the ledger stays as it is.
        let before = ledger.clone();
        for _ in 0..2 * LIVE_MAX {
            assert_eq!(ledger.remember("0a:01", over("s7"), 0), Ok(false));
        }
        assert_eq!(ledger, before);
        // One that is made much later outlasts it.
        let later = Entry { not_after: "2027-01-15T08:30:01Z".parse().unwrap(), ..over("s7") };
        assert_eq!(
            ledger.remember("0a:01", Entry { not_after: "2027-01-15T08:30:00Z".parse().unwrap(), ..over("s7") }, 0),
            Ok(false)
        );
        assert_eq!(ledger.remember("0a:01", later, 0), Ok(true));
        assert_eq!(ledger.live("u1", END + 1800).count(), 1);
        // What is revoked is nobody's any more, and stays so.
        assert!(ledger.revoke("u1"));
        assert_eq!(ledger.unpublished("u1", "s7", 0), None);
        let far = Entry { not_after: "2028-01-15T08:00:00Z".parse().unwrap(), ..over("s7") };
        assert_eq!((ledger.remember("0a:01", far, 0), ledger.revoked().count()), (Ok(true), 1));
    }

    #[test]
    fn one_identity_cannot_fill_the_ledger() {
        let mut ledger = Ledger::default();
        for number in 0..LIVE_MAX {
            ledger.remember(&format!("{number:02x}"), entry("billing", "u1"), 0).unwrap();
        }
        assert_eq!(ledger.remember("ff:01", entry("billing", "u1"), 0), Err(LedgerError::TooMany));
        assert_eq!(ledger.remember("ff:02", entry("front", "u2"), 0), Ok(true));
        assert_eq!(ledger.remember("ff:03", entry("billing", "u1"), END), Ok(true), "the old ones have expired");
    }
}
