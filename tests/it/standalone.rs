//! What is in deploy/standalone, for a gate without Kubernetes: its configuration serves, its unit leaves little exposed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use postern_tests::ca::{Authority, LeafOptions};
use postern_tests::clients::{Curl, run};
use postern_tests::config::ConfigFolder;
use postern_tests::process::Launch;
use postern_tests::upstream::Upstream;
use postern_tests::wait::PATIENCE;
use serde_json::{Value, json};

/// What systemd says of how much a service could do to its machine, from 0 to 100. It needs the network: 0 is not for it.
const MOST_EXPOSED: &str = "15";

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/standalone").join(name)
}

/// The file as it is, but for places that only a service has.
#[test]
fn the_configuration_serves() {
    let folder = ConfigFolder::new().unwrap();
    let authority = Authority::new("standalone").unwrap();
    folder.write("ca.pem", authority.root_pem()).unwrap();
    authority.issue(&LeafOptions::server("localhost")).unwrap().write(folder.path(), "server").unwrap();
    let billing = LeafOptions::client("billing", "spiffe://example.com/billing");
    authority.issue(&billing).unwrap().write(folder.path(), "billing").unwrap();
    let (upstream, data) = (Upstream::start().unwrap(), tempfile::tempdir().unwrap());
    let mut text = fs::read_to_string(shipped("postern.toml")).unwrap();
    let data = data.path().display().to_string();
    for (here, there) in [
        ("[::]:8443", "[::]:0"),
        ("127.0.0.1:6190", "127.0.0.1:0"),
        ("127.0.0.1:8080", &upstream.address().to_string()),
        ("/var/lib/postern/", &format!("{data}/")),
        ("/run/postern/", &format!("{data}/")),
    ] {
        assert!(text.contains(here), "{here}");
        text = text.replace(here, there);
    }
    folder.write("postern.toml", &text).unwrap();
    let launch = Launch::new(&folder.file("postern.toml")).unwrap();
    let checked = launch.subcommand("validate", &[]).unwrap();
    assert!(checked.code == Some(0) && !checked.text().contains("warning"), "{}{}", checked.text(), checked.stderr);
    let sidecar = launch.start_ready().unwrap();
    let url = format!("https://localhost:{}/orders/7", sidecar.listener("gate").unwrap().port());
    let call = || Curl::new(url.clone()).authority("ca.pem").folder(folder.path());
    assert_eq!(call().certificate("billing").call().unwrap().status, Some(200));
    assert_eq!(call().call().unwrap().status, None);
    let upstreams = launch.subcommand("upstreams", &[]).unwrap();
    assert_eq!(upstreams.code, Some(0), "{}", upstreams.stderr);
}

#[test]
fn the_unit_leaves_little_exposed() {
    let unit = shipped("postern-sidecar.service");
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["security", "--offline=true", "--no-pager", "--threshold", MOST_EXPOSED]).arg(&unit);
    let analyzed = run(&mut analyze, b"", PATIENCE).unwrap();
    assert_eq!(analyzed.code, Some(0), "{}{}", analyzed.text(), analyzed.stderr);
    let text = fs::read_to_string(unit).unwrap();
    for place in ["ExecStart=/usr/bin/postern-sidecar run --config /etc/postern/postern.toml\n", "User=postern\n"] {
        assert!(text.contains(place), "{place}");
    }
}

/// The gate's arguments are its command line's, its image is this version's. (Its schema is Docker's to know.)
#[test]
fn the_compose_file_runs_this_gate() {
    let text = fs::read_to_string(shipped("compose.yaml")).unwrap();
    let gate = serde_saphyr::from_str::<Value>(&text).unwrap()["services"]["gate"].take();
    assert_eq!(gate["image"], concat!("postern-sidecar:", env!("CARGO_PKG_VERSION")));
    let arguments = json!(["run", "--config", "/etc/postern/postern.toml", "--status-address", "0.0.0.0:6190"]);
    assert_eq!((&gate["command"], &gate["read_only"]), (&arguments, &json!(true)));
    assert_eq!(gate["healthcheck"]["test"], json!(["CMD", "/postern-sidecar", "status"]));
}
