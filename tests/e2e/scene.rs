//! A namespace with an application behind its gate, and somebody who calls it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use anyhow::{Context, Result};
use postern_tests::clients::Finished;
use postern_tests::wait::eventually;
use serde_json::{Value, json};

use crate::cluster::{Cluster, PATIENCE};
use crate::load::say;

/// What pods of tests run: busybox and curl (`make images`).
pub(crate) const IMAGE: &str = "postern-e2e:tests";
/// Port of the gate.
pub(crate) const PORT: u16 = 8443;

/// Held by each case, by itself where it takes something of Postern away.
static POSTERN: RwLock<()> = RwLock::new(());

/// How a case has Postern.
enum Hold {
    Shared { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

/// What a scene is made of, for whoever wants it otherwise.
pub(crate) struct Served {
    /// The Deployment.
    pub(crate) application: Value,
    /// What its gates do.
    pub(crate) route: Value,
}

/// A namespace, which goes when this is dropped.
pub(crate) struct Scene {
    pub(crate) cluster: &'static Cluster,
    pub(crate) namespace: String,
    begun: Instant,
    _hold: Hold,
}

impl Scene {
    /// An empty one, in which pods get gates and Pod Security enforces `restricted`.
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, Hold::Shared { _guard: POSTERN.read().unwrap_or_else(PoisonError::into_inner) })
    }

    /// The same as `serving`, for a case that nobody else may run beside.
    pub(crate) fn alone(name: &str) -> Self {
        Self::alone_with(name, |_| {})
    }

    /// The same, where something is changed before it is applied.
    pub(crate) fn alone_with(name: &str, change: impl FnOnce(&mut Served)) -> Self {
        Self::with(name, Hold::Alone { _guard: POSTERN.write().unwrap_or_else(PoisonError::into_inner) }).served(change)
    }

