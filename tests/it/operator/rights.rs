//! The rights of deploy/operator: each is used, none is missing, and what they do not give is refused, in these words.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use http::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use postern_tests::apiserver::{ApiServer, Namespace};
use postern_tests::ca::Authority;
use postern_tests::operator::Operator;
use postern_tests::rights::{Account, objects};
use postern_tests::wait::{PATIENCE, eventually};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use super::clients::{identity, request};
use super::scene::Scene;

/// Rights that no test uses, and why they are there nonetheless.
const UNUSED: [(&str, &str, &str, &str); 4] = [
    // Where Gateway API is installed: its test has an API server of its own, because a definition is everybody's.
    ("postern-operator", "gateway.networking.k8s.io", "referencegrants", "list"),
    ("postern-operator", "gateway.networking.k8s.io", "referencegrants", "watch"),
    // Where all namespaces are served, which an API server that tests share cannot have.
    ("postern-operator", "", "namespaces", "watch"),
    // The webhook's tests do: there is one of its name in the API server that tests share, which is not everybody's.
    ("postern-operator", "admissionregistration.k8s.io", "mutatingwebhookconfigurations", "patch"),
];

/// A rule taken apart: role, API group, resource, verb.
type Right = (String, String, String, String);

fn shipped(server: &ApiServer) -> BTreeSet<Right> {
    let roles = objects(server).unwrap().into_iter().filter(|object| {
        let kind = object["kind"].as_str().unwrap();
        kind == "ClusterRole" || kind == "Role"
    });
    let mut rights = BTreeSet::new();
    for role in roles {
        let kind = if role["kind"] == "Role" { "own namespace" } else { role["metadata"]["name"].as_str().unwrap() };
        let words = |value: &Value| -> Vec<String> {
            value.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
        };
        for rule in role["rules"].as_array().unwrap() {
            for (group, resource) in words(&rule["apiGroups"])
                .iter()
                .flat_map(|group| words(&rule["resources"]).into_iter().map(move |resource| (group.clone(), resource)))
            {
                let verbs = words(&rule["verbs"]).into_iter();
                rights.extend(verbs.map(|verb| (kind.to_owned(), group.clone(), resource.clone(), verb)));
            }
        }
    }
    rights
}

/// All that an operator does, seen by the API server: what it asks for is what it may ask for, to the verb.
#[test]
fn every_right_is_used_and_none_is_missing() {
    let mut scene = Scene::start();
    let leading = Operator::start_with(&scene.own, &scene.namespace, &["--leader-election=On"]).unwrap();
    drop(std::mem::replace(&mut scene.operator, leading));
    everything(&scene);
    let (own, served) = (&scene.own.name, &scene.namespace.name);
    let rights = shipped(scene.own.server);
    let unused = UNUSED.map(|(role, group, resource, verb)| [role, group, resource, verb].map(str::to_owned));
    let mut left = BTreeSet::new();
    let waited = scene.operator.wait_within(Duration::from_secs(60), "every right to be used", || {
        let uses = scene.own.server.audit().uses(scene.operator.user())?;
        let is_used = |(role, group, resource, verb): &Right| {
            let places = if role == "own namespace" { vec![own.as_str()] } else { vec![served.as_str(), ""] };
            let is_used =
                |place: &&str| uses.contains(&(verb.clone(), group.clone(), resource.clone(), (*place).to_owned()));
            places.iter().any(is_used)
        };
        left = rights.iter().filter(|right| !is_used(right)).cloned().map(<[String; 4]>::from).collect();
        Ok((left == unused.clone().into()).then_some(()))
    });
    // That nothing was refused is asked when the operator is dropped, here and in every other test.
    waited.unwrap_or_else(|error| panic!("rights that nobody needs, or a list that is too long: {left:#?}: {error:#}"));
}

