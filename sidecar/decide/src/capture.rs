//! What a row tells of a request's head beyond what all rows tell: values whose names its route lists, each as it says
//! there, and no others.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::{COOKIE, HeaderName};
use sidecar_config::capture::{self as document, CapturedAs, CapturedBodies};

use crate::route::decoded;

/// Entries of each list: every name of a request may be compared with all of them.
pub const ENTRIES_MAX: usize = 16;
/// Bytes that are kept of a name and of a value: an id or a token's beginning, and no text.
pub const VALUE_BYTES: usize = 256;
/// Bytes of all that is captured of a request, as it is written: what other texts of a row may have.
pub const ROW_BYTES: usize = 2048;
/// Parameters of a query, and cookies, that are looked at, each: more than anybody sends who means it.
const PAIRS_MAX: usize = 256;
/// Bytes of a hash that are written: enough that no two values of a log share one.
const HASH_BYTES: usize = 16;

/// Names of what is known to be a secret, of fields, parameters and cookies alike, in lower case. Such a value is never
/// kept as it is.
pub const SECRETS: [&str; 28] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "api-key",
    "api_key",
    "apikey",
    "x-auth-token",
    "x-access-token",
    "x-amz-security-token",
    "x-csrf-token",
    "x-xsrf-token",
    "csrftoken",
    "xsrf-token",
    "access_token",
    "id_token",
    "refresh_token",
    "token",
    "password",
    "client_secret",
    "session",
    "sessionid",
    "session_id",
    "sid",
    "jsessionid",
    "phpsessid",
    "connect.sid",
];

/// Whether a name is a secret's.
pub(crate) fn is_secret(name: &str) -> bool {
    SECRETS.iter().any(|secret| secret.eq_ignore_ascii_case(name))
}

/// What a route captures, compiled.
#[derive(Debug)]
pub struct Capture {
    headers: List,
    query: List,
    cookies: List,
    /// What is kept of bodies.
    pub bodies: Option<CapturedBodies>,
}

type List = Box<[Entry]>;

#[derive(Debug)]
struct Entry {
    name: Box<str>,
    /// Whether it is every name that begins so.
    is_prefix: bool,
    /// Of a whole name that is a secret's never [`CapturedAs::Keep`].
    kept: CapturedAs,
}

/// What hashes a value: HMAC with SHA-256, of which as much is given as is written; `None` without a salt.
pub type Hash<'h> = dyn Fn(&[u8]) -> Option<[u8; HASH_BYTES]> + 'h;

/// What was captured of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// An object of JSON of at most [`ROW_BYTES`]; `None` where nothing that is listed came.
    pub json: Option<Box<str>>,
    /// Values that have no room in it.
    pub dropped: u64,
    /// Values that were to be hashed and are masked, for want of a salt.
    pub unsalted: u64,
}

impl Capture {
    /// Of a route.
    #[must_use]
    pub fn of(capture: &document::Capture) -> Self {
        let list =
            |list: &[document::Captured], is_header: bool| list.iter().map(|one| Entry::of(one, is_header)).collect();
        Self {
            headers: list(&capture.headers, true),
            query: list(&capture.query, false),
            cookies: list(&capture.cookies, false),
            bodies: capture.bodies,
        }
    }

    /// Takes what is listed of a request's head.
    #[must_use]
    pub fn take(&self, headers: &HeaderMap, query: Option<&str>, hash: &Hash<'_>) -> Taken {
        let mut writing = Writing { json: String::new(), taken: Taken::default(), hash };
        writing.list("headers", fields(&self.headers, headers));
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let parameter = |(name, value): (&str, &str)| {
            let name: Vec<u8> = decoded(name).collect();
            (Cow::Owned(text(&name).into_owned()), decoded(value).collect())
        };
        writing.pairs("query", &self.query, pairs.map(parameter));
        writing.pairs("cookies", &self.cookies, cookies(&self.cookies, headers));
        writing.finish()
    }
}

impl Entry {
    fn of(document::Captured { name, kept }: &document::Captured, is_header: bool) -> Self {
        let beginning = name.strip_suffix('*');
        let is_prefix = beginning.is_some();
        let name = beginning.unwrap_or(name);
        let name = if is_header { name.to_ascii_lowercase() } else { name.to_owned() };
        let kept = if !is_prefix && is_secret(&name) { masked(*kept) } else { *kept };
        Self { name: name.into(), is_prefix, kept }
    }

    fn is_of(&self, name: &str) -> bool {
        if self.is_prefix { name.starts_with(&*self.name) } else { *self.name == *name }
    }
}

/// What becomes of a name's value, where anything of it is to be in the row: the first entry that has the name says it.
fn kept(list: &[Entry], name: &str) -> Option<CapturedAs> {
    let entry = list.iter().find(|entry| entry.is_of(name))?;
    let kept = if entry.is_prefix && is_secret(name) { masked(entry.kept) } else { entry.kept };
    (kept != CapturedAs::Drop).then_some(kept)
}

/// What becomes of a secret's value.
fn masked(kept: CapturedAs) -> CapturedAs {
    if kept == CapturedAs::Keep { CapturedAs::Mask } else { kept }
}

/// A name, what becomes of its value, and that.
type One<'r> = (Cow<'r, str>, CapturedAs, Cow<'r, [u8]>);

