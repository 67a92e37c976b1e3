//! A TLS client in Python, for what curl and `openssl s_client` cannot do: end one direction, pause, vanish.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::clients::{Finished, run};

/// Far above what any of these scripts needs on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Python's own TLS keeps the socket to itself; over two buffers every step is the script's.
const TLS: &str = r#"
import os, socket, ssl, sys, threading, time

class Tls:
    def __init__(self, address, certificate="billing", name="localhost"):
        context = ssl.create_default_context(cafile="ca.pem")
        context.check_hostname = name == "localhost"
        if certificate:
            context.load_cert_chain(certificate + ".pem", certificate + ".key")
        self.raw = socket.create_connection(address, timeout=30)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)
        self.step(self.tls.do_handshake)

    def step(self, action, *arguments):
        while True:
            try:
                result = action(*arguments)
                self.flush()
                return result
            except ssl.SSLWantReadError:
                self.flush()
                received = self.raw.recv(65536)
                if received:
                    self.incoming.write(received)
                else:
                    self.incoming.write_eof()

    def flush(self):
        self.raw.sendall(self.outgoing.read())

    def send(self, data):
        self.step(self.tls.write, data)

    def read(self, count=65536):
        """Bytes; none at TLS' own end, an exception at any other."""
        try:
            return self.step(self.tls.read, count)
        except ssl.SSLZeroReturnError:
            return b""

    def read_all(self):
        got = bytearray()
        while piece := self.read():
            got += piece
        return bytes(got)

    def end(self):
        """Tells the end of what this side sends, and goes on reading."""
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        self.flush()

def how_it_ends(action):
    try:
        action()
        return "end"
    except ConnectionResetError:
        return "reset"
    except ssl.SSLEOFError:
        return "cut short"
"#;

/// Runs a script that knows `Tls`, `how_it_ends` and the gate's `ADDRESS`, in a folder with certificates.
///
/// # Errors
/// When Python cannot be started, or does not end in time.
pub fn python(folder: &Path, address: SocketAddr, script: &str) -> Result<Finished> {
    let source = format!("{TLS}\nADDRESS = ({:?}, {})\n{script}", address.ip().to_string(), address.port());
    run(Command::new("python3").arg("-c").arg(source).current_dir(folder), b"", PATIENCE)
}