/// Something of each kind of what an operator has to do.
fn everything(scene: &Scene) {
    let partner = Authority::new("partner").unwrap();
    scene.apply(&json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "partner-ca"},
        "data": {"ca.crt": partner.root_pem()},
    }));
    let mut route = scene.route(&["billing", "meter"]);
    let trust = json!([{"name": "partner", "caCertificateRefs": [{"name": "partner-ca"}]}]);
    route["spec"]["listener"]["tls"] = json!({"trust": trust});
    scene.apply(&scene.service());
    scene.apply(&route);
    scene.apply(&identity("billing", &json!({"issue": {"secretName": "billing-client", "keystore": "PKCS12"}})));
    scene.apply(&identity("meter", &json!({"csr": {"request": request(&scene.file("meter.key"))}})));
    scene.pods(&["orders-1"]);
    scene.wait_programmed(1);
    for client in ["billing", "meter"] {
        scene.wait_condition(&format!("clientidentity/{client}"), "Ready", "True", "Ready");
    }
    let patch = |namespace: &Namespace<'_>, object: &str, patch: &Value| {
        namespace.run(&["patch", object, "--type=merge", "--patch", &patch.to_string()]).unwrap();
    };
    // What is told twice is counted.
    for state in ["Suspended", "Active", "Suspended", "Active"] {
        scene.patch_identity("billing", &json!({"state": state}));
        let (status, reason) = if state == "Active" { ("True", "Ready") } else { ("False", state) };
        scene.wait_condition("clientidentity/billing", "Ready", status, reason);
    }
    // What is edited is mended; a chunk of identities that there is no use for goes.
    patch(&scene.namespace, "secret/postern-id-orders-orders", &json!({"data": {"stray": "eA=="}}));
    patch(&scene.namespace, "configmap/postern-trust", &json!({"data": {"stray": "x"}}));
    patch(&scene.namespace, "secret/billing-client", &json!({"data": {"ca.crt": null}}));
    let mut chunk = scene.namespace.object("configmap/postern-identities-orders-0").unwrap().unwrap();
    chunk["metadata"] =
        json!({"name": "postern-identities-orders-1", "labels": chunk["metadata"]["labels"], "annotations": {}});
    scene.apply(&chunk);
    // What was written for a workload that nobody has any more goes.
    let mut gone = scene.namespace.object("secret/postern-id-orders-orders").unwrap().unwrap();
    let mut labels = gone["metadata"]["labels"].clone();
    labels["postern.dev/workload"] = json!("gone");
    let since = json!({"postern.dev/unused-since": "1"});
    gone["metadata"] = json!({"name": "postern-id-gone-gone", "labels": labels, "annotations": since});
    scene.apply(&gone);
    // An intermediate that is broken is made anew, and what it signed with it.
    patch(&scene.own, "secret/postern-intermediate", &json!({"data": {"tls.crt": "eA=="}}));
    scene.namespace.run(&["delete", "clientidentity/meter"]).unwrap();
}

/// A namespace that is served, one that is not, the operator's own, and its account, which nobody works with.
struct Attempts {
    served: Namespace<'static>,
    other: Namespace<'static>,
    own: Namespace<'static>,
    account: Account,
    runtime: Runtime,
}

impl Attempts {
    fn start() -> Self {
        let server = ApiServer::shared().unwrap();
        let [served, other, own] = ["shop", "web", "postern"].map(|name| server.namespace(name).unwrap());
        let account = Account::make(&own, &[&served]).unwrap();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        Self { served, other, own, account, runtime }
    }

    fn client(&self, kubeconfig: &Path) -> Client {
        self.runtime.block_on(async {
            let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
            let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
            Client::try_from(config).unwrap()
        })
    }

    /// What becomes of a request: what there is then, or the API server's words.
    fn ask(&self, client: &Client, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder().method(method).uri(path).header("content-type", kind);
        let request = request.body(body.to_string().into_bytes()).unwrap();
        self.runtime.block_on(client.request::<Value>(request)).map_err(|error| match error {
            kube::Error::Api(status) => status.message.clone(),
            error => error.to_string(),
        })
    }

    /// That a request is refused, with these words at the end. At first where nothing comes of it, until the bindings are
    /// seen; then in earnest.
    fn is_refused(&self, client: &Client, method: &str, path: &str, body: &Value, words: &str) {
        let dry = format!("{path}{}dryRun=All", if path.contains('?') { '&' } else { '?' });
        let mut last = Ok(Value::Null);
        let waited = eventually("the refusal", PATIENCE, || {
            last = self.ask(client, method, &dry, body);
            Ok(last.as_ref().is_err_and(|error| error.ends_with(words)).then_some(()))
        });
        assert!(waited.is_ok(), "{method} {path} {body}: expected `{words}`, it was {last:?}");
        let answer = self.ask(client, method, path, body);
        assert!(answer.as_ref().is_err_and(|error| error.ends_with(words)), "{method} {path}: {answer:?}");
    }
}

