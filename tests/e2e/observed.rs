//! A real Prometheus in the cluster: it finds whoever is to be scraped, its rules fire only where they should, dashboards have
//! something to show, and commands of runbooks can be run.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, ensure};
use postern_tests::clients::{Curl, run, shell_word};
use postern_tests::wait::eventually;
use serde_json::{Value, json};

use crate::cluster::{Cluster, OWN, PATIENCE, in_checkout, path, program};
use crate::scene::{Scene, restricted, rootless};

/// Prometheus of its Go module (`make e2e`).
const IMAGE: &str = "postern-prometheus:tests";
/// How often the shipped files have everything done, and how often it is done here.
const SHIPPED: &str = "interval: 30s";
const QUICK: &str = "interval: 1s";
/// What has not happened, so that nobody tells of it: nobody's connection was cut or limited, there are no tunnels and no
/// listeners of protocol `TLS`, no lists, no PostgreSQL, no watch has failed.
const QUIET: [&str; 7] = [
    "postern_connections_cut_total",
    "postern_forwarded_connections_total",
    "postern_tunnels_total",
    "limiter!=\"\"",
    "postern_log_ship_",
    "postern_crl_next_update_timestamp_seconds",
    "postern_operator_watch_errors_total",
];

/// One that runs in a scene's namespace, reached through the API server.
struct Prometheus {
    address: String,
    forward: Child,
    /// Takes what kubectl says of each connection, which waits for a reader.
    said: Option<JoinHandle<()>>,
}

impl Prometheus {
    fn start(scene: &Scene) -> Self {
        for object in objects(scene) {
            scene.cluster.apply(&object).unwrap();
        }
        scene.wait("pod/prometheus", "Ready").unwrap();
        let mut command = Command::new(program("kubectl").unwrap());
        command.args(["-n", &scene.namespace, "port-forward", "pod/prometheus", ":9090"]);
        let mut forward = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (mut output, mut line) = (BufReader::new(forward.stdout.take().unwrap()), String::new());
        output.read_line(&mut line).unwrap();
        let address = line.strip_prefix("Forwarding from ").and_then(|rest| rest.split(' ').next());
        let address = address.unwrap_or_else(|| panic!("{line:?} of kubectl port-forward")).to_owned();
        let said = thread::spawn(move || drop(io::copy(&mut output, &mut io::sink())));
        Self { address, forward, said: Some(said) }
    }

    fn ask(&self, path: &str, arguments: &[(&str, &str)]) -> Result<Value> {
        let curl = Curl::new(format!("http://{}/api/v1/{path}", self.address)).arg("--get");
        let curl = arguments
            .iter()
            .fold(curl, |curl, (name, value)| curl.arg("--data-urlencode").arg(format!("{name}={value}")));
        let mut answer = curl.call()?.json()?;
        ensure!(answer["status"] == "success", "{path} {arguments:?}: {answer}");
        Ok(answer["data"].take())
    }

    fn query(&self, query: &str) -> Result<Vec<Value>> {
        let mut data = self.ask("query", &[("query", query)])?;
        Ok(serde_json::from_value(data["result"].take())?)
    }

    /// Alerts that are pending or fire, with the labels that say of whom.
    fn alerts(&self, matchers: &str) -> Result<BTreeSet<String>> {
        let series = self.query(&format!("ALERTS{{{matchers}}}"))?;
        Ok(series.iter().map(|one| one["metric"].to_string()).collect())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ended_already = self.forward.kill();
        let _ended = self.forward.wait();
        let _said = self.said.take().map(JoinHandle::join);
    }
}

/// A file that is shipped, with something else in a place that it has.
fn shipped(name: &str, changes: &[(&str, &str)]) -> String {
    let mut text = fs::read_to_string(in_checkout(name)).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{name} has no {from}");
        text = text.replace(from, to);
    }
    text
}

