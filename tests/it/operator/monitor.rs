//! What the kubelet and Prometheus ask the operator.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use postern_tests::clients::run;
use postern_tests::wait::PATIENCE;
use tempfile::TempDir;

use super::leading::Process;
use super::scene::Scene;
use crate::monitoring::assert_documented;

/// The value of one series, written as on the page; 0 where it is not there.
pub(crate) fn series(page: &str, series: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

#[test]
fn metrics_are_valid_and_tell_what_was_done() {
    let scene = Scene::start();
    scene.apply(&scene.service());
    scene.client("billing");
    scene.pods(&["orders-1", "orders-2"]);
    scene.kubelet.wait_started("orders-1").unwrap();
    scene.apply(&scene.route(&["billing"]));
    scene.wait_programmed(2);
    scene.wait_condition("clientidentity/billing", "Ready", "True", "Ready");
    assert_eq!(scene.operator.page("/readyz").unwrap().text(), "ok");
    assert_eq!(scene.operator.page("/livez").unwrap().text(), "ok");
    let page = scene.operator.page("/metrics").unwrap().text();
    let checked = run(Command::new("promtool").args(["check", "metrics"]), page.as_bytes(), PATIENCE).unwrap();
    assert_eq!(format!("{}{}", checked.text(), checked.stderr), "", "{page}");
    assert_documented(&page);
    for (name, expected) in [
        ("postern_operator_leader", 1.0),
        ("postern_operator_programmed_seconds_count", 1.0),
        (r#"postern_operator_certificates{days_left="0-1",of="workload"}"#, 1.0),
        (r#"postern_operator_certificates{days_left="30-90",of="client"}"#, 1.0),
        (r#"postern_operator_certificates{days_left="expired",of="client"}"#, 0.0),
        ("postern_operator_certificates_overdue", 0.0),
        (r#"postern_operator_watches{kind="route",state="watching"}"#, 1.0),
        (r#"postern_operator_watches{kind="route",state="listing"}"#, 0.0),
        (r#"postern_operator_api_requests_total{outcome="denied",resource="secrets",verb="create"}"#, 0.0),
    ] {
        assert_eq!(series(&page, name), expected, "{name} of {page}");
    }
    for name in [
        r#"postern_operator_turns_total{kind="workload",outcome="again"}"#,
        r#"postern_operator_turn_duration_seconds_count{kind="identity"}"#,
        r#"postern_operator_step_duration_seconds_count{step="observe"}"#,
        r#"postern_operator_step_duration_seconds_count{step="apply"}"#,
        r#"postern_operator_step_duration_seconds_count{step="ask"}"#,
        r#"postern_operator_step_duration_seconds_count{step="report"}"#,
        r#"postern_operator_queue_wait_seconds_count{lane="urgent"}"#,
        r#"postern_operator_api_requests_total{outcome="ok",resource="configmaps",verb="create"}"#,
        r#"postern_operator_api_requests_total{outcome="ok",resource="proxyroutes/status",verb="patch"}"#,
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_open_fds",
    ] {
        assert!(series(&page, name) > 0.0, "{name} of {page}");
    }
    let touched = series(&page, "postern_operator_touches_total");
    assert!(touched >= 2.0, "{touched} touches of two pods");
    let by_resource = r#"postern_operator_api_requests_total{outcome="ok",resource="pods/status",verb="patch"}"#;
    assert_eq!(touched, series(&page, by_resource));
}

/// A file that says of an API server where there is none.
pub(crate) fn nobody() -> (TempDir, PathBuf) {
    let nobody = r#"{"apiVersion": "v1", "kind": "Config", "current-context": "a",
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}], "users": [{"name": "a", "user": {}}],
        "clusters": [{"name": "a", "cluster": {"server": "http://127.0.0.1:1"}}]}"#;
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("nobody.conf");
    fs::write(&kubeconfig, nobody).unwrap();
    (folder, kubeconfig)
}

/// Without an API server it lives, and is not ready.
#[test]
fn whoever_has_not_seen_everything_is_alive_and_not_ready() {
    let (_folder, kubeconfig) = nobody();
    let operator = Process::start(&kubeconfig, &["--namespaces=shop".to_owned()]);
    assert_eq!(operator.page("/livez").text(), "ok");
    let ready = operator.page("/readyz");
    assert_eq!(ready.status, Some(503));
    let listing = "configmap, endpointslice, identity, pod, referencegrant, route, secret, service";
    assert_eq!(ready.text(), format!("not all has been seen yet: {listing}"));
    assert_eq!(operator.page("/other").status, Some(404));
}

/// Connections that say nothing have places for a moment only, and are closed.
#[test]
fn who_says_nothing_keeps_nobody_else_from_asking() {
    let scene = Scene::start();
    let address = scene.operator.status_address().unwrap();
    let mut silent: Vec<_> = (0..40).map(|_| TcpStream::connect(&address).unwrap()).collect();
    for stream in &mut silent {
        stream.write_all(b"GET /livez HTTP/1.1\r\n").unwrap();
    }
    assert_eq!(scene.operator.page("/livez").unwrap().text(), "ok");
    for mut stream in silent {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut rest = Vec::new();
        let _closed_or_reset = stream.read_to_end(&mut rest);
    }
}
