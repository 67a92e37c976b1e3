//! What a certificate says, read once from its DER bytes; nothing here is verified.

use std::net::IpAddr;

use sha2::{Digest, Sha256};
use thiserror::Error;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};
use x509_parser::public_key::PublicKey;

use crate::hash::{hex, unhex, unhex_all};

/// Longest subject, issuer or list of names that is kept, in bytes: a stranger's certificate may be 64 KiB of names.
const NAME_MAX_BYTES: usize = 1024;

/// A certificate: its bytes and what they say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The DER encoding.
    pub der: Vec<u8>,
    /// What it says.
    pub facts: CertificateFacts,
}

impl Certificate {
    /// Reads a DER certificate.
    ///
    /// # Errors
    /// When the bytes are not one X.509 certificate.
    pub fn from_der(der: Vec<u8>) -> Result<Self, CertificateError> {
        let facts = CertificateFacts::of(&der)?;
        Ok(Self { der, facts })
    }
}

/// What a certificate says (RFC 5280 §4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Distinguished name of its subject, such as `CN=billing, O=Example`.
    pub subject: String,
    /// Distinguished name of its issuer.
    pub issuer: String,
    /// The subject's common name, where it has exactly one.
    pub common_name: Option<String>,
    /// Serial number as `openssl` prints it: lower-case hex bytes with colons, `5a:01`.
    pub serial: String,
    /// URI subject alternative names.
    pub uris: Vec<String>,
    /// DNS subject alternative names, lower-case.
    pub dns_names: Vec<String>,
    /// IP address subject alternative names.
    pub addresses: Vec<IpAddr>,
    /// All subject alternative names, in the manner of `openssl`: `URI:…, DNS:…`.
    pub san: String,
    /// Seconds since the epoch from which it is valid.
    pub not_before: i64,
    /// Seconds since the epoch until which it is valid.
    pub not_after: i64,
    /// SHA-256 over the DER encoding.
    pub sha256: [u8; 32],
    /// The DER encoding of its subjectPublicKeyInfo.
    pub spki: Vec<u8>,
    /// Whether subject and issuer are the same name.
    pub self_issued: bool,
    /// Whether basic constraints say it is a CA.
    pub is_ca: bool,
    /// Whether its key usage lets it sign revocation lists; without that extension it may.
    pub signs_crls: bool,
}

/// The bytes are not a certificate.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("not an X.509 certificate: {0}")]
pub struct CertificateError(String);

impl CertificateFacts {
    /// Reads the facts of a DER certificate.
    ///
    /// # Errors
    /// When the bytes are not one X.509 certificate.
    pub fn of(der: &[u8]) -> Result<Self, CertificateError> {
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|error| CertificateError(error.to_string()))?;
        if !rest.is_empty() {
            return Err(CertificateError(format!("{} bytes after its end", rest.len())));
        }
        let names = AlternativeNames::of(&parsed);
        Ok(Self {
            subject: bounded(parsed.subject().to_string()),
            issuer: bounded(parsed.issuer().to_string()),
            common_name: single_common_name(parsed.subject()),
            serial: hex(unsigned(parsed.raw_serial()), ":"),
            uris: names.uris,
            dns_names: names.dns_names,
            addresses: names.addresses,
            san: bounded(names.printed.join(", ")),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            sha256: Sha256::digest(der).into(),
            spki: parsed.public_key().raw.to_vec(),
            self_issued: parsed.subject().as_raw() == parsed.issuer().as_raw(),
            is_ca: parsed.is_ca(),
            signs_crls: parsed.key_usage().ok().flatten().is_none_or(|usage| usage.value.crl_sign()),
        })
    }

    /// `sha256:` and the digest in lower-case hex, as rows and recognisers write it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        format!("sha256:{}", hex(&self.sha256, ""))
    }

    /// SHA-256 over the subjectPublicKeyInfo.
    #[must_use]
    pub fn spki_sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.spki).into()
    }

    /// The same, written like a fingerprint.
    #[must_use]
    pub fn spki_fingerprint(&self) -> String {
        format!("sha256:{}", hex(&self.spki_sha256(), ""))
    }

    /// Long form device identifier (IEEE 2030.5): the first 20 bytes of the SHA-256 over the DER encoding.
    #[must_use]
    pub fn lfdi(&self) -> [u8; 20] {
        std::array::from_fn(|index| self.sha256[index])
    }

    /// The long form device identifier in lower-case hex.
    #[must_use]
    pub fn lfdi_hex(&self) -> String {
        hex(&self.lfdi(), "")
    }

    /// Short form device identifier (IEEE 2030.5).
    #[must_use]
    pub fn sfdi(&self) -> u64 {
        sfdi_of(&self.lfdi())
    }

    /// The short form device identifier in its 12 digits.
    #[must_use]
    pub fn sfdi_digits(&self) -> String {
        digits(self.sfdi())
    }
}

