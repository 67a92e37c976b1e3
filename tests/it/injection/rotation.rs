//! The webhook's certificate and its authority change while pods are made: none is refused.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use postern_operator::inject::upkeep::Upkeep;
use postern_operator::limits::{WEBHOOK_OVERLAP, WEBHOOK_SOON};
use postern_operator::pki::authority::{AuthoritySettings, INTERMEDIATE_SECONDS, Issuer, ROOT_SECONDS, Root};
use postern_operator::pki::fresh;
use postern_operator::pki::key::Algorithm;
use postern_operator::pki::names::Names;
use postern_tests::apiserver::{ApiServer, Namespace};
use postern_tests::injector::{Injector, configuration};
use postern_tests::wait::{PATIENCE, eventually};
use serde_json::{Value, json};

use super::scene::{app, gate};

/// Authorities that come one after the other, each with a certificate.
const ROTATIONS: usize = 4;
/// Pods that have to be made between two steps.
const PODS: usize = 3;

fn issuer(now: i64) -> Issuer {
    let algorithm = Algorithm::default();
    let settings = AuthoritySettings {
        algorithm,
        root_seconds: ROOT_SECONDS,
        intermediate_seconds: INTERMEDIATE_SECONDS,
        organisation: "demo.local".to_owned(),
    };
    let key = || fresh::key(algorithm).unwrap();
    let root = Root::read(&Root::make(&settings, key(), fresh::serial().unwrap(), now).unwrap(), now).unwrap();
    let files = root.make_intermediate(&settings, &key(), fresh::serial().unwrap(), now).unwrap();
    Issuer::read(&files, &root, now).unwrap()
}

async fn connect(namespace: &Namespace<'_>) -> Client {
    let file = Kubeconfig::read_from(namespace.kubeconfig()).unwrap();
    Client::try_from(Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap()).unwrap()
}

/// A configuration of this test's own, for pods of one namespace. Its label asks no other webhook.
fn install(own: &Namespace<'_>, gated: &Namespace<'_>, port: u16) -> String {
    let mut installed = configuration(own, port).unwrap();
    let name = format!("rotated-{}", gated.name);
    installed["metadata"]["name"] = json!(name);
    let entries = installed["webhooks"].as_array_mut().unwrap();
    entries.retain(|entry| entry["name"] == "namespace.inject.postern.dev");
    entries[0]["namespaceSelector"] = json!({"matchLabels": {"kubernetes.io/metadata.name": gated.name}});
    own.apply(&installed).unwrap();
    name
}

/// Tries to make a pod, without leaving it there.
fn ask(gated: &Namespace<'_>) -> Result<()> {
    let mut pod = app();
    pod["metadata"] = json!({"generateName": "asked-"});
    let finished = gated.kubectl(&["create", "--dry-run=server", "-o", "json", "-f", "-"], &pod.to_string())?;
    ensure!(finished.code == Some(0), "{}", finished.stderr.trim_end());
    let made: Value = serde_json::from_str(&finished.text())?;
    ensure!(gate(&made).is_some(), "it has no gate");
    Ok(())
}

#[test]
fn pods_are_made_while_the_webhooks_certificate_and_authority_change() {
    let server = ApiServer::shared().unwrap();
    let (own, gated) = (server.namespace("rotating").unwrap(), server.namespace("rotated").unwrap());
    let mut injector = Injector::start().unwrap();
    let configuration = install(&own, &gated, injector.port().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let upkeep = Upkeep::new(runtime.block_on(connect(&own)), own.name.clone(), vec!["localhost".to_owned()]);
    let upkeep = upkeep.of(configuration.clone());
    let names =
        Names { trust_domain: "demo.local".into(), cluster_domain: "cluster.local".into(), extra: BTreeMap::new() };
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let look = |issuer: &Issuer, now: i64| runtime.block_on(upkeep.look(issuer, &names, now)).unwrap();
    let authorities = || {
        let template = "go-template={{(index .webhooks 0).clientConfig.caBundle | base64decode}}";
        let bundle = own.run(&["get", "mutatingwebhookconfiguration", &configuration, "-o", template]).unwrap();
        bundle.matches("BEGIN CERTIFICATE").count()
    };

    look(&issuer(now), now);
    injector.mount(&own).unwrap();
    eventually("the webhook to be asked", PATIENCE, || Ok(ask(&gated).ok())).unwrap();
    let (made, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let refused = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                if let Err(error) = ask(&gated) {
                    return Some(format!("{error:#}"));
                }
                made.fetch_add(1, Ordering::Relaxed);
            }
            None
        });
        let some_more = || {
            let before = made.load(Ordering::Relaxed);
            let enough = || made.load(Ordering::Relaxed) >= before + PODS || asking.is_finished();
            eventually("pods to be made", PATIENCE, || Ok(enough().then_some(()))).unwrap();
        };
        for _ in 0..ROTATIONS {
            let next = issuer(now);
            // API servers hear of it first, and nothing else changes.
            assert_eq!((look(&next, now), authorities()), (WEBHOOK_SOON, 2));
            some_more();
            look(&next, now);
            // The kubelet takes its time: until then the old certificate is shown.
            some_more();
            injector.mount(&own).unwrap();
            some_more();
            look(&next, now + i64::try_from(WEBHOOK_OVERLAP.as_secs()).unwrap());
            assert_eq!(authorities(), 1);
            some_more();
        }
        is_over.store(true, Ordering::Relaxed);
        asking.join().unwrap()
    });
    own.run(&["delete", "mutatingwebhookconfiguration", &configuration]).unwrap();
    assert_eq!(refused, None, "after {} pods", made.load(Ordering::Relaxed));
    assert!(made.load(Ordering::Relaxed) >= ROTATIONS * 4 * PODS);
}
