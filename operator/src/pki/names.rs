//! Which names a namespace may put into certificates: its own SPIFFE IDs, the names of its Services, and what the
//! operator's settings add.

use std::collections::BTreeMap;

use thiserror::Error;

/// Longest common name (RFC 5280, ub-common-name), in characters.
const COMMON_NAME_MAX_CHARS: usize = 64;
/// Longest DNS name, in bytes.
const DNS_NAME_MAX_BYTES: usize = 253;

/// Who owns which names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The SPIFFE trust domain of our own authorities.
    pub trust_domain: String,
    /// The cluster's DNS domain, such as `cluster.local`.
    pub cluster_domain: String,
    /// What namespaces may ask for beyond their own names, by namespace.
    pub extra: BTreeMap<String, ExtraNames>,
}

/// What one namespace may ask for beyond its own names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtraNames {
    /// DNS names; `*.example.com` is every name with more labels in front, and that wildcard itself.
    pub dns_names: Vec<String>,
    /// Beginnings of URIs, such as `urn:example:`. Never of SPIFFE IDs.
    pub uri_prefixes: Vec<String>,
}

/// Names that somebody wants in a certificate, beside its SPIFFE ID.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The subject's common name.
    pub common_name: Option<String>,
    /// URIs.
    pub uris: Vec<String>,
    /// DNS names.
    pub dns_names: Vec<String>,
}

/// A name that is not to be had.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NameError {
    /// A DNS name outside the namespace.
    #[error(
        "dnsNames: `{name}` is not under namespace `{namespace}`; ask for `<service>.{namespace}.svc` or have the operator's setting extended"
    )]
    ForeignDnsName {
        /// The name.
        name: String,
        /// Whose authority was looked at.
        namespace: String,
    },
    /// Not a DNS name.
    #[error("dnsNames: `{0}` is not a DNS name; write lower-case labels of letters, digits and hyphens")]
    NotADnsName(String),
    /// A SPIFFE ID that is another's.
    #[error("uris: `{name}` is a SPIFFE ID, and a certificate has one only, here `{own}`; leave it out")]
    OtherSpiffeId {
        /// The ID asked for.
        name: String,
        /// The one it has.
        own: String,
    },
    /// A URI that no setting allows.
    #[error(
        "uris: `{name}` is not under namespace `{namespace}`; have the operator's setting extended, or leave it out"
    )]
    ForeignUri {
        /// The URI.
        name: String,
        /// Whose authority was looked at.
        namespace: String,
    },
    /// Cannot be written into a certificate.
    #[error("uris: {0:?} has characters that no URI has")]
    NotAUri(String),
    /// A common name that cannot be written, or that is a DNS name of others.
    #[error("commonName: {0}")]
    CommonName(String),
}

impl Names {
    /// The SPIFFE ID of a client.
    #[must_use]
    pub fn client(&self, namespace: &str, name: &str) -> String {
        format!("spiffe://{}/ns/{namespace}/client/{name}", self.trust_domain)
    }

    /// The SPIFFE ID of a service account.
    #[must_use]
    pub fn service_account(&self, namespace: &str, name: &str) -> String {
        format!("spiffe://{}/ns/{namespace}/sa/{name}", self.trust_domain)
    }

    /// The DNS names of a Service.
    #[must_use]
    pub fn service(&self, namespace: &str, name: &str) -> [String; 2] {
        let short = format!("{name}.{namespace}.svc");
        let long = format!("{short}.{}", self.cluster_domain);
        [short, long]
    }

    /// What of all that is asked for is not to be had in a certificate with the SPIFFE ID `own`.
    #[must_use]
    pub fn refusals(&self, namespace: &str, own: &str, asked: &Asked) -> Vec<NameError> {
        let none = ExtraNames::default();
        let extra = self.extra.get(namespace).unwrap_or(&none);
        let common_name = asked.common_name.iter().filter_map(|name| self.refuse_common_name(namespace, extra, name));
        let uris = asked.uris.iter().filter_map(|uri| refuse_uri(namespace, own, extra, uri));
        let dns_names = asked.dns_names.iter().filter_map(|name| self.refuse_dns_name(namespace, extra, name));
        common_name.chain(uris).chain(dns_names).collect()
    }

