//! A client of HTTP/2 in Node, for what curl cannot do: extended CONNECT (RFC 8441), and streams that are reset.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::clients::{Finished, run};

/// Far above what any of these scripts needs on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

const CLIENT: &str = r#"
const http2 = require("http2"), fs = require("fs"), { once } = require("events");

const connect = (certificate = "billing") => http2.connect(`https://localhost:${PORT}`, {
  ca: fs.readFileSync("ca.pem"),
  cert: fs.readFileSync(`${certificate}.pem`),
  key: fs.readFileSync(`${certificate}.key`),
});

// Asks for a WebSocket, or for what the headers say.
const ask = (session, headers = {}) => {
  const stream = session.request({
    ":method": "CONNECT", ":protocol": "websocket", ":path": "/chat", ":authority": "localhost",
    "sec-websocket-version": "13", "sec-websocket-protocol": "chat", ...headers,
  }, { endStream: false });
  stream.on("error", () => {});
  stream.on("close", () => { stream.isOver = true; stream.emit("more"); });
  [stream.pieces, stream.count] = [[], 0];
  stream.on("data", (piece) => { stream.pieces.push(piece); stream.count += piece.length; stream.emit("more"); });
  return stream;
};

const answer = async (stream) => (await once(stream, "response"))[0];

const bytes = async (stream, count) => {
  while (stream.count < count) {
    if (stream.isOver) throw new Error("broken off");
    await once(stream, "more");
  }
  const all = Buffer.concat(stream.pieces);
  [stream.pieces, stream.count] = [[all.subarray(count)], all.length - count];
  return all.subarray(0, count);
};

// All that came and was not taken.
const rest = (stream) => bytes(stream, stream.count);

const ended = (stream) => new Promise((resolve) => {
  if (stream.readableEnded) resolve(); else stream.once("end", resolve).once("close", resolve);
});

// A frame of a client (RFC 6455 §5.2), masked with nothing.
const frame = (opcode, payload) => {
  const length = payload.length;
  const head = Buffer.alloc(length < 126 ? 2 : length < 65536 ? 4 : 10);
  head[0] = 0x80 | opcode;
  if (length < 126) head[1] = 0x80 | length;
  else if (length < 65536) { head[1] = 0x80 | 126; head.writeUInt16BE(length, 2); }
  else { head[1] = 0x80 | 127; head.writeBigUInt64BE(BigInt(length), 2); }
  return Buffer.concat([head, Buffer.alloc(4), payload]);
};

// A message of the server's: its opcode and payload, in however many frames it comes.
const message = async (stream) => {
  let first, pieces = [];
  for (;;) {
    const head = await bytes(stream, 2);
    first ??= head[0] & 0x0f;
    let length = head[1];
    if (length === 126) length = (await bytes(stream, 2)).readUInt16BE(0);
    else if (length === 127) length = Number((await bytes(stream, 8)).readBigUInt64BE(0));
    pieces.push(await bytes(stream, length));
    if (head[0] & 0x80) return [first, Buffer.concat(pieces)];
  }
};
"#;

/// Runs a script that knows `connect`, `ask`, `answer`, `bytes`, `rest`, `ended`, `frame` and `message`, in a folder with
/// certificates.
///
/// # Errors
/// When Node cannot be started, or does not end in time.
pub fn node(folder: &Path, address: SocketAddr, script: &str) -> Result<Finished> {
    run(&mut command(folder, address, script), b"", PATIENCE)
}

/// The same, to be started by somebody else.
#[must_use]
pub fn command(folder: &Path, address: SocketAddr, script: &str) -> Command {
    let source = format!(
        "const PORT = {};{CLIENT}(async () => {{\n{script}\n}})().then(() => process.exit(0), (error) => {{\n\
         console.error(error);\nprocess.exit(1);\n}});",
        address.port()
    );
    let mut command = Command::new("node");
    command.arg("-e").arg(source).current_dir(folder);
    command
}