/// What only RBAC holds back, by its own word for each.
#[test]
fn what_is_not_written_down_is_not_allowed() {
    let attempts = Attempts::start();
    let [served, other, own] = [&attempts.served, &attempts.other, &attempts.own].map(|one| one.name.as_str());
    let rows = [
        ("get list watch create update patch delete", "", "secrets", other),
        ("get list create update patch delete", "", "configmaps", other),
        ("get list watch create update patch delete", "", "secrets", ""),
        ("deletecollection", "", "secrets", served),
        ("update deletecollection", "", "configmaps", served),
        ("patch delete", "", "secrets", own),
        ("patch delete", "", "configmaps", own),
        ("get create update patch delete", "", "pods", served),
        ("update", "", "pods/status", served),
        ("patch", "", "pods/status", other),
        ("create get", "", "pods/exec", served),
        ("patch update", "", "pods/ephemeralcontainers", served),
        ("patch update", "", "pods/resize", served),
        ("create", "", "pods/eviction", served),
        ("create update patch delete", "", "services", served),
        ("create update patch delete", "postern.dev", "proxyroutes", served),
        ("create update delete", "postern.dev", "clientidentities", served),
        ("patch", "postern.dev", "clientidentities", other),
        ("patch", "postern.dev", "proxyroutes/status", other),
        ("create update patch delete", "", "namespaces", ""),
        ("get list", "", "nodes", ""),
        ("create", "", "serviceaccounts/token", own),
        ("impersonate", "", "users", ""),
        ("create update patch bind escalate", "rbac.authorization.k8s.io", "clusterroles", ""),
        ("create update patch", "rbac.authorization.k8s.io", "rolebindings", served),
        ("update patch delete", "admissionregistration.k8s.io", "validatingadmissionpolicies", ""),
        ("update patch delete", "admissionregistration.k8s.io", "validatingadmissionpolicybindings", ""),
        ("create update patch delete", "apps", "deployments", served),
    ];
    let asked: Vec<_> = rows
        .iter()
        .flat_map(|(verbs, group, resource, place)| verbs.split(' ').map(move |verb| (verb, *group, *resource, *place)))
        .collect();
    let reviews: Vec<_> = asked.iter().map(|row| review(&attempts.account.user, *row)).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": reviews}).to_string();
    let template = ["create", "-f", "-", "-o", "jsonpath={.status.allowed} "];
    let answers = attempts.own.server.kubectl(&template, &list).unwrap().text();
    let answers: Vec<_> = answers.split_whitespace().collect();
    assert_eq!(answers.len(), asked.len());
    let allowed: Vec<_> = asked.iter().zip(answers).filter(|(_, answer)| *answer != "false").collect();
    assert!(allowed.is_empty(), "{allowed:#?}");
}

fn review(user: &str, (verb, group, resource, namespace): (&str, &str, &str, &str)) -> Value {
    let (resource, part) = resource.split_once('/').unwrap_or((resource, ""));
    let asked =
        json!({"verb": verb, "group": group, "resource": resource, "subresource": part, "namespace": namespace});
    json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "resourceAttributes": asked},
    })
}

fn object(kind: &str, name: &str, labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "labels": labels}})
}

fn secret(name: &str, kind: &str, labels: &Value) -> Value {
    let mut secret = object("Secret", name, labels);
    secret["type"] = json!(kind);
    if kind == "kubernetes.io/tls" {
        secret["data"] = json!({"tls.crt": "", "tls.key": ""});
    }
    secret
}

fn no_label(object: &str) -> String {
    format!(
        "the account of Postern's operator may only write objects with label app.kubernetes.io/managed-by=postern, and {object} has it not; rename it if it is in the way"
    )
}

fn no_type(object: &str) -> String {
    format!(
        "the account of Postern's operator may only write Secrets of types postern.dev/identity and postern.dev/keystore-password, and kubernetes.io/tls with label postern.dev/client-identity; {object} is another's"
    )
}

fn no_more(object: &str, but: &str) -> String {
    format!(
        "the account of Postern's operator may change nothing of {object} but {but}; whoever else has to change it needs an account of their own"
    )
}

