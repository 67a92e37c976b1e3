//! A client that asks a pod's gate again and again, on one connection while it is open, and notes when the answer turns.

use std::fs::read;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::scene::{PORT, Scene};

/// Between two questions: often enough for the times that are measured, seldom enough not to be what is measured.
const PAUSE: Duration = Duration::from_millis(20);
/// A gate that does not answer at all is a failure and not a refusal.
const PATIENCE: Duration = Duration::from_secs(10);

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// What the last answer was, and since when it has been so.
#[derive(Default)]
struct Seen {
    last: Mutex<Option<(bool, Instant)>>,
    turned: Condvar,
    /// Requests on an open connection that had no answer.
    cut: AtomicUsize,
    stop: AtomicBool,
}

pub(crate) struct Prober {
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

impl Prober {
    /// Asks from now on, with a client's certificate.
    pub(crate) fn start(scene: &Scene, pod: &str, client: &str) -> Self {
        Self::start_at(scene, pod, client, &scene.host(), "ca.pem")
    }

    /// The same by another name of the gate, which somebody else vouches for.
    pub(crate) fn start_at(scene: &Scene, pod: &str, client: &str, host: &str, authority: &str) -> Self {
        let address = scene.kubelet.with(pod, |pod| Ok(pod.address())).unwrap();
        let file = |name: &str| read(scene.file(name)).unwrap();
        let certificates = |pem: &[u8]| CertificateDer::pem_slice_iter(pem).map(Result::unwrap).collect::<Vec<_>>();
        let mut roots = RootCertStore::empty();
        certificates(&file(authority)).into_iter().for_each(|root| roots.add(root).unwrap());
        let chain = certificates(&file(&format!("{client}.pem")));
        let key = PrivateKeyDer::from_pem_slice(&file(&format!("{client}.key"))).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap();
        let target =
            Target { config: Arc::new(config), host: host.to_owned(), address: SocketAddr::from((address, PORT)) };
        let seen = Arc::new(Seen::default());
        let shared = Arc::clone(&seen);
        let thread = Some(thread::spawn(move || ask_on(&target, &shared)));
        Self { seen, thread }
    }

    /// How many requests had no answer because an open connection was cut.
    pub(crate) fn cut(&self) -> usize {
        self.seen.cut.load(Ordering::Relaxed)
    }

    /// When the answers began to be so: whether the client passes.
    pub(crate) fn wait(&self, passes: bool, limit: Duration) -> Instant {
        let last = self.seen.last.lock().unwrap();
        let is_other = |last: &mut Option<(bool, Instant)>| last.is_none_or(|(passed, _)| passed != passes);
        let (last, waited) = self.seen.turned.wait_timeout_while(last, limit, is_other).unwrap();
        assert!(!waited.timed_out(), "no answer in {limit:?} with passes {passes}: {last:?}");
        last.unwrap().1
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.seen.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Target {
    config: Arc<ClientConfig>,
    host: String,
    address: SocketAddr,
}

fn ask_on(target: &Target, seen: &Seen) {
    let mut stream = None;
    while !seen.stop.load(Ordering::Relaxed) {
        let is_new = stream.is_none();
        let status = ask(target, &mut stream);
        if status.is_err() {
            stream = None;
        }
        let passes = match &status {
            Ok(status) => *status == 200,
            // A handshake is refused where the certificate itself is revoked.
            Err(_) if is_new => false,
            // What was open was cut; whether that is a refusal the next answer tells.
            Err(_) => {
                seen.cut.fetch_add(1, Ordering::Relaxed);
                continue;
            }
        };
        let mut last = seen.last.lock().unwrap();
        if last.is_none_or(|(passed, _)| passed != passes) {
            *last = Some((passes, Instant::now()));
            seen.turned.notify_all();
        }
        drop(last);
        thread::sleep(PAUSE);
    }
}

/// The status of a question without a body in its answer.
fn ask(target: &Target, open: &mut Option<Stream>) -> io::Result<u16> {
    let stream = match open {
        Some(stream) => stream,
        None => open.insert(connect(target)?),
    };
    write!(stream, "HEAD / HTTP/1.1\r\nhost: {}:{PORT}\r\n\r\n", target.host)?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    if head.contains("\r\nconnection: close\r\n") {
        *open = None;
    }
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| io::Error::other("no status"))
}

fn connect(target: &Target) -> io::Result<Stream> {
    let socket = TcpStream::connect(target.address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from(target.host.clone()).map_err(io::Error::other)?;
    let connection = ClientConnection::new(Arc::clone(&target.config), name).map_err(io::Error::other)?;
    Ok(StreamOwned::new(connection, socket))
}
