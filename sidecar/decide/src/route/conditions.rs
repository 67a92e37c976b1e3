//! Conditions on header fields and on the query.

use std::borrow::Cow;
use std::iter;

use http::header::{CONNECTION, COOKIE, HeaderMap, HeaderName};
use sidecar_config::policy::{Match, ValueMatch, ValueMatchType};

use super::Request;
use crate::pattern::Pattern;

/// What a request's headers and query must be; all of it must hold.
#[derive(Debug)]
pub(super) struct Conditions {
    headers: Vec<(HeaderName, Wanted)>,
    parameters: Vec<(Box<str>, Wanted)>,
}

#[derive(Debug)]
enum Wanted {
    Exact(Box<str>),
    Pattern(Pattern),
}

impl Conditions {
    /// Of a match, if it has any. An accepted match compiles; one that does not matches nothing, `Err`.
    pub(super) fn of(condition: &Match) -> Result<Option<Self>, String> {
        let header = |header: &ValueMatch| Ok((header_name(&header.name)?, Wanted::of(header)?));
        let parameter = |parameter: &ValueMatch| Ok((parameter.name.as_str().into(), Wanted::of(parameter)?));
        let mut conditions = Self {
            headers: condition.headers.iter().map(header).collect::<Result<_, String>>()?,
            parameters: condition.query_params.iter().map(parameter).collect::<Result<_, String>>()?,
        };
        // So that the same names are the same list.
        conditions.headers.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
        conditions.parameters.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok((conditions.counts() != (0, 0)).then_some(conditions))
    }

    /// How many headers and parameters it names.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.headers.len(), self.parameters.len())
    }

    /// Fields that are compared exactly, by name.
    pub(super) fn exact_headers(&self) -> impl Iterator<Item = (&HeaderName, &str)> {
        self.headers.iter().filter_map(|(name, wanted)| Some((name, wanted.exact()?)))
    }

    /// Parameters that are compared exactly, by name.
    pub(super) fn exact_parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parameters.iter().filter_map(|(name, wanted)| Some((&**name, wanted.exact()?)))
    }

    pub(super) fn hold(&self, request: &Request<'_>) -> bool {
        self.headers.iter().all(|(name, wanted)| header_holds(request.headers, name, wanted))
            && self.parameters.iter().all(|(name, wanted)| parameter_holds(request.query, name, wanted))
    }
}

/// A header's name; the error says what to do.
pub(crate) fn header_name(name: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| format!("`{name}` is not the name of a header field; write it as in `X-Tenant`"))
}

impl Wanted {
    fn exact(&self) -> Option<&str> {
        match self {
            Self::Exact(text) => Some(text),
            Self::Pattern(_) => None,
        }
    }

    fn of(condition: &ValueMatch) -> Result<Self, String> {
        Ok(match condition.kind {
            ValueMatchType::Exact => Self::Exact(condition.value.as_str().into()),
            ValueMatchType::RegularExpression => Self::Pattern(Pattern::new(&condition.value)?),
        })
    }
}

fn header_holds(headers: &HeaderMap, name: &HeaderName, wanted: &Wanted) -> bool {
    let Some(value) = header_value(headers, name) else { return false };
    match wanted {
        Wanted::Exact(text) => *value == *text.as_bytes(),
        Wanted::Pattern(pattern) => pattern.is_match(&value),
    }
}

/// A field's value, its lines joined as RFC 9110 §5.3 says; cookies as RFC 9113 §8.2.3 does, because HTTP/2 splits them.
pub(super) fn header_value<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<Cow<'h, [u8]>> {
    let mut lines = headers.get_all(name).iter().map(http::HeaderValue::as_bytes);
    let first = lines.next()?;
    // It is taken out on the way upstream: what is matched is what is forwarded.
    if is_for_this_connection_only(headers, name) {
        return None;
    }
    let Some(second) = lines.next() else { return Some(Cow::Borrowed(first)) };
    let separator: &[u8] = if *name == COOKIE { b"; " } else { b"," };
    let mut joined = first.to_vec();
    for line in iter::once(second).chain(lines) {
        joined.extend_from_slice(separator);
        joined.extend_from_slice(line);
    }
    Some(Cow::Owned(joined))
}

/// Whether `Connection` names the field (RFC 9110 §7.6.1).
fn is_for_this_connection_only(headers: &HeaderMap, name: &HeaderName) -> bool {
    let mut named = headers.get_all(CONNECTION).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    named.any(|token| token.trim_ascii().eq_ignore_ascii_case(name.as_str().as_bytes()))
}

fn parameter_holds(query: Option<&str>, name: &str, wanted: &Wanted) -> bool {
    let Some(value) = parameter_value(query.unwrap_or_default(), name) else { return false };
    match wanted {
        Wanted::Exact(text) => decoded(value).eq(text.bytes()),
        Wanted::Pattern(pattern) => pattern.is_match(&decoded(value).collect::<Vec<u8>>()),
    }
}

/// The value of a parameter's first occurrence, as it was written.
pub(super) fn parameter_value<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(key, _)| decoded(key).eq(name.bytes())).map(|(_, value)| value)
}

/// The bytes that a name or value stands for (application/x-www-form-urlencoded): `+` is a space, `%XX` its byte, and a
/// percent sign that encodes nothing is itself.
pub(crate) fn decoded(text: &str) -> impl Iterator<Item = u8> {
    let mut rest = text.as_bytes();
    iter::from_fn(move || {
        let (byte, length) = match (crate::path::escaped(rest, 0), rest.first()?) {
            (Some(byte), _) => (byte, 3),
            (None, b'+') => (b' ', 1),
            (None, byte) => (*byte, 1),
        };
        rest = &rest[length..];
        Some(byte)
    })
}
