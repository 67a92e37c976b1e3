//! Tunnels to an application behind TLS: what they rest on reaches them whatever their client does, and an end without
//! TLS' own word passes as one.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use postern_tests::ca::LeafOptions;
use postern_tests::gate::Gate;
use postern_tests::wait::PATIENCE;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

use crate::listeners::{application, script};
use crate::observed::{columns, newest};
use crate::tunnels::{ASK, change};

const AGREED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: raw/1\r\n\r\n";

type Stream = StreamOwned<ServerConnection, TcpStream>;

/// A gate whose one rule passes everything on to this application, in TLS and with a certificate of its own.
fn gate(serve: impl Fn(Stream) + Send + Clone + 'static) -> Gate {
    let mut gate = Gate::start().unwrap();
    let names = vec!["chat.test".to_owned()];
    let leaf = LeafOptions { dns_names: names, serial: Some(vec![0x5a, 0x02]), ..LeafOptions::server("chat") };
    gate.keep("chat", &gate.authority.issue(&leaf).unwrap()).unwrap();
    let chain = CertificateDer::pem_file_iter(gate.folder.file("chat.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(gate.folder.file("chat.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(chain, key).unwrap());
    let address = application(move |stream| {
        serve(StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream));
    });
    change(&mut gate, |document| {
        document["version"] = json!("1.3");
        document["settings"]["workers"] = json!(1);
        let rule = &mut document["policy"]["routes"][0]["rules"][0];
        rule["matches"] = json!([]);
        let tls = json!({ "serverName": "chat.test", "trust": ["ours"] });
        rule["backends"] = json!([{ "address": address, "tls": tls }]);
    });
    gate
}

/// Reads a request's head and agrees to go on with another protocol.
fn agree(stream: &mut Stream) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    stream.write_all(AGREED).unwrap();
}

/// A client that asks for a tunnel and then reads nothing; it is killed when dropped.
struct Deaf(Child);

impl Deaf {
    fn open(gate: &Gate) -> Self {
        let address = gate.sidecar.listener("gate").unwrap().to_string();
        let mut command = Command::new("openssl");
        command.args(["s_client", "-quiet", "-connect", &address, "-servername", "localhost", "-CAfile", "ca.pem"]);
        command.args(["-cert", "billing.pem", "-key", "billing.key"]).current_dir(gate.folder.path());
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut deaf = Self(child.unwrap());
        let ask = b"GET /chat HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: raw/1\r\n\r\n";
        deaf.0.stdin.as_mut().unwrap().write_all(ask).unwrap();
        deaf
    }
}

impl Drop for Deaf {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whoever waits for a client to read finds out nothing by reading.
#[test]
fn a_revoked_application_is_cut_off_though_its_client_reads_nothing() {
    let (tell, told) = mpsc::channel();
    let mut gate = gate(move |mut stream| {
        agree(&mut stream);
        // As soon as nothing more is taken, all buffers on the way to the client are full. rustls reads when it cannot write.
        let moment = Some(Duration::from_millis(300));
        stream.sock.set_write_timeout(moment).unwrap();
        stream.sock.set_read_timeout(moment).unwrap();
        while stream.write_all(&[7; 64 << 10]).is_ok() {}
        stream.sock.set_read_timeout(None).unwrap();
        tell.send("full").unwrap();
        // Nothing is ever sent to it: it waits until the gate ends the connection.
        let _end: io::Result<usize> = stream.sock.read(&mut [0]);
        tell.send("over").unwrap();
    });
    let deaf = Deaf::open(&gate);
    assert_eq!(told.recv_timeout(PATIENCE), Ok("full"));
    gate.document["trust"]["revocations"]["serials"] = json!([{ "bundle": "ours", "serial": "5a:02" }]);
    gate.folder.write_document(&gate.document).unwrap();
    assert_eq!(told.recv_timeout(PATIENCE), Ok("over"));
    let row = newest(&gate.sidecar, 1);
    assert_eq!(columns(&row, &["kind", "verdict", "reason"]), json!(["tunnel", "allowed", "upstream_tls_revoked"]));
    gate.sidecar.has_decided(1).unwrap();
    drop(deaf);
}

/// What was sent arrives, and nobody says for the application that it was all.
#[test]
fn an_application_that_leaves_out_its_end_cuts_its_client_short_after_the_last_byte() {
    const BYTES: usize = 3_000_000;
    for says_end in [false, true] {
        let (tell, told) = mpsc::channel();
        let gate = gate(move |mut stream| {
            agree(&mut stream);
            stream.write_all(&vec![7; BYTES]).unwrap();
            if says_end {
                stream.conn.send_close_notify();
                stream.flush().unwrap();
            }
            stream.sock.shutdown(std::net::Shutdown::Write).unwrap();
            // Its client ends in the same way, when it has got everything.
            let end = stream.read_to_end(&mut Vec::new()).map_err(|error| error.kind());
            tell.send(end).unwrap();
        });
        let text = "
client = Tunnel()
got = bytearray(client.rest)
def read():
    while piece := client.read():
        got.extend(piece)
end = how_it_ends(read)
print(end, len(got))
client.end() if end == 'end' else client.raw.close()
";
        let end = if says_end { "end" } else { "cut short" };
        assert_eq!(script(&gate, &format!("{ASK}{text}")), format!("{end} {BYTES}\n"));
        let expected = if says_end { Ok(0) } else { Err(io::ErrorKind::UnexpectedEof) };
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), expected);
        let row = newest(&gate.sidecar, 1);
        let reason = (!says_end).then_some("upstream_reset");
        let shown = columns(&row, &["kind", "verdict", "reason", "request_bytes", "response_bytes"]);
        assert_eq!(shown, json!(["tunnel", "allowed", reason, 0, BYTES]), "{end}");
        gate.sidecar.has_decided(1).unwrap();
    }
}
