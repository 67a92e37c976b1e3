//! A namespace with identities, and the operator's reconcile called as its queue would call it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};
use postern_crds::ClientIdentity;
use postern_operator::authority::{LoadError, load};
use postern_operator::identity::directory::Directory;
use postern_operator::identity::enforced::TrustView;
use postern_operator::identity::{Done, ReconcileError, Reconciler, Surroundings};
use postern_operator::pki::authority::{AuthoritySettings, INTERMEDIATE_SECONDS, Issuer, ROOT_SECONDS, Root};
use postern_operator::pki::fresh;
use postern_operator::pki::key::Algorithm;
use postern_operator::pki::names::Names;
use postern_tests::apiserver::{ApiServer, Namespace};
use postern_tests::rights::Account;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

/// When it all happens: 2026-09-21T14:13:20Z.
pub(super) const NOW: i64 = 1_790_000_000;
pub(super) const DAY: i64 = 86_400;

/// A namespace of one test.
pub(super) struct Scene {
    pub(super) namespace: Namespace<'static>,
    /// The operator's own.
    pub(super) own: Namespace<'static>,
    pub(super) quota: usize,
    pub(super) is_ending: bool,
    issuer: Issuer,
    names: Names,
    user: String,
    client: Client,
    runtime: Runtime,
}

impl Scene {
    pub(super) fn new(name: &str) -> Self {
        let server = ApiServer::shared().unwrap();
        let namespace = server.namespace(name).unwrap();
        let own = server.namespace(&format!("{name}-own")).unwrap();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let Account { user, kubeconfig } = Account::make(&own, &[&namespace]).unwrap();
        let client = runtime.block_on(connect(&kubeconfig));
        let names =
            Names { trust_domain: "demo.local".into(), cluster_domain: "cluster.local".into(), extra: BTreeMap::new() };
        Self { namespace, own, quota: 100, is_ending: false, issuer: issuer(), names, user, client, runtime }
    }

    pub(super) fn apply(&self, name: &str, spec: &Value) {
        let object = json!({
            "apiVersion": "postern.dev/v1alpha1", "kind": "ClientIdentity", "metadata": {"name": name}, "spec": spec,
        });
        self.namespace.apply(&object).unwrap();
    }

    /// A turn of an identity at a time.
    pub(super) fn turn_at(&self, name: &str, now: i64) -> Result<Done, ReconcileError> {
        self.runtime.block_on(async {
            let all = self.all().await;
            let identity = all.iter().find(|identity| identity.name_any() == name).unwrap();
            let directory = Directory::of(&all, &self.names);
            let around = Surroundings {
                now,
                issuer: Ok(&self.issuer),
                names: &self.names,
                directory: &directory,
                quota: self.quota,
                trust: TrustView { written: &BTreeMap::new(), seen: &[], held_up: &BTreeMap::new() },
                is_ending: self.is_ending,
            };
            self.reconciler().reconcile(identity, around).await
        })
    }

    /// Who signs, by the Secrets in the operator's own namespace.
    pub(super) fn load(&self, algorithm: Algorithm, now: i64) -> Result<Issuer, LoadError> {
        self.runtime.block_on(load(&self.client, &self.own.name, &settings(algorithm), now))
    }

    pub(super) fn sweep(&self, now: i64) {
        self.runtime.block_on(async {
            let uids: BTreeSet<_> = self.all().await.iter().filter_map(ResourceExt::uid).collect();
            self.reconciler().sweep(&self.namespace.name, move || uids.clone(), now).await.unwrap();
        });
    }

    fn reconciler(&self) -> Reconciler {
        Reconciler::new(self.client.clone(), self.own.name.clone())
    }

    async fn all(&self) -> Vec<ClientIdentity> {
        let identities: Api<ClientIdentity> = Api::namespaced(self.client.clone(), &self.namespace.name);
        identities.list(&kube::api::ListParams::default()).await.unwrap().items
    }

    pub(super) fn identity(&self, name: &str) -> Option<Value> {
        self.namespace.object(&format!("cid/{name}")).unwrap()
    }

    /// Type, status and reason of each condition.
    pub(super) fn conditions(&self, name: &str) -> Vec<String> {
        let identity = self.identity(name).unwrap();
        let said = |condition: &Value| {
            let word = |field: &str| condition[field].as_str().unwrap().to_owned();
            format!("{} {} {}", word("type"), word("status"), word("reason"))
        };
        identity["status"]["conditions"].as_array().unwrap().iter().map(said).collect()
    }

    pub(super) fn message(&self, name: &str, kind: &str) -> String {
        let identity = self.identity(name).unwrap();
        let mut conditions = identity["status"]["conditions"].as_array().unwrap().iter();
        let found = conditions.find(|condition| condition["type"] == kind).unwrap();
        found["message"].as_str().unwrap().to_owned()
    }

    pub(super) fn secret(&self, name: &str) -> Option<Held> {
        let object = self.namespace.object(&format!("secret/{name}")).unwrap()?;
        Some(Held { kind: object["type"].as_str().unwrap().to_owned(), object })
    }

