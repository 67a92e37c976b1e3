//! The metrics page as others read it: valid, bounded, and right about what passed.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::thread;

use postern_tests::clients::{Curl, run};
use postern_tests::gate::Gate;
use postern_tests::upstream::Upstream;
use postern_tests::wait::PATIENCE;
use serde_json::json;

use crate::observed::{columns, metric, page, wait_metric, wait_until};

/// What `promtool` says of the page; nothing where all is well.
fn lint(gate: &Gate) -> String {
    let metrics = page(&gate.sidecar, "/metrics").text();
    let checked = run(Command::new("promtool").args(["check", "metrics"]), metrics.as_bytes(), PATIENCE).unwrap();
    format!("{}{}", checked.text(), checked.stderr)
}

#[test]
fn promtool_has_nothing_to_say() {
    let gate = Gate::start().unwrap();
    gate.curl(Some("billing"), "/orders/7").unwrap().call().unwrap();
    gate.curl(Some("reports"), "/orders/7").unwrap().call().unwrap();
    gate.curl(None, "/orders/7").unwrap().call().unwrap();
    wait_metric(&gate.sidecar, "postern_log_rows_written_total", 3);
    assert_eq!(lint(&gate), "");
}

/// Ends what it started, however the test ends.
struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _ended = self.0.wait();
    }
}

#[test]
fn a_real_prometheus_reads_it() {
    let gate = Gate::start().unwrap();
    gate.curl(Some("billing"), "/orders/7").unwrap().call().unwrap();
    let target = gate.sidecar.status_address().unwrap();
    let config = format!(
        "global: {{ scrape_interval: 1s }}\n\
         scrape_configs: [{{ job_name: gate, static_configs: [{{ targets: ['{target}'] }}] }}]\n"
    );
    gate.folder.write("prometheus.yml", &config).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new("prometheus");
    command.arg(format!("--web.listen-address={free}")).arg("--config.file=prometheus.yml");
    command.arg("--storage.tsdb.path=data").current_dir(gate.folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _prometheus = Prometheus(command.spawn().unwrap());
    let value = |query: &str| {
        let url = format!("http://{free}/api/v1/query?query={query}");
        let answer = Curl::new(url).arg("-g").call().unwrap().json().ok()?;
        Some(answer["data"]["result"][0]["value"][1].as_str()?.to_owned())
    };
    wait_until("a scrape", || value("up") == Some("1".to_owned()));
    assert_eq!(value("postern_requests_total").as_deref(), Some("1"));
    assert_eq!(value("count(postern_request_duration_seconds_bucket)").as_deref(), Some("13"));
    assert_eq!(value("postern_request_duration_seconds_count").as_deref(), Some("1"));
}

#[test]
fn bytes_are_counted_by_rule_whichever_worker_had_them() {
    let gate = Gate::start_with(|document| document["settings"]["workers"] = json!(4)).unwrap();
    let (calls, mut received) = (12, 0);
    for _ in 0..calls {
        let curl = gate.curl(Some("billing"), "/echo").unwrap().arg("--data").arg("0123456789");
        received += curl.call().unwrap().body.len() as u64;
    }
    let rule = r#"listener="gate",route="demo/orders",rule="all""#;
    wait_metric(&gate.sidecar, "postern_log_rows_written_total", calls);
    assert_eq!(metric(&gate.sidecar, &format!("postern_request_bytes_total{{{rule}}}")), 10 * calls);
    assert_eq!(metric(&gate.sidecar, &format!("postern_response_bytes_total{{{rule}}}")), received);
    assert!(received > 0);
    assert_eq!(metric(&gate.sidecar, "postern_workers"), 4);
    assert!(!page(&gate.sidecar, "/metrics").text().contains("worker="));
}

#[test]
fn a_thousand_routes_are_a_page_of_bounded_size() {
    const ROUTES: usize = 1000;
    let gate = Gate::start_with(|document| {
        let rule = document["policy"]["routes"][0]["rules"][0].clone();
        let routes = (0..ROUTES).map(|number| {
            let mut rule = rule.clone();
            rule["matches"] = json!([{ "path": { "type": "Exact", "value": format!("/{number}") } }]);
            let name = format!("demo/route-{number}");
            json!({ "name": name, "listener": "gate", "hostnames": ["localhost"], "rules": [rule] })
        });
        document["policy"]["routes"] = routes.collect();
    })
    .unwrap();
    let urls = format!("/[0-{}]", ROUTES - 1);
    for certificate in ["billing", "reports"] {
        let curl = gate.curl(Some(certificate), &urls).unwrap().arg("-o").arg("/dev/null");
        assert_eq!(curl.call().unwrap().exit_code, Some(0));
    }
    wait_metric(&gate.sidecar, "postern_log_rows_written_total", 2 * ROUTES as u64);
    let text = page(&gate.sidecar, "/metrics").text();
    let routes: BTreeSet<_> =
        text.lines().filter_map(|line| line.split("route=\"").nth(1)?.split('"').next()).collect();
    assert_eq!(routes.len(), ROUTES);
    assert!(text.len() < 1 << 20, "{} bytes", text.len());
    assert_eq!(lint(&gate), "");
    assert_eq!(metric(&gate.sidecar, "postern_metrics_series_refused_total"), 0);
    // A refused and an allowed outcome and three sums for each, a histogram, and what is counted of the backend.
    assert_eq!(metric(&gate.sidecar, "postern_metrics_series"), 5 * ROUTES as u64 + 15 + 5);
}

#[test]
fn the_process_is_told_under_the_usual_names() {
    let gate = Gate::start().unwrap();
    let text = page(&gate.sidecar, "/metrics").text();
    let value = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
    };
    let status = std::fs::read_to_string(format!("/proc/{}/status", gate.sidecar.id())).unwrap();
    let kernel = |name: &str| -> f64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    let resident = kernel("VmRSS:") * 1024.0;
    assert!((value("process_resident_memory_bytes") / resident - 1.0).abs() < 0.5, "{resident}");
    assert!(value("process_threads") >= 3.0 && value("process_threads") <= kernel("Threads:") + 2.0);
    assert!(value("process_cpu_seconds_total") > 0.0);
    let open = std::fs::read_dir(format!("/proc/{}/fd", gate.sidecar.id())).unwrap().count();
    assert!((value("process_open_fds") - open as f64).abs() < 6.0, "{open}");
    assert!(value("process_max_fds") >= value("process_open_fds"));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let age = now - value("process_start_time_seconds");
    assert!((-2.0..600.0).contains(&age), "began {age} s ago");
}

