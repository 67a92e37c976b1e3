//! The gate's own certificates: which one a client is shown, and which hosts a connection is good for.

use std::borrow::Cow;
use std::collections::HashSet;
use std::net::IpAddr;

use sidecar_config::policy::UnknownServerName;

use crate::certificate::{Certificate, CertificateFacts};
use crate::reason::Reason;
use crate::route::canonical_host;
use crate::snapshot::AcceptedIdentity;

/// One of the gate's certificates, with the names it may be shown for.
#[derive(Debug)]
pub struct ServerCertificate {
    /// What listeners call it that show it; one without a name is shown on all of them.
    pub name: Option<Box<str>>,
    /// Leaf first; never empty.
    pub chain: Vec<Certificate>,
    /// The file the key is in.
    pub key_file: String,
    /// The names of its leaf.
    pub names: ServerNames,
    /// Whether it is the one for clients that ask for no name, or for one that no certificate has, where a listener has
    /// none of its own.
    pub is_default: bool,
}

impl ServerCertificate {
    /// What its leaf says.
    #[must_use]
    pub fn facts(&self) -> Option<&CertificateFacts> {
        self.chain.first().map(|leaf| &leaf.facts)
    }
}

/// The names of a certificate: DNS and IP subject alternative names, never the common name (RFC 9525 §6.2, §6.3).
#[derive(Debug, Default)]
pub struct ServerNames {
    exact: HashSet<Box<str>>,
    /// `example.com` for `*.example.com`, which is every name of one label more (RFC 9525 §6.3).
    below: HashSet<Box<str>>,
    addresses: HashSet<IpAddr>,
}

impl ServerNames {
    /// Of a leaf. A wildcard that is not its whole first label stands for nothing.
    #[must_use]
    pub fn of(facts: &CertificateFacts) -> Self {
        let mut names = Self { addresses: facts.addresses.iter().copied().collect(), ..Self::default() };
        for name in &facts.dns_names {
            let (set, name) = match name.strip_prefix("*.") {
                Some(parent) => (&mut names.below, parent),
                None => (&mut names.exact, name.as_str()),
            };
            if !name.is_empty() && !name.contains('*') {
                set.insert(canonical_host(name).into());
            }
        }
        names
    }

    /// Whether there is no name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.below.is_empty() && self.addresses.is_empty()
    }

    fn cover(&self, host: &Host<'_>) -> bool {
        match host {
            Host::Name(name) => self.exact.contains(&**name) || self.has_parent_of(name),
            Host::Address(address) => self.addresses.contains(address),
        }
    }

    fn has_parent_of(&self, name: &str) -> bool {
        matches!(name.split_once('.'), Some((label, parent)) if !label.is_empty() && self.below.contains(parent))
    }
}

/// A host as certificates name it.
enum Host<'a> {
    Name(Cow<'a, str>),
    Address(IpAddr),
}

impl<'a> Host<'a> {
    fn of(host: &'a str) -> Self {
        let name = canonical_host(host);
        let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&name);
        match literal.parse() {
            Ok(address) => Self::Address(address),
            Err(_) => Self::Name(name),
        }
    }
}

impl AcceptedIdentity {
    /// Index of the certificate for a client of a listener with certificates of its `own`, which asks for `name` (SNI), or
    /// for none and has reached `address`.
    ///
    /// # Errors
    /// When it asks for a name that no certificate has, and the listener refuses those.
    pub fn choose(
        &self,
        own: &[usize],
        name: Option<&str>,
        address: Option<IpAddr>,
        unknown: UnknownServerName,
    ) -> Result<usize, Reason> {
        match name {
            Some(name) => self.choose_for(own, &Host::of(name), unknown),
            None => {
                let found = address.and_then(|address| self.find(own, &Host::Address(address)));
                Ok(found.unwrap_or(default(own)))
            }
        }
    }

    /// Whether a request for a host came on a connection that was shown another certificate than the host's: its client
    /// took two hosts for one server (RFC 9110 §15.5.20), and the other's certificate says nothing of this one.
    #[must_use]
    pub fn is_misdirected(
        &self,
        own: &[usize],
        shown: &ServerCertificate,
        host: &str,
        unknown: UnknownServerName,
    ) -> bool {
        // With one certificate for everything there is no other.
        if self.certificates.len() == 1 && shown.is_default && unknown == UnknownServerName::Default {
            return false;
        }
        let host = Host::of(host);
        if shown.names.cover(&host) {
            return false;
        }
        // A connection from before a change was shown what the same certificate was then.
        let is_same = |index: usize| {
            let now = self.certificates.get(index);
            now.is_some_and(|now| now.is_default && shown.is_default || now.name.is_some() && now.name == shown.name)
        };
        match self.find(own, &host) {
            Some(index) => !is_same(index),
            None if unknown == UnknownServerName::Refuse && matches!(host, Host::Name(_)) => true,
            // Whoever was shown the gate's default goes on with it where the listener has one of its own now.
            None => !(shown.is_default || is_same(default(own))),
        }
    }

    /// A name that no certificate has may be refused; an address is never asked for, so it is no such name.
    fn choose_for(&self, own: &[usize], host: &Host<'_>, unknown: UnknownServerName) -> Result<usize, Reason> {
        match (self.find(own, host), host, unknown) {
            (Some(index), _, _) => Ok(index),
            (None, Host::Name(_), UnknownServerName::Refuse) => Err(Reason::TlsUnknownSni),
            (None, _, _) => Ok(default(own)),
        }
    }

    /// Of a listener's own certificates, then of those that are shown on every listener, the first that has the very name,
    /// else the first that has it by a wildcard.
    fn find(&self, own: &[usize], host: &Host<'_>) -> Option<usize> {
        let names = |index: &usize| self.certificates.get(*index).map(|certificate| &certificate.names);
        let shared = || (0..self.certificates.len()).filter(|index| self.is_shared(*index));
        let first = |has: &dyn Fn(&ServerNames) -> bool| -> [Option<usize>; 2] {
            let own = own.iter().copied().find(|index| names(index).is_some_and(has));
            [own, shared().find(|index| names(index).is_some_and(has))]
        };
        match host {
            Host::Name(name) => {
                let [own, shared] = first(&|names| names.exact.contains(&**name));
                let [own_below, shared_below] = first(&|names| names.has_parent_of(name));
                own.or(own_below).or(shared).or(shared_below)
            }
            Host::Address(address) => {
                let [own, shared] = first(&|names| names.addresses.contains(address));
                own.or(shared)
            }
        }
    }

    fn is_shared(&self, index: usize) -> bool {
        self.certificates.get(index).is_some_and(|certificate| certificate.name.is_none())
    }
}

/// The certificate for whoever asks for none that there is: the first of the listener's own, else the default.
fn default(own: &[usize]) -> usize {
    own.first().copied().unwrap_or(0)
}
