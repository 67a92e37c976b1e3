//! Bodies as rows have them: sealed with AES-256-GCM (NIST SP 800-38D), each for one row. Pure, but for the file of the key.
//!
//! The layout is written down in docs/request-log.md, for whoever wants to open them by other means.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest;
use zeroize::Zeroizing;

use super::bodies::{Bodies, BodyRoom, Copied};

/// The layout's number.
const VERSION: u8 = 1;

/// How often the file of the key is looked at, while rows are written.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Bytes of a key.
const KEY_BYTES: usize = 32;

/// Bytes of a key's name: enough that no two keys of one log have the same.
const NAME_BYTES: usize = 8;

/// What is readable: the layout's number, the key's name and the nonce.
const NONCE: usize = 1 + NAME_BYTES;
const HEAD: usize = NONCE + NONCE_LEN;

/// What goes before each body: which it is, how long it was, how much of it follows.
const PART_HEAD: usize = 1 + 8 + 4;

/// A key for bodies.
pub struct BodyKey {
    /// The beginning of its SHA-256.
    name: [u8; NAME_BYTES],
    key: RandomizedNonceKey,
}

impl fmt::Debug for BodyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BodyKey({})", hex(&self.name))
    }
}

impl BodyKey {
    /// The one that is written as 64 hex digits.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let bytes = Zeroizing::new(unhex(text.trim_ascii())?);
        let key = RandomizedNonceKey::new(&AES_256_GCM, bytes.get(..KEY_BYTES).filter(|_| bytes.len() == KEY_BYTES)?);
        let mut name = [0; NAME_BYTES];
        name.copy_from_slice(&digest::digest(&digest::SHA256, &bytes).as_ref()[..NAME_BYTES]);
        Some(Self { name, key: key.ok()? })
    }

    /// The one in a file.
    ///
    /// # Errors
    /// Why there is none.
    pub fn read(path: &Path) -> Result<Self, String> {
        let no_key = |why: &str| format!("the key for bodies {}: {why}", path.display());
        let text = Zeroizing::new(fs::read(path).map_err(|error| no_key(&error.to_string()))?);
        Self::parse(&text).ok_or_else(|| no_key("write 32 random bytes as 64 hex digits: openssl rand -hex 32"))
    }

    /// Seals bodies for the row with this id; `None` where the key does not do it.
    pub(super) fn seal(&self, row: &str, bodies: &Bodies) -> Option<Vec<u8>> {
        let mut sealed = Vec::with_capacity(HEAD + 2 * PART_HEAD + bodies.bytes() + AES_256_GCM.tag_len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&self.name);
        let covered = covered(&sealed, row);
        sealed.resize(HEAD, 0);
        for (which, body) in [(Which::Request, &bodies.request), (Which::Response, &bodies.response)] {
            if let Some(body) = body {
                part(&mut sealed, which, body);
            }
        }
        let (nonce, tag) = self.key.seal_in_place_separate_tag(covered, &mut sealed[HEAD..]).ok()?;
        sealed[NONCE..HEAD].copy_from_slice(nonce.as_ref());
        sealed.extend_from_slice(tag.as_ref());
        Some(sealed)
    }
}

/// The file with the key, which may come late and have another one later.
#[derive(Debug)]
pub(super) struct KeyFile {
    path: Option<PathBuf>,
    looked: Option<Instant>,
    /// The last key's.
    name: Option<[u8; NAME_BYTES]>,
    is_told: bool,
}

impl KeyFile {
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Self { path, looked: None, name: None, is_told: false }
    }

    /// The key, where it is another than the last time. One that is gone from the file is still used.
    pub(super) fn look(&mut self, now: Instant, room: &BodyRoom) -> Option<Arc<BodyKey>> {
        let is_due = self.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= LOOK_EVERY);
        let path = self.path.as_ref().filter(|_| is_due)?;
        self.looked = Some(now);
        match BodyKey::read(path) {
            Ok(key) => {
                self.is_told = false;
                room.has_key();
                (self.name.replace(key.name) != Some(key.name)).then(|| Arc::new(key))
            }
            Err(error) => {
                // Where there never was one, whoever misses a body tells.
                let is_to_come = self.name.is_none() && matches!(path.try_exists(), Ok(false));
                if !is_to_come && !std::mem::replace(&mut self.is_told, true) {
                    tracing::error!(%error, "rows keep no bodies, or seal them with the key from before");
                }
                None
            }
        }
    }
}

/// Which body of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Which {
    /// Its own.
    Request = b'Q',
    /// Its response's.
    Response = b'R',
}

impl Which {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response => "response",
        }
    }
}

fn part(sealed: &mut Vec<u8>, which: Which, body: &Copied) {
    sealed.push(which as u8);
    sealed.extend_from_slice(&body.whole().to_be_bytes());
    // The contract has at most 64 KiB.
    sealed.extend_from_slice(&u32::try_from(body.bytes().len()).unwrap_or(u32::MAX).to_be_bytes());
    sealed.extend_from_slice(body.bytes());
}