#[test]
fn tries_and_failures_are_counted_by_backend() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = nobody.local_addr().unwrap().to_string();
    drop(nobody);
    let gate = Gate::start_with(|document| {
        let backends = document["policy"]["routes"][0]["rules"][0]["backends"].as_array_mut().unwrap();
        backends.insert(0, json!({ "address": closed }));
    })
    .unwrap();
    let open = gate.upstream.address().to_string();
    for _ in 0..4 {
        assert_eq!(gate.curl(Some("billing"), "/orders").unwrap().call().unwrap().status, Some(200));
    }
    let count =
        |family: &str, labels: &str| metric(&gate.sidecar, &format!("postern_upstream_{family}_total{{{labels}}}"));
    let refused = count("failures", &format!("backend=\"{closed}\",reason=\"upstream_connect\""));
    assert!(refused >= 1, "retries hide it from clients, and not from here");
    assert_eq!(count("attempts", &format!("backend=\"{closed}\"")), refused);
    assert_eq!(count("connects", &format!("backend=\"{closed}\"")), 0);
    assert_eq!(count("attempts", &format!("backend=\"{open}\"")), 4);
    let connects = count("connects", &format!("backend=\"{open}\""));
    assert!((1..=4).contains(&connects), "{connects}");
    gate.curl(Some("billing"), "/close").unwrap().arg("-XPOST").call().unwrap();
    let reset = format!("backend=\"{open}\",reason=\"upstream_reset\"");
    assert_eq!(count("failures", &reset), 1);
    assert_eq!(lint(&gate), "");
}

/// A label is a name of the configuration, however many addresses it stands for; rows have the address.
#[test]
fn backends_are_called_as_the_configuration_calls_them() {
    let other = Upstream::start().unwrap();
    let gate = Gate::start_with(|document| {
        document["version"] = json!("1.3");
        let backends = document["policy"]["routes"][0]["rules"][0]["backends"].as_array_mut().unwrap();
        let addresses = [backends[0]["address"].clone(), json!(other.address())];
        let named = json!({ "host": "localhost", "port": other.address().port() });
        *backends = vec![json!({ "endpoints": "orders" }), named];
        let addresses = addresses.map(|address| json!({ "address": address }));
        document["endpoints"] = json!([{ "name": "orders", "addresses": addresses }]);
    })
    .unwrap();
    let calls = 8;
    for _ in 0..calls {
        assert_eq!(gate.curl(Some("billing"), "/orders").unwrap().call().unwrap().status, Some(200));
    }
    let attempts =
        |backend: &str| metric(&gate.sidecar, &format!("postern_upstream_attempts_total{{backend=\"{backend}\"}}"));
    let of_name = attempts(&format!("localhost:{}", other.address().port()));
    assert!(of_name >= 1, "{of_name}");
    assert!(attempts("orders") >= 1);
    assert_eq!(attempts("orders") + of_name, metric_sum(&gate, "postern_upstream_attempts_total"));
    let asked: BTreeSet<_> =
        gate.rows(calls).unwrap().iter().map(|row| row["upstream"].as_str().unwrap().to_owned()).collect();
    assert!(asked.len() >= 2, "{asked:?}");
    assert_eq!(lint(&gate), "");
}

