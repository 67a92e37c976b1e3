//! Who the caller is, as header fields.

use http::header::{HeaderName, HeaderValue};
use sidecar_config::filters::{ClientCertField, ForwardIdentity, IdentityFact};

use super::encode::{byte_sequence, element, escaped_pem};
use super::subject;
use crate::certificate::CertificateFacts;
use crate::hash::hex;
use crate::reason::Reason;
use crate::snapshot::Bundle;
use crate::spiffe::{spiffe_domain, well_formed};

/// Most bytes of names and values together. Application servers take 8 to 64 KiB for a whole head, and a client's
/// certificates may be 64 KiB; what most certificates need is 1 to 4 KiB each.
pub const FORWARDED_MAX_BYTES: usize = 16 << 10;

/// Envoy's field.
static X_FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// A caller whose certificate was verified.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// What it sent, in DER, its own certificate first; never empty.
    pub chain: &'a [&'a [u8]],
    /// What its own certificate says.
    pub facts: &'a CertificateFacts,
    /// Name of the known identity, if it is one's.
    pub identity: Option<&'a str>,
    /// The bundles that vouch for it today; never empty.
    pub bundles: &'a [&'a Bundle],
}

/// The fields a rule tells of callers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdentityHeaders {
    client_cert: Vec<ClientCertField>,
    facts: Vec<(HeaderName, IdentityFact)>,
}

/// A certificate has something that no header field can carry.
const UNWRITABLE: Reason = Reason::PolicyIdentityUnwritable;

impl IdentityHeaders {
    pub(crate) fn of(document: &ForwardIdentity) -> Self {
        // Names are accepted before; what is none is written nowhere.
        let facts = document
            .headers
            .iter()
            .filter_map(|header| Some((HeaderName::from_bytes(header.name.as_bytes()).ok()?, header.value)));
        Self { client_cert: document.x_forwarded_client_cert.clone(), facts: facts.collect() }
    }

    /// The fields of one caller. What it does not have is left out.
    ///
    /// # Errors
    /// Where it has something that cannot be told: half a truth about a caller is none.
    pub fn of_client(&self, client: &Client<'_>) -> Result<Vec<(HeaderName, HeaderValue)>, Reason> {
        let mut texts = Vec::new();
        if let Some(text) = self.client_cert(client)? {
            texts.push((X_FORWARDED_CLIENT_CERT.clone(), text));
        }
        for (name, fact) in &self.facts {
            if let Some(text) = fact_of(client, *fact)? {
                texts.push((name.clone(), text));
            }
        }
        let bytes: usize = texts.iter().map(|(name, text)| name.as_str().len() + text.len()).sum();
        if bytes > FORWARDED_MAX_BYTES {
            return Err(Reason::LimitIdentitySize);
        }
        let written = texts.into_iter().map(|(name, text)| {
            HeaderValue::try_from(text.into_bytes()).map(|value| (name, value)).map_err(|_| UNWRITABLE)
        });
        written.collect()
    }

    /// The one element of `x-forwarded-client-cert` (Envoy's documentation, "x-forwarded-client-cert").
    fn client_cert(&self, client: &Client<'_>) -> Result<Option<String>, Reason> {
        let mut pairs = Vec::new();
        for field in &self.client_cert {
            match field {
                ClientCertField::Hash => pairs.push(format!("Hash={}", hex(&client.facts.sha256, ""))),
                ClientCertField::Cert => pairs.push(format!("Cert=\"{}\"", certificate(client))),
                ClientCertField::Chain => {
                    let chain: String = client.chain.iter().map(|der| escaped_pem(der)).collect();
                    pairs.push(format!("Chain=\"{chain}\""));
                }
                ClientCertField::Subject => pairs.push(format!("Subject=\"{}\"", names(client)?.0)),
                ClientCertField::Uri => {
                    for uri in client.facts.uris.iter().filter(|uri| is_vouched(client, uri)) {
                        pairs.push(format!("URI={}", element(uri).ok_or(UNWRITABLE)?));
                    }
                }
                ClientCertField::Dns => {
                    for name in &client.facts.dns_names {
                        pairs.push(format!("DNS={}", element(name).ok_or(UNWRITABLE)?));
                    }
                }
            }
        }
        Ok((!pairs.is_empty()).then(|| pairs.join(";")))
    }
}

fn fact_of(client: &Client<'_>, fact: IdentityFact) -> Result<Option<String>, Reason> {
    let facts = client.facts;
    let text = match fact {
        IdentityFact::Identity => client.identity.map(str::to_owned),
        IdentityFact::SpiffeId => spiffe_id(client).map(str::to_owned),
        IdentityFact::Bundle => client.bundles.first().map(|bundle| bundle.name.to_string()),
        IdentityFact::Subject => Some(names(client)?.0),
        IdentityFact::Issuer => Some(names(client)?.1),
        IdentityFact::Sha256 => Some(hex(&facts.sha256, "")),
        IdentityFact::Lfdi => Some(facts.lfdi_hex()),
        IdentityFact::Sfdi => Some(facts.sfdi_digits()),
        IdentityFact::EscapedPem => Some(certificate(client)),
        IdentityFact::Rfc9440 => client.chain.first().map(|der| byte_sequence(der)),
        IdentityFact::Rfc9440Chain => {
            let above = client.chain.iter().skip(1).map(|der| byte_sequence(der));
            Some(above.collect::<Vec<_>>().join(", "))
        }
    };
    // An empty subject says nothing, and a field without a value could be taken for one that is not there, or is.
    Ok(text.filter(|text| !text.is_empty()))
}

fn certificate(client: &Client<'_>) -> String {
    client.chain.first().map(|der| escaped_pem(der)).unwrap_or_default()
}

fn names(client: &Client<'_>) -> Result<(String, String), Reason> {
    client.chain.first().and_then(|der| subject::names(der)).ok_or(UNWRITABLE)
}

/// Whether a URI counts: one with the scheme of SPIFFE IDs only under a bundle that vouches for its trust domain.
fn is_vouched(client: &Client<'_>, uri: &str) -> bool {
    if spiffe_domain(uri).is_none() {
        return true;
    }
    well_formed(uri).is_some_and(|domain| client.bundles.iter().any(|bundle| bundle.vouches_for_domain(domain)))
}

/// The one SPIFFE ID (X509-SVID §2: of two, nobody could say which one it is used for), if somebody vouches for it.
fn spiffe_id<'a>(client: &Client<'a>) -> Option<&'a str> {
    let mut ids = client.facts.uris.iter().filter(|uri| spiffe_domain(uri).is_some());
    match (ids.next(), ids.next()) {
        (Some(id), None) => Some(id.as_str()).filter(|id| is_vouched(client, id)),
        _ => None,
    }
}
