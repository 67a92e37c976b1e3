//! WebSockets that stay open while the configuration changes under them, on HTTP/1.1 and on streams of HTTP/2.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::traffic::Tally;
use crate::gate::Gate;
use crate::node;
use crate::websocket;

/// A stream of some seconds after the other, each on a connection of its own, until its input ends.
const HTTP2: &str = r#"
let stopped = false;
process.stdin.on("end", () => { stopped = true; }).resume();
while (!stopped) {
  const session = connect();
  session.on("error", () => {});
  const late = setTimeout(() => session.destroy(new Error("no end")), 60000);
  try {
    await once(session, "remoteSettings");
    const stream = ask(session);
    const head = await answer(stream);
    for (let size = 0; size < 60 && !stopped; size++) {
      const sent = Buffer.alloc(size * 1000, "postern ");
      stream.write(frame(2, sent));
      const [opcode, got] = await message(stream);
      if (opcode !== 2 || !got.equals(sent)) throw new Error(`${got.length} bytes came back`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    stream.write(frame(8, Buffer.from([3, 232])));
    if ((await message(stream))[0] !== 8) throw new Error("no close");
    stream.end();
    await ended(stream);
    session.close();
    await once(session, "close");
    console.log(`1 |${head[":status"]}|`);
  } catch (error) {
    console.log(`1 |000|${error}`);
  }
  clearTimeout(late);
}
"#;

/// Has the gate pass `/chat` on to a server of WebSockets.
pub(super) fn pass_on(document: &mut Value, server: SocketAddr) {
    let rule = json!({
        "name": "chat",
        "matches": [{ "path": { "type": "Exact", "value": "/chat" } }],
        "allow": [{ "identity": "demo/billing" }],
        "backends": [{ "address": server }],
    });
    // A route of its own, which no change of the others' touches.
    let mut route = document["policy"]["routes"][0].clone();
    (route["name"], route["rules"]) = (json!("demo/chat"), json!([rule]));
    if let Some(routes) = document["policy"]["routes"].as_array_mut() {
        routes.push(route);
    }
}

/// The clients: their names, how they are started, and the status that each of their streams begins with.
pub(super) fn clients(gate: &Gate) -> Result<[(&'static str, Command, &'static str); 2]> {
    let (folder, address) = (gate.folder.path(), gate.sidecar.listener("gate")?);
    let http1 = websocket::client(folder, "soak", address, "billing")?;
    Ok([("WebSocket", http1, "101"), ("WebSocket HTTP/2", node::command(folder, address, HTTP2), "200")])
}

/// Runs a client until it is to stop and its last stream has ended.
pub(super) fn stream_until(stop: &AtomicBool, mut client: Command, expected: &str) -> Result<Tally> {
    let mut process = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = process.stdin.take();
    let output = process.stdout.take().context("its output")?;
    let mut tally = Tally::default();
    for line in BufReader::new(output).lines() {
        // Each stream has a connection of its own.
        tally.runs += 1;
        tally.enter(&line?, expected);
        if stop.load(Ordering::Relaxed) {
            drop(input.take());
        }
    }
    let ended = process.wait()?;
    if !ended.success() {
        tally.failed.push(format!("the client itself: {ended}"));
    }
    Ok(tally)
}
