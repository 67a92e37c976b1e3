//! The real webhook as a child process, and the API server's configuration that has it asked.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::apiserver::Namespace;
use crate::ca::{Authority, LeafOptions};
use crate::clients::{Answer, Curl};
use crate::config::ConfigFolder;
use crate::process::built;
use crate::together::{Program, Together};
use crate::wait::{PATIENCE, eventually};

/// Name of the binary.
const OPERATOR: &str = "postern-operator";
/// The Secret with its certificate.
const SECRET: &str = "postern-injector-tls";

/// A running webhook. Dropping it ends it.
pub struct Injector {
    // Ended before its folder goes.
    programs: Together,
    certificate: ConfigFolder,
}

impl Injector {
    /// Starts one that has no certificate yet.
    ///
    /// # Errors
    /// When it is not built or cannot be started.
    pub fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("postern-injector-").tempdir()?;
        let certificate = ConfigFolder::new()?;
        let arguments = [
            "inject".to_owned(),
            "--address=127.0.0.1:0".to_owned(),
            "--status-address=127.0.0.1:0".to_owned(),
            "--sidecar-image=registry.example/postern-sidecar:tests".to_owned(),
            format!("--certificate-folder={}", certificate.path().display()),
        ];
        let program = Program { name: OPERATOR.to_owned(), path: built(OPERATOR)?, arguments: arguments.into() };
        // The programs remove it when they end.
        Ok(Self { programs: Together::start(&folder.keep(), &[program])?, certificate })
    }

    /// What it has logged: a value for each line.
    #[must_use]
    pub fn log(&self) -> Vec<Value> {
        let lines = self.programs.output(OPERATOR);
        lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Mounts the Secret with its certificate as it is now, as the kubelet does, and waits until it is in use.
    ///
    /// # Errors
    /// When there is none in time.
    pub fn mount(&mut self, own: &Namespace<'_>) -> Result<()> {
        let used = self.certificates();
        let entry = |name: &str| {
            let template = format!("go-template={{{{index .data \"{name}\" | base64decode}}}}");
            own.run(&["get", "secret", SECRET, "-o", &template])
        };
        let pair = eventually("the webhook's certificate", PATIENCE, || {
            Ok(entry("tls.crt").and_then(|chain| Ok((chain, entry("tls.key")?))).ok())
        })?;
        self.certificate.publish(&[("tls.crt", pair.0), ("tls.key", pair.1)])?;
        self.wait_for("the certificate to be in use", || Ok((self.certificates() > used).then_some(())))?;
        self.wait_for("readiness", || Ok((self.probe("/readyz")? == Some(200)).then_some(())))
    }

    /// The status that a probe is answered with.
    ///
    /// # Errors
    /// When it does not come up, or curl does not run.
    pub fn probe(&self, path: &str) -> Result<Option<u16>> {
        Ok(self.page(path)?.status)
    }

    /// A page that is answered to whoever probes.
    ///
    /// # Errors
    /// When it does not come up, or curl does not run.
    pub fn page(&self, path: &str) -> Result<Answer> {
        let address = self.address("status_address")?;
        Curl::new(format!("http://{address}{path}")).within(PATIENCE).call()
    }

    /// Where reviews are answered.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn port(&self) -> Result<u16> {
        Ok(self.address("address")?.parse::<SocketAddr>()?.port())
    }

    fn address(&self, field: &str) -> Result<String> {
        self.wait_for("its addresses", || {
            let log = self.log();
            let line = log.iter().find(|line| line["message"] == "listening");
            Ok(line.and_then(|line| Some(line[field].as_str()?.to_owned())))
        })
    }

    fn certificates(&self) -> usize {
        self.log().iter().filter(|line| line["message"] == "a certificate is in use").count()
    }

    fn wait_for<T>(&self, what: &str, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let waited = eventually(what, PATIENCE, || {
            ensure!(!self.programs.have_ended(), "the webhook ended");
            probe()
        });
        waited.or_else(|error| bail!("{error:#}; the webhook said last:\n{}", self.programs.last_words(OPERATOR)))
    }
}