    /// What the operator wrote into the namespace.
    pub(super) fn writes(&self) -> Vec<String> {
        self.namespace.server.writes(&self.user, &self.namespace.name).unwrap()
    }

    /// What it wrote into its own.
    pub(super) fn own_writes(&self) -> Vec<String> {
        self.namespace.server.writes(&self.user, &self.own.name).unwrap()
    }

    fn ledger(&self) -> Vec<(String, Value)> {
        let object = self.own.object(&format!("configmap/postern-ledger-{}", self.namespace.name)).unwrap().unwrap();
        let document: Value = serde_json::from_str(object["data"]["ledger.json"].as_str().unwrap()).unwrap();
        let entries = document["certificates"].as_object().unwrap();
        entries.iter().map(|(serial, entry)| (serial.clone(), entry.clone())).collect()
    }

    /// Serial numbers of an identity that are not revoked.
    pub(super) fn live(&self, name: &str) -> Vec<String> {
        let live = |(_, entry): &(String, Value)| entry["identity"] == name && entry.get("revoked").is_none();
        self.ledger().into_iter().filter(live).map(|(serial, _)| serial).collect()
    }

    /// Serial numbers that are.
    pub(super) fn revoked(&self) -> Vec<String> {
        let ledger = self.ledger().into_iter();
        ledger.filter(|(_, entry)| entry["revoked"] == true).map(|(serial, _)| serial).collect()
    }

    /// Whether openssl verifies a chain under the scene's root.
    pub(super) fn verifies(&self, chain: &str, now: i64) -> Result<String, String> {
        verifies(self.issuer.roots_pem().as_bytes(), chain.as_bytes(), now)
    }
}

/// A Secret.
pub(super) struct Held {
    pub(super) kind: String,
    pub(super) object: Value,
}

impl Held {
    pub(super) fn entries(&self) -> Vec<String> {
        self.object["data"].as_object().unwrap().keys().cloned().collect()
    }

    pub(super) fn entry(&self, name: &str) -> Vec<u8> {
        let text = self.object["data"][name].as_str().unwrap();
        openssl_bytes("base64 -d -A", text.as_bytes())
    }

    /// In hex digits, as openssl prints it.
    pub(super) fn serial(&self) -> String {
        let printed = openssl("x509 -noout -serial -in {c}", &[("c", &self.entry("tls.crt"))]).unwrap();
        printed.trim().trim_start_matches("serial=").to_lowercase()
    }

    /// Whether its chain verifies under its root and its key is the chain's.
    pub(super) fn verifies(&self, now: i64) -> Result<String, String> {
        let key = openssl("pkey -in {k} -pubout", &[("k", &self.entry("tls.key"))])?;
        let certificate = openssl("x509 -noout -pubkey -in {c}", &[("c", &self.entry("tls.crt"))])?;
        if key != certificate {
            return Err("another key".to_owned());
        }
        verifies(&self.entry("ca.crt"), &self.entry("tls.crt"), now)
    }
}

fn verifies(roots: &[u8], chain: &[u8], now: i64) -> Result<String, String> {
    let arguments =
        format!("verify -attime {now} -x509_strict -purpose sslclient -CAfile {{r}} -untrusted {{c}} {{c}}");
    openssl(&arguments, &[("r", roots), ("c", chain)])
}

fn settings(algorithm: Algorithm) -> AuthoritySettings {
    AuthoritySettings {
        algorithm,
        root_seconds: ROOT_SECONDS,
        intermediate_seconds: INTERMEDIATE_SECONDS,
        organisation: "demo.local".to_owned(),
    }
}

fn issuer() -> Issuer {
    let settings = settings(Algorithm::default());
    let key = || fresh::key(Algorithm::default()).unwrap();
    let root = Root::make(&settings, key(), fresh::serial().unwrap(), NOW).unwrap();
    let root = Root::read(&root, NOW).unwrap();
    let files = root.make_intermediate(&settings, &key(), fresh::serial().unwrap(), NOW).unwrap();
    Issuer::read(&files, &root, NOW).unwrap()
}

async fn connect(kubeconfig: &Path) -> Client {
    let file = Kubeconfig::read_from(kubeconfig).unwrap();
    Client::try_from(Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap()).unwrap()
}

/// Runs openssl on files that `arguments` name as `{name}`; `Err` with what it said where it failed.
pub(super) fn openssl(arguments: &str, files: &[(&str, &[u8])]) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("openssl");
    for argument in arguments.split_whitespace() {
        let name = argument.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        let Some(name) = name else {
            command.arg(argument);
            continue;
        };
        let (_, bytes) = files.iter().find(|(file, _)| *file == name).unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        command.arg(path);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(text) } else { Err(text + &said) }
}

/// What openssl makes of its standard input.
fn openssl_bytes(arguments: &str, input: &[u8]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    let finished =
        postern_tests::clients::run(command.args(arguments.split(' ')), input, postern_tests::wait::PATIENCE);
    finished.unwrap().stdout
}

/// Base64 on one line.
pub(super) fn base64(bytes: &[u8]) -> String {
    String::from_utf8(openssl_bytes("base64 -A", bytes)).unwrap()
}
