//! What a ClientIdentity asks for, judged: what its certificate would say, or why there will be none. Pure.

use postern_crds::clientidentity::{Algorithm as Asked, Certificate, Issue, Keystore, PrivateKey, Source};
use postern_crds::{ClientIdentity, Reason};
use sidecar_config::Duration;

use super::directory::{Entry, Problem};
use crate::pki::issue::{CLIENT_SECONDS, Request, Usage};
use crate::pki::key::{Algorithm, PublicKey};
use crate::pki::names::{Asked as AskedNames, Names};
use crate::pki::request;

/// Behind the name of a Secret: the Secret with the password of its keystore.
const PASSWORD_SUFFIX: &str = "-password";
/// Longest name of an object.
const NAME_MAX_BYTES: usize = 253;
/// Longest common name (RFC 5280); a longer name of an identity is no common name, unless another is written.
const COMMON_NAME_MAX_CHARS: usize = 64;

/// What is to be done for a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Valid {
    /// Nothing is issued: it shows its pods' certificates, or others'.
    Recognised,
    /// A certificate is issued.
    Issued(Box<Issued>),
}

/// A certificate that there is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// What it says.
    pub request: Request,
    /// How long before its end it is renewed, where that was said.
    pub renew_before_seconds: Option<i64>,
    /// Where it goes.
    pub target: Target,
}

/// Where a certificate goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Into a Secret, with a key that is made for it.
    Secret {
        /// Name of the Secret.
        name: String,
        /// Of what kind the key is.
        algorithm: Algorithm,
        /// Name of the Secret with the password of a keystore, where one is asked for.
        password: Option<String>,
    },
    /// Into the status, for the key of a request.
    Status {
        /// That key.
        key: PublicKey,
    },
}

/// Why an identity is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// In a word.
    pub reason: Reason,
    /// What is wrong, and what to do.
    pub message: String,
}

/// Judges an identity.
///
/// # Errors
/// With everything that is wrong, and its gravest kind.
pub fn validate(identity: &ClientIdentity, entry: &Entry, names: &Names, quota: usize) -> Result<Valid, Refusal> {
    match &entry.problem {
        Some(Problem::Invalid(message)) => return refuse(Reason::Invalid, message),
        Some(Problem::Conflicted(message)) => return refuse(Reason::Conflicted, message),
        None => {}
    }
    let source = match identity.spec.source() {
        Some(source @ (Source::Issue(_) | Source::Csr(_))) => source,
        _ => return Ok(Valid::Recognised),
    };
    if entry.older_in_namespace >= quota {
        return refuse(
            Reason::QuotaExceeded,
            &format!(
                "the namespace has {quota} older identities with certificates, as many as it may have; delete one"
            ),
        );
    }
    let name = identity.metadata.name.as_deref().unwrap_or_default();
    let certificate = identity.spec.certificate.clone().unwrap_or_default();
    let request = request_of(&entry.namespace, name, &certificate, identity, names)?;
    let refusals = names.refusals(&entry.namespace, &request.spiffe_id, &request.names);
    if !refusals.is_empty() {
        let told: Vec<_> = refusals.iter().map(|refusal| format!("certificate.{refusal}")).collect();
        return refuse(Reason::NotPermitted, &told.join("; "));
    }
    let target = match source {
        Source::Issue(issue) => target_of(issue)?,
        Source::Csr(csr) => {
            let text = base64_decoded(&csr.request);
            let text = text
                .ok_or_else(|| refusal(Reason::Invalid, "csr.request is not base64; write base64 of the PEM text"))?;
            match request::accept(&text, &request) {
                Ok(key) => Target::Status { key },
                Err(error @ request::RequestError::Beyond(_)) => {
                    return refuse(Reason::NotPermitted, &format!("csr.request: {error}"));
                }
                Err(error) => return refuse(Reason::Invalid, &format!("csr.request: {error}")),
            }
        }
        Source::ServiceAccount(_) | Source::External(_) => return Ok(Valid::Recognised),
    };
    let renew_before_seconds = certificate.renew_before.as_ref().map(|text| seconds("renewBefore", text.as_str()));
    let renew_before_seconds = renew_before_seconds.transpose()?;
    Ok(Valid::Issued(Box::new(Issued { request, renew_before_seconds, target })))
}