    fn with(name: &str, hold: Hold) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let cluster = Cluster::shared();
        let namespace = format!("e2e-{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let labels = json!({
            "postern.dev/inject": "enabled",
            "pod-security.kubernetes.io/enforce": "restricted",
        });
        let metadata = json!({"name": namespace, "labels": labels});
        cluster.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})).unwrap();
        Self { cluster, namespace, begun: Instant::now(), _hold: hold }
    }

    /// One with Deployment `orders`, whose `/orders` is for `billing` and not for `reports`, and pod `client` with what both
    /// were given; everything of it is ready.
    pub(crate) fn serving(name: &str) -> Self {
        Self::serving_with(name, |_| {})
    }

    /// The same, where something is changed before it is applied.
    pub(crate) fn serving_with(name: &str, change: impl FnOnce(&mut Served)) -> Self {
        Self::new(name).served(change)
    }

    /// An empty one with all of that in it.
    pub(crate) fn served(self, change: impl FnOnce(&mut Served)) -> Self {
        let scene = self;
        scene.apply(&service());
        for client in ["billing", "reports"] {
            scene.apply(&identity(client));
        }
        let mut served = Served { application: application(), route: route() };
        change(&mut served);
        scene.apply(&served.route);
        scene.apply(&served.application);
        scene.apply(&client(&["billing", "reports"]));
        scene.cluster.rolled_out(&scene.namespace, "deployment/orders").unwrap();
        for (object, condition) in [
            ("proxyroute/orders", "Ready"),
            ("clientidentity/billing", "Ready"),
            ("clientidentity/reports", "Ready"),
            ("pod/client", "Ready"),
        ] {
            scene.wait(object, condition).unwrap();
        }
        scene
    }

    /// Applies an object of this namespace.
    pub(crate) fn apply(&self, object: &Value) {
        let mut object = object.clone();
        object["metadata"]["namespace"] = json!(self.namespace);
        self.cluster.apply(&object).unwrap();
    }

    /// kubectl in this namespace.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.run(&[&["-n", &self.namespace], arguments].concat())
    }

    /// Waits until a condition of an object is true, or says what the object looks like.
    pub(crate) fn wait(&self, object: &str, condition: &str) -> Result<()> {
        let (condition, limit) = (format!("--for=condition={condition}"), format!("--timeout={}s", PATIENCE.as_secs()));
        let waited = self.kubectl(&["wait", object, &condition, &limit]);
        waited.map(drop).with_context(|| self.kubectl(&["describe", object]).unwrap_or_default())
    }

    /// Names of the application's pods, those that end included.
    pub(crate) fn pods(&self) -> Vec<String> {
        let names = self.kubectl(&["get", "pods", "-l", "app=orders", "-o", "name"]).unwrap();
        names.lines().map(|name| name.trim_start_matches("pod/").to_owned()).collect()
    }

    /// Waits until there are just so many, and all are ready.
    pub(crate) fn settled(&self, count: usize) -> Vec<String> {
        self.cluster.rolled_out(&self.namespace, "deployment/orders").unwrap();
        let found = eventually(&format!("{count} pods"), PATIENCE, || {
            let pods = self.pods();
            Ok((pods.len() == count).then_some(pods))
        });
        found.unwrap()
    }

    /// The first object of a kind that somebody else makes here, as kubectl names it.
    pub(crate) fn appears(&self, kind: &str) -> String {
        let found = eventually(&format!("one of {kind}"), PATIENCE, || {
            let names = self.kubectl(&["get", kind, "-o", "name"])?;
            Ok(names.lines().next().map(str::to_owned))
        });
        found.unwrap()
    }

    /// A call of the application through its Service, from pod `client`, with what a client was given. A pod that is ready is
    /// not yet one that the Service sends to, and until then its connections are refused.
    pub(crate) fn call(&self, certificate: Option<&str>, path: &str) -> Finished {
        let calling = self.calling(certificate, path);
        let words = [["-n", self.namespace.as_str(), "exec", "client", "--"].as_slice(), &as_words(&calling)].concat();
        self.cluster.kubectl(&words, "").unwrap()
    }

    /// The same as a command line in pod `client`.
    pub(crate) fn calling(&self, certificate: Option<&str>, path: &str) -> Vec<String> {
        let words = "curl -sS --max-time 20 --retry 10 --retry-connrefused --cacert /clients/ca.pem";
        let mut words: Vec<_> = words.split(' ').map(str::to_owned).collect();
        words.extend(["--write-out".to_owned(), "\n%{http_code}".to_owned()]);
        for (flag, ending) in [("--cert", "pem"), ("--key", "key")] {
            words.extend(certificate.iter().flat_map(|name| [flag.to_owned(), format!("/clients/{name}.{ending}")]));
        }
        words.push(format!("https://{}{path}", self.host()));
        words
    }

    /// The application as it is called.
    pub(crate) fn host(&self) -> String {
        format!("orders.{}.svc.cluster.local:{PORT}", self.namespace)
    }

    /// A call that is made once: a refused connection is a failure. Of it nothing is said but `told`, in curl's words.
    pub(crate) fn once(&self, certificate: &str, path: &str, told: &str) -> Vec<String> {
        let words = "curl -sS --max-time 20 --output /dev/null --cacert /clients/ca.pem --write-out";
        let mut words: Vec<_> = words.split(' ').map(str::to_owned).collect();
        words.push(told.to_owned());
        for (flag, ending) in [("--cert", "pem"), ("--key", "key")] {
            words.extend([flag.to_owned(), format!("/clients/{certificate}.{ending}")]);
        }
        words.push(format!("https://{}{path}", self.host()));
        words
    }

    /// Rows of a gate, as its own command tells them, once there are so many.
    pub(crate) fn rows(&self, whose: &str, count: usize) -> Vec<Value> {
        let words = ["exec", whose, "-c", "postern-sidecar", "--", "postern-sidecar", "log", "-o", "json"];
        let mut last = String::new();
        let found = eventually(&format!("{count} rows"), PATIENCE, || {
            last = self.kubectl(&words)?;
            let rows = serde_json::Deserializer::from_str(&last).into_iter().collect::<Result<Vec<Value>, _>>()?;
            Ok((rows.len() >= count).then_some(rows))
        });
        found.unwrap_or_else(|error| panic!("{error:#}: {last}"))
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Whoever looks for what went wrong wants it all.
        if !std::thread::panicking() {
            say(&format!("{}: {} s", self.namespace, self.begun.elapsed().as_secs()));
            let _ = self.cluster.run(&["delete", "namespace", &self.namespace, "--wait=false"]);
        }
    }
}