    fn refuse_dns_name(&self, namespace: &str, extra: &ExtraNames, name: &str) -> Option<NameError> {
        if !is_dns_name(name.strip_prefix("*.").unwrap_or(name)) || name.len() > DNS_NAME_MAX_BYTES {
            return Some(NameError::NotADnsName(name.to_owned()));
        }
        let allowed = self.is_of_a_service(namespace, name) || extra.dns_names.iter().any(|one| covers(one, name));
        let foreign = || NameError::ForeignDnsName { name: name.to_owned(), namespace: namespace.to_owned() };
        (!allowed).then(foreign)
    }

    /// A Service's name, or a pod's below it. No wildcard: it would be the names of all Services at once.
    fn is_of_a_service(&self, namespace: &str, name: &str) -> bool {
        let short = name.strip_suffix(&format!(".{}", self.cluster_domain)).unwrap_or(name);
        let service = short.strip_suffix(&format!(".{namespace}.svc"));
        service.is_some_and(|service| is_dns_name(service) && service.split('.').count() <= 2)
    }

    /// A name with a dot in it would be taken for a DNS name by whoever still reads common names.
    fn refuse_common_name(&self, namespace: &str, extra: &ExtraNames, name: &str) -> Option<NameError> {
        let error = |detail: String| Some(NameError::CommonName(detail));
        if name.is_empty() || name.chars().count() > COMMON_NAME_MAX_CHARS || name.chars().any(char::is_control) {
            return error(format!("{name:?} is not one; write 1 to {COMMON_NAME_MAX_CHARS} printable characters"));
        }
        if name.contains("://") {
            return error(format!("`{name}` looks like a URI; write it into `uris`"));
        }
        let looks_like_a_host = name.contains('.') && is_dns_name(&name.trim_start_matches("*.").to_ascii_lowercase());
        let lower = name.to_ascii_lowercase();
        if looks_like_a_host && self.refuse_dns_name(namespace, extra, &lower).is_some() {
            return error(format!("`{name}` is a DNS name that is not under namespace `{namespace}`; write another"));
        }
        None
    }
}

fn refuse_uri(namespace: &str, own: &str, extra: &ExtraNames, uri: &str) -> Option<NameError> {
    if uri == own {
        return None;
    }
    if uri.is_empty() || !uri.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some(NameError::NotAUri(uri.to_owned()));
    }
    if uri.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:")) {
        return Some(NameError::OtherSpiffeId { name: uri.to_owned(), own: own.to_owned() });
    }
    let allowed = extra.uri_prefixes.iter().any(|prefix| !prefix.is_empty() && uri.starts_with(prefix.as_str()));
    (!allowed).then(|| NameError::ForeignUri { name: uri.to_owned(), namespace: namespace.to_owned() })
}

/// Whether a setting stands for a name: itself, or `*.` and any labels in front of the rest.
fn covers(setting: &str, name: &str) -> bool {
    let below = setting.strip_prefix('*').filter(|rest| rest.starts_with('.'));
    setting == name || below.is_some_and(|rest| name.len() > rest.len() && name.ends_with(rest))
}

