//! A row beside the configuration as it is now: whether it is the one that decided, by what the client is recognised, and
//! whom the rule allows. Pure.

use std::fmt::Write as _;

use sidecar_decide::Parts;
use sidecar_decide::identity::Claim;

use super::explain::Found;
use super::print::{Cell, plain, safe};

impl Found {
    /// What a configuration adds to [`Found::explanation`], some lines.
    #[must_use]
    pub fn beside(&self, parts: &Parts) -> String {
        let mut text = String::new();
        let (Some(policy), Some(decided)) = (&parts.policy, self.text("policy_revision")) else { return text };
        let now = policy.revision.to_string();
        let mut line = |value: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}", safe(&value));
        };
        line(match now == decided {
            true => "In the configuration, which has not changed since:".to_owned(),
            false => format!("In the configuration, which is another by now (policy revision {now}):"),
        });
        if let Some(identity) = self.text("identity") {
            let known = parts.identities.iter().flat_map(|part| &part.identities).find(|known| known.name == identity);
            line(match known {
                None => format!("  identity {identity} is not there"),
                Some(known) => {
                    let by = known.claims.iter().filter(|(bundle, claim)| self.has(bundle, claim));
                    let by: Vec<_> =
                        by.map(|(bundle, claim)| format!("{} under bundle {bundle}", told(claim))).collect();
                    let by = if by.is_empty() { "nothing that the row has".to_owned() } else { by.join(", and by ") };
                    format!("  identity {identity} is recognised by {by}")
                }
            });
        }
        if let (Some(route), Some(rule)) = (self.text("route"), self.text("rule")) {
            let routes = policy.routes.iter().map(|(known, _)| known).filter(|known| known.name == route);
            let found = routes.flat_map(|known| &known.rules).find(|known| known.name == rule);
            line(match found {
                None => format!("  rule {rule} of {route} is not there"),
                Some(found) => {
                    let allow = found.allow.iter().map(|entry| serde_json::to_string(entry).unwrap_or_default());
                    format!("  rule {rule} of {route} allows {}", allow.collect::<Vec<_>>().join(", "))
                }
            });
        }
        text
    }

    /// Whether the row's certificate says so, under that bundle.
    fn has(&self, bundle: &str, claim: &Claim) -> bool {
        let is = |column: &str, value: &str| self.text(column) == Some(value);
        let says = |name: String| self.text("san").is_some_and(|names| names.split(", ").any(|one| one == name));
        is("bundle", bundle)
            && match claim {
                Claim::Uri(uri) => says(format!("URI:{uri}")),
                Claim::DnsName(name) => says(format!("DNS:{name}")),
                Claim::CommonName(name) => {
                    let subject = self.text("subject").unwrap_or_default();
                    subject.split(", ").any(|part| part.strip_prefix("CN=") == Some(name))
                }
                Claim::Fingerprint(digest) => is("fingerprint", &format!("sha256:{}", hex(digest))),
                Claim::Spki(digest) => is("spki", &format!("sha256:{}", hex(digest))),
                Claim::Lfdi(digest) => is("lfdi", &hex(digest)),
                Claim::Sfdi(number) => is("sfdi", &format!("{number:012}")),
                Claim::Serial(serial) => is("serial", serial),
            }
    }
}

/// By the names that a configuration has for them.
fn told(claim: &Claim) -> String {
    match claim {
        Claim::Uri(uri) => format!("uri {uri}"),
        Claim::DnsName(name) => format!("dnsName {name}"),
        Claim::CommonName(name) => format!("commonName {name}"),
        Claim::Fingerprint(digest) => format!("fingerprint sha256:{}", hex(digest)),
        Claim::Spki(digest) => format!("spki sha256:{}", hex(digest)),
        Claim::Lfdi(digest) => format!("lfdi {}", hex(digest)),
        Claim::Sfdi(number) => format!("sfdi {number:012}"),
        Claim::Serial(serial) => format!("serial {serial}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    plain(Cell::Blob(bytes))
}