pub(crate) fn as_words(line: &[String]) -> Vec<&str> {
    line.iter().map(String::as_str).collect()
}

fn service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "orders"},
        "spec": {"selector": {"app": "orders"}, "ports": [{"port": PORT, "targetPort": PORT}]},
    })
}

fn route() -> Value {
    json!({
        "apiVersion": "postern.dev/v1alpha1",
        "kind": "ProxyRoute",
        "metadata": {"name": "orders"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "orders"}},
            "listener": {"port": PORT},
            "rules": [rule("orders", "billing"), rule("reports", "reports")],
        },
    })
}

/// What only one client may call. A client that no rule names is nobody whom the gate has to know.
pub(crate) fn rule(folder: &str, client: &str) -> Value {
    json!({
        "name": folder,
        "matches": [{"path": {"type": "PathPrefix", "value": format!("/{folder}")}}],
        "allow": [{"identity": {"name": client}}],
        "backendRefs": [{"localPort": 8080}],
    })
}

pub(crate) fn identity(name: &str) -> Value {
    json!({
        "apiVersion": "postern.dev/v1alpha1",
        "kind": "ClientIdentity",
        "metadata": {"name": name},
        "spec": {"issue": {"secretName": format!("{name}-client")}},
    })
}

/// A plain application, which listens on loopback alone and knows of no gate.
fn application() -> Value {
    // It ends when it is told to: the first process of a container has no default for SIGTERM.
    let serve = "httpd -f -p 127.0.0.1:8080 -h /tmp/www & wait";
    let script = format!("mkdir -p /tmp/www/orders && echo order 7 >/tmp/www/orders/7; trap 'exit 0' TERM; {serve}");
    let container = json!({
        "name": "app", "image": IMAGE, "command": ["sh", "-c", script], "securityContext": restricted(),
        "readinessProbe": {"httpGet": {"path": "/orders/7", "port": 8080}, "periodSeconds": 1},
    });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "orders"},
        "spec": {
            "selector": {"matchLabels": {"app": "orders"}},
            "template": {
                "metadata": {
                    "labels": {"app": "orders"},
                    "annotations": {"config.postern.dev/probes": "forward"},
                },
                "spec": {"containers": [container], "securityContext": rootless()},
            },
        },
    })
}

/// A pod without a gate, with what clients were given: `/clients/NAME.pem`, `/clients/NAME.key`, `/clients/ca.pem`.
fn client(names: &[&str]) -> Value {
    let item = |key: &str, path: String| json!({"key": key, "path": path});
    let source = |(place, name): (usize, &&str)| {
        let mut items = vec![item("tls.crt", format!("{name}.pem")), item("tls.key", format!("{name}.key"))];
        // It is the same of all, and a file can be there once.
        items.extend((place == 0).then(|| item("ca.crt", "ca.pem".to_owned())));
        json!({"secret": {"name": format!("{name}-client"), "items": items}})
    };
    let sources: Vec<_> = names.iter().enumerate().map(source).collect();
    let container = json!({
        "name": "curl", "image": IMAGE, "command": ["tail", "-f", "/dev/null"], "securityContext": restricted(),
        "volumeMounts": [{"name": "clients", "mountPath": "/clients"}],
    });
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "client", "labels": {"postern.dev/inject": "disabled"}},
        "spec": {
            "containers": [container],
            "volumes": [{"name": "clients", "projected": {"sources": sources}}],
            "securityContext": rootless(),
            // It has nothing to end.
            "terminationGracePeriodSeconds": 0,
        },
    })
}

/// Of a pod that Pod Security lets in.
pub(crate) fn rootless() -> Value {
    json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}})
}

/// The same of a container.
pub(crate) fn restricted() -> Value {
    json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}})
}
