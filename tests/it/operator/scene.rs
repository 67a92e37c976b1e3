//! A namespace with everything between `kubectl apply` and a call: the real operator, a node, an application.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use postern_tests::apiserver::{ApiServer, Namespace};
use postern_tests::ca::Issued;
use postern_tests::clients::{Answer, Curl};
use postern_tests::config::ConfigFolder;
use postern_tests::minikubelet::{MiniKubelet, SIDECAR_CONTAINER, pod};
use postern_tests::operator::Operator;
use postern_tests::upstream::Upstream;
use postern_tests::wait::PATIENCE;
use serde_json::{Value, json};
use sidecar_config::Document;
use sidecar_config::policy::Policy;
use sidecar_decide::accept;

use crate::observed::status;

/// Port of the gate in every pod.
pub(crate) const PORT: u16 = 8443;

/// Fields are dropped in order: the operator first.
pub(crate) struct Scene {
    pub(crate) operator: Operator,
    pub(crate) kubelet: MiniKubelet,
    pub(crate) namespace: Namespace<'static>,
    /// The operator's own namespace.
    pub(crate) own: Namespace<'static>,
    /// The application, which all pods share.
    pub(crate) upstream: Upstream,
    /// Certificates of clients.
    folder: ConfigFolder,
}

/// What a condition says: status, reason, message.
pub(crate) type Told = (String, String, String);

impl Scene {
    pub(crate) fn start() -> Self {
        Self::start_on(ApiServer::shared().unwrap())
    }

    /// The same on another API server.
    pub(crate) fn start_on(server: &'static ApiServer) -> Self {
        Self::start_with(server, |own, namespace| Operator::start(own, namespace).unwrap())
    }

    /// With an operator that serves what is enabled, which its namespace is not yet.
    pub(crate) fn start_enabled() -> Self {
        let enabled = |own: &Namespace<'_>, later: &Namespace<'_>| Operator::start_enabled(own, &[later]).unwrap();
        Self::start_with(ApiServer::shared().unwrap(), enabled)
    }

    /// With a namespace in which something is done before the operator is started.
    pub(crate) fn start_with(
        server: &'static ApiServer,
        operator: impl FnOnce(&Namespace<'_>, &Namespace<'_>) -> Operator,
    ) -> Self {
        let (namespace, own) = (server.namespace("shop").unwrap(), server.namespace("postern").unwrap());
        Self {
            operator: operator(&own, &namespace),
            kubelet: MiniKubelet::start(&namespace).unwrap(),
            namespace,
            own,
            upstream: Upstream::start().unwrap(),
            folder: ConfigFolder::new().unwrap(),
        }
    }

    /// One with a pod that serves route `orders` to `billing`; `reports` is known, too.
    pub(crate) fn serving() -> Self {
        let scene = Self::start();
        scene.apply(&scene.service());
        scene.apply(&scene.route(&["billing"]));
        for client in ["billing", "reports"] {
            scene.client(client);
            scene.keep_certificate(client);
        }
        scene.pods(&["orders-1"]);
        scene.wait_programmed(1);
        scene.wait_answer("orders-1", "billing", (Some(200), None));
        scene
    }

    /// Ends the operator and starts another.
    pub(crate) fn restart_operator(&mut self) {
        self.restart_operator_with(&[]);
    }

    /// The same with further flags.
    pub(crate) fn restart_operator_with(&mut self, flags: &[&str]) {
        let another = Operator::start_with(&self.own, &self.namespace, flags).unwrap();
        drop(std::mem::replace(&mut self.operator, another));
    }

    pub(crate) fn apply(&self, object: &Value) {
        self.namespace.apply(object).unwrap();
    }

    /// Route `orders`, for pods with `app: orders`, whose one rule lets these identities pass.
    pub(crate) fn route(&self, identities: &[&str]) -> Value {
        let allow: Vec<_> = identities.iter().map(|name| json!({"identity": {"name": name}})).collect();
        let backend = json!({"localPort": self.upstream.address().port()});
        json!({
            "apiVersion": "postern.dev/v1alpha1",
            "kind": "ProxyRoute",
            "metadata": {"name": "orders"},
            "spec": {
                "podSelector": {"matchLabels": {"app": "orders"}},
                "listener": {"port": PORT},
                "rules": [{"name": "all", "allow": allow, "backendRefs": [backend]}],
            },
        })
    }

