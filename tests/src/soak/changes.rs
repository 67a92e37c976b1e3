//! One change after the other, each of another part, each waited for.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::ca::{Authority, LeafOptions};
use crate::clients::Curl;
use crate::config::{client_uri, known};
use crate::gate::Gate;
use crate::wait::{PATIENCE, eventually};

/// Kinds of changes, which are made in turn; the first is a new certificate.
pub(super) const KINDS: usize = 6;

/// glibc's knobs (mallopt(3)).
const ALLOCATOR: [(&str, &str); 3] =
    [("MALLOC_ARENA_MAX", "1"), ("MALLOC_TRIM_THRESHOLD_", "16384"), ("MALLOC_MMAP_THRESHOLD_", "32768")];

/// Identities that are known and never come.
const IDENTITIES: usize = 500;

/// What is changed.
pub(super) struct Scene {
    pub(super) gate: Gate,
    /// Where endpoints are, and where they are moved to.
    upstreams: [SocketAddr; 2],
}

impl Scene {
    /// A gate in front of these upstreams, whose document was changed by `change`.
    pub(super) fn start(upstreams: [SocketAddr; 2], change: impl FnOnce(&mut Value)) -> Result<Self> {
        let partner = Authority::new("Partner authority")?;
        let mut gate = Gate::start_with(|document| {
            document["version"] = json!("1.2");
            document["settings"]["stateDir"] = json!("state");
            document["endpoints"] = json!([{ "name": "pool", "addresses": [{ "address": upstreams[1] }] }]);
            document["policy"]["routes"][0]["rules"][0]["backends"] = json!([{ "endpoints": "pool" }]);
            forward(document);
            // Enough that a generation that is never freed is seen among what the allocator does.
            let many = (0..IDENTITIES).map(|number| known(&format!("known-{number}")));
            document["identities"].as_array_mut().into_iter().for_each(|known| known.extend(many.clone()));
            change(document);
        })?;
        // What the allocator holds back moves by megabytes and hides what leaks: freed memory is given back at once.
        gate.sidecar.terminate()?;
        gate.sidecar.wait_exit()?;
        let launch = gate.sidecar.launch().clone();
        let launch = ALLOCATOR.iter().fold(launch, |launch, (name, value)| launch.variable(name, value));
        gate.sidecar = launch.start_ready()?;
        gate.folder.write("partner.pem", partner.root_pem())?;
        gate.document["trust"]["bundles"]["partner"] = json!({ "roots": ["partner.pem"] });
        let mut scene = Self { gate, upstreams };
        scene.publish("trust")?;
        Ok(scene)
    }

    /// Makes the change of a number and waits until it is in use.
    pub(super) fn change(&mut self, number: usize) -> Result<()> {
        let change = match number % KINDS {
            0 => Self::key_and_chain,
            1 => Self::trust,
            2 => Self::route,
            3 => Self::listener,
            4 => Self::identity,
            _ => Self::endpoints,
        };
        change(self, number / KINDS).with_context(|| format!("change {number}"))
    }

    fn key_and_chain(&mut self, _: usize) -> Result<()> {
        let before = self.status()?["leafSerial"].clone();
        let issued = self.gate.authority.issue(&LeafOptions::server("gate"))?;
        // Between the two the pair does not fit, and the old one stays.
        self.gate.folder.write("server.key", &issued.key_pem)?;
        self.gate.folder.write("server.pem", &issued.chain_pem)?;
        eventually("another certificate", PATIENCE, || Ok((self.status()?["leafSerial"] != before).then_some(())))
    }

    /// A root and a revocation, neither of which concerns a client that is busy.
    fn trust(&mut self, round: usize) -> Result<()> {
        self.gate.folder.write("partner.pem", Authority::new("Partner authority")?.root_pem())?;
        let names = ["demo/mallory".to_owned(), format!("demo/gone-{round}")];
        let revoked = names.map(|name| json!({ "name": name, "state": "Revoked" }));
        self.gate.document["trust"]["revocations"]["identities"] = json!(revoked);
        self.publish("trust")
    }

