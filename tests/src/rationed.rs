//! A way to the API server that lets so many writes through and no more: whoever is killed then has been killed between
//! two writes. kubectl speaks with the API server; this speaks HTTP/1.1 with whoever comes.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::apiserver::ApiServer;

/// How many writes are left, and whether one was held back.
#[derive(Debug, Default)]
struct Ration {
    left: Mutex<(usize, bool)>,
    held_back: Condvar,
}

impl Ration {
    fn take(&self) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if left.0 == 0 {
            left.1 = true;
            self.held_back.notify_all();
            return false;
        }
        left.0 -= 1;
        true
    }
}

/// The way. It ends when it is dropped.
pub struct Rationed {
    ration: Arc<Ration>,
    proxy: Child,
    kubeconfig: PathBuf,
}

impl Rationed {
    /// Opens it, as whoever a kubeconfig says. Nothing is written until something is allowed.
    ///
    /// # Errors
    /// When kubectl cannot be started, or there is no port.
    pub fn open(server: &ApiServer, kubeconfig: &Path, folder: &Path) -> Result<Self> {
        let mut command = Command::new(server.kubectl_program());
        command.arg("proxy").arg("--port=0").env("KUBECONFIG", kubeconfig);
        let mut proxy = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut line = String::new();
        BufReader::new(proxy.stdout.take().context("kubectl's output")?).read_line(&mut line)?;
        let address: SocketAddr = line.trim().rsplit(' ').next().unwrap_or_default().parse().context(line.clone())?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let document = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "a", "cluster": {"server": format!("http://{}", listener.local_addr()?)}}],
            "users": [{"name": "a", "user": {}}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
            "current-context": "a",
        });
        let kubeconfig = folder.join("rationed.conf");
        std::fs::write(&kubeconfig, document.to_string())?;
        let ration = Arc::new(Ration::default());
        let shared = Arc::clone(&ration);
        // It ends with the process: nobody connects once the test is over.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let ration = Arc::clone(&shared);
                thread::spawn(move || pass(&stream, address, &ration));
            }
        });
        Ok(Self { ration, proxy, kubeconfig })
    }

    /// A kubeconfig for this way.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Lets so many writes through from now on.
    pub fn allow(&self, writes: usize) {
        *self.ration.left.lock().unwrap_or_else(PoisonError::into_inner) = (writes, false);
    }

    /// Waits until a write is held back; whether one was in time.
    #[must_use]
    pub fn wait_held_back(&self, limit: Duration) -> bool {
        let left = self.ration.left.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.ration.held_back.wait_timeout_while(left, limit, |left| !left.1);
        waited.unwrap_or_else(PoisonError::into_inner).0.1
    }
}

impl Drop for Rationed {
    fn drop(&mut self) {
        let _gone = self.proxy.kill();
        let _reaped = self.proxy.wait();
    }
}

/// One connection: its requests one after the other, its responses as they come.
fn pass(client: &TcpStream, address: SocketAddr, ration: &Ration) {
    let Ok(server) = TcpStream::connect(address) else { return };
    let back = client.try_clone().and_then(|mut client| {
        let mut server = server.try_clone()?;
        Ok(thread::spawn(move || {
            let _cut = io::copy(&mut server, &mut client);
            let _gone = client.shutdown(Shutdown::Both);
        }))
    });
    let mut requests = BufReader::new(client);
    let mut onward = &server;
    while let Ok(Some(request)) = read_request(&mut requests) {
        let is_write = !request.starts_with(b"GET ");
        if (is_write && !ration.take()) || onward.write_all(&request).is_err() {
            break;
        }
    }
    let _gone = (server.shutdown(Shutdown::Both), client.shutdown(Shutdown::Both));
    if let Ok(back) = back {
        let _ended = back.join();
    }
}

/// Head and body of a request; the client always tells its length.
fn read_request(stream: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut request = Vec::new();
    let mut length = 0;
    loop {
        let start = request.len();
        if stream.read_until(b'\n', &mut request)? == 0 {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&request[start..]).to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        if line == "\r\n" {
            break;
        }
    }
    stream.take(length).read_to_end(&mut request)?;
    Ok(Some(request))
}
