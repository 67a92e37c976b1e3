//! Certificate signing requests (PKCS#10): a key that is strong enough, proof that its owner has it, and no name that
//! the identity does not have. What a certificate says comes from the identity; a request only brings the key.

use std::collections::BTreeSet;

use sidecar_decide::CertificateFacts;
use thiserror::Error;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{ExtendedKeyUsage, GeneralName, KeyUsage, ParsedExtension};
use x509_parser::oid_registry::Oid;
use x509_parser::prelude::{FromDer, X509Extension, X509Name};

use super::blocks::{self, BlockError};
use super::issue::{Request, Usage};
use super::key::{KeyError, PublicKey};

/// Longest request, in bytes of PEM: an RSA key of 8192 bits and 64 names fit.
pub const REQUEST_MAX_BYTES: usize = 16 * 1024;

const LABELS: [&str; 2] = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];
const OID_COMMON_NAME: &str = "2.5.4.3";
/// Signatures that count; those with SHA-1 do not prove anything any more.
const SIGNATURES: [&str; 7] = [
    "1.2.840.10045.4.3.2",   // ecdsa-with-SHA256
    "1.2.840.10045.4.3.3",   // ecdsa-with-SHA384
    "1.3.101.112",           // Ed25519
    "1.2.840.113549.1.1.11", // sha256WithRSAEncryption
    "1.2.840.113549.1.1.12", // sha384WithRSAEncryption
    "1.2.840.113549.1.1.13", // sha512WithRSAEncryption
    "1.2.840.113549.1.1.10", // RSASSA-PSS
];

/// Why a request is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RequestError {
    /// Too long.
    #[error("the request has {0} bytes; at most {REQUEST_MAX_BYTES} are read")]
    TooLong(usize),
    /// Not PEM, or a block of something else.
    #[error("the request {0}")]
    Blocks(#[from] BlockError),
    /// Not one PKCS#10 request.
    #[error("the request cannot be read as PKCS#10: {0}")]
    NotARequest(String),
    /// The key.
    #[error("the request's key {0}")]
    Key(#[from] KeyError),
    /// Nobody has proven to have the key.
    #[error("the request's signature does not verify with its own key, so nobody has proven to have the private key")]
    NoProof,
    /// A signature that proves nothing.
    #[error(
        "the request is signed by an algorithm that is not accepted ({0}); sign with SHA-256 or better, or Ed25519"
    )]
    WeakSignature(String),
    /// It asks for more than the identity has.
    #[error("the request asks for more than the identity has: {}", .0.join("; "))]
    Beyond(Vec<String>),
}

/// Reads a request and checks it against what the certificate will say.
///
/// # Errors
/// With all that it asks for beyond that, or why it cannot be used at all.
pub fn accept(text: &[u8], request: &Request) -> Result<PublicKey, RequestError> {
    if text.len() > REQUEST_MAX_BYTES {
        return Err(RequestError::TooLong(text.len()));
    }
    let blocks = blocks::read(text, &LABELS)?;
    let [der] = blocks.as_slice() else {
        return Err(RequestError::NotARequest(format!("{} blocks; put one there", blocks.len())));
    };
    let (rest, parsed) =
        X509CertificationRequest::from_der(der).map_err(|e| RequestError::NotARequest(e.to_string()))?;
    if !rest.is_empty() {
        return Err(RequestError::NotARequest(format!("{} bytes after its end", rest.len())));
    }
    let key = PublicKey::from_spki(parsed.certification_request_info.subject_pki.raw)?;
    let signature = parsed.signature_algorithm.algorithm.to_id_string();
    if !SIGNATURES.contains(&signature.as_str()) {
        return Err(RequestError::WeakSignature(signature));
    }
    parsed.verify_signature().map_err(|_| RequestError::NoProof)?;
    let mut beyond = Vec::new();
    check_subject(&parsed.certification_request_info.subject, request, &mut beyond);
    check_attributes(&parsed, request, &mut beyond);
    if beyond.is_empty() { Ok(key) } else { Err(RequestError::Beyond(beyond)) }
}