/// The configuration that is shipped, for a webhook on a port of this machine, which the operator in a namespace looks
/// after.
///
/// # Errors
/// When kubectl cannot read it.
pub fn configuration(own: &Namespace<'_>, port: u16) -> Result<Value> {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kustomize/base/postern.yaml");
    let text = fs::read_to_string(shipped)?;
    let documents =
        own.kubectl(&["create", "--dry-run=client", "--namespace=postern-system", "-o", "json", "-f", "-"], &text)?;
    // One object after the other.
    let documents =
        serde_json::Deserializer::from_str(&documents.text()).into_iter::<Value>().collect::<Result<Vec<_>, _>>()?;
    let mut documents = documents.into_iter().flat_map(|one| one["items"].as_array().cloned().unwrap_or(vec![one]));
    let found = documents.find(|document| document["kind"] == "MutatingWebhookConfiguration");
    let mut configuration = found.context("a MutatingWebhookConfiguration in postern.yaml")?;
    configuration["metadata"]["labels"]["postern.dev/operator-namespace"] = json!(own.name);
    for webhook in configuration["webhooks"].as_array_mut().into_iter().flatten() {
        let client = &mut webhook["clientConfig"];
        let path = client["service"]["path"].as_str().unwrap_or_default().to_owned();
        *client = json!({"url": format!("https://localhost:{port}{path}")});
        let expressions = webhook["namespaceSelector"]["matchExpressions"].as_array_mut();
        for expression in expressions
            .into_iter()
            .flatten()
            .filter(|one| one["operator"] == "NotIn" && one["key"] != "postern.dev/inject")
        {
            expression["values"] = json!(["kube-system", own.name]);
        }
    }
    Ok(configuration)
}

/// A webhook of somebody else's, which puts an init container before all others.
pub struct Meddler {
    _programs: Together,
    port_file: PathBuf,
    authority: Authority,
}

const MEDDLER: &str = r#"
import base64, http.server, json, os, ssl, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["content-length"])))
        spec = review["request"]["object"]["spec"]
        patch = [] if spec.get("initContainers") else [{"op": "add", "path": "/spec/initContainers", "value": []}]
        if not any(one["name"] == "meddler" for one in spec.get("initContainers", [])):
            value = {"name": "meddler", "image": "m"}
            patch.append({"op": "add", "path": "/spec/initContainers/0", "value": value})
        patch = base64.b64encode(json.dumps(patch).encode()).decode()
        response = {"uid": review["request"]["uid"], "allowed": True, "patchType": "JSONPatch", "patch": patch}
        body = json.dumps({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

folder = sys.argv[1]
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(folder + "/server.pem", folder + "/server.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
with open(folder + "/port.new", "w") as file:
    file.write(str(server.server_port))
os.rename(folder + "/port.new", folder + "/port")
server.serve_forever()
"#;

impl Meddler {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("postern-meddler-").tempdir()?.keep();
        let authority = Authority::new("meddler")?;
        authority.issue(&LeafOptions::server("localhost"))?.write(&folder, "server")?;
        let arguments = ["-c".to_owned(), MEDDLER.to_owned(), folder.display().to_string()];
        let program = Program {
            name: "meddler".to_owned(),
            path: PathBuf::from("/usr/bin/env"),
            arguments: [vec!["python3".to_owned()], arguments.into()].concat(),
        };
        let port_file = folder.join("port");
        Ok(Self { _programs: Together::start(&folder, &[program])?, port_file, authority })
    }

    /// The configuration that has it asked about the pods of a namespace, after ours.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn configuration(&self, namespace: &Namespace<'_>) -> Result<Value> {
        let port = eventually("the meddler's port", PATIENCE, || Ok(fs::read_to_string(&self.port_file).ok()))?;
        let bundle = base64(self.authority.certificate_pem().as_bytes());
        Ok(json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": format!("z-meddler-{}", namespace.name)},
            "webhooks": [{
                "name": "meddler.example.com",
                "admissionReviewVersions": ["v1"],
                "clientConfig": {"url": format!("https://localhost:{port}/"), "caBundle": bundle},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}},
                "sideEffects": "None",
            }],
        }))
    }
}

/// Standard base64 (RFC 4648 §4).
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = bytes.chunks(3).map(|group| {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        let digit = |index: usize| match index <= group.len() {
            true => char::from(ALPHABET[(bits >> (18 - 6 * index) & 63) as usize]),
            false => '=',
        };
        (0..4).map(digit).collect::<String>()
    });
    groups.collect()
}