fn request_of(
    namespace: &str,
    name: &str,
    certificate: &Certificate,
    identity: &ClientIdentity,
    names: &Names,
) -> Result<Request, Refusal> {
    let own = (name.chars().count() <= COMMON_NAME_MAX_CHARS).then(|| name.to_owned());
    // A name with dots is one that objects may have, and hosts, too: it is a common name only where it is written.
    let own = own.filter(|name| !name.contains('.'));
    let sorted = |values: &[String]| {
        let mut values = values.to_vec();
        values.sort();
        values.dedup();
        values
    };
    let duration_seconds = seconds("duration", certificate.duration.as_str())?;
    // The schema bounds it; an object from before the schema must not overflow anything.
    let duration_seconds = duration_seconds.clamp(60, 40 * CLIENT_SECONDS);
    Ok(Request {
        spiffe_id: names.client(namespace, name),
        names: AskedNames {
            common_name: certificate.common_name.clone().or(own),
            uris: sorted(&certificate.uris),
            dns_names: sorted(&certificate.dns_names),
        },
        usage: Usage::Client,
        duration_seconds,
        accept_issued_after: super::directory::revocation(identity)
            .and_then(|revocation| revocation.accept_issued_after)
            .map(sidecar_config::UtcTime::seconds),
    })
}

fn target_of(issue: &Issue) -> Result<Target, Refusal> {
    let password = issue.keystore.map(|Keystore::Pkcs12| format!("{}{PASSWORD_SUFFIX}", issue.secret_name));
    if password.as_ref().is_some_and(|name| name.len() > NAME_MAX_BYTES) {
        let most = NAME_MAX_BYTES - PASSWORD_SUFFIX.len();
        return refuse(
            Reason::Invalid,
            &format!(
                "issue.secretName is longer than {most} bytes, so that there is no name for the Secret with the keystore's password; write a shorter one"
            ),
        );
    }
    let algorithm = algorithm(issue.private_key.as_ref())?;
    Ok(Target::Secret { name: issue.secret_name.clone(), algorithm, password })
}

fn algorithm(key: Option<&PrivateKey>) -> Result<Algorithm, Refusal> {
    let Some(key) = key else { return Ok(Algorithm::default()) };
    match (key.algorithm, key.size) {
        (Asked::Ecdsa, None | Some(256)) => Ok(Algorithm::EcdsaP256),
        (Asked::Ed25519, None) => Ok(Algorithm::Ed25519),
        (Asked::Rsa, None | Some(2048)) => Ok(Algorithm::Rsa2048),
        (Asked::Rsa, Some(3072)) => Ok(Algorithm::Rsa3072),
        (Asked::Rsa, Some(4096)) => Ok(Algorithm::Rsa4096),
        (_, size) => refuse(
            Reason::Invalid,
            &format!(
                "issue.privateKey.size {} does not fit its algorithm; write 256 with ECDSA, 2048, 3072 or 4096 with RSA, and none with Ed25519",
                size.unwrap_or_default()
            ),
        ),
    }
}

fn seconds(field: &str, text: &str) -> Result<i64, Refusal> {
    let duration: Duration =
        text.parse().map_err(|error: String| refusal(Reason::Invalid, format!("certificate.{field}: {error}")))?;
    Ok(i64::try_from(duration.as_std().as_secs()).unwrap_or(i64::MAX))
}

/// What base64 stands for (RFC 4648 §4). The crate `pem` decodes it, as it does for every other certificate here.
fn base64_decoded(text: &str) -> Option<Vec<u8>> {
    let block = format!("-----BEGIN X-----\n{text}\n-----END X-----\n");
    pem::parse(block).ok().map(pem::Pem::into_contents)
}

fn refusal(reason: Reason, message: impl Into<String>) -> Refusal {
    Refusal { reason, message: message.into() }
}

fn refuse<T>(reason: Reason, message: &str) -> Result<T, Refusal> {
    Err(refusal(reason, message))
}
