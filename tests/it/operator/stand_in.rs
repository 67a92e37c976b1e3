//! What answers in a pod whose sidecar is of another version: there is only one version to run, and it accepts whatever
//! the operator writes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use postern_tests::minikubelet::{NO_SIDECAR, STATUS_PORT, pod};
use serde_json::json;
use sidecar_config::status::{ContractRange, PartStatus, Parts, Status};
use sidecar_config::{CONTRACT_MAX, CONTRACT_MIN};

use super::scene::Scene;

/// The `/status` of a pod of workload `orders`. It is answered until the test ends.
pub(crate) struct StandIn {
    status: Arc<Mutex<Status>>,
}

impl StandIn {
    /// Makes a pod, says that it has started, and answers for it that nothing is loaded.
    pub(crate) fn start(scene: &Scene, name: &str) -> Self {
        let mut object = pod(name, "orders", "orders", &[("app", "orders")]);
        object["metadata"]["annotations"] = json!({NO_SIDECAR: "true"});
        // As the webhook of this version leaves it.
        object["metadata"]["labels"]["postern.dev/sidecar"] = json!(env!("CARGO_PKG_VERSION"));
        object["spec"]["volumes"] = json!([{"name": "postern-config", "emptyDir": {}}]);
        object["spec"]["initContainers"][0]["volumeMounts"] =
            json!([{"name": "postern-config", "mountPath": "/etc/postern"}]);
        scene.apply(&object);
        let (address, uid) = scene.kubelet.with(name, |pod| Ok((pod.address(), pod.uid().to_owned()))).unwrap();
        let none = || PartStatus { loaded: "none".to_owned(), ..PartStatus::default() };
        let status = Arc::new(Mutex::new(Status {
            contract: ContractRange { min: CONTRACT_MIN, max: CONTRACT_MAX },
            pod_uid: uid,
            parts: Parts { trust: none(), identity: none(), identities: none(), policy: none(), endpoints: none() },
            routes: std::collections::BTreeMap::new(),
            leaf_serial: None,
            leaf_not_after: None,
            ready: false,
            exposed_ports: None,
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            shipping: None,
        }));
        let listener = TcpListener::bind(SocketAddr::from((address, STATUS_PORT))).unwrap();
        let shared = Arc::clone(&status);
        // It ends with the process: nobody connects once the operator is gone.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let body = serde_json::to_string(&*shared.lock().unwrap()).unwrap();
                let _gone = answer(stream, &body);
            }
        });
        scene.say_started(name);
        Self { status }
    }

    /// Answers otherwise from now on.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.lock().unwrap());
    }
}

fn answer(mut stream: TcpStream, body: &str) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let length = body.len();
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}
