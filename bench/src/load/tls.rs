//! The client's side of TLS: its certificate, what it resumes, which key exchange it offers.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::peers::Scene;

/// How keys are agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// X25519, which both proxies have.
    Classical,
    /// X25519 with ML-KEM-768 and X25519 alone, as browsers offer them; each proxy takes what it has.
    PostQuantum,
}

/// How a client connects.
#[derive(Clone)]
pub struct TlsClient {
    config: ClientConfig,
}

impl TlsClient {
    /// With the certificate that both policies allow. It resumes nothing.
    pub fn new(scene: &Scene, exchange: Exchange) -> Result<Self> {
        let mut provider = default_provider();
        if exchange == Exchange::Classical {
            provider.kx_groups = vec![kx_group::X25519];
        }
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&scene.read("ca.pem")?)?)?;
        let chain = CertificateDer::pem_slice_iter(&scene.read("billing.pem")?).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(&scene.read("billing.key")?)?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        config.resumption = Resumption::disabled();
        Ok(Self { config })
    }

    /// The same, with sessions of its own to resume.
    pub fn resuming(&self) -> Self {
        let mut config = self.config.clone();
        config.resumption = Resumption::in_memory_sessions(8);
        Self { config }
    }

    /// The same, speaking this protocol only.
    pub fn speaking(&self, protocol: &[u8]) -> Self {
        let mut config = self.config.clone();
        config.alpn_protocols = vec![protocol.to_vec()];
        Self { config }
    }

    /// What makes connections.
    pub fn connector(self) -> TlsConnector {
        TlsConnector::from(Arc::new(self.config))
    }
}

/// Connects and shakes hands.
pub(super) async fn connect(connector: &TlsConnector, address: SocketAddr) -> Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await.context("connect to the proxy")?;
    stream.set_nodelay(true)?;
    connector.connect(ServerName::try_from("localhost")?, stream).await.context("shake hands with the proxy")
}