/// The short form of a long one, both as they are written; `None` where it is no long form.
#[must_use]
pub fn sfdi_of_hex(lfdi: &str) -> Option<String> {
    unhex(lfdi).map(|lfdi| digits(sfdi_of(&lfdi)))
}

fn digits(sfdi: u64) -> String {
    format!("{sfdi:012}")
}

/// Fewest bits of an RSA key that counts; aws-lc verifies no signature of a shorter one.
const RSA_MIN_BITS: usize = 2048;

/// Whether a DER certificate is for an RSA key that is too short.
#[must_use]
pub fn has_short_rsa_key(der: &[u8]) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(der) else { return false };
    matches!(parsed.public_key().parsed(), Ok(PublicKey::RSA(key)) if key.key_size() < RSA_MIN_BITS)
}

/// The short form of a device identifier (IEEE 2030.5): the first 36 bits of the long form as a decimal number, and a
/// digit behind it that makes the sum of all digits a multiple of ten. It is written with 12 digits.
#[must_use]
pub fn sfdi_of(lfdi: &[u8; 20]) -> u64 {
    let number = lfdi[..5].iter().fold(0, |number, byte| number << 8 | u64::from(*byte)) >> 4;
    number * 10 + (10 - digit_sum(number) % 10) % 10
}

/// Reads a short form as it is written: 12 digits, the last of which checks the others.
pub(crate) fn parse_sfdi(text: &str) -> Result<u64, &'static str> {
    if text.len() != 12 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("is not an SFDI; write 12 digits, zeros in front included");
    }
    let number = text.bytes().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    if !digit_sum(number).is_multiple_of(10) {
        return Err(
            "is not an SFDI: its last digit does not make the sum of its digits a multiple of ten; compare them",
        );
    }
    if number / 10 >= 1 << 36 {
        return Err("is not an SFDI: its first eleven digits are more than 36 bits hold; compare them");
    }
    Ok(number)
}

fn digit_sum(mut number: u64) -> u64 {
    let mut sum = 0;
    while number > 0 {
        sum += number % 10;
        number /= 10;
    }
    sum
}

/// A serial number in the form of [`CertificateFacts::serial`], from hex digits in either case, with a colon between
/// all bytes or none.
pub(crate) fn parse_serial(text: &str) -> Option<Box<str>> {
    let digits = if text.contains(':') {
        let bytes: Vec<_> = text.split(':').collect();
        bytes.iter().all(|byte| byte.len() == 2).then(|| bytes.concat())?
    } else {
        text.to_owned()
    };
    let bytes = unhex_all(&digits).filter(|bytes| !bytes.is_empty())?;
    Some(hex(unsigned(&bytes), ":").into())
}

#[derive(Default)]
struct AlternativeNames {
    uris: Vec<String>,
    dns_names: Vec<String>,
    addresses: Vec<IpAddr>,
    printed: Vec<String>,
}

impl AlternativeNames {
    fn of(parsed: &X509Certificate<'_>) -> Self {
        let mut names = Self::default();
        for extension in parsed.extensions() {
            if let ParsedExtension::SubjectAlternativeName(list) = extension.parsed_extension() {
                list.general_names.iter().for_each(|name| names.add(name));
            }
        }
        names
    }

    fn add(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::URI(uri) => {
                self.printed.push(format!("URI:{uri}"));
                self.uris.push((*uri).to_owned());
            }
            GeneralName::DNSName(host) => {
                self.printed.push(format!("DNS:{host}"));
                self.dns_names.push(host.to_ascii_lowercase());
            }
            GeneralName::RFC822Name(mail) => self.printed.push(format!("email:{mail}")),
            GeneralName::IPAddress(bytes) => match address(bytes) {
                Some(address) => {
                    self.printed.push(format!("IP:{address}"));
                    self.addresses.push(address);
                }
                None => self.printed.push(format!("IP:{}", hex(bytes, ":"))),
            },
            GeneralName::DirectoryName(directory) => self.printed.push(format!("DirName:{directory}")),
            _ => self.printed.push("other".to_owned()),
        }
    }
}

/// Without zero bytes in front, but for the last: DER puts one before a positive number whose first bit is set (X.690
/// §8.3), and nobody else prints it. So one number is one text, however it was encoded.
fn unsigned(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros.min(number.len().saturating_sub(1))..]
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        Some(IpAddr::from(v4))
    } else {
        <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
    }
}

/// Two common names would let a signer hide one behind the other, so they count as none.
fn single_common_name(subject: &X509Name<'_>) -> Option<String> {
    let mut names = subject.iter_common_name();
    match (names.next(), names.next()) {
        (Some(name), None) => name.as_str().ok().map(str::to_owned),
        _ => None,
    }
}

fn bounded(mut text: String) -> String {
    if text.len() > NAME_MAX_BYTES {
        text.truncate(text.floor_char_boundary(NAME_MAX_BYTES));
        text.push('…');
    }
    text
}
