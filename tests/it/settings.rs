//! Settings from the environment: they come over the file's, and every wrong one is told before anything starts.

use postern_tests::config::ConfigFolder;
use postern_tests::config::document;
use postern_tests::gate::Gate;
use postern_tests::process::Launch;
use serde_json::{Value, json};

use crate::observed::{columns, rows, status, wait_metric};

#[test]
fn variables_come_over_the_file() {
    let mut gate = Gate::start_with(|document| {
        document["settings"]["pod"] = json!({ "name": "of-the-file", "uid": "of-the-file" });
    })
    .unwrap();
    gate.sidecar.kill().unwrap();
    let variables = [
        ("POSTERN__POD__UID", "of-the-environment"),
        ("POSTERN__POD__NAMESPACE", "demo"),
        ("POSTERN__LOG__PATH", "other.db"),
        ("POSTERN__LOG__FLUSH_EVERY", "1h"),
        ("POSTERN__LOG__FLUSH_ROWS", "3"),
        ("POSTERN__LOG__POSTGRES__URL_FILE", "absent"),
        ("POSTERN__LOG__POSTGRES__APPLY_SCHEMA", "true"),
    ];
    let launch = gate.sidecar.launch().clone();
    let launch = variables.iter().fold(launch, |launch, (name, value)| launch.variable(name, value));
    gate.sidecar = launch.start_ready().unwrap();
    assert_eq!(status(&gate.sidecar).pod_uid, "of-the-environment");
    let call = |gate: &Gate| gate.curl(Some("billing"), "/orders").unwrap().call().unwrap().status;
    assert_eq!([call(&gate), call(&gate)], [Some(200); 2]);
    // Two rows wait an hour for the third.
    wait_metric(&gate.sidecar, "postern_log_queue_rows", 2);
    wait_metric(&gate.sidecar, "postern_log_rows_written_total", 0);
    assert_eq!(call(&gate), Some(200));
    let found = rows(&gate.sidecar, 3);
    assert_eq!(found.len(), 3);
    let shown = columns(&found[0], &["pod", "pod_uid", "namespace"]);
    assert_eq!(shown, json!(["of-the-file", "of-the-environment", "demo"]));
    assert!(gate.folder.file("other.db").is_file());
}

#[test]
fn every_wrong_setting_is_told_and_nothing_starts() {
    let duration = "is not a duration; write digits with h, m, s or ms, such as `10s`, `100ms` or `1h30m`";
    let flush = format!("POSTERN__LOG__FLUSH_EVERY: `settings.log.flushEvery`: `soon` {duration}");
    type Row = (&'static [(&'static str, &'static str)], Value, Vec<String>);
    let table: [Row; 8] = [
        (&[("POSTERN__LOG__FLUSH_EVERY", "soon")], Value::Null, vec![flush.clone()]),
        (
            &[("POSTERN__WORKERS", "0")],
            Value::Null,
            vec!["`settings.workers`: write a number from 1 to 64".to_owned()],
        ),
        (
            &[("POSTERN__TRACING__SAMPLING_RATIO", "0.5")],
            Value::Null,
            vec!["`settings.tracing.endpoint`: `` is no address of a collector; write `http://HOST:PORT`".to_owned()],
        ),
        (
            &[("POSTERN__TRACING__SAMPLING_RATIO", "5"), ("POSTERN__TRACING__ENDPOINT", "http://127.0.0.1:4318")],
            Value::Null,
            vec!["POSTERN__TRACING__SAMPLING_RATIO: `settings.tracing.samplingRatio`: 5 is no part of a whole; write a \
                  number from 0 to 1, such as `0.05`"
                .to_owned()],
        ),
        (
            &[],
            json!({ "tracing": { "endpoint": "https://collector:4318" } }),
            vec!["`settings.tracing.endpoint`: collectors are not spoken to over TLS; write `http://` and the address of \
                  one nearby"
                .to_owned()],
        ),
        (&[("POSTERN__NOTHING", "1")], Value::Null, vec![
                "POSTERN__NOTHING: `settings.nothing`: unknown field `nothing`, expected one of `statusAddress`, `listenAddress`, `workers`, \
                 `drainTimeout`, `logLevel`, `log`, `stateDir`, `tracing`, `admin`, `dns`, `probes`, `pod`"
                    .to_owned(),
            ]),
        (&[], json!({ "drainTimeout": "never" }), vec![format!("DIR/postern.json: `settings.drainTimeout`: `never` {duration}")]),
        (
            &[("POSTERN__LOG__FLUSH_EVERY", "soon"), ("POSTERN__LOG_LEVEL", "Loud")],
            json!({ "drainTimeout": "never" }),
            vec![
                format!("DIR/postern.json: `settings.drainTimeout`: `never` {duration}"),
                "POSTERN__LOG_LEVEL: `settings.logLevel`: unknown variant `Loud`, \
                 expected one of `Error`, `Warn`, `Info`, `Debug`".to_owned(),
                flush,
            ],
        ),
    ];
    for (variables, settings, expected) in table {
        let folder = ConfigFolder::new().unwrap();
        let mut document = document("127.0.0.1:1".parse().unwrap());
        for (name, value) in settings.as_object().into_iter().flatten() {
            document["settings"][name] = value.clone();
        }
        folder.write_document(&document).unwrap();
        let launch = Launch::new(folder.path()).unwrap();
        let launch = variables.iter().fold(launch, |launch, (name, value)| launch.variable(name, value));
        let mut sidecar = launch.start().unwrap();
        assert_eq!(sidecar.wait_exit().unwrap().code(), Some(1), "{variables:?}");
        let path = folder.path().to_string_lossy().into_owned();
        let lines: Vec<_> = sidecar.lines().iter().map(|line| line.message().replace(&path, "DIR")).collect();
        let told = format!("postern-sidecar: {}", expected.join("\n"));
        assert_eq!(lines, told.lines().collect::<Vec<_>>(), "{variables:?}");
    }
}
