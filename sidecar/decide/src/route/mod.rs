//! Which rule a request falls under: host, path, method, headers, query, the type of its message.

mod candidate;
mod claim;
mod conditions;
mod host;
mod paths;
mod template;

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};
use sidecar_config::policy::{Match, Route, Rule};

use self::candidate::{Candidate, Search};
pub use self::claim::{RouteClaim, claims};
use self::conditions::{Conditions, header_value};
use self::host::HostCondition;
pub(crate) use self::paths::path_pattern;
use self::paths::{HostTable, PathCondition};
use crate::message_type::{Medium, MessageType};
use crate::path::match_key;
use crate::quick::QuickMap;
use crate::reason::Reason;

pub(crate) use self::conditions::{decoded, header_name};
pub use self::host::{canonical_host, is_host, split_port};
pub(crate) use self::template::Template;

/// Index of a rule in its snapshot.
pub type RuleIndex = usize;

/// What a request asks for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The host it names, as it names it.
    pub host: &'a str,
    /// Its path, normalised ([`crate::path::normalise`]).
    pub path: &'a str,
    /// Its method.
    pub method: &'a Method,
    /// Its header fields.
    pub headers: &'a HeaderMap,
    /// Its query, without the question mark.
    pub query: Option<&'a str>,
    /// What is known of its message.
    pub message: Sent,
}

/// What is known of a request's message, which comes behind its head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sent {
    /// There is none, or none in a language that is known.
    #[default]
    Nothing,
    /// Its type.
    Known(MessageType),
    /// Its type is in its first bytes, at which nobody has looked.
    Unread,
}

impl Sent {
    /// By the head of a request that has a body. What is forwarded counts: a media type that is not, or one of two, is none
    /// that the application is bound to read the body by.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let Some(content_type) = header_value(headers, &CONTENT_TYPE) else { return Self::Nothing };
        match Medium::of(&content_type) {
            _ if content_type.contains(&b',') => Self::Known(MessageType::OTHER),
            Some(Medium::Known(known)) => Self::Known(known),
            Some(Medium::Xml) => Self::Unread,
            None => Self::Nothing,
        }
    }
}

/// The compiled routes of one listener.
///
/// Precedence is Gateway API's: a host's own routes, then those of the longest wildcard it lies below, then those for
/// any host; within a host a whole path, a template (more literal segments first), a prefix (longer first), a regular
/// expression; then a match with a method, with more headers, with more parameters, with a type of message; then document order. A match that
/// goes first and does not fit hides none behind it.
#[derive(Debug, Default)]
pub struct RouteTable {
    hosts: QuickMap<Box<str>, HostTable>,
    /// By what stands behind `*.`.
    wildcards: QuickMap<Box<str>, HostTable>,
    /// Bounds what a host of many labels costs.
    longest_wildcard_bytes: usize,
    any_host: HostTable,
    entered: usize,
    /// Whether any match asks for a type of message.
    asks_for_messages: bool,
}

impl RouteTable {
    /// Enters a rule of a route: what it matches, and its number.
    pub(crate) fn enter_rule(&mut self, route: &Route, rule: &Rule, index: RuleIndex) {
        let everything = [Match::default()];
        let matches = if rule.matches.is_empty() { &everything[..] } else { &rule.matches };
        let hosts: Vec<_> = match route.hostnames.as_slice() {
            [] => vec![HostCondition::Any],
            names => names.iter().map(|name| HostCondition::of(name)).collect(),
        };
        self.enter(&hosts, matches, index);
    }

    /// What a request may cost beyond what is promised, whatever the number of routes: why, and what to do.
    pub(crate) fn excess(&self) -> Option<String> {
        let own = self.hosts.iter().map(|(host, table)| (format!("host `{host}`"), table));
        let wildcards = self.wildcards.iter().map(|(parent, table)| (format!("host `*.{parent}`"), table));
        let any = std::iter::once(("any host".to_owned(), &self.any_host));
        let mut excesses = own.chain(wildcards).chain(any).filter_map(|(host, table)| Some((host, table.excess()?)));
        // The least, so that the same document always gets the same words.
        let first = excesses.next()?;
        let (host, excess) = excesses.fold(first, Ord::min);
        Some(format!("of {host} {excess}"))
    }