/// Fields that are listed; lines of one name are one value (RFC 9110 §5.3), those with cookies as RFC 9113 §8.2.3 has them.
fn fields<'r>(list: &'r [Entry], headers: &'r HeaderMap) -> impl Iterator<Item = One<'r>> {
    let names = headers.keys().filter(|_| !list.is_empty());
    names.filter_map(|name| {
        let kept = kept(list, name.as_str())?;
        Some((Cow::Borrowed(name.as_str()), kept, value(headers, name)))
    })
}

fn value<'r>(headers: &'r HeaderMap, name: &HeaderName) -> Cow<'r, [u8]> {
    let mut lines = headers.get_all(name).iter().map(http::HeaderValue::as_bytes);
    let mut joined = Cow::Borrowed(lines.next().unwrap_or_default());
    for line in lines {
        let joined = joined.to_mut();
        joined.extend_from_slice(if *name == COOKIE { b"; " } else { b", " });
        joined.extend_from_slice(line);
    }
    joined
}

/// Cookies with their names (RFC 6265 §4.2.1).
fn cookies<'r>(list: &[Entry], headers: &'r HeaderMap) -> impl Iterator<Item = (Cow<'r, str>, Vec<u8>)> {
    let lines = headers.get_all(COOKIE).iter().filter(|_| !list.is_empty());
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.filter_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
        (!name.is_empty()).then(|| (String::from_utf8_lossy(name), value.to_vec()))
    })
}

struct Writing<'h> {
    json: String,
    taken: Taken,
    hash: &'h Hash<'h>,
}

/// What says that not all is there, and what ends a list and the object.
const TRUNCATED: &str = ",\"truncated\":true";
const ENDING: usize = "}".len() + TRUNCATED.len() + "}".len();

impl Writing<'_> {
    /// Writes what is listed of names and values that a client wrote one behind the other; those of one name are one value.
    fn pairs<'r>(&mut self, name: &str, list: &[Entry], mut pairs: impl Iterator<Item = (Cow<'r, str>, Vec<u8>)>) {
        if list.is_empty() {
            return;
        }
        let mut found: Vec<One<'_>> = Vec::new();
        for (name, value) in pairs.by_ref().take(PAIRS_MAX) {
            let Some(kept) = kept(list, &name) else { continue };
            match found.iter_mut().find(|(known, ..)| *known == name) {
                Some((_, _, known)) => {
                    let known = known.to_mut();
                    known.extend_from_slice(b", ");
                    known.extend_from_slice(&value);
                }
                None => found.push((name, kept, Cow::Owned(value))),
            }
        }
        self.taken.dropped += u64::from(pairs.next().is_some());
        self.list(name, found.into_iter());
    }

    /// Writes the object of a list, unless it has nothing.
    fn list<'r>(&mut self, list: &str, values: impl Iterator<Item = One<'r>>) {
        let mut is_open = false;
        for (name, kept, value) in values {
            let before = self.json.len();
            self.json.push(if before == 0 { '{' } else { ',' });
            if !is_open {
                quote(&mut self.json, list.as_bytes());
                self.json.push_str(":{");
            }
            quote(&mut self.json, name.as_bytes());
            self.json.push(':');
            self.show(kept, &value);
            if self.json.len() + ENDING > ROW_BYTES {
                self.json.truncate(before);
                self.taken.dropped += 1;
                continue;
            }
            is_open = true;
        }
        if is_open {
            self.json.push('}');
        }
    }

    fn show(&mut self, kept: CapturedAs, value: &[u8]) {
        if kept == CapturedAs::Keep {
            return quote(&mut self.json, value);
        }
        let hash = if kept == CapturedAs::Sha256 { (self.hash)(value) } else { None };
        let Some(hash) = hash else {
            self.taken.unsalted += u64::from(kept == CapturedAs::Sha256);
            return self.json.push_str("\"***\"");
        };
        self.json.push_str("\"sha256:");
        let digit = |number: u8| char::from(b"0123456789abcdef"[usize::from(number & 0xf)]);
        self.json.extend(hash.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]));
        self.json.push('"');
    }

    fn finish(mut self) -> Taken {
        if self.taken.dropped > 0 {
            let truncated = if self.json.is_empty() { "{\"truncated\":true" } else { TRUNCATED };
            self.json.push_str(truncated);
        }
        if !self.json.is_empty() {
            self.json.push('}');
            self.taken.json = Some(self.json.into_boxed_str());
        }
        self.taken
    }
}

/// Bytes as text. NUL, which PostgreSQL has in no text and no JSON, is as what is no text.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(bytes);
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { text }
}

/// Writes bytes as a string of JSON, [`VALUE_BYTES`] of their text at most.
fn quote(json: &mut String, bytes: &[u8]) {
    let mut text = text(bytes);
    let end = text.floor_char_boundary(VALUE_BYTES);
    if end < text.len() {
        text = Cow::Owned(format!("{}…", &text[..end]));
    }
    if text.bytes().any(|byte| byte < b' ' || matches!(byte, b'"' | b'\\')) {
        return json.push_str(&serde_json::Value::from(text).to_string());
    }
    json.push('"');
    json.push_str(&text);
    json.push('"');
}
