//! A throwaway certificate authority, and every kind of certificate a client could present to the gate.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, CustomExtension, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, RevokedCertParams,
    SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};

use crate::clients::run;
use crate::wait::PATIENCE;

/// A root or intermediate certificate with its key, which signs others.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// This authority's certificate and those above it, without the root: what a leaf's chain file carries after the leaf.
    intermediates_pem: String,
    root_pem: String,
}

impl Authority {
    /// Makes a new root.
    ///
    /// # Errors
    /// When a key cannot be made or used.
    pub fn new(common_name: &str) -> Result<Self> {
        let issuer = CertifiedIssuer::self_signed(authority_parameters(common_name), new_key()?)?;
        let root_pem = issuer.pem();
        Ok(Self { issuer, intermediates_pem: String::new(), root_pem })
    }

    /// Makes an authority below this one.
    ///
    /// # Errors
    /// When a key cannot be made or used.
    pub fn intermediate(&self, common_name: &str) -> Result<Self> {
        let issuer = CertifiedIssuer::signed_by(authority_parameters(common_name), new_key()?, &self.issuer)?;
        let intermediates_pem = format!("{}{}", issuer.pem(), self.intermediates_pem);
        Ok(Self { issuer, intermediates_pem, root_pem: self.root_pem.clone() })
    }

    /// This authority's own certificate.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        self.issuer.pem()
    }

    /// Its key, PKCS#8, for what openssl has to sign.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A revocation list of this authority's certificates: serial numbers in hex digits, and when the next one is due,
    /// in minutes from now.
    ///
    /// # Errors
    /// When a serial number is none, or the list cannot be signed.
    pub fn revocation_list(&self, serials: &[String], next_update_minutes: i64) -> Result<RevocationList> {
        let now = OffsetDateTime::now_utc();
        let next_update = now + Duration::minutes(next_update_minutes);
        let revoked = serials.iter().map(|serial| {
            Ok(RevokedCertParams {
                serial_number: serial_number(serial)?,
                revocation_time: now - Duration::hours(1),
                reason_code: None,
                invalidity_date: None,
            })
        });
        let parameters = CertificateRevocationListParams {
            this_update: (next_update - Duration::hours(1)).min(now),
            next_update,
            crl_number: SerialNumber::from_slice(&[1]),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect::<Result<_>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = parameters.signed_by(&self.issuer)?;
        Ok(RevocationList { pem: list.pem()?, der: list.der().to_vec() })
    }

    /// The root certificate this authority hangs from, or is.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// Issues a certificate with a new key.
    ///
    /// # Errors
    /// When a name cannot be written into a certificate, or a key cannot be made or used.
    pub fn issue(&self, leaf: &LeafOptions) -> Result<Issued> {
        let key = new_key()?;
        let certificate = leaf.parameters()?.signed_by(&key, &self.issuer)?;
        let chain_pem = format!("{}{}", certificate.pem(), self.intermediates_pem);
        Ok(Issued { chain_pem, key_pem: key.serialize_pem(), certificate_der: certificate.der().to_vec() })
    }
}

/// A signed revocation list in both of its forms.
pub struct RevocationList {
    /// As text.
    pub pem: String,
    /// As it is signed.
    pub der: Vec<u8>,
}

fn serial_number(hex: &str) -> Result<SerialNumber> {
    let digits: Vec<_> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    let bytes: Vec<_> = digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte * 16 + digit)).collect();
    let bytes = bytes.into_iter().map(u8::try_from).collect::<Result<Vec<_>, _>>().context("a serial number")?;
    Ok(SerialNumber::from_slice(&bytes))
}

/// Issues a certificate that is signed by its own key.
///
/// # Errors
/// When a name cannot be written into a certificate, or a key cannot be made or used.
pub fn self_signed(leaf: &LeafOptions) -> Result<Issued> {
    let key = new_key()?;
    let certificate = leaf.parameters()?.self_signed(&key)?;
    Ok(Issued {
        chain_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
        certificate_der: certificate.der().to_vec(),
    })
}

/// What a certificate may be used for (RFC 5280 §4.2.1.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be a TLS client.
    Client,
    /// To be a TLS server.
    Server,
    /// Neither.
    CodeSigning,
}