    /// Enters a rule, once for each of its hosts and matches.
    fn enter(&mut self, hosts: &[HostCondition<'_>], matches: &[Match], rule: RuleIndex) {
        for condition in matches {
            // Both are accepted before; what does not compile would match nothing.
            let (Ok(path), Ok(conditions)) = (PathCondition::of(condition.path.as_ref()), Conditions::of(condition))
            else {
                continue;
            };
            let method = condition.method.as_ref().and_then(|name| Method::from_bytes(name.as_bytes()).ok());
            let message = match condition.message_type.as_deref().map(MessageType::named) {
                Some(None) => continue,
                known => known.flatten(),
            };
            self.entered += 1;
            self.asks_for_messages |= message.is_some();
            let candidate = Candidate::new(method, conditions.map(Arc::new), message, self.entered, rule);
            for host in hosts {
                self.table(host).insert(path.clone(), candidate.clone());
            }
        }
    }

    fn table(&mut self, host: &HostCondition<'_>) -> &mut HostTable {
        match host {
            HostCondition::Any => &mut self.any_host,
            HostCondition::Exact(host) => self.hosts.entry((**host).into()).or_default(),
            HostCondition::Below(parent) => {
                self.longest_wildcard_bytes = self.longest_wildcard_bytes.max(parent.len());
                self.wildcards.entry((**parent).into()).or_default()
            }
        }
    }

    /// Of the paths of matches alone, whatever else they ask for.
    pub(crate) fn of_paths(matches: &[Match]) -> Self {
        let path_only = |condition: &Match| Match { path: condition.path.clone(), ..Match::default() };
        let mut table = Self::default();
        table.enter(&[HostCondition::Any], &matches.iter().map(path_only).collect::<Vec<_>>(), 0);
        table
    }

    /// Whether any rule has this path, normalised.
    pub(crate) fn has_path(&self, path: &str) -> bool {
        let (method, headers) = (&Method::GET, &HeaderMap::new());
        self.find(&Request { host: "", path, method, headers, query: None, message: Sent::Nothing }).is_ok()
    }

    /// The rule for a request.
    ///
    /// # Errors
    /// [`Reason::RouteNoHost`], [`Reason::RouteNoPath`], [`Reason::RouteNoMethod`] or [`Reason::RouteNoMatch`]: how far
    /// it got.
    pub fn find(&self, request: &Request<'_>) -> Result<RuleIndex, Reason> {
        let path = &*match_key(request.path);
        let host = &*canonical_host(request.host);
        let mut tables = self.tables(host).peekable();
        if tables.peek().is_none() {
            return Err(Reason::RouteNoHost);
        }
        let mut search = Search::new(request, Reason::RouteNoPath);
        let found = tables.find_map(|table| table.find(path, &mut search));
        found.ok_or_else(|| search.furthest())
    }

    /// Whether any rule asks what a request's message is.
    #[must_use]
    pub fn asks_for_messages(&self) -> bool {
        self.asks_for_messages
    }

    /// Whether the rule for a request may depend on its message. Where it does not, nobody has to wait for it.
    #[must_use]
    pub fn depends_on_message(&self, request: &Request<'_>) -> bool {
        let path = &*match_key(request.path);
        let request = Request { message: Sent::Unread, ..*request };
        let mut search = Search::new(&request, Reason::RouteNoPath);
        let _ = self.tables(&canonical_host(request.host)).find_map(|table| table.find(path, &mut search));
        search.wants_message()
    }

    /// The methods that rules of a request's host and path ask for, sorted, each once: what `Allow` names where
    /// [`Self::find`] says [`Reason::RouteNoMethod`].
    #[must_use]
    pub fn methods(&self, request: &Request<'_>) -> Vec<String> {
        let path = &*match_key(request.path);
        let mut search = Search::for_methods(request);
        // No rule fits, so that none of the tables is left out.
        let _ = self.tables(&canonical_host(request.host)).find_map(|table| table.find(path, &mut search));
        search.methods()
    }

    /// The tables that a host falls under, most specific first.
    fn tables(&self, host: &str) -> impl Iterator<Item = &HostTable> {
        let parents = host::parents(host).filter(|parent| parent.len() <= self.longest_wildcard_bytes);
        let wildcards = parents.filter_map(|parent| self.wildcards.get(parent));
        let any = Some(&self.any_host).filter(|table| !table.is_empty());
        self.hosts.get(host).into_iter().chain(wildcards).chain(any)
    }
}
