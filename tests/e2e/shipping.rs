//! Rows of all pods in one PostgreSQL, which runs beside the cluster: each is there once, whatever happens to it or to them.

use std::collections::BTreeSet;
use std::net::{IpAddr, UdpSocket};

use postern_tests::ca::Authority;
use postern_tests::postgres::Postgres;
use postern_tests::wait::eventually;
use serde_json::{Value, json};

use crate::cluster::{OWN, PATIENCE};
use crate::load::{Load, say};
use crate::rolling::in_two;
use crate::scene::{Scene, restricted, rootless};

/// Its Service.
const NAME: &str = "db";
/// What was answered by the application.
const ANSWERED: &str = "FROM postern.requests WHERE kind = 'request' AND status = 200";

#[test]
fn each_call_is_one_row_in_postgres_through_its_outage_and_a_rolling_restart() {
    let scene = Scene::new("shipping");
    let mut server = database(&scene);
    let scene = scene.served(in_two);
    let load = Load::start(&scene);
    wait_number("rows of both pods", &server, &format!("SELECT count(DISTINCT pod) {ANSWERED}"), 2);
    server.kill();
    wait_up(&scene, false);
    load.wait_for_more();
    server.resume().unwrap();
    wait_up(&scene, true);
    scene.kubectl(&["rollout", "restart", "deployment/orders"]).unwrap();
    let pods = scene.settled(2);
    load.wait_for_more();
    // One was made before.
    let calls = load.none_failed() + 1;
    wait_number("a row of each call", &server, &format!("SELECT count(*) {ANSWERED}"), calls);
    let counts = format!("SELECT count(*), count(DISTINCT id), sum(repeat), count(DISTINCT pod) {ANSWERED}");
    assert_eq!(server.sql(&counts).unwrap(), format!("{calls}|{calls}|{calls}|4"));
    assert_eq!(told_of_all(&scene, &server), (calls, 4), "by the command, in a pod");
    let whose = format!("SELECT DISTINCT identity, namespace {ANSWERED}");
    assert_eq!(server.sql(&whose).unwrap(), format!("{0}/billing|{0}", scene.namespace));
    for pod in pods {
        let ids: Vec<_> = scene.rows(&pod, 1).iter().map(|row| format!("'{}'", row["id"].as_str().unwrap())).collect();
        let ours = format!("SELECT count(*) FROM postern.requests WHERE pod = '{pod}' AND id IN ({})", ids.join(", "));
        wait_number("what the gate tells of", &server, &ours, ids.len());
    }
    say(&format!("rows in Postgres, which was away, of pods that were restarted: each of {calls} calls is one"));
}

/// A server beside the cluster that pods find by its name and believe.
pub(crate) struct Database {
    pub(crate) server: Postgres,
    authority: Authority,
    host: String,
}

impl Database {
    /// Makes one without a schema, for whoever is `owner`.
    pub(crate) fn empty(scene: &Scene) -> Self {
        let authority = Authority::new("Postern test authority").unwrap();
        let host = format!("{NAME}.{}.svc", scene.namespace);
        let server = Postgres::start_at(&authority, beside(scene), &host).unwrap();
        server.sql("CREATE ROLE owner LOGIN SUPERUSER PASSWORD 'of owner'").unwrap();
        let metadata = json!({"name": NAME, "labels": {"kubernetes.io/service-name": NAME}});
        let port = json!({"name": "postgres", "port": 5432, "targetPort": server.port()});
        scene.apply(&json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [port]}}));
        scene.apply(&json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
            "addressType": if server.address().is_ipv4() { "IPv4" } else { "IPv6" },
            "ports": [{"name": "postgres", "port": server.port()}],
            "endpoints": [{"addresses": [server.address()], "conditions": {"ready": true}}],
        }));
        Self { server, authority, host }
    }

    /// Writes a Secret that says where it is, and for whom.
    pub(crate) fn secret(&self, scene: &Scene, name: &str, user: &str) {
        let data = json!({
            "url": format!("postgres://{user}@{}/postgres", self.host), "password": format!("of {user}"),
            "ca.crt": self.authority.root_pem(),
        });
        scene.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}));
    }
}