fn no_right(verb: &str, resource: &str, namespace: &Namespace<'_>) -> String {
    format!("cannot {verb} resource \"{resource}\" in API group \"\" in the namespace \"{}\"", namespace.name)
}

/// Whoever has the operator's account gets at nothing that is another's.
#[test]
fn the_operators_account_changes_nothing_of_others() {
    let attempts = Attempts::start();
    let client = attempts.client(&attempts.account.kubeconfig);
    let ours = json!({"app.kubernetes.io/managed-by": "postern"});
    for namespace in [&attempts.served, &attempts.other, &attempts.own] {
        namespace.apply(&secret("foreign", "Opaque", &json!({}))).unwrap();
        namespace.apply(&object("ConfigMap", "foreign", &json!({}))).unwrap();
    }
    attempts.served.apply(&secret("alike", "Opaque", &ours)).unwrap();
    attempts.served.apply(&identity("billing", &json!({"issue": {"secretName": "billing-client"}}))).unwrap();
    attempts.served.apply(&postern_tests::minikubelet::pod("orders-1", "orders", "orders", &[])).unwrap();
    let in_served = |path: &str| format!("/api/v1/namespaces/{}/{path}", attempts.served.name);
    let in_own = |path: &str| format!("/api/v1/namespaces/{}/{path}", attempts.own.name);
    let in_other = |path: &str| format!("/api/v1/namespaces/{}/{path}", attempts.other.name);
    let touch = |pod: &str| no_more(pod, "annotation postern.dev/touch");
    let adopt = json!({"metadata": {"labels": ours}});
    let status = in_served("pods/orders-1/status");
    let billing = format!("/apis/postern.dev/v1alpha1/namespaces/{}/clientidentities/billing", attempts.served.name);
    let no_spec = no_more("clientidentities/billing", "finalizer postern.dev/revoke");
    let rows = [
        // An empty patch changes nothing, and is answered with all that there is.
        ("PATCH", in_served("secrets/foreign"), json!({}), no_label("secrets/foreign")),
        ("PATCH", in_served("secrets/alike"), json!({}), no_type("secrets/alike")),
        ("PATCH", in_served("secrets/foreign"), adopt.clone(), no_label("secrets/foreign")),
        ("PATCH", in_served("configmaps/foreign"), adopt, no_label("configmaps/foreign")),
        ("DELETE", in_served("configmaps/foreign"), json!({}), no_label("configmaps/foreign")),
        ("DELETE", in_served("secrets/foreign"), json!({}), no_label("secrets/foreign")),
        ("DELETE", in_served("secrets/alike"), json!({}), no_type("secrets/alike")),
        ("POST", in_served("secrets"), secret("new", "postern.dev/identity", &json!({})), no_label("secrets/new")),
        ("POST", in_served("secrets"), secret("new", "postern.dev/authority", &ours), no_type("secrets/new")),
        ("POST", in_served("secrets"), secret("new", "kubernetes.io/tls", &ours), no_type("secrets/new")),
        ("POST", in_own("secrets"), secret("new", "Opaque", &json!({})), no_label("secrets/new")),
        ("PATCH", in_own("secrets/foreign"), json!({}), no_right("patch", "secrets", &attempts.own)),
        ("PATCH", in_other("secrets/foreign"), json!({}), no_right("patch", "secrets", &attempts.other)),
        ("GET", in_other("secrets/foreign"), json!({}), no_right("get", "secrets", &attempts.other)),
        ("PATCH", in_served("pods/orders-1"), json!({}), no_right("patch", "pods", &attempts.served)),
        ("PATCH", status.clone(), json!({"metadata": {"annotations": {"x": "y"}}}), touch("pods/orders-1")),
        ("PATCH", status.clone(), json!({"metadata": {"finalizers": ["postern.dev/x"]}}), touch("pods/orders-1")),
        ("PATCH", status.clone(), json!({"metadata": {"labels": {"app": "other"}}}), touch("pods/orders-1")),
        ("PATCH", status.clone(), json!({"status": {"podIP": "127.0.0.9"}}), touch("pods/orders-1")),
        ("PATCH", billing.clone(), json!({"spec": {"state": "Revoked"}}), no_spec.clone()),
        ("PATCH", billing.clone(), json!({"metadata": {"finalizers": ["postern.dev/x"]}}), no_spec.clone()),
        ("PATCH", billing.clone(), json!({"metadata": {"labels": {"tier": "partner"}}}), no_spec),
    ];
    for (method, path, body, words) in rows {
        attempts.is_refused(&client, method, &path, &body, &words);
    }
    // The API server takes no other image from a status, whoever asks.
    let image = json!({"spec": {"containers": [{"name": "app", "image": "other"}]}});
    let pod = attempts.ask(&client, "PATCH", &status, &image).unwrap();
    assert_eq!(pod["spec"]["containers"][0]["image"], "none");
    // What it is for.
    let touched = json!({"metadata": {"annotations": {"postern.dev/touch": "1"}}});
    attempts.ask(&client, "PATCH", &status, &touched).unwrap();
    attempts.ask(&client, "PATCH", &billing, &json!({"metadata": {"finalizers": ["postern.dev/revoke"]}})).unwrap();
}