/// What the tag covers beside the bodies: the readable part but for the nonce, and which row they are of.
fn covered(head: &[u8], row: &str) -> Aad<Vec<u8>> {
    Aad::from([head, row.as_bytes()].concat())
}

/// Why sealed bodies are not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// They are in a layout that is not known.
    #[error("its bodies are not sealed as this version does it")]
    Layout,
    /// The key is another.
    #[error("its bodies are sealed with key {0}, and that is none of the keys given")]
    Key(String),
    /// The tag is not theirs.
    #[error("its bodies are not what was written, or were written for another row")]
    Changed,
}

/// A body that was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Which it is.
    pub which: Which,
    /// Bytes of all of it.
    pub whole: u64,
    /// The first of them, or all.
    pub bytes: Vec<u8>,
}

/// Opens the bodies of the row with this id.
///
/// # Errors
/// Why they cannot be opened.
pub fn open(keys: &[BodyKey], row: &str, sealed: &[u8]) -> Result<Vec<Opened>, OpenError> {
    let (head, rest) = sealed.split_at_checked(HEAD).ok_or(OpenError::Layout)?;
    let (readable, nonce) = head.split_at(NONCE);
    if readable[0] != VERSION {
        return Err(OpenError::Layout);
    }
    let name = &readable[1..];
    let key = keys.iter().find(|key| key.name == *name).ok_or_else(|| OpenError::Key(hex(name)))?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| OpenError::Layout)?;
    let mut opened = rest.to_vec();
    let opened = key.key.open_in_place(nonce, covered(readable, row), &mut opened).map_err(|_| OpenError::Changed)?;
    parts(opened).ok_or(OpenError::Layout)
}

