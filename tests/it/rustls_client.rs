//! A client on rustls, for what openssl and curl do not do: the hybrid group, and certificates that nobody would send.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use postern_tests::gate::Gate;
use postern_tests::wait::PATIENCE;
use rustls::client::{ClientConnection, ResolvesClientCert};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{
    ALL_VERSIONS, ClientConfig, Error, NamedGroup, RootCertStore, SignatureScheme, StreamOwned,
    SupportedProtocolVersion,
};

const REQUEST: &[u8] = b"GET /orders HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// What a client offers.
pub(crate) struct Offer {
    pub(crate) versions: &'static [&'static SupportedProtocolVersion],
    pub(crate) groups: Vec<&'static dyn SupportedKxGroup>,
    /// DER certificate, and PEM key that need not be the certificate's.
    pub(crate) certificate: Option<(Vec<u8>, String)>,
}

impl Default for Offer {
    fn default() -> Self {
        Self { versions: ALL_VERSIONS, groups: aws_lc_rs::default_provider().kx_groups, certificate: None }
    }
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The alert that the gate sent.
    pub(crate) alert: Option<u8>,
    pub(crate) group: Option<NamedGroup>,
    /// The beginning of the answer.
    pub(crate) answer: String,
}

/// What a client connects with that keeps its connections, with a certificate of the gate's folder.
pub(crate) fn client(gate: &Gate, stem: &str) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_protocol_versions(ALL_VERSIONS).unwrap().with_root_certificates(roots(gate));
    let chain = CertificateDer::pem_file_iter(gate.folder.file(&format!("{stem}.pem"))).unwrap();
    let chain = chain.collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(gate.folder.file(&format!("{stem}.key"))).unwrap();
    Arc::new(config.with_client_auth_cert(chain, key).unwrap())
}

fn roots(gate: &Gate) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(gate.folder.file("ca.pem")).unwrap()).unwrap();
    roots
}

/// Shakes hands with a listener and makes a request.
pub(crate) fn talk(gate: &Gate, listener: &str, offer: Offer) -> Seen {
    let provider = CryptoProvider { kx_groups: offer.groups, ..aws_lc_rs::default_provider() };
    let config =
        ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(offer.versions).unwrap();
    let config = config.with_root_certificates(roots(gate));
    let config = match offer.certificate {
        Some((certificate, key)) => {
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            let key = aws_lc_rs::sign::any_supported_type(&key).unwrap();
            let certified = CertifiedKey::new(vec![CertificateDer::from(certificate)], key);
            config.with_client_cert_resolver(Arc::new(Whatever(Arc::new(certified))))
        }
        None => config.with_no_client_auth(),
    };
    let connection = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let socket = TcpStream::connect(gate.sidecar.listener(listener).unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = StreamOwned::new(connection, socket);
    let mut answer = Vec::new();
    let ended = stream.write_all(REQUEST).and_then(|()| stream.read_to_end(&mut answer).map(drop));
    let alert = ended.err().and_then(|error| match error.get_ref()?.downcast_ref()? {
        Error::AlertReceived(alert) => Some(u8::from(*alert)),
        _ => None,
    });
    Seen {
        alert,
        group: stream.conn.negotiated_key_exchange_group().map(SupportedKxGroup::name),
        answer: String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned(),
    }
}

/// Presents a certificate whatever the gate asks for, and whatever it is.
#[derive(Debug)]
struct Whatever(Arc<CertifiedKey>);

impl ResolvesClientCert for Whatever {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
