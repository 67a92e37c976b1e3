//! A whole gate for a test: an authority, certificates, an upstream, a configuration and the running sidecar.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use serde_json::Value;

use crate::ca::{Authority, Issued, LeafOptions, Purpose};
use crate::clients::{Curl, OpensslClient};
use crate::config::{ConfigFolder, client_uri, document};
use crate::process::{Launch, Sidecar, built_sidecar};
use crate::upstream::Upstream;
use crate::wait::{PATIENCE, eventually};

/// Clients that [`document`] knows; each has its certificate in the folder, `<name>.pem` and `<name>.key`.
const CLIENTS: [&str; 3] = ["billing", "reports", "mallory"];

/// The SPIFFE ID of every gate's own certificate, which is a server's and a client's.
pub const GATE_URI: &str = "spiffe://demo.local/ns/demo/sa/gate";

/// Everything between a client and an upstream. Fields are dropped in order: the sidecar first.
pub struct Gate {
    /// The sidecar.
    pub sidecar: Sidecar,
    /// What it forwards to.
    pub upstream: Upstream,
    /// Its configuration, certificates and request log.
    pub folder: ConfigFolder,
    /// Signs the certificates of bundle `ours`.
    pub authority: Arc<Authority>,
    /// The configuration it was started with.
    pub document: Value,
}

impl Gate {
    /// Starts one with [`document`] and waits until it is ready.
    ///
    /// # Errors
    /// When a part of it does not come up.
    pub fn start() -> Result<Self> {
        Self::start_with(|_| {})
    }

    /// Starts one whose document was changed by `change`.
    ///
    /// # Errors
    /// When a part of it does not come up.
    pub fn start_with(change: impl FnOnce(&mut Value)) -> Result<Self> {
        Self::start_binary(built_sidecar()?, change)
    }

    /// Starts one of this very binary.
    ///
    /// # Errors
    /// When a part of it does not come up.
    pub fn start_binary(binary: PathBuf, change: impl FnOnce(&mut Value)) -> Result<Self> {
        Self::start_under(binary, Arc::new(Authority::new("Postern test authority")?), change)
    }

    /// Starts another one whose certificates come from the same authority.
    ///
    /// # Errors
    /// When a part of it does not come up.
    pub fn start_beside(&self, change: impl FnOnce(&mut Value)) -> Result<Self> {
        Self::start_under(built_sidecar()?, Arc::clone(&self.authority), change)
    }

    fn start_under(binary: PathBuf, authority: Arc<Authority>, change: impl FnOnce(&mut Value)) -> Result<Self> {
        let upstream = Upstream::start()?;
        let folder = ConfigFolder::new()?;
        folder.write("ca.pem", authority.root_pem())?;
        let server = LeafOptions { uris: vec![GATE_URI.to_owned()], ..LeafOptions::server("gate") };
        let both_ways = server.with_purposes(&[Purpose::Server, Purpose::Client]);
        authority.issue(&both_ways)?.write(folder.path(), "server")?;
        for client in CLIENTS {
            authority.issue(&LeafOptions::client(client, &client_uri(client)))?.write(folder.path(), client)?;
        }
        let mut document = document(upstream.address());
        change(&mut document);
        folder.write_document(&document)?;
        let sidecar = Launch::of(binary, folder.path()).start_ready()?;
        Ok(Self { sidecar, upstream, folder, authority, document })
    }

    /// Writes a certificate and its key into the folder, for [`Self::curl`] and [`Self::openssl`].
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn keep(&self, stem: &str, issued: &Issued) -> Result<()> {
        issued.write(self.folder.path(), stem)
    }

    /// A call to `https://localhost` at listener `gate`, with the certificate of that name or none.
    ///
    /// # Errors
    /// When the listener's address is not known.
    pub fn curl(&self, certificate: Option<&str>, path: &str) -> Result<Curl> {
        let port = self.sidecar.listener("gate")?.port();
        let curl = Curl::new(format!("https://localhost:{port}{path}")).authority("ca.pem").folder(self.folder.path());
        Ok(match certificate {
            Some(stem) => curl.certificate(stem),
            None => curl,
        })
    }

    /// A connection to listener `gate`, with the certificate of that name or none.
    ///
    /// # Errors
    /// When the listener's address is not known.
    pub fn openssl(&self, certificate: Option<&str>) -> Result<OpensslClient> {
        let client = OpensslClient::new(self.sidecar.listener("gate")?).authority("ca.pem").folder(self.folder.path());
        Ok(match certificate {
            Some(stem) => client.certificate(stem),
            None => client,
        })
    }

    /// What the request log holds, oldest first, as soon as it holds at least `count` rows.
    ///
    /// # Errors
    /// When the rows do not come in time, or `postern-sidecar log` fails.
    pub fn rows(&self, count: usize) -> Result<Vec<Value>> {
        eventually(&format!("{count} rows in the request log"), PATIENCE, || {
            let rows = self.sidecar.launch().query("select * from requests order by id")?;
            Ok((rows.len() >= count).then_some(rows))
        })
    }
}