/// The Prometheus with the shipped files, in a hurry, and for two namespaces: those of other cases come and go.
fn objects(scene: &Scene) -> Vec<Value> {
    let namespace = scene.namespace.as_str();
    let found = "kubernetes_sd_configs: [{role: pod}]";
    let here = format!("kubernetes_sd_configs: [{{role: pod, namespaces: {{names: [{namespace}, {OWN}]}}}}]");
    let config = shipped("deploy/prometheus/prometheus.yaml", &[(SHIPPED, QUICK), (found, &here)]);
    let rules = shipped("deploy/prometheus/rules.yaml", &[(SHIPPED, QUICK)]);
    let uid = scene.cluster.run(&["get", "namespace", namespace, "-o", "jsonpath={.metadata.uid}"]).unwrap();
    // What is made beside the scene goes with it.
    let owner = json!([{"apiVersion": "v1", "kind": "Namespace", "name": namespace, "uid": uid}]);
    let group = "rbac.authorization.k8s.io";
    let mut objects = Vec::new();
    for place in [namespace, OWN] {
        let metadata = json!({"name": format!("prometheus-{namespace}"), "namespace": place, "ownerReferences": owner});
        let rule = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]});
        objects
            .push(json!({"apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": metadata, "rules": [rule]}));
        objects.push(json!({
            "apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": metadata["name"]},
            "subjects": [{"kind": "ServiceAccount", "name": "prometheus", "namespace": namespace}],
        }));
    }
    let metadata = json!({"name": "prometheus", "namespace": namespace, "labels": {"postern.dev/inject": "disabled"}});
    objects.push(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}));
    let data = json!({"prometheus.yaml": config, "rules.yaml": rules});
    objects.push(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}));
    let container = json!({
        "name": "prometheus", "image": IMAGE, "securityContext": restricted(),
        "args": ["--config.file=/etc/prometheus/prometheus.yaml", "--storage.tsdb.path=/data"],
        "readinessProbe": {"httpGet": {"path": "/-/ready", "port": 9090}, "periodSeconds": 1},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/prometheus"}, {"name": "data", "mountPath": "/data"}],
    });
    let volumes = json!([{"name": "config", "configMap": {"name": "prometheus"}}, {"name": "data", "emptyDir": {}}]);
    let spec = json!({
        "serviceAccountName": "prometheus", "containers": [container], "volumes": volumes,
        "securityContext": rootless(), "terminationGracePeriodSeconds": 0,
    });
    objects.push(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}));
    objects
}

/// Has pod `client` call each of these again and again, for as long as it is there.
fn keep_calling(scene: &Scene, calls: &[(Option<&str>, &str)]) {
    let call = |(certificate, path): &(Option<&str>, &str)| {
        // Without its retries: what fails is to fail once.
        let words = scene.calling(*certificate, path);
        let once = words.iter().filter(|word| !word.starts_with("--retry") && *word != "10");
        once.map(|word| shell_word(word)).collect::<Vec<_>>().join(" ")
    };
    let all = calls.iter().map(call).collect::<Vec<_>>().join("; ");
    let script = format!("while :; do {all}; sleep 0.2; done >/dev/null 2>&1 &");
    scene.kubectl(&["exec", "client", "--", "sh", "-c", &script]).unwrap();
}

/// Rules of whose backend nobody is there, and that would refuse.
fn more() -> Value {
    let rule = |folder: &str, port: u16| {
        json!({
            "name": folder,
            "matches": [{"path": {"type": "PathPrefix", "value": format!("/{folder}")}}],
            "allow": [{"identity": {"name": "billing"}}],
            "backendRefs": [{"localPort": port}],
        })
    };
    let mut audited = rule("audited", 8080);
    audited["mode"] = json!("Audit");
    json!({
        "apiVersion": "postern.dev/v1alpha1", "kind": "ProxyRoute", "metadata": {"name": "more"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "orders"}}, "listener": {"port": crate::scene::PORT},
            "rules": [rule("broken", 9), audited],
        },
    })
}

/// What is scraped, by job: how many answer.
fn targets(prometheus: &Prometheus) -> Result<BTreeMap<String, usize>> {
    let data = prometheus.ask("targets", &[("state", "active")])?;
    let mut up = BTreeMap::new();
    for target in data["activeTargets"].as_array().context("no targets")? {
        let job = target["labels"]["job"].as_str().unwrap_or_default();
        *up.entry(job.to_owned()).or_default() += usize::from(target["health"] == "up");
        // Anybody who is found and does not answer is one too many.
        *up.entry(format!("{job} found")).or_default() += 1;
    }
    Ok(up)
}