fn is_dns_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (1..=63).contains(&label.len()) && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::{Asked, ExtraNames, Names};

    const OWN: &str = "spiffe://demo.local/ns/shop/client/billing";

    fn names() -> Names {
        let extra = ExtraNames {
            dns_names: vec!["*.shop.example.com".into(), "billing.example.org".into()],
            uri_prefixes: vec!["urn:shop:".into(), String::new()],
        };
        Names {
            trust_domain: "demo.local".into(),
            cluster_domain: "cluster.local".into(),
            extra: [("shop".to_owned(), extra)].into(),
        }
    }

    fn refused(namespace: &str, asked: &Asked) -> Vec<String> {
        names().refusals(namespace, OWN, asked).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_namespace_has_the_names_of_its_services() {
        let rows = [
            ("shop", "orders.shop.svc", true),
            ("shop", "orders.shop.svc.cluster.local", true),
            ("shop", "orders-0.orders.shop.svc", true),
            ("shop", "a.b.c.shop.svc", false),
            ("shop", "orders.web.svc", false),
            ("shop", "orders.shop.svc.other.local", false),
            ("shop", "orders.shop", false),
            ("shop", "shop.svc", false),
            ("shop", ".shop.svc", false),
            ("shop", "*.shop.svc", false),
            ("shop", "Orders.shop.svc", false),
            ("shop", "orders_a.shop.svc", false),
            ("shop", "evil.com/.shop.svc", false),
            ("shop", "evilshop.svc", false),
            ("op", "orders.shop.svc", false),
            ("shop", "example.com", false),
            ("shop", "a.shop.example.com", true),
            ("shop", "a.b.shop.example.com", true),
            ("shop", "*.shop.example.com", true),
            ("shop", "shop.example.com", false),
            ("shop", "billing.example.org", true),
            ("shop", "a.billing.example.org", false),
            ("web", "a.shop.example.com", false),
            ("shop", "", false),
        ];
        for (namespace, name, allowed) in rows {
            let asked = Asked { dns_names: vec![name.into()], ..Asked::default() };
            assert_eq!(refused(namespace, &asked).is_empty(), allowed, "{name} in {namespace}");
        }
    }

    #[test]
    fn a_certificate_has_its_own_spiffe_id_and_no_other() {
        let rows = [
            (OWN, true),
            ("spiffe://demo.local/ns/shop/client/other", false),
            ("spiffe://demo.local/ns/shop/sa/front", false),
            ("spiffe://demo.local/ns/web/client/billing", false),
            ("SPIFFE://demo.local/ns/shop/client/billing", false),
            ("spiffe:demo", false),
            ("urn:shop:1", true),
            ("urn:other:1", false),
            ("urn:shop: 1", false),
            ("", false),
        ];
        for (uri, allowed) in rows {
            let asked = Asked { uris: vec![uri.into()], ..Asked::default() };
            assert_eq!(refused("shop", &asked).is_empty(), allowed, "{uri}");
        }
    }

    #[test]
    fn a_common_name_is_not_a_strangers_host() {
        let rows = [
            ("billing", true),
            ("Billing & Co. KG", true),
            ("orders.shop.svc", true),
            ("Orders.Shop.svc", true),
            ("orders.web.svc", false),
            ("www.example.com", false),
            ("*.example.com", false),
            ("https://example.com", false),
            ("", false),
            ("a\nb", false),
        ];
        for (name, allowed) in rows {
            let asked = Asked { common_name: Some(name.into()), ..Asked::default() };
            assert_eq!(refused("shop", &asked).is_empty(), allowed, "{name:?}");
        }
        let long = Asked { common_name: Some("ä".repeat(65)), ..Asked::default() };
        assert_eq!(refused("shop", &long).len(), 1);
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let asked = Asked {
            common_name: Some("www.example.com".into()),
            uris: vec!["urn:other:1".into()],
            dns_names: vec!["orders.web.svc".into()],
        };
        let expected = [
            "commonName: `www.example.com` is a DNS name that is not under namespace `shop`; write another",
            "uris: `urn:other:1` is not under namespace `shop`; have the operator's setting extended, or leave it out",
            "dnsNames: `orders.web.svc` is not under namespace `shop`; ask for `<service>.shop.svc` or have the operator's setting extended",
        ];
        assert_eq!(refused("shop", &asked), expected);
    }
}