    fn route(&mut self, round: usize) -> Result<()> {
        let rules = &mut self.gate.document["policy"]["routes"][0]["rules"];
        let mut extra = rules[0].clone();
        extra["name"] = json!("extra");
        extra["matches"] = json!([{ "path": { "type": "Template", "value": format!("/extra/{round}/{{id}}") } }]);
        *rules = json!([rules[0], extra]);
        self.publish("policy")
    }

    /// Another listener, which is gone again the next time.
    fn listener(&mut self, round: usize) -> Result<()> {
        let listeners = &mut self.gate.document["policy"]["listeners"];
        let mut second = listeners[0].clone();
        second["name"] = json!("second");
        let (gate, raw) = (&listeners[0], &listeners[1]);
        *listeners = if round.is_multiple_of(2) { json!([gate, raw, second]) } else { json!([gate, raw]) };
        self.publish("policy")
    }

    fn identity(&mut self, round: usize) -> Result<()> {
        let identities = self.gate.document["identities"].as_array_mut().context("identities")?;
        identities.truncate(3 + IDENTITIES);
        let mut new = known(&format!("new-{round}"));
        new["recognise"][0]["uri"] = json!(client_uri(&format!("renewed-{round}")));
        identities.push(new);
        self.publish("identities")
    }

    fn endpoints(&mut self, round: usize) -> Result<()> {
        let [first, second] = self.upstreams.map(|address| json!(address));
        let addresses = [vec![&first], vec![&first, &second], vec![&second]];
        let addresses: Vec<_> = addresses[round % 3].iter().map(|address| json!({ "address": address })).collect();
        self.gate.document["endpoints"][0]["addresses"] = json!(addresses);
        self.publish("endpoints")
    }

    /// Writes the document and waits until the part is in use as it says.
    fn publish(&mut self, part: &str) -> Result<()> {
        let before = self.status()?["parts"][part]["loaded"].clone();
        self.gate.folder.write_document(&self.gate.document)?;
        let changed = || {
            let status = self.status()?;
            Ok((status["parts"][part]["loaded"] != before && status["ready"] == true).then_some(()))
        };
        eventually(&format!("another revision of {part}"), PATIENCE, changed)
    }

    pub(super) fn status(&self) -> Result<Value> {
        Curl::new(format!("http://{}/status", self.gate.sidecar.status_address()?)).call()?.json()
    }

    /// The gate's own account: every request was allowed and ended as it should.
    pub(super) fn check_rows(&self) -> Result<()> {
        let sql = "select kind, reason, status, sum(repeat) as n from requests group by 1, 2, 3";
        let rows = self.gate.sidecar.launch().query(sql)?;
        let is_good = |row: &Value| {
            let ended_well = match row["kind"].as_str() {
                Some("connection") => true,
                Some("request") => row["status"] == 200,
                Some("tunnel") => row["status"] == 101 || row["status"] == 200,
                _ => false,
            };
            ended_well && row["reason"].is_null()
        };
        ensure!(!rows.is_empty() && rows.iter().all(is_good), "rows of other than good requests: {rows:?}");
        Ok(())
    }
}

/// Listener `raw` passes connections on to the same addresses.
fn forward(document: &mut Value) {
    let policy = &mut document["policy"];
    let mut listener = policy["listeners"][0].clone();
    listener["name"] = json!("raw");
    listener["protocol"] = json!("TLS");
    let allow = json!([{ "identity": "demo/billing" }]);
    let rule = json!({ "name": "all", "allow": allow, "backends": [{ "endpoints": "pool" }] });
    let route = json!({ "name": "demo/raw", "listener": "raw", "rules": [rule] });
    policy["listeners"] = json!([policy["listeners"][0], listener]);
    policy["routes"] = json!([policy["routes"][0], route]);
}
