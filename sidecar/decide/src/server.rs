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
    /// Leaf first; never empty.
    pub chain: Vec<Certificate>,
    /// The file the key is in.
    pub key_file: String,
    /// The names of its leaf.
    pub names: ServerNames,
    /// Whether it is the one for clients that ask for no name, or for one that no certificate has.
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
    /// Index of the certificate for a client that asks for `name` (SNI), or for none and has reached `address`.
    ///
    /// # Errors
    /// When it asks for a name that no certificate has, and the listener refuses those.
    pub fn choose(
        &self,
        name: Option<&str>,
        address: Option<IpAddr>,
        unknown: UnknownServerName,
    ) -> Result<usize, Reason> {
        match name {
            Some(name) => self.choose_for(&Host::of(name), unknown),
            None => Ok(address.and_then(|address| self.find(&Host::Address(address))).unwrap_or(0)),
        }
    }

    /// Whether a request for a host came on a connection that was shown another certificate than the host's: its client
    /// took two hosts for one server (RFC 9110 §15.5.20), and the other's certificate says nothing of this one.
    #[must_use]
    pub fn is_misdirected(&self, shown: &ServerCertificate, host: &str, unknown: UnknownServerName) -> bool {
        // With one certificate for everything there is no other.
        if self.certificates.len() == 1 && shown.is_default && unknown == UnknownServerName::Default {
            return false;
        }
        let host = Host::of(host);
        if shown.names.cover(&host) {
            return false;
        }
        let chosen = self.choose_for(&host, unknown).ok().and_then(|index| self.certificates.get(index));
        !(shown.is_default && chosen.is_some_and(|certificate| certificate.is_default))
    }

    /// A name that no certificate has may be refused; an address is never asked for, so it is no such name.
    fn choose_for(&self, host: &Host<'_>, unknown: UnknownServerName) -> Result<usize, Reason> {
        match (self.find(host), host, unknown) {
            (Some(index), _, _) => Ok(index),
            (None, Host::Name(_), UnknownServerName::Refuse) => Err(Reason::TlsUnknownSni),
            (None, _, _) => Ok(0),
        }
    }

    /// The first certificate that has the very name, else the first that has it by a wildcard.
    fn find(&self, host: &Host<'_>) -> Option<usize> {
        let first = |has: &dyn Fn(&ServerNames) -> bool| {
            self.certificates.iter().position(|certificate| has(&certificate.names))
        };
        match host {
            Host::Name(name) => {
                first(&|names| names.exact.contains(&**name)).or_else(|| first(&|names| names.has_parent_of(name)))
            }
            Host::Address(address) => first(&|names| names.addresses.contains(address)),
        }
    }
}