fn parts(mut opened: &[u8]) -> Option<Vec<Opened>> {
    let mut parts = Vec::new();
    while let Some((which, rest)) = opened.split_first() {
        let which = [Which::Request, Which::Response].into_iter().find(|known| *known as u8 == *which)?;
        let (whole, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (bytes, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        parts.push(Opened { which, whole: u64::from_be_bytes(*whole), bytes: bytes.to_vec() });
        opened = rest;
    }
    Some(parts)
}

fn hex(bytes: &[u8]) -> String {
    super::print::plain(super::print::Cell::Blob(bytes))
}

/// What hex digits stand for.
pub(super) fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::aead::{LessSafeKey, UnboundKey};

    use super::*;

    const ROW: &str = "019395d2-3f1c-7a00-8001-000000000001";

    fn key(byte: &str) -> BodyKey {
        BodyKey::parse(byte.repeat(KEY_BYTES).as_bytes()).unwrap()
    }

    /// Bodies of which at most eight bytes are kept.
    fn bodies(request: &str, response: &str) -> Arc<Bodies> {
        let room = Arc::new(BodyRoom::default());
        room.has_key();
        let [request, response] = [request, response].map(|body| {
            let mut copied = Copied::new(&room, 8);
            copied.feed(body.as_bytes());
            copied
        });
        Bodies::of(Some(request), Some(response)).unwrap()
    }

    fn opened(which: Which, whole: u64, bytes: &str) -> Opened {
        Opened { which, whole, bytes: bytes.as_bytes().to_vec() }
    }

    #[test]
    fn what_is_sealed_is_opened_with_its_key() {
        let (request, response) = (Which::Request, Which::Response);
        let table = [
            ("asked", "answer", vec![opened(request, 5, "asked"), opened(response, 6, "answer")]),
            ("asked", "", vec![opened(request, 5, "asked")]),
            ("", "answer", vec![opened(response, 6, "answer")]),
            ("asked for more", "8 bytes.", vec![opened(request, 14, "asked fo"), opened(response, 8, "8 bytes.")]),
        ];
        for (asked, answered, expected) in table {
            let sealed = key("ab").seal(ROW, &bodies(asked, answered)).unwrap();
            assert_eq!(open(&[key("cd"), key("ab")], ROW, &sealed).as_ref(), Ok(&expected), "{asked} {answered}");
            let kept: usize = expected.iter().map(|body| body.bytes.len()).sum();
            assert_eq!(sealed.len(), HEAD + expected.len() * PART_HEAD + kept + 16);
            let plain = expected.iter().any(|body| sealed.windows(body.bytes.len()).any(|window| window == body.bytes));
            assert!(!plain, "{sealed:?}");
        }
    }

    #[test]
    fn what_is_sealed_is_opened_by_what_is_written_down() {
        let sealed = key("ab").seal(ROW, &bodies("asked for more", "answer")).unwrap();
        let (head, rest) = sealed.split_at(21);
        let (data, tag) = rest.split_at(rest.len() - 16);
        let name = digest::digest(&digest::SHA256, &[0xab; 32]);
        assert_eq!(head[..9], [&[1][..], &name.as_ref()[..8]].concat());
        let aes = UnboundKey::new(&AES_256_GCM, &[0xab; 32]).unwrap();
        let nonce = Nonce::try_assume_unique_for_key(&head[9..]).unwrap();
        let mut plain = vec![0; data.len()];
        let covered = [&head[..9], ROW.as_bytes()].concat();
        LessSafeKey::new(aes).open_separate_gather(nonce, Aad::from(covered), data, tag, &mut plain).unwrap();
        let number = |number: u64, bytes: usize| number.to_be_bytes()[8 - bytes..].to_vec();
        let request = [b"Q".to_vec(), number(14, 8), number(8, 4), b"asked fo".to_vec()].concat();
        let response = [b"R".to_vec(), number(6, 8), number(6, 4), b"answer".to_vec()].concat();
        assert_eq!(plain, [request, response].concat());
    }

    #[test]
    fn nonces_are_fresh() {
        let seal = || key("ab").seal(ROW, &bodies("asked", "")).unwrap();
        let (first, second) = (seal(), seal());
        assert_eq!(first[..NONCE], second[..NONCE]);
        assert_ne!(first[NONCE..HEAD], second[NONCE..HEAD]);
        assert_ne!(first[HEAD..], second[HEAD..]);
    }

    #[test]
    fn what_is_not_as_it_was_is_not_opened() {
        let sealed = key("ab").seal(ROW, &bodies("asked", "answer")).unwrap();
        let keys = [key("ab")];
        assert!(open(&keys, ROW, &sealed).is_ok());
        for place in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[place] ^= 1;
            let expected = match place {
                0 => OpenError::Layout,
                1..NONCE => OpenError::Key(hex(&flipped[1..NONCE])),
                _ => OpenError::Changed,
            };
            assert_eq!(open(&keys, ROW, &flipped), Err(expected), "bit of byte {place}");
        }
        let name = hex(&sealed[1..NONCE]);
        let short = [&sealed[..0], &sealed[..HEAD - 1], &sealed[..HEAD], &sealed[..sealed.len() - 1]];
        let errors = short.map(|short| open(&keys, ROW, short).unwrap_err());
        assert_eq!(errors, [OpenError::Layout, OpenError::Layout, OpenError::Changed, OpenError::Changed]);
        assert_eq!(open(&[key("cd")], ROW, &sealed), Err(OpenError::Key(name.clone())));
        assert_eq!(open(&[], ROW, &sealed), Err(OpenError::Key(name)));
        let other = ROW.replace("001", "002");
        assert_eq!(open(&keys, &other, &sealed), Err(OpenError::Changed), "moved to another row");
    }

    #[test]
    fn a_key_may_come_late_and_be_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let (room, begun) = (BodyRoom::default(), Instant::now());
        let mut file = KeyFile::new(Some(path.clone()));
        let digits = |byte: &str| byte.repeat(KEY_BYTES);
        let table = [
            ("nothing is there", 0, None, None),
            ("too early to look", 4, Some(digits("ab")), None),
            ("it is there", 5, Some(digits("ab")), Some("ab")),
            ("the same", 10, Some(digits("ab")), None),
            ("too early to look", 14, Some(digits("cd")), None),
            ("another", 15, Some(digits("cd")), Some("cd")),
            ("half written", 20, Some("cd".to_owned()), None),
            ("the same", 25, Some(digits("cd")), None),
            ("the first", 30, Some(digits("ab")), Some("ab")),
        ];
        for (what, second, text, expected) in table {
            if let Some(text) = text {
                fs::write(&path, text).unwrap();
            }
            let found = file.look(begun + Duration::from_secs(second), &room).map(|key| key.name);
            assert_eq!(found, expected.map(|byte| key(byte).name), "{what} after {second} s");
        }
        assert!(KeyFile::new(None).look(begun, &room).is_none());
    }

    #[test]
    fn a_key_is_64_hex_digits() {
        let digits = "0123456789abcdefABCDEF0123456789".repeat(2);
        for (text, is_key) in [
            (digits.clone(), true),
            (format!("{digits}\n"), true),
            (digits[1..].to_owned(), false),
            (digits[2..].to_owned(), false),
            (format!("{digits}00"), false),
            (digits.replace('a', "g"), false),
            (String::new(), false),
        ] {
            assert_eq!(BodyKey::parse(text.as_bytes()).is_some(), is_key, "{text:?}");
        }
        let told = format!("{:?}", key("ab"));
        assert_eq!(told.len(), "BodyKey()".len() + 2 * NAME_BYTES, "no more than its name: {told}");
        assert!(!told.contains("abab"), "{told}");
    }
}
