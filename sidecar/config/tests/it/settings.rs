//! What a sidecar does when nothing is set: these defaults are promises to whoever relies on them.

use serde_json::json;
use sidecar_config::Document;
use sidecar_config::policy::Limits;
use sidecar_config::settings::Settings;

#[test]
fn defaults() {
    let settings: Settings = Document::read("settings", json!({})).unwrap();
    assert_eq!(settings, Settings::default(), "an empty table and no table mean the same");
    let expected = json!({
        "statusAddress": "127.0.0.1:6190",
        "drainTimeout": "25s",
        "logLevel": "Info",
        "log": { "path": "requests.db", "flushRows": 500, "flushEvery": "100ms", "maxSize": "256Mi" },
        "pod": { "name": "", "uid": "", "namespace": "", "workload": "" },
    });
    assert_eq!(serde_json::to_value(settings).unwrap(), expected);
}

#[test]
fn traces_are_off_and_few_where_they_are_on() {
    assert_eq!(Settings::default().tracing, None);
    let settings: Settings = Document::read("settings", json!({ "tracing": { "endpoint": "http://a:1" } })).unwrap();
    let expected = json!({ "endpoint": "http://a:1", "samplingRatio": 0.01 });
    assert_eq!(serde_json::to_value(settings.tracing).unwrap(), expected);
}

#[test]
fn default_limits() {
    let limits: Limits = serde_json::from_value(json!({})).unwrap();
    assert_eq!(limits, Limits::default());
    assert_eq!(serde_json::to_value(limits).unwrap(), json!({ "maxRequestBodySize": "1Gi" }));
}

#[test]
fn one_setting_leaves_the_others() {
    let settings: Settings = Document::read("settings", json!({ "log": { "flushRows": 1 } })).unwrap();
    let mut expected = Settings::default();
    expected.log.flush_rows = 1;
    assert_eq!(settings, expected);
}
