//! Probes of an application that listens on loopback only, which the gate makes for the kubelet.

use std::collections::BTreeMap;

use anyhow::Result;
use postern_tests::wait::eventually;
use serde_json::{Value, json};

use crate::cluster::PATIENCE;
use crate::scene::{IMAGE, Scene, restricted};

/// Something that runs until it is switched off by a file.
const SWITCHED: &str =
    r#": >/tmp/up; "$@" & until [ -e /tmp/off ]; do sleep 0.1; done; kill $!; exec tail -f /dev/null"#;

/// Every kind, each in a container of its own: the kubelet sees what runs, and what does not any more.
#[test]
fn probes_of_every_kind_are_forwarded_and_tell_the_truth() {
    let kinds: [(&str, Value, &[&str]); 4] = [
        (
            "http",
            json!({"httpGet": {"path": "/up", "port": 9001}}),
            &["httpd", "-f", "-p", "127.0.0.1:9001", "-h", "/tmp"],
        ),
        ("tcp", json!({"tcpSocket": {"port": 9002}}), &["httpd", "-f", "-p", "127.0.0.1:9002"]),
        ("grpc", json!({"grpc": {"port": 9003}}), &["grpc", "server", "127.0.0.1:9003"]),
        ("exec", json!({"exec": {"command": ["sh", "-c", "! ls /tmp/off"]}}), &["tail", "-f", "/dev/null"]),
    ];
    let names = kinds.each_ref().map(|(name, ..)| *name);
    let scene = Scene::serving_with("probes", |served| {
        let containers = &mut served.application["spec"]["template"]["spec"]["containers"];
        let probed = kinds.iter().map(|(name, probe, words)| {
            let command = [&["sh", "-c", SWITCHED, "sh"][..], words].concat();
            let mut container =
                json!({"name": name, "image": IMAGE, "command": command, "securityContext": restricted()});
            for kind in ["startupProbe", "readinessProbe"] {
                container[kind] = probe.clone();
                container[kind]["periodSeconds"] = json!(1);
            }
            container
        });
        containers.as_array_mut().unwrap().extend(probed);
    });
    let path = "jsonpath={.items[0].spec.containers[*].readinessProbe.httpGet.path}";
    let forwarded = scene.kubectl(&["get", "pods", "-l", "app=orders", "-o", path]).unwrap();
    // What is executed stays.
    assert_eq!(forwarded, "/probe/app/readiness /probe/http/readiness /probe/tcp/readiness /probe/grpc/readiness");
    for name in names {
        scene.kubectl(&["exec", "deployment/orders", "-c", name, "--", "touch", "/tmp/off"]).unwrap();
    }
    let off: BTreeMap<_, _> = names.map(|name| (name.to_owned(), false)).into();
    let expected = off.into_iter().chain([("app".to_owned(), true)]).collect();
    eventually("every probe to fail", PATIENCE, || Ok((ready(&scene)? == expected).then_some(()))).unwrap();
}

/// Which containers of the pod are ready, by name.
fn ready(scene: &Scene) -> Result<BTreeMap<String, bool>> {
    let pods: Value = serde_json::from_str(&scene.kubectl(&["get", "pods", "-l", "app=orders", "-o", "json"])?)?;
    let containers = pods["items"][0]["status"]["containerStatuses"].as_array().into_iter().flatten();
    Ok(containers.map(|told| (told["name"].as_str().unwrap_or_default().to_owned(), told["ready"] == true)).collect())
}