    /// A Service in front of the gates, by whose name they are called.
    pub(crate) fn service(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "orders"},
            "spec": {"selector": {"app": "orders"}, "ports": [{"port": PORT, "targetPort": PORT}]},
        })
    }

    /// Pods of workload `orders`.
    pub(crate) fn pods(&self, names: &[&str]) {
        for name in names {
            self.apply(&pod(name, "orders", "orders", &[("app", "orders")]));
        }
    }

    /// A client that is issued a certificate.
    pub(crate) fn client(&self, name: &str) {
        self.apply(&json!({
            "apiVersion": "postern.dev/v1alpha1",
            "kind": "ClientIdentity",
            "metadata": {"name": name},
            "spec": {"issue": {"secretName": format!("{name}-client")}},
        }));
    }

    /// A condition of an object, such as `proxyroute/orders`; `None` where there is none yet.
    pub(crate) fn condition(&self, object: &str, kind: &str) -> Option<Told> {
        let object = self.namespace.object(object).unwrap()?;
        let conditions = object["status"]["conditions"].as_array()?;
        let condition = conditions.iter().find(|condition| condition["type"] == kind)?;
        let is_current = condition["observedGeneration"] == object["metadata"]["generation"];
        let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        is_current.then(|| (text("status"), text("reason"), text("message")))
    }

    /// Waits until a condition of an object has this status and reason, and returns its message.
    pub(crate) fn wait_condition(&self, object: &str, kind: &str, status: &str, reason: &str) -> String {
        self.wait_condition_within(PATIENCE, object, kind, status, reason)
    }

    pub(crate) fn wait_condition_within(
        &self,
        limit: Duration,
        object: &str,
        kind: &str,
        status: &str,
        reason: &str,
    ) -> String {
        let mut last = None;
        let waited = self.operator.wait_within(limit, &format!("{kind} {status} of {object}"), || {
            last = self.condition(object, kind);
            let met = last.as_ref().filter(|told| told.0 == status && told.1 == reason);
            Ok(met.map(|told| told.2.clone()))
        });
        waited.unwrap_or_else(|error| panic!("expected {status}/{reason}, it was {last:?}: {error:#}"))
    }

    /// Waits until a condition says so in these words, which may come later than its reason.
    pub(crate) fn wait_words(&self, object: &str, kind: &str, status: &str, reason: &str, words: &str) {
        let mut last = None;
        let waited = self.operator.wait_for(&format!("{kind} {status} of {object}"), || {
            last = self.condition(object, kind);
            let are_said = |told: &Told| told.0 == status && told.1 == reason && told.2.contains(words);
            Ok(last.as_ref().is_some_and(are_said).then_some(()))
        });
        waited.unwrap_or_else(|error| panic!("expected {status}/{reason} {words:?}, it was {last:?}: {error:#}"));
    }

    /// Waits until so many sidecars have started, and all of them know an identity's state.
    pub(crate) fn wait_enforced(&self, identity: &str, sidecars: u32) {
        let wanted = json!({"started": sidecars, "enforced": sidecars});
        let mut last = Value::Null;
        let waited = self.operator.wait_for("the sidecars that know the identity", || {
            let object = self.namespace.object(&format!("clientidentity/{identity}"))?.unwrap_or_default();
            last = object["status"]["enforced"].clone();
            Ok((last == wanted).then_some(()))
        });
        waited.unwrap_or_else(|error| panic!("expected {wanted}, it was {last}: {error:#}"));
    }

    /// Waits until so many pods of route `orders` have started, and all of them have loaded it.
    pub(crate) fn wait_programmed(&self, pods: usize) {
        let all = || {
            let row = self.workload("proxyroute/orders");
            Ok((row["started"] == pods && row["programmed"] == pods).then_some(()))
        };
        self.operator.wait_for("the pods to have loaded the route", all).unwrap();
        self.wait_condition("proxyroute/orders", "Programmed", "True", "Programmed");
    }

    /// Row of the workload `orders` in the status of a route.
    pub(crate) fn workload(&self, route: &str) -> Value {
        let object = self.namespace.object(route).unwrap().unwrap();
        let rows = object["status"]["workloads"].as_array().cloned().unwrap_or_default();
        rows.into_iter().find(|row| row["name"] == "orders").unwrap_or_default()
    }

    /// The documents with the policy of workload `orders`: the candidate, and what all pods have accepted.
    pub(crate) fn policies(&self) -> (String, String) {
        let text = |name: &str, key: &str| {
            let object = self.namespace.object(&format!("configmap/{name}")).unwrap().unwrap_or_default();
            object["data"][key].as_str().unwrap_or_default().to_owned()
        };
        (text("postern-policy-orders", "policy.json"), text("postern-policy-orders-good", "policy.good"))
    }

    /// Revision of the candidate, as sidecars have it.
    pub(crate) fn policy_revision(&self) -> String {
        let document: Value = serde_json::from_str(&self.policies().0).unwrap();
        let policy: Policy = Document::read("policy", document["policy"].clone()).unwrap();
        accept::policy(&policy).unwrap().revision.to_string()
    }

    /// Waits until a pod's sidecar has loaded the candidate.
    pub(crate) fn wait_loaded(&self, pod: &str) {
        let wanted = self.policy_revision();
        let loaded = || {
            let loaded = self.kubelet.with(pod, |pod| Ok(status(pod.sidecar()?).parts.policy.loaded))?;
            Ok((loaded == wanted).then_some(()))
        };
        self.operator.wait_for("the candidate in the pod", loaded).unwrap();
    }

    /// Waits until the candidate is what all pods have accepted, and returns it.
    pub(crate) fn wait_promoted(&self) -> String {
        let promoted = || {
            let (candidate, good) = self.policies();
            Ok((!good.is_empty() && candidate == good).then_some(good))
        };
        self.operator.wait_for("the candidate to become the good policy", promoted).unwrap()
    }

    /// What the operator has written into the namespace.
    pub(crate) fn writes(&self) -> Vec<String> {
        self.namespace.server.writes(self.operator.user(), &self.namespace.name).unwrap()
    }

    /// The same, when it has written nothing for a while: how long a silence is long cannot be told otherwise.
    pub(crate) fn settled_writes(&self) -> Vec<String> {
        let mut last = (self.writes(), Instant::now());
        self.operator
            .wait_for("the operator to have written all", || {
                let now = self.writes();
                if now != last.0 {
                    last = (now, Instant::now());
                }
                // Statuses that nobody waits for are written after three seconds.
                Ok((last.1.elapsed() > Duration::from_secs(5)).then(|| last.0.clone()))
            })
            .unwrap()
    }

    /// Says of a pod whose sidecar is not run that it has started.
    pub(crate) fn say_started(&self, pod: &str) {
        let sidecar = json!({"name": SIDECAR_CONTAINER, "image": "none", "imageID": "", "ready": true, "started": true, "restartCount": 0, "state": {"running": {}}});
        let status = json!({"status": {"initContainerStatuses": [sidecar]}}).to_string();
        let patched = self.operator.wait_for("the pod's address", || {
            let object = self.namespace.object(&format!("pod/{pod}"))?.unwrap_or_default();
            Ok(object["status"]["podIP"].is_string().then_some(()))
        });
        patched.unwrap();
        self.namespace
            .run(&["patch", &format!("pod/{pod}"), "--subresource=status", "--type=merge", "--patch", &status])
            .unwrap();
    }

    /// Writes a client's certificate out of its Secret, and the authorities it trusts.
    pub(crate) fn keep_certificate(&self, client: &str) {
        self.keep_certificate_of(&self.namespace, client);
    }

    /// The same of a client of another namespace.
    pub(crate) fn keep_certificate_of(&self, namespace: &Namespace<'_>, client: &str) {
        let secret = self.operator.wait_for("the client's Secret", || {
            let secret = namespace.object(&format!("secret/{client}-client"))?;
            Ok(secret.filter(|secret| secret["data"]["tls.crt"].is_string()))
        });
        let secret = secret.unwrap();
        for (key, name) in [
            ("tls.crt", format!("{client}.pem")),
            ("tls.key", format!("{client}.key")),
            ("ca.crt", "ca.pem".to_owned()),
        ] {
            let text = secret["data"][key].as_str().unwrap_or_else(|| panic!("no {key} in {secret}"));
            fs::write(self.folder.file(&name), base64(text)).unwrap();
        }
    }

    /// A file with a certificate or key.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.file(name)
    }

    /// A client's certificate in its Secret.
    pub(crate) fn certificate(&self, client: &str) -> Value {
        let secret = self.namespace.object(&format!("secret/{client}-client")).unwrap();
        secret.unwrap_or_default()["data"]["tls.crt"].clone()
    }

    /// Keeps a certificate that somebody else has issued.
    pub(crate) fn keep(&self, name: &str, issued: &Issued) {
        issued.write(self.folder.path(), name).unwrap();
    }

    /// Waits until a call of a client has this status and reason.
    pub(crate) fn wait_answer(&self, pod: &str, client: &str, expected: (Option<u16>, Option<&str>)) {
        let mut last = String::new();
        let waited = self.operator.wait_for("the answer", || {
            let answer = self.call(pod, Some(client));
            let met = (answer.status, answer.header("postern-reason")) == expected;
            last = format!("{:?} {} {}", answer.status, answer.text(), answer.stderr);
            Ok(met.then_some(()))
        });
        waited.unwrap_or_else(|error| panic!("expected {expected:?} of {client}, it was {last}: {error:#}"));
    }

    /// Changes some fields of an identity's spec.
    pub(crate) fn patch_identity(&self, name: &str, spec: &Value) {
        let patch = json!({"spec": spec}).to_string();
        self.namespace.run(&["patch", &format!("clientidentity/{name}"), "--type=merge", "--patch", &patch]).unwrap();
    }

    /// The name of the Service.
    pub(crate) fn host(&self) -> String {
        format!("orders.{}.svc.cluster.local", self.namespace.name)
    }

    /// A call to a pod's gate by the name of its Service, with a client's certificate or none.
    pub(crate) fn call(&self, pod: &str, client: Option<&str>) -> Answer {
        self.curl(pod, client).call().unwrap()
    }

    pub(crate) fn curl(&self, pod: &str, client: Option<&str>) -> Curl {
        self.curl_path(pod, client, "/")
    }

    pub(crate) fn curl_path(&self, pod: &str, client: Option<&str>, path: &str) -> Curl {
        self.curl_at(pod, client, &self.host(), "ca.pem", path)
    }

    /// A call by another name of the gate, which somebody else vouches for.
    pub(crate) fn curl_at(&self, pod: &str, client: Option<&str>, host: &str, authority: &str, path: &str) -> Curl {
        let address = self.kubelet.with(pod, |pod| Ok(pod.address())).unwrap();
        let curl = Curl::new(format!("https://{host}:{PORT}{path}")).within(Duration::from_secs(10));
        let curl = curl.authority(authority).folder(self.folder.path());
        let curl = curl.arg("--resolve").arg(format!("{host}:{PORT}:{address}"));
        client.into_iter().fold(curl, |curl, client| curl.certificate(client))
    }
}

/// Bytes of standard base64 (RFC 4648 §4).
fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits: Vec<_> = text.bytes().filter_map(|byte| ALPHABET.iter().position(|digit| *digit == byte)).collect();
    let groups = digits.chunks(4).flat_map(|group| {
        let bits = group.iter().fold(0, |bits, digit| bits << 6 | digit) << (6 * (4 - group.len()));
        let bytes: Vec<_> = [16, 8, 0].iter().map(|shift| u8::try_from(bits >> shift & 0xff).unwrap()).collect();
        bytes.into_iter().take(group.len() - 1)
    });
    groups.collect()
}