/// What a leaf certificate says. The default is valid for an hour around now and names nobody.
#[derive(Clone, Debug)]
pub struct LeafOptions {
    /// Common name of the subject; none where empty.
    pub common_name: String,
    /// Organisation of the subject, which Kubernetes takes for a group; none where empty.
    pub organisation: String,
    /// URI subject alternative names.
    pub uris: Vec<String>,
    /// DNS subject alternative names.
    pub dns_names: Vec<String>,
    /// IP address subject alternative names.
    pub addresses: Vec<IpAddr>,
    /// Start of validity.
    pub not_before: OffsetDateTime,
    /// End of validity.
    pub not_after: OffsetDateTime,
    /// Extended key usages; no such extension where empty.
    pub purposes: Vec<Purpose>,
    /// Whether it claims to be an authority itself.
    pub is_ca: bool,
    /// Serial number, big endian; a random one where absent.
    pub serial: Option<Vec<u8>>,
    /// Whether it has a critical extension that nobody knows.
    pub is_odd: bool,
}

impl Default for LeafOptions {
    fn default() -> Self {
        let now = OffsetDateTime::now_utc();
        Self {
            common_name: String::new(),
            organisation: String::new(),
            uris: Vec::new(),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            not_before: now - Duration::minutes(30),
            not_after: now + Duration::minutes(30),
            purposes: Vec::new(),
            is_ca: false,
            serial: None,
            is_odd: false,
        }
    }
}

impl LeafOptions {
    /// A client that is known by a URI.
    #[must_use]
    pub fn client(common_name: &str, uri: &str) -> Self {
        Self {
            common_name: common_name.to_owned(),
            uris: vec![uri.to_owned()],
            purposes: vec![Purpose::Client],
            ..Self::default()
        }
    }

    /// A server that is reached as `localhost` or `127.0.0.1`.
    #[must_use]
    pub fn server(common_name: &str) -> Self {
        Self {
            common_name: common_name.to_owned(),
            dns_names: vec!["localhost".to_owned()],
            addresses: vec![IpAddr::from([127, 0, 0, 1])],
            purposes: vec![Purpose::Server],
            ..Self::default()
        }
    }

    /// The same, valid for a day more: for whoever [puts a clock forward](crate::clock).
    #[must_use]
    pub fn for_a_day(mut self) -> Self {
        self.not_after = OffsetDateTime::now_utc() + Duration::days(1);
        self
    }

    /// The same, expired an hour ago.
    #[must_use]
    pub fn expired(mut self) -> Self {
        let now = OffsetDateTime::now_utc();
        self.not_before = now - Duration::hours(2);
        self.not_after = now - Duration::hours(1);
        self
    }

    /// The same, valid from an hour from now.
    #[must_use]
    pub fn not_yet_valid(mut self) -> Self {
        let now = OffsetDateTime::now_utc();
        self.not_before = now + Duration::hours(1);
        self.not_after = now + Duration::hours(2);
        self
    }

    /// The same, for other purposes.
    #[must_use]
    pub fn with_purposes(mut self, purposes: &[Purpose]) -> Self {
        self.purposes = purposes.to_vec();
        self
    }

    fn parameters(&self) -> Result<CertificateParams> {
        let mut parameters = named(&self.common_name);
        if !self.organisation.is_empty() {
            parameters.distinguished_name.push(DnType::OrganizationName, &self.organisation);
        }
        parameters.not_before = self.not_before;
        parameters.not_after = self.not_after;
        parameters.subject_alt_names = self.alternative_names()?;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = self.purposes.iter().map(|purpose| purpose.extended_key_usage()).collect();
        parameters.serial_number = self.serial.as_deref().map(SerialNumber::from_slice);
        if self.is_odd {
            let mut extension = CustomExtension::from_oid_content(&[2, 999, 1], vec![5, 0]);
            extension.set_criticality(true);
            parameters.custom_extensions = vec![extension];
        }
        if self.is_ca {
            parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        Ok(parameters)
    }

    fn alternative_names(&self) -> Result<Vec<SanType>> {
        let mut names = Vec::new();
        for uri in &self.uris {
            names.push(SanType::URI(uri.as_str().try_into().with_context(|| format!("URI {uri}"))?));
        }
        for name in &self.dns_names {
            names.push(SanType::DnsName(name.as_str().try_into().with_context(|| format!("DNS name {name}"))?));
        }
        names.extend(self.addresses.iter().copied().map(SanType::IpAddress));
        Ok(names)
    }
}

impl Purpose {
    fn extended_key_usage(self) -> ExtendedKeyUsagePurpose {
        match self {
            Self::Client => ExtendedKeyUsagePurpose::ClientAuth,
            Self::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Self::CodeSigning => ExtendedKeyUsagePurpose::CodeSigning,
        }
    }
}

/// A certificate with its chain and its key. It has no `Debug`: nothing may print the key.
pub struct Issued {
    /// The leaf, then the intermediates up to the root, without the root.
    pub chain_pem: String,
    /// The leaf's key, PKCS#8.
    pub key_pem: String,
    /// The leaf alone.
    pub certificate_der: Vec<u8>,
}

impl Issued {
    /// SHA-256 over the leaf, 64 hex digits, as openssl sees it.
    ///
    /// # Errors
    /// When openssl cannot be started or cannot read the certificate.
    pub fn fingerprint(&self) -> Result<String> {
        let hex = self.openssl_fact("-fingerprint")?.replace(':', "");
        Ok(hex.to_ascii_lowercase())
    }

