//! A pod that nobody answers from: a NetworkPolicy in the way, or a node that is gone.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use postern_tests::minikubelet::{NO_SIDECAR, STATUS_PORT, pod};
use serde_json::json;

use super::scene::Scene;

/// Most connections that a kernel keeps for somebody who does not take them (net.core.somaxconn), and more.
const QUEUE: usize = 10_000;
/// Nobody on this machine takes as long to answer who answers at all.
const SILENCE: Duration = Duration::from_millis(500);

/// An address that is silent: it takes no more connections, and does not refuse them either.
struct Silent {
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl Silent {
    fn at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let waiting = (0..QUEUE).map_while(|_| TcpStream::connect_timeout(&address, SILENCE).ok()).collect::<Vec<_>>();
        assert!(waiting.len() < QUEUE, "somebody takes them");
        Self { _listener: listener, _waiting: waiting }
    }
}

#[test]
fn a_pod_that_does_not_answer_is_unreachable_and_counted() {
    let scene = Scene::start();
    scene.apply(&scene.route(&["billing"]));
    scene.pods(&["orders-1"]);
    scene.wait_programmed(1);
    let mut other = pod("orders-2", "orders", "orders", &[("app", "orders")]);
    other["metadata"]["annotations"] = json!({NO_SIDECAR: "true"});
    scene.apply(&other);
    let address = scene.kubelet.with("orders-2", |pod| Ok(pod.address())).unwrap();
    let _silent = Silent::at(SocketAddr::from((address, STATUS_PORT)));
    scene.say_started("orders-2");
    // It has 30 s to answer before that is said.
    let limit = Duration::from_secs(90);
    let message = scene.wait_condition_within(limit, "proxyroute/orders", "Programmed", "Unknown", "Unreachable");
    assert!(message.starts_with("1 of 2 pods do not answer: orders: orders-2: "), "{message}");
    assert!(message.contains("a NetworkPolicy may keep the operator away from that port"), "{message}");
    let row = scene.workload("proxyroute/orders");
    assert_eq!([&row["started"], &row["programmed"], &row["unreachable"]], [&json!(2), &json!(1), &json!(1)]);
    scene.namespace.run(&["delete", "pod/orders-2", "--grace-period=0", "--force"]).unwrap();
    scene.wait_condition("proxyroute/orders", "Programmed", "True", "Programmed");
}