/// A server with the schema, and Secrets for gates of the scene and for who keeps it.
pub(crate) fn database(scene: &Scene) -> Postgres {
    let database = Database::empty(scene);
    database.secret(scene, "owner", "owner");
    make_schema(scene, &database.host);
    for (user, role, name) in
        [("gates", "postern_writer", "postern-log"), ("keeper", "postern_keeper", "postern-log-keeper")]
    {
        database.server.sql(&format!("CREATE ROLE {user} LOGIN PASSWORD 'of {user}' IN ROLE {role}")).unwrap();
        database.secret(scene, name, user);
    }
    database.server
}

/// Rows of calls that were answered, and how many pods they are of, as `log` in a gate's pod finds them in PostgreSQL.
fn told_of_all(scene: &Scene, server: &Postgres) -> (usize, usize) {
    server.sql("CREATE ROLE auditor LOGIN PASSWORD 'auditor' IN ROLE postern_reader").unwrap();
    let url = format!("postgres://auditor:auditor@{NAME}.{}.svc/postgres", scene.namespace);
    let words =
        ["exec", "deployment/orders", "-c", "postern-sidecar", "--", "postern-sidecar", "log", "--postgres", &url];
    let all = ["--ca-file", "/etc/postern/log/ca.crt", "--status", "200", "--limit", "100000", "--output", "json"];
    let told = scene.kubectl(&[&words[..], &all].concat()).unwrap();
    let rows: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let pods: BTreeSet<_> = rows.iter().map(|row| row["pod"].as_str().unwrap()).collect();
    (rows.len(), pods.len())
}

/// As somebody does it who reaches the server from the cluster alone.
fn make_schema(scene: &Scene, host: &str) {
    let image = "jsonpath={.spec.template.spec.containers[0].image}";
    let image = scene.cluster.run(&["-n", OWN, "get", "deployment/postern-operator", "-o", image]).unwrap();
    let url = format!("postgres://owner@{host}/postgres");
    let arguments = ["log-schema", "--apply", &url, "--password-file", "/owner/password", "--ca-file", "/owner/ca.crt"];
    let container = json!({
        "name": "log-schema", "image": image, "args": arguments, "securityContext": restricted(),
        "volumeMounts": [{"name": "owner", "mountPath": "/owner"}],
    });
    scene.apply(&json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "log-schema", "labels": {"postern.dev/inject": "disabled"}},
        "spec": {
            // Its Service is known to the node a moment after it was made.
            "restartPolicy": "OnFailure", "containers": [container], "securityContext": rootless(),
            "volumes": [{"name": "owner", "secret": {"secretName": "owner"}}],
        },
    }));
    let phase = || scene.kubectl(&["get", "pod/log-schema", "-o", "jsonpath={.status.phase}"]);
    eventually("the schema", PATIENCE, || Ok(["Succeeded", "Failed"].contains(&phase()?.as_str()).then_some(())))
        .unwrap();
    let said = scene.kubectl(&["logs", "log-schema"]).unwrap();
    assert_eq!(phase().unwrap(), "Succeeded", "{said}");
    assert!(said.starts_with("the request log's schema was brought from version 0 to "), "{said}");
}

/// The address of this machine that the cluster's nodes reach, and so their pods: the one that it would speak to them from.
fn beside(scene: &Scene) -> IpAddr {
    let addresses = "jsonpath={.items[0].status.addresses[?(@.type==\"InternalIP\")].address}";
    let node = scene.cluster.run(&["get", "nodes", "-o", addresses]).unwrap();
    let node: IpAddr = node.split(' ').next().unwrap().parse().unwrap();
    let any = if node.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).unwrap();
    // Nothing is sent.
    socket.connect((node, 9)).unwrap();
    socket.local_addr().unwrap().ip()
}

/// Waits until every gate says whether it can send rows.
fn wait_up(scene: &Scene, is_up: bool) {
    let told = format!("postern_log_ship_up {}", u8::from(is_up));
    for pod in scene.pods() {
        let path = format!("/api/v1/namespaces/{}/pods/{pod}:6190/proxy/metrics", scene.namespace);
        eventually(&told, PATIENCE, || {
            let page = scene.cluster.run(&["get", "--raw", &path])?;
            Ok(page.lines().any(|line| line == told).then_some(()))
        })
        .unwrap();
    }
}

/// Waits until a query's number is at least this.
pub(crate) fn wait_number(what: &str, server: &Postgres, sql: &str, least: usize) {
    let mut last = String::new();
    let found = eventually(what, PATIENCE, || {
        last = server.sql(sql)?;
        Ok(last.parse::<usize>().is_ok_and(|number| number >= least).then_some(()))
    });
    found.unwrap_or_else(|error| panic!("{error:#}: {last} of {least}"));
}