fn check_subject(subject: &X509Name<'_>, request: &Request, beyond: &mut Vec<String>) {
    let allowed = request.names.common_name.as_deref();
    for attribute in subject.iter_attributes() {
        let value = attribute.as_str().unwrap_or("?");
        if attribute.attr_type().to_id_string() != OID_COMMON_NAME {
            let oid = attribute.attr_type();
            beyond.push(format!("its subject has {} `{value}`; only a common name may be there", named(oid)));
        } else if allowed != Some(value) {
            let remedy = allowed.map_or("leave it out".to_owned(), |name| format!("write `{name}` or leave it out"));
            beyond.push(format!("the common name `{value}`; {remedy}"));
        }
    }
}

fn check_attributes(parsed: &X509CertificationRequest<'_>, request: &Request, beyond: &mut Vec<String>) {
    let attributes = parsed.certification_request_info.iter_attributes();
    let lists = attributes.filter_map(|attribute| match attribute.parsed_attribute() {
        ParsedCriAttribute::ExtensionRequest(list) => Some(&list.extensions),
        _ => None,
    });
    let mut seen = BTreeSet::new();
    for extension in lists.flatten() {
        if !seen.insert(extension.oid.to_id_string()) {
            beyond.push(format!("the extension {} twice", named(&extension.oid)));
        }
        check_extension(extension, request, beyond);
    }
}

fn check_extension(extension: &X509Extension<'_>, request: &Request, beyond: &mut Vec<String>) {
    match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => {
            names.general_names.iter().for_each(|name| check_name(name, request, beyond));
        }
        ParsedExtension::BasicConstraints(constraints) if !constraints.ca => {}
        ParsedExtension::BasicConstraints(_) => beyond.push("to be a CA".to_owned()),
        ParsedExtension::KeyUsage(usage) => check_key_usage(usage, beyond),
        ParsedExtension::ExtendedKeyUsage(usage) => check_purposes(usage, request.usage, beyond),
        // It only says which key it is.
        ParsedExtension::SubjectKeyIdentifier(_) => {}
        _ => beyond.push(format!("the extension {}", named(&extension.oid))),
    }
}

fn check_name(name: &GeneralName<'_>, request: &Request, beyond: &mut Vec<String>) {
    match name {
        GeneralName::URI(uri) if request.uris().iter().any(|allowed| allowed == uri) => {}
        GeneralName::URI(uri) => {
            beyond.push(format!("the URI `{uri}`; the identity has `{}`", request.uris().join("`, `")))
        }
        GeneralName::DNSName(host) => {
            let host = host.to_ascii_lowercase();
            if !request.names.dns_names.contains(&host) {
                beyond.push(format!("the DNS name `{host}`; add it to `dnsNames` of the identity or leave it out"));
            }
        }
        other => beyond.push(format!("the name `{other}`; only URIs and DNS names are issued")),
    }
}

fn check_key_usage(usage: &KeyUsage, beyond: &mut Vec<String>) {
    let asked = [
        (usage.key_cert_sign(), "keyCertSign"),
        (usage.crl_sign(), "cRLSign"),
        (usage.data_encipherment(), "dataEncipherment"),
        (usage.non_repudiation(), "nonRepudiation"),
    ];
    beyond.extend(asked.iter().filter(|(asked, _)| *asked).map(|(_, name)| format!("the key usage {name}")));
}

fn check_purposes(purposes: &ExtendedKeyUsage<'_>, usage: Usage, beyond: &mut Vec<String>) {
    let asked = [
        (purposes.any, "any purpose"),
        (purposes.server_auth && usage == Usage::Client, "the purpose serverAuth"),
        (purposes.code_signing, "the purpose codeSigning"),
        (purposes.email_protection, "the purpose emailProtection"),
        (purposes.time_stamping, "the purpose timeStamping"),
        (purposes.ocsp_signing, "the purpose OCSPSigning"),
    ];
    beyond.extend(asked.iter().filter(|(asked, _)| *asked).map(|(_, what)| (*what).to_owned()));
    beyond.extend(purposes.other.iter().map(|oid| format!("the purpose {}", oid.to_id_string())));
}

fn named(oid: &Oid<'_>) -> String {
    let registry = x509_parser::oid_registry::OidRegistry::default().with_x509();
    registry.get(oid).map_or_else(|| oid.to_id_string(), |entry| entry.sn().to_owned())
}

/// Whether a certificate is for the key of a request that was accepted.
#[must_use]
pub fn is_for(facts: &CertificateFacts, key: &PublicKey) -> bool {
    facts.spki == key.spki()
}