    /// The leaf's serial number in lower-case hex digits, as openssl sees it.
    ///
    /// # Errors
    /// When openssl cannot be started or cannot read the certificate.
    pub fn serial(&self) -> Result<String> {
        Ok(self.openssl_fact("-serial")?.to_ascii_lowercase())
    }

    /// What openssl prints after `=` for one of its display options.
    fn openssl_fact(&self, option: &str) -> Result<String> {
        openssl_fact(&self.chain_pem, option)
    }

    /// Writes `<stem>.pem` and, readable by its owner alone, `<stem>.key` into a folder.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path, stem: &str) -> Result<()> {
        write_with_mode(&folder.join(format!("{stem}.pem")), &self.chain_pem, 0o644)?;
        write_with_mode(&folder.join(format!("{stem}.key")), &self.key_pem, 0o600)
    }
}

/// What openssl prints of a certificate after `=` for one of its display options.
///
/// # Errors
/// When openssl cannot be started or cannot read the certificate.
pub fn openssl_fact(certificate_pem: &str, option: &str) -> Result<String> {
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", "-sha256", option]);
    let finished = run(&mut command, certificate_pem.as_bytes(), PATIENCE)?;
    ensure!(finished.code == Some(0), "openssl x509 {option} failed: {}", finished.stderr);
    let text = finished.text();
    let (_, fact) = text.trim_end().split_once('=').with_context(|| format!("openssl printed {text}"))?;
    Ok(fact.to_owned())
}

fn write_with_mode(path: &Path, text: &str, mode: u32) -> Result<()> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("write {}", path.display()))
}

fn authority_parameters(common_name: &str) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut parameters = named(common_name);
    parameters.not_before = now - Duration::days(1);
    parameters.not_after = now + Duration::days(1);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters
}

fn named(common_name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    if !common_name.is_empty() {
        parameters.distinguished_name.push(DnType::CommonName, common_name);
    }
    parameters.use_authority_key_identifier_extension = true;
    parameters
}

fn new_key() -> Result<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("make a key")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::{Authority, LeafOptions, self_signed};
    use crate::clients::run;
    use crate::wait::PATIENCE;

    /// Whether openssl verifies a leaf as a client's, with its own chain file as the intermediates.
    fn verifies(root: &Authority, leaf: &super::Issued) -> bool {
        let folder = tempfile::tempdir().unwrap();
        leaf.write(folder.path(), "leaf").unwrap();
        fs::write(folder.path().join("ca.pem"), root.root_pem()).unwrap();
        let mut command = Command::new("openssl");
        command.current_dir(folder.path());
        command.args(["verify", "-purpose", "sslclient", "-CAfile", "ca.pem", "-untrusted", "leaf.pem", "leaf.pem"]);
        run(&mut command, b"", PATIENCE).unwrap().code == Some(0)
    }

    #[test]
    fn openssl_agrees_on_who_is_good() {
        let root = Authority::new("root").unwrap();
        let client = LeafOptions::client("billing", "spiffe://demo.local/billing");
        let below = root.intermediate("issuing").unwrap().intermediate("lower").unwrap();
        let table = [
            ("good", root.issue(&client), true),
            ("below two intermediates", below.issue(&client), true),
            ("expired", root.issue(&client.clone().expired()), false),
            ("not yet valid", root.issue(&client.clone().not_yet_valid()), false),
            ("a server's", root.issue(&LeafOptions::server("gate")), false),
            ("foreign", Authority::new("root").unwrap().issue(&client), false),
            ("self-signed", self_signed(&client), false),
        ];
        for (case, leaf, expected) in table {
            assert_eq!(verifies(&root, &leaf.unwrap()), expected, "{case}");
        }
    }

    #[test]
    fn the_key_is_its_owners_alone_and_facts_are_hexadecimal() {
        let folder = tempfile::tempdir().unwrap();
        let serial = Some(vec![0x5a, 0x01]);
        let leaf = Authority::new("root").unwrap().issue(&LeafOptions { serial, ..LeafOptions::default() }).unwrap();
        leaf.write(folder.path(), "leaf").unwrap();
        let mode = fs::metadata(folder.path().join("leaf.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(leaf.serial().unwrap(), "5a01");
        assert_eq!(leaf.fingerprint().unwrap().len(), 64);
    }
}
