//! Another path, or another place to ask. What comes of a normalised path is a normalised path.

use std::borrow::Cow;

use http::header::HeaderValue;
use sidecar_config::filters::{PathModifier, PathModifierType, RequestRedirect, Scheme};
use sidecar_config::policy::{Match, PathMatchType};

use crate::route::split_port;

use super::hops::{Arrival, client_host, client_scheme};

/// How a path is changed, compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathChange {
    /// This path instead.
    Whole(Box<str>),
    /// These segments instead of the first ones.
    Prefix {
        /// How many go. Segments are counted and not compared: a match may spell them otherwise than the request.
        segments: usize,
        /// What comes; without a slash at its end.
        value: Box<str>,
    },
}

impl PathChange {
    /// Of a rule with these matches; both were accepted.
    pub(super) fn of(document: &PathModifier, matches: &[Match]) -> Self {
        match document.kind {
            PathModifierType::ReplaceFullPath => Self::Whole(document.value.as_str().into()),
            PathModifierType::ReplacePrefixMatch => {
                let prefix = common_prefix(matches).unwrap_or_default();
                let segments = prefix.split('/').filter(|segment| !segment.is_empty()).count();
                Self::Prefix { segments, value: without_slash(&document.value).into() }
            }
        }
    }

    /// The other path, for a normalised one that the rule matched.
    #[must_use]
    pub fn apply(&self, path: &str) -> String {
        match self {
            Self::Whole(path) => path.as_ref().to_owned(),
            Self::Prefix { segments, value } => {
                // Each segment has a slash before it; what is left begins with the slash of the next, if there is one.
                let slashes = path.match_indices('/').map(|(at, _)| at);
                let rest = slashes.skip(*segments).map(|at| &path[at..]).next().unwrap_or_default();
                if value.is_empty() && rest.is_empty() { "/".to_owned() } else { format!("{value}{rest}") }
            }
        }
    }
}

fn without_slash(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

/// The one prefix that all matches of a rule have.
pub(crate) fn common_prefix(matches: &[Match]) -> Option<&str> {
    let mut prefixes = matches.iter().map(|condition| {
        let path = condition.path.as_ref().filter(|path| path.kind == PathMatchType::PathPrefix)?;
        Some(without_slash(&path.value))
    });
    let first = prefixes.next()??;
    prefixes.all(|other| other == Some(first)).then_some(first)
}

/// Where to ask instead, compiled; the path is changed by a [`PathChange`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    scheme: Option<Scheme>,
    host: Option<Box<str>>,
    port: Option<u16>,
    status: u16,
}

impl Redirect {
    pub(super) fn of(document: &RequestRedirect) -> Self {
        Self {
            scheme: document.scheme,
            host: document.hostname.as_deref().map(Into::into),
            port: document.port,
            status: document.status_code,
        }
    }

    /// The answer's status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The answer's `Location`, for a request that came so, for a host that names a host and at most a port.
    ///
    /// Without a scheme of its own it stays with the port that the client named: a gate cannot know through which ports
    /// it is reached.
    #[must_use]
    pub fn location(&self, arrival: &Arrival, came: &Came<'_>, path_and_query: &str) -> Option<HeaderValue> {
        let scheme = self.scheme.unwrap_or_else(|| client_scheme(came.headers, arrival));
        let told = client_host(came.headers, arrival);
        let (host, port) = split_port(told.unwrap_or(came.host));
        let port = self.port.or_else(|| port.parse().ok().filter(|_| self.scheme.is_none()));
        let (scheme, own_port) = match scheme {
            Scheme::Http => ("http", 80),
            Scheme::Https => ("https", 443),
        };
        let host = self.host.as_deref().unwrap_or(host);
        let port = port.filter(|port| *port != own_port).map(|port| format!(":{port}")).unwrap_or_default();
        HeaderValue::try_from(format!("{scheme}://{host}{port}{}", escaped(path_and_query))).ok()
    }
}

/// What a request says of where it went.
#[derive(Clone, Copy, Debug)]
pub struct Came<'a> {
    /// The fields of its head.
    pub headers: &'a http::HeaderMap,
    /// The host it is for, with its port where there is one.
    pub host: &'a str,
}

/// As a URI may be written (RFC 3986 §2): a query may hold more by the time it comes here.
fn escaped(path_and_query: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(&byte);
    if path_and_query.bytes().all(is_plain) {
        return Cow::Borrowed(path_and_query);
    }
    let spelled = |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    Cow::Owned(path_and_query.bytes().map(spelled).collect())
}
