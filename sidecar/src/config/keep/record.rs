//! What is kept of one part, as bytes: its document and the files it refers to, whole or not at all.
//!
//! A line with the digest of all that follows, a line of JSON, then the files' bytes one after the other:
//!
//! ```text
//! postern-state 1 <SHA-256 of the rest, hex>
//! {"item":"identity","version":"1.0","accepted":"…","document":{…},"sources":[["server.pem",1234],["server.key",227]]}
//! -----BEGIN CERTIFICATE-----…
//! ```

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use sidecar_config::{CONTRACT_MAX, CONTRACT_MIN, ContractVersion};

use super::Item;
use crate::config::FileBytes;

/// First word of a state file; the format's number follows it.
const MAGIC: &str = "postern-state";
/// Raised when an old sidecar would misread a state file.
const FORMAT: &str = "1";

/// What is kept of one item of the configuration.
#[derive(Debug)]
pub struct Record {
    /// What it is.
    pub item: Item,
    /// The contract version of its document.
    pub version: ContractVersion,
    /// When it was accepted, RFC 3339.
    pub accepted: String,
    /// Its document.
    pub document: Value,
    /// The files the document refers to, by the names it uses.
    pub sources: BTreeMap<String, FileBytes>,
}

/// The line of JSON.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Header {
    item: String,
    version: ContractVersion,
    accepted: String,
    document: Value,
    sources: Vec<(String, usize)>,
}

impl Record {
    /// Digest over what was accepted, whenever that was: the same content need not be written again.
    pub fn content(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(self.version.to_string());
        // A value that was parsed can be written.
        hasher.update(serde_json::to_vec(&self.document).unwrap_or_default());
        for (name, bytes) in &self.sources {
            hasher.update(name);
            hasher.update([0]);
            hasher.update(bytes.len().to_le_bytes());
            hasher.update(&**bytes);
        }
        hasher.finalize().into()
    }

    /// Writes it.
    ///
    /// # Errors
    /// When `out` cannot be written to.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let header = Header {
            item: self.item.name().to_owned(),
            version: self.version,
            accepted: self.accepted.clone(),
            document: self.document.clone(),
            sources: self.sources.iter().map(|(name, bytes)| (name.clone(), bytes.len())).collect(),
        };
        let mut line = serde_json::to_vec(&header)?;
        line.push(b'\n');
        let mut hasher = Sha256::new_with_prefix(&line);
        self.sources.values().for_each(|bytes| hasher.update(&**bytes));
        writeln!(out, "{MAGIC} {FORMAT} {:x}", hasher.finalize())?;
        out.write_all(&line)?;
        // Straight from where they are: a copy of a key would have to be wiped too.
        self.sources.values().try_for_each(|bytes| out.write_all(bytes))
    }

    /// Reads what [`Self::write`] wrote of this item.
    ///
    /// # Errors
    /// Why it is not that, in words for whoever runs the gate.
    pub fn read(item: Item, bytes: &[u8]) -> Result<Self, String> {
        let (first, rest) = split_line(bytes).ok_or("is torn or no state file")?;
        let first = std::str::from_utf8(first).ok().and_then(|line| line.strip_prefix(MAGIC)?.strip_prefix(' '));
        let (format, digest) = first.and_then(|line| line.split_once(' ')).ok_or("is no state file")?;
        if format != FORMAT {
            return Err(format!("has format {format}, and this sidecar reads {FORMAT}"));
        }
        if format!("{:x}", Sha256::digest(rest)) != digest {
            return Err("is torn or was changed: its digest is another".to_owned());
        }
        let (line, mut rest) = split_line(rest).ok_or("has no header")?;
        let header: Header = serde_json::from_slice(line).map_err(|error| format!("has a bad header: {error}"))?;
        if header.item != item.name() {
            return Err(format!("is of `{}`, not of `{}`", header.item, item.name()));
        }
        if !header.version.is_supported() {
            let version = header.version;
            return Err(format!("is of contract {version}, and this sidecar reads {CONTRACT_MIN} to {CONTRACT_MAX}"));
        }
        let mut sources = BTreeMap::new();
        for (name, length) in header.sources {
            let (bytes, after) = rest.split_at_checked(length).ok_or("is shorter than it says")?;
            sources.insert(name, FileBytes::from(bytes));
            rest = after;
        }
        let Header { version, accepted, document, .. } = header;
        Ok(Self { item, version, accepted, document, sources })
    }
}

/// What comes before the first line feed, and what after it.
fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;
    use sidecar_config::{CONTRACT_MAX, Part};

    use super::Record;
    use crate::config::FileBytes;
    use crate::config::keep::Item;

    fn record() -> Record {
        let sources = [("server.key", &b"key\n\0\xff"[..]), ("server.pem", b"")];
        Record {
            item: Item::Part(Part::Identity),
            version: CONTRACT_MAX,
            accepted: "2026-11-21T00:00:00Z".to_owned(),
            document: json!({ "chain": "server.pem", "key": "server.key" }),
            sources: BTreeMap::from(sources.map(|(name, bytes)| (name.to_owned(), FileBytes::from(bytes)))),
        }
    }

    fn written(record: &Record) -> Vec<u8> {
        let mut bytes = Vec::new();
        record.write(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn it_reads_back_as_it_was() {
        let read = Record::read(Item::Part(Part::Identity), &written(&record())).unwrap();
        assert_eq!((read.content(), read.accepted.as_str()), (record().content(), "2026-11-21T00:00:00Z"));
        assert_eq!(&*read.sources["server.key"], b"key\n\0\xff");
    }

    #[test]
    fn what_is_torn_or_changed_anywhere_is_refused() {
        let whole = written(&record());
        for length in 0..whole.len() {
            assert!(Record::read(Item::Part(Part::Identity), &whole[..length]).is_err(), "{length}");
        }
        for place in 0..whole.len() {
            let mut changed = whole.clone();
            changed[place] ^= 1;
            assert!(Record::read(Item::Part(Part::Identity), &changed).is_err(), "{place}");
        }
    }

    #[test]
    fn what_is_not_ours_is_told() {
        let text = String::from_utf8_lossy(&written(&record())).into_owned();
        let newer = text.replace("postern-state 1 ", "postern-state 2 ");
        let table = [
            (newer.as_bytes(), "has format 2, and this sidecar reads 1"),
            (b"", "is torn or no state file"),
            (b"\n", "is no state file"),
            (b"SQLite format 3\0\n", "is no state file"),
        ];
        for (bytes, error) in table {
            assert_eq!(Record::read(Item::Part(Part::Identity), bytes).unwrap_err(), error);
        }
        let other = Record::read(Item::Part(Part::Trust), &written(&record())).unwrap_err();
        assert_eq!(other, "is of `identity`, not of `trust`");
        let newer = Record { version: "1.99".parse().unwrap(), ..record() };
        let error = Record::read(Item::Part(Part::Identity), &written(&newer)).unwrap_err();
        assert_eq!(error, "is of contract 1.99, and this sidecar reads 1.0 to 1.8");
    }

    #[test]
    fn the_time_is_no_content_and_everything_else_is() {
        let same = Record { accepted: String::new(), ..record() };
        assert_eq!(same.content(), record().content());
        let mut other = record();
        other.sources.insert("server.key".to_owned(), FileBytes::from(&b"other"[..]));
        assert_ne!(other.content(), record().content());
        assert_ne!(Record { document: json!({}), ..record() }.content(), record().content());
    }

    #[test]
    fn a_key_is_not_printed() {
        let shown = format!("{:?}", record());
        assert!(shown.contains("\"server.key\": 6 bytes"), "{shown}");
    }
}
