//! The webhook's own certificate, read from files that change when the operator renews it.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sidecar_decide::Certificate;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::limits::SERVING_FILE_BYTES;

/// Names of the files, as in every Secret with a certificate.
const FILES: [&str; 2] = ["tls.crt", "tls.key"];

/// Why there is no certificate.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// A file.
    #[error("{}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        cause: io::Error,
    },
    /// What is in them.
    #[error("{0}")]
    Unusable(String),
}

/// The certificate in use. Handshakes fail until there is one.
pub struct ServingCertificate {
    folder: PathBuf,
    current: RwLock<Current>,
}

#[derive(Default)]
struct Current {
    key: Option<Arc<CertifiedKey>>,
    not_after: i64,
    /// What the files had, wiped when they change.
    bytes: [Zeroizing<Vec<u8>>; 2],
}

impl fmt::Debug for ServingCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServingCertificate").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl ServingCertificate {
    /// Of a folder, which need not have one yet.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, current: RwLock::default() }
    }

    /// Looks at the files. Tells when the certificate ends if it is another one than before.
    ///
    /// # Errors
    /// When they cannot be used. What was in use stays.
    pub fn look(&self) -> Result<Option<i64>, CertificateError> {
        let bytes = [read(&self.folder.join(FILES[0]))?, read(&self.folder.join(FILES[1]))?];
        if self.read().bytes == bytes {
            return Ok(None);
        }
        let unusable = |error: &dyn fmt::Display| CertificateError::Unusable(error.to_string());
        let chain = CertificateDer::pem_slice_iter(&bytes[0]).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| unusable(&format!("{}: {error}", FILES[0])))?;
        let first = chain.first().ok_or_else(|| unusable(&format!("{}: there is no certificate in it", FILES[0])))?;
        let facts = Certificate::from_der(first.to_vec()).map_err(|error| unusable(&error))?.facts;
        let key = PrivateKeyDer::from_pem_slice(&bytes[1]);
        let key = key.map_err(|error| unusable(&format!("{}: {error}", FILES[1])))?;
        // Whoever reads one file before and the other after a change has two that do not belong together.
        let key =
            CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| unusable(&error))?;
        let not_after = facts.not_after;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) =
            Current { key: Some(Arc::new(key)), not_after, bytes };
        Ok(Some(not_after))
    }

    /// Whether there is one that is valid.
    #[must_use]
    pub fn is_good(&self, now: i64) -> bool {
        self.not_after().is_some_and(|not_after| now < not_after)
    }

    /// When the one in use ends.
    #[must_use]
    pub fn not_after(&self) -> Option<i64> {
        let current = self.read();
        current.key.as_ref().map(|_| current.not_after)
    }

    // It is replaced as a whole.
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.read().key.clone()
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, CertificateError> {
    let failed = |cause| CertificateError::File { path: path.to_owned(), cause };
    let length = path.metadata().map_err(failed)?.len();
    if length > SERVING_FILE_BYTES {
        return Err(failed(io::Error::other(format!("is larger than {SERVING_FILE_BYTES} bytes"))));
    }
    fs::read(path).map(Zeroizing::new).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::ServingCertificate;

    fn pair(name: &str) -> (String, String) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn a_certificate_may_come_late_and_change() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("a file");
        let certificate = ServingCertificate::new(folder.path().to_owned());
        let der = || certificate.read().key.as_ref().map(|key| key.cert[0].to_vec());
        assert!(certificate.look().is_err() && !certificate.is_good(0));
        let (first, second) = (pair("a"), pair("b"));
        write("tls.crt", &first.0);
        assert!(certificate.look().is_err());
        write("tls.key", &first.1);
        let not_after = certificate.look().expect("a certificate").expect("a new one");
        assert!(certificate.is_good(not_after - 1) && !certificate.is_good(not_after));
        assert_eq!(certificate.look().expect("the same"), None);
        let used = der();
        // Half of a change is none, and what is broken neither.
        for (chain, key) in [(&second.0, &first.1), (&second.0, &String::new()), (&String::new(), &second.1)] {
            write("tls.crt", chain);
            write("tls.key", key);
            assert!(certificate.look().is_err());
            assert_eq!(der(), used);
        }
        write("tls.crt", &second.0);
        assert!(certificate.look().is_ok_and(|found| found.is_some()));
        assert_ne!(der(), used);
    }
}