/// Queries of all dashboards, with where they stand, as Grafana asks them of everything in one namespace.
fn queries(namespace: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for file in fs::read_dir(in_checkout("charts/postern/dashboards")).unwrap() {
        let dashboard: Value = serde_json::from_str(&fs::read_to_string(file.unwrap().path()).unwrap()).unwrap();
        let chosen = dashboard["templating"]["list"].as_array().unwrap();
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap() {
                let mut query = target["expr"].as_str().unwrap().replace("$__rate_interval", "1m");
                for name in chosen.iter().map(|variable| variable["name"].as_str().unwrap()) {
                    query = query.replace(&format!("${name}"), if name == "namespace" { namespace } else { ".*" });
                }
                assert!(!query.contains('$'), "{query}");
                found.push((format!("{}: {}", dashboard["title"], panel["title"]), query));
            }
        }
    }
    found
}

#[test]
fn a_prometheus_finds_everything_and_dashboards_have_something_to_show() {
    let scene = Scene::serving("observed");
    let prometheus = Prometheus::start(&scene);
    let expected = [("postern-sidecar", 1), ("postern-operator", 2), ("postern-injector", 2)];
    let expected: BTreeMap<_, _> = expected
        .into_iter()
        .flat_map(|(job, count)| [(job.to_owned(), count), (format!("{job} found"), count)])
        .collect();
    let mut last = BTreeMap::new();
    let found = eventually("all to be scraped", PATIENCE, || {
        last = targets(&prometheus)?;
        Ok((last == expected).then_some(()))
    });
    found.unwrap_or_else(|error| panic!("{error:#}: {last:?}"));
    let own = format!("namespace=\"{}\"", scene.namespace);
    // What is good, and what is refused, as it should be, wakes nobody.
    keep_calling(&scene, &[(Some("billing"), "/orders/7"), (Some("reports"), "/orders/7"), (None, "/orders/7")]);
    let workload = format!("sum(workload:postern_requests:rate5m{{{own},workload=\"orders.deployment\"}}) > 0");
    eventually("requests of the workload", PATIENCE, || Ok(prometheus.query(&workload)?.pop())).unwrap();
    assert_eq!(prometheus.alerts(&own).unwrap(), BTreeSet::new());
    // What fails does.
    scene.apply(&more());
    scene.wait("proxyroute/more", "Ready").unwrap();
    keep_calling(&scene, &[(Some("billing"), "/broken"), (Some("reports"), "/audited")]);
    let alerts = eventually("an alert to be pending", PATIENCE, || {
        let alerts = prometheus.alerts(&format!("{own},severity=\"critical\""))?;
        Ok((!alerts.is_empty()).then_some(alerts))
    });
    let burning = json!({
        "__name__": "ALERTS", "alertname": "PosternErrorBudgetBurn", "alertstate": "pending", "severity": "critical",
        "namespace": scene.namespace, "workload": "orders.deployment",
    });
    assert_eq!(alerts.unwrap(), BTreeSet::from([burning.to_string()]));
    let silent = || -> Result<Vec<String>> {
        let mut silent = Vec::new();
        for (place, query) in queries(&scene.namespace) {
            if prometheus.query(&query).with_context(|| query.clone())?.is_empty() {
                silent.push(format!("{place}: {query}"));
            }
        }
        Ok(silent)
    };
    let mut last = Vec::new();
    let shown = eventually("dashboards to have something to show", PATIENCE, || {
        last = silent()?;
        last.retain(|query| !QUIET.iter().any(|quiet| query.contains(quiet)));
        Ok(last.is_empty().then_some(()))
    });
    shown.unwrap_or_else(|error| panic!("{error:#}: {last:#?}"));
    assert_eq!(prometheus.alerts("alertstate=\"firing\"").unwrap(), BTreeSet::new());
}

/// Lines of fenced commands.
fn commands(page: &str) -> impl Iterator<Item = &str> {
    page.split("```sh\n").skip(1).flat_map(|rest| rest.split("```").next().unwrap().lines())
}