/// Whoever may edit everything in a namespace adds nobody to those that its gates trust.
#[test]
fn nobody_else_writes_what_gates_read() {
    let attempts = Attempts::start();
    let user = format!("editor-of-{}", attempts.served.name);
    let kubeconfig = attempts.served.server.user(&user, "editors").unwrap();
    let everything = ["create", "role", "editor", "--verb=*", "--resource=configmaps,secrets"];
    attempts.served.run(&everything).unwrap();
    attempts.served.run(&["create", "rolebinding", "editor", "--role=editor", &format!("--user={user}")]).unwrap();
    let (editor, operator) = (attempts.client(&kubeconfig), attempts.client(&attempts.account.kubeconfig));
    let ours = json!({"app.kubernetes.io/managed-by": "postern"});
    let [maps, secrets] =
        ["configmaps", "secrets"].map(|kind| format!("/api/v1/namespaces/{}/{kind}", attempts.served.name));
    let map = |name: &str| object("ConfigMap", name, &ours);
    let written = [(&maps, map("postern-trust")), (&secrets, secret("postern-id-a-b", "postern.dev/identity", &ours))];
    for (path, object) in &written {
        attempts.ask(&operator, "POST", path, object).unwrap();
    }
    let words = |object: &str| {
        format!(
            "{object} is what Postern's gates read, and only its operator writes that; change a ProxyRoute or ClientIdentity, or choose another name for something of your own"
        )
    };
    let (trust, id) = (format!("{maps}/postern-trust"), format!("{secrets}/postern-id-a-b"));
    let named = |kind: &str, name: &str| words(&format!("{kind}/{name}"));
    let mut rows = vec![
        ("PATCH", trust.clone(), json!({"data": {"trust.json": "{}"}}), named("configmaps", "postern-trust")),
        ("PATCH", trust.clone(), json!({"binaryData": {"x": "eA=="}}), named("configmaps", "postern-trust")),
        ("PATCH", trust.clone(), json!({"metadata": {"labels": null}}), named("configmaps", "postern-trust")),
        (
            "PATCH",
            trust.clone(),
            json!({"metadata": {"annotations": {"postern.dev/x": "y"}}}),
            named("configmaps", "postern-trust"),
        ),
        ("PATCH", id.clone(), json!({"data": {"tls.key": "eA=="}}), named("secrets", "postern-id-a-b")),
        ("POST", secrets.clone(), secret("postern-id-x-y", "Opaque", &json!({})), named("secrets", "postern-id-x-y")),
        ("POST", secrets.clone(), secret("x", "postern.dev/keystore-password", &ours), named("secrets", "x")),
    ];
    for name in ["policy-a", "policy-a-good", "identities-a-0", "endpoints-a", "ledger-a"] {
        let name = format!("postern-{name}");
        rows.push(("POST", maps.clone(), map(&name), named("configmaps", &name)));
    }
    for (method, path, body, words) in rows {
        attempts.is_refused(&editor, method, &path, &body, &words);
    }
    // What is their own stays theirs; what is ours may be removed, so that a namespace can end.
    attempts.ask(&editor, "POST", &maps, &map("postern-notes")).unwrap();
    attempts.ask(&editor, "PATCH", &trust, &json!({"metadata": {"annotations": {"x": "y"}}})).unwrap();
    attempts.ask(&editor, "DELETE", &trust, &json!({})).unwrap();
}