/// All series of a family together.
fn metric_sum(gate: &Gate, family: &str) -> u64 {
    let text = page(&gate.sidecar, "/metrics").text();
    let values = text.lines().filter_map(|line| line.strip_prefix(family)?.split("} ").nth(1)?.parse::<u64>().ok());
    values.sum()
}

/// In the row, in the metric, and for who looks for it.
#[test]
fn what_a_limit_refuses_names_it() {
    let gate = Gate::start_with(|document| {
        document["version"] = json!("1.2");
        document["policy"]["limits"] = json!({ "maxRequestBodySize": "10" });
        let pool = json!({ "maxConnections": 1, "maxPending": 0 });
        document["policy"]["routes"][0]["backendPolicy"] = json!({ "pool": pool });
    })
    .unwrap();
    let call = |path: &str, data: &str| {
        let curl = gate.curl(Some("billing"), path).unwrap().arg("--data").arg(data);
        curl.call().unwrap().status
    };
    assert_eq!(call("/orders", "more than ten bytes"), Some(413));
    thread::scope(|scope| {
        let slow = scope.spawn(|| call("/slow?ms=2000", "x"));
        wait_until("the slow one", || gate.upstream.requests() == 1);
        assert_eq!(call("/orders", "x"), Some(503));
        assert_eq!(slow.join().unwrap(), Some(200));
    });
    let shown: BTreeSet<_> =
        gate.rows(3).unwrap().iter().map(|row| columns(row, &["reason", "limiter"]).to_string()).collect();
    let expected = [
        json!([null, null]),
        json!(["limit_body_size", "limits.maxRequestBodySize"]),
        json!(["upstream_pool_full", "pool.maxPending"]),
    ];
    assert_eq!(shown, expected.map(|row| row.to_string()).into());
    let rule = r#"listener="gate",route="demo/orders",rule="all""#;
    let decided = |rest: &str| metric(&gate.sidecar, &format!("postern_requests_total{{{rule},{rest}}}"));
    assert_eq!(decided(r#"verdict="allowed",reason="""#), 1);
    assert_eq!(decided(r#"verdict="refused",reason="limit_body_size",limiter="limits.maxRequestBodySize""#), 1);
    assert_eq!(decided(r#"verdict="allowed",reason="upstream_pool_full",limiter="pool.maxPending""#), 1);
    let backend = gate.upstream.address();
    let failed = format!(r#"backend="{backend}",reason="upstream_pool_full",limiter="pool.maxPending""#);
    assert_eq!(metric(&gate.sidecar, &format!("postern_upstream_failures_total{{{failed}}}")), 1);
    let log = |limiter: &str| gate.sidecar.launch().subcommand("log", &["-o", "json", "--limiter", limiter]).unwrap();
    assert_eq!(log("pool.maxPending").text().lines().count(), 1);
    assert_eq!(log("limits.maxStreams").text().lines().count(), 0);
    let unknown = log("maxStreams");
    assert_eq!(unknown.code, Some(2));
    assert!(
        unknown.stderr.contains("write one of limits.maxConnections, limits.maxPendingRequests"),
        "{}",
        unknown.stderr
    );
    assert_eq!(lint(&gate), "");
}

#[test]
fn expiries_and_reloads_are_moments() {
    let mut gate = Gate::start().unwrap();
    let status = crate::observed::status(&gate.sidecar);
    let text = page(&gate.sidecar, "/metrics").text();
    let value = |name: &str| metric(&gate.sidecar, name);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let leaf = value("postern_certificate_not_after_timestamp_seconds");
    assert!(leaf > now, "{leaf} {:?}", status.leaf_not_after);
    assert!(value(r#"postern_trust_not_after_timestamp_seconds{bundle="ours"}"#) > now);
    let loaded = value(r#"postern_config_last_reload_success_timestamp_seconds{part="policy"}"#);
    assert!(loaded <= now && loaded + 600 > now, "{loaded}");
    assert!(!text.contains(r#"last_reload_success_timestamp_seconds{part="identity",revision"#));
    assert_eq!(value(r#"postern_config_reloads_total{part="policy",result="refused"}"#), 0);
    gate.document["policy"]["listeners"][0]["protocol"] = json!("QUIC");
    gate.folder.write_document(&gate.document).unwrap();
    wait_metric(&gate.sidecar, r#"postern_config_reloads_total{part="policy",result="refused"}"#, 1);
    assert_eq!(metric(&gate.sidecar, r#"postern_config_last_reload_success_timestamp_seconds{part="policy"}"#), loaded);
    assert!(metric(&gate.sidecar, r#"postern_config_reloads_total{part="trust",result="accepted"}"#) >= 2);
}