/// Of one alert they are about a gate that is well; so each has to end well.
#[test]
fn commands_of_runbooks_can_be_run() {
    let scene = Scene::serving("runbooks");
    scene.call(Some("billing"), "/orders/7");
    let mut all = BTreeSet::new();
    for file in fs::read_dir(in_checkout("docs/runbooks")).unwrap() {
        let (file, text) = (file.unwrap().path(), String::new());
        let text = text + &fs::read_to_string(&file).unwrap();
        if !file.ends_with("README.md") {
            all.extend(commands(&text).map(str::to_owned));
        }
    }
    assert!(all.len() > 20 && all.iter().all(|line| line.starts_with("kubectl ")), "{all:#?}");
    let index = fs::read_to_string(in_checkout("docs/runbooks/README.md")).unwrap();
    let begin = commands(&index).collect::<Vec<_>>().join("\n");
    // One after the other, each said before it is run, so that the last one said is the one that failed.
    let mut script = format!("set -euo pipefail\n{begin}\n");
    for line in &all {
        script.push_str(&format!("echo {} >&2\n{line} >/dev/null\n", shell_word(line)));
    }
    let kubectl = program("kubectl").unwrap();
    let paths = env::join_paths(
        kubectl.parent().map(Into::into).into_iter().chain(env::split_paths(&env::var_os("PATH").unwrap())),
    );
    let mut bash = Command::new("bash");
    bash.args(["-c", &script]).env("PATH", paths.unwrap()).env("NAMESPACE", &scene.namespace);
    let finished = run(&mut bash, b"", PATIENCE).unwrap();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(
        finished.text().starts_with(&format!("{} orders.deployment orders-", scene.namespace)),
        "{}",
        finished.text()
    );
}

/// The Prometheus Operator is not here, its definitions are: every field is known and every value allowed.
#[test]
fn monitors_and_rules_are_what_their_definitions_take() {
    let cluster = Cluster::shared();
    let mut go = Command::new("go");
    go.args(["mod", "download", "-json", "github.com/prometheus-operator/prometheus-operator"]);
    let told = run(go.current_dir(in_checkout("tests/cluster/definitions")), b"", PATIENCE).unwrap();
    let told: Value = serde_json::from_str(&told.text()).unwrap();
    let folder = format!("{}/example/prometheus-operator-crd", told["Dir"].as_str().unwrap());
    let kinds = ["podmonitors", "servicemonitors", "prometheusrules"];
    for kind in kinds {
        let file = format!("{folder}/monitoring.coreos.com_{kind}.yaml");
        cluster.run(&["apply", "--server-side", "--force-conflicts", "-f", &file]).unwrap();
        let definition = format!("crd/{kind}.monitoring.coreos.com");
        // A definition that has no conditions yet is an error for kubectl.
        eventually("a definition to be served", PATIENCE, || {
            Ok(cluster.run(&["wait", "--for=condition=Established", "--timeout=5s", &definition]).ok())
        })
        .unwrap();
    }
    let chart = in_checkout("charts/postern");
    let mut template = vec!["template", "postern", path(&chart).unwrap(), "--namespace", OWN];
    for shown in ["templates/monitors.yaml", "templates/rules.yaml", "templates/dashboards.yaml"] {
        template.extend(["--show-only", shown]);
    }
    let parts = ["podMonitor", "rules", "dashboards"].map(|part| format!("metrics.{part}.enabled=true"));
    for part in &parts {
        template.extend(["--set", part]);
    }
    let monitors = cluster.helm(&template).unwrap();
    template.extend(["--set", "metrics.serviceMonitor.enabled=true"]);
    let services = cluster.helm(&template).unwrap();
    let strict = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-"];
    let taken = [monitors, services].map(|rendered| (cluster.kubectl(&strict, &rendered).unwrap(), rendered));
    for kind in kinds {
        cluster.run(&["delete", "crd", &format!("{kind}.monitoring.coreos.com")]).unwrap();
    }
    for (taken, rendered) in taken {
        assert_eq!(taken.code, Some(0), "{}", taken.stderr);
        assert_eq!(rendered.matches("\nkind: ").count(), taken.text().lines().count(), "{}", taken.text());
    }
}
