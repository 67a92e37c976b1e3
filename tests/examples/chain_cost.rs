//! What the verification of a client's chain costs in a full handshake: the most that a cache of chains could save.
//!
//! `chain_cost verified|known [intermediate]`, and compare what they print: the least and the median of the server's time
//! for a handshake, in microseconds.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement that fails has no result")]

use std::env;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postern_tests::ca::{Authority, Issued, LeafOptions};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    ServerConnection, SignatureScheme,
};

const HANDSHAKES: usize = 1000;

/// Believes every chain, and verifies the handshake's own signature as ever.
#[derive(Debug)]
struct Known(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Known {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[inline(never)]
fn serve_one(server: &mut ServerConnection, mut input: &[u8], output: &mut Vec<u8>) {
    while !input.is_empty() {
        server.read_tls(&mut input).unwrap();
        server.process_new_packets().unwrap();
    }
    while server.wants_write() {
        server.write_tls(output).unwrap();
    }
}

fn pair(issued: &Issued) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_slice_iter(issued.chain_pem.as_bytes()).collect::<Result<_, _>>().unwrap();
    (chain, PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap())
}

fn main() {
    let is_known = env::args().nth(1).as_deref() == Some("known");
    let root = Authority::new("root").unwrap();
    let issuer = if env::args().nth(2).is_some() { root.intermediate("below").unwrap() } else { root };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(issuer.root_pem().as_bytes()).unwrap()).unwrap();
    let roots = Arc::new(roots);
    let verifier = WebPkiClientVerifier::builder(Arc::clone(&roots)).build().unwrap();
    let verifier = if is_known { Arc::new(Known(verifier)) } else { verifier };
    let (chain, key) = pair(&issuer.issue(&LeafOptions::server("gate")).unwrap());
    let mut server = ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap();
    // Every handshake is a full one.
    server.send_tls13_tickets = 0;
    let (chain, key) = pair(&issuer.issue(&LeafOptions::client("client", "spiffe://a/b")).unwrap());
    let client = ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap();
    let (server, client) = (Arc::new(server), Arc::new(client));
    let mut times = Vec::new();
    for _ in 0..HANDSHAKES {
        let mut time = Duration::ZERO;
        let mut server = ServerConnection::new(Arc::clone(&server)).unwrap();
        let mut client = ClientConnection::new(Arc::clone(&client), "localhost".try_into().unwrap()).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let (mut sent, mut answered) = (Vec::new(), Vec::new());
            while client.wants_write() {
                client.write_tls(&mut sent).unwrap();
            }
            let started = Instant::now();
            serve_one(&mut server, &sent, &mut answered);
            time += started.elapsed();
            let mut answered = answered.as_slice();
            while !answered.is_empty() {
                client.read_tls(&mut answered).unwrap();
                client.process_new_packets().unwrap();
            }
        }
        times.push(time.as_micros());
    }
    times.sort_unstable();
    println!("{} {}", times[0], times[HANDSHAKES / 2]);
}
