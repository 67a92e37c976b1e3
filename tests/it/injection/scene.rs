//! One webhook for all tests of injection, because there is one configuration of its name: an operator that looks after
//! it, and the webhook itself. Each test has namespaces of its own.

use std::net::TcpListener;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Result, ensure};
use postern_tests::apiserver::{ApiServer, Namespace};
use postern_tests::ca::Authority;
use postern_tests::clients::{Finished, run};
use postern_tests::injector::{Injector, base64, configuration};
use postern_tests::operator::Operator;
use postern_tests::process::built;
use postern_tests::wait::{PATIENCE, eventually};
use serde_json::{Value, json};

/// The webhook and who looks after it. They end with the process.
pub(crate) struct Webhook {
    server: &'static ApiServer,
    own: Namespace<'static>,
    operator: Operator,
    injector: Injector,
}

impl Webhook {
    /// The one of this process.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Webhook> = OnceLock::new();
        SHARED.get_or_init(|| Self::start().unwrap())
    }

    fn start() -> Result<Self> {
        let server = ApiServer::shared()?;
        let (own, served) = (server.namespace("postern")?, server.namespace("gated")?);
        let mut injector = Injector::start()?;
        ensure!(injector.probe("/livez")? == Some(200), "it lives");
        ensure!(injector.probe("/readyz")? == Some(503), "it is not ready without a certificate");
        // Whom the API server trusts is wrong until the operator says otherwise.
        let mut installed = configuration(&own, injector.port()?)?;
        let other = base64(Authority::new("somebody else")?.certificate_pem().as_bytes());
        for entry in installed["webhooks"].as_array_mut().into_iter().flatten() {
            entry["clientConfig"]["caBundle"] = json!(other);
        }
        own.apply(&installed)?;
        let operator = Operator::start_with(&own, &served, &["--webhook-names=localhost", "--leader-election=On"])?;
        injector.mount(&own)?;
        let webhook = Self { server, own, operator, injector };
        let probe = webhook.namespace(Some("enabled"));
        let mut pod = app();
        pod["metadata"] = json!({"generateName": "probe-"});
        webhook.wait_for("the webhook to be asked", || {
            Ok(webhook.create(&probe, &pod).ok().filter(|pod| gate(pod).is_some()))
        });
        Ok(webhook)
    }

    /// A namespace with this label.
    pub(crate) fn namespace(&self, inject: Option<&str>) -> Namespace<'static> {
        let namespace = self.server.namespace("gated").unwrap();
        if let Some(value) = inject {
            namespace.run(&["label", "namespace", &namespace.name, &format!("postern.dev/inject={value}")]).unwrap();
        }
        namespace
    }

    /// What Prometheus reads of it.
    pub(crate) fn metrics(&self) -> Result<String> {
        Ok(self.injector.page("/metrics")?.text())
    }

    /// Where reviews are answered.
    pub(crate) fn port(&self) -> u16 {
        self.injector.port().unwrap()
    }

    /// What `check` finds, with the rights that the operator has, where its namespace is called so.
    pub(crate) fn check(&self, own: Option<&str>) -> Finished {
        let mut command = Command::new(built("postern-operator").unwrap());
        command.env("KUBECONFIG", self.operator.kubeconfig()).args(["check", "--within=5", "--operator-namespace"]);
        run(command.arg(own.unwrap_or(&self.own.name)), b"", PATIENCE).unwrap()
    }

    /// Makes an object, and says what was made of it.
    pub(crate) fn create(&self, namespace: &Namespace<'_>, object: &Value) -> Result<Value> {
        let finished = namespace.kubectl(&["create", "-o", "json", "-f", "-"], &object.to_string())?;
        ensure!(finished.code == Some(0), "kubectl: {}", finished.stderr.trim_end());
        Ok(serde_json::from_str(&finished.text())?)
    }

    /// Installs a second webhook for these namespaces where nobody listens, and gives its configuration's name.
    pub(crate) fn away(&self, namespaces: &[&Namespace<'_>]) -> String {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut away = configuration(&self.own, port).unwrap();
        let name = format!("away-{}", namespaces[0].name);
        away["metadata"]["name"] = json!(name);
        let names: Vec<_> = namespaces.iter().map(|namespace| &namespace.name).collect();
        let only = json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": names});
        for entry in away["webhooks"].as_array_mut().unwrap() {
            entry["namespaceSelector"]["matchExpressions"].as_array_mut().unwrap().push(only.clone());
        }
        self.own.apply(&away).unwrap();
        name
    }

    pub(crate) fn wait_for<T>(&self, what: &str, probe: impl FnMut() -> Result<Option<T>>) -> T {
        eventually(what, PATIENCE, probe).unwrap()
    }
}

/// A pod that knows of no gate.
pub(crate) fn app() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {},
        "spec": {"serviceAccountName": "orders", "containers": [{"name": "app", "image": "a"}]},
    })
}

/// The same as a Deployment's ReplicaSet makes it.
pub(crate) fn of_deployment(name: &str, hash: &str) -> Value {
    let set = format!("{name}-{hash}");
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set, "uid": "1", "controller": true});
    let mut pod = app();
    pod["metadata"] =
        json!({"generateName": format!("{set}-"), "labels": {"pod-template-hash": hash}, "ownerReferences": [owner]});
    pod
}

pub(crate) fn named(mut object: Value, name: &str) -> Value {
    object["metadata"]["name"] = json!(name);
    object
}

/// The sidecar's container, which is the first or none.
pub(crate) fn gate(pod: &Value) -> Option<&Value> {
    let containers = pod["spec"]["initContainers"].as_array()?;
    containers.first().filter(|container| container["name"] == "postern-sidecar")
}
