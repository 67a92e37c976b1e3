//! Images and releases for each kind of machine: what scripts, Dockerfiles, workflows and documents say of them agrees, and what
//! `scripts/image` writes is what registries and engines expect. (Building for another machine takes minutes: `make release` does.)

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use postern_tests::clients::{Finished, run};
use postern_tests::wait::PATIENCE;
use serde_json::{Value, json};
use tempfile::TempDir;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(place: &str) -> String {
    fs::read_to_string(root().join(place)).unwrap()
}

fn finished(arguments: &[&str]) -> Finished {
    run(Command::new(root().join(arguments[0])).args(&arguments[1..]).current_dir(root()), b"", PATIENCE).unwrap()
}

fn said(arguments: &[&str]) -> String {
    let finished = finished(arguments);
    assert_eq!(finished.code, Some(0), "{arguments:?}: {}", finished.stderr);
    finished.text().trim_end().to_owned()
}

/// The kinds that are released: `amd64`, `arm64`.
fn architectures() -> Vec<String> {
    let kinds = said(&["scripts/machine", "all"]);
    kinds.split(' ').map(|kind| said(&["scripts/machine", "architecture", kind])).collect()
}

#[test]
fn a_kind_of_machine_is_known_by_each_of_its_names() {
    for (names, known) in [
        (["x86_64", "amd64", "x86_64-unknown-linux-gnu"], ["x86_64", "amd64", "x86_64-unknown-linux-gnu"]),
        (["aarch64", "arm64", "aarch64-unknown-linux-gnu"], ["aarch64", "arm64", "aarch64-unknown-linux-gnu"]),
    ] {
        for name in names {
            let answers = ["kernel", "architecture", "target"].map(|field| said(&["scripts/machine", field, name]));
            assert_eq!(answers, known, "{name}");
        }
    }
    // Without a name it is this machine, for which the compiler of C is its own.
    assert_eq!(said(&["scripts/machine", "kernel"]), std::env::consts::ARCH);
    assert_eq!(said(&["scripts/machine", "compiler", ""]), "cc");
    assert_eq!(finished(&["scripts/machine", "target", "mips"]).code, Some(1));
}

/// A file that begins as a program does for this machine by its number, and is otherwise of no use.
fn program(folder: &Path, name: &str, machine: u16) -> String {
    let place = folder.join(name);
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(18, 0);
    bytes.extend(machine.to_le_bytes());
    bytes.extend(name.bytes());
    fs::write(&place, bytes).unwrap();
    place.display().to_string()
}

const AMD64: u16 = 62;
const ARM64: u16 = 183;

/// An archive of images, taken apart.
struct Archive(TempDir);

impl Archive {
    fn open(file: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let taken = run(Command::new("tar").arg("-xf").arg(file).arg("-C").arg(folder.path()), b"", PATIENCE).unwrap();
        assert_eq!(taken.code, Some(0), "{}", taken.stderr);
        Self(folder)
    }

    fn json(&self, place: &str) -> Value {
        serde_json::from_slice(&fs::read(self.0.path().join(place)).unwrap()).unwrap()
    }

    fn blob(&self, entry: &Value) -> Value {
        let place = entry["digest"].as_str().unwrap().replace(':', "/");
        let bytes = fs::read(self.0.path().join("blobs").join(&place)).unwrap();
        assert_eq!(entry["size"], bytes.len());
        self.json(&format!("blobs/{place}"))
    }
}

#[test]
fn programs_for_two_machines_make_one_image_with_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, files: &[String]| {
        let output = folder.path().join(name);
        let mut arguments =
            vec!["scripts/image", output.to_str().unwrap(), "gate:1.0", "--entrypoint", "/gate", "--label", "a=b"];
        arguments.extend(files.iter().map(String::as_str));
        (finished(&arguments), output)
    };
    let intel = program(folder.path(), "intel", AMD64) + "=/gate";
    let arm = program(folder.path(), "arm", ARM64) + "=/gate";
    let (made, both) = make("both.tar", &[arm.clone(), intel.clone()]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let (again, other) = make("again.tar", &[intel.clone(), arm.clone()]);
    assert_eq!(again.code, Some(0));
    assert!(fs::read(&both).unwrap() == fs::read(other).unwrap(), "the order of files makes other bytes");

    let archive = Archive::open(&both);
    let top = archive.json("index.json");
    assert_eq!(top["manifests"].as_array().unwrap().len(), 1);
    let index = archive.blob(&top["manifests"][0]);
    let mut layers = BTreeSet::new();
    for (entry, architecture) in index["manifests"].as_array().unwrap().iter().zip(["amd64", "arm64"]) {
        let platform = json!({"architecture": architecture, "os": "linux"});
        assert_eq!(entry["platform"], platform);
        let manifest = archive.blob(entry);
        let config = archive.blob(&manifest["config"]);
        assert_eq!((&config["architecture"], &config["os"]), (&platform["architecture"], &platform["os"]));
        let runs = json!({"Entrypoint": ["/gate"], "User": "65532:65532", "Labels": {"a": "b"}, "Cmd": [], "Env": [], "WorkingDir": "/"});
        assert_eq!(config["config"], runs);
        layers.insert(manifest["layers"][0]["digest"].to_string());
    }
    assert_eq!((index["manifests"].as_array().unwrap().len(), layers.len()), (2, 2));

    // For engines that know no index.
    let saved = archive.json("manifest.json");
    let tags: Vec<_> = saved.as_array().unwrap().iter().map(|image| image["RepoTags"].clone()).collect();
    assert_eq!(tags, [json!(["gate:1.0-amd64"]), json!(["gate:1.0-arm64"])]);

    let (made, one) = make("one.tar", std::slice::from_ref(&arm));
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let entry = Archive::open(&one).json("index.json")["manifests"][0].take();
    assert_eq!(entry["platform"], json!({"architecture": "arm64", "os": "linux"}));

    let lonely = program(folder.path(), "lonely", AMD64) + "=/second";
    let (refused, _) = make("refused.tar", &[intel, arm, lonely]);
    assert_eq!((refused.code, refused.stderr.trim_end()), (Some(1), "error: /second not for each of amd64 and arm64"));
}

/// Of files that no test here can run: a container engine builds the one, a public forge runs the other.
#[test]
fn dockerfiles_and_workflows_are_for_every_kind_of_machine() {
    let architectures = architectures();
    assert_eq!(architectures, ["amd64", "arm64"]);
    let platforms: Vec<_> = architectures.iter().map(|architecture| format!("linux/{architecture}")).collect();
    let option = format!("--platform {}", platforms.join(","));
    let channel =
        serde_json::to_string(&text("rust-toolchain.toml").lines().find_map(|line| line.strip_prefix("channel = ")))
            .unwrap();
    let rust = channel.replace(['\\', '"'], "");
    for name in ["sidecar", "operator"] {
        let file = text(&format!("Dockerfile.{name}"));
        let lines: Vec<_> = file.lines().collect();
        let compiles = format!("RUN scripts/static {name}");
        for line in [
            &format!("ARG RUST={rust}") as &str,
            "FROM --platform=$BUILDPLATFORM rust:${RUST}-slim-bookworm AS tools",
            "ARG TARGETARCH",
            "ENV MACHINE=$TARGETARCH PROFILE=$PROFILE CARGO_TARGET_DIR=/target CARGO_INCREMENTAL=0",
            &compiles,
            "FROM scratch",
            concat!("ARG VERSION=", env!("CARGO_PKG_VERSION"), " REVISION=unknown"),
            "USER 65532:65532",
        ] {
            assert!(lines.contains(&line), "Dockerfile.{name} has no line {line}");
        }
        assert!(file.contains(&option), "Dockerfile.{name} does not say {option}");
    }
    assert!(text("docs/install.md").contains(&option));
    let workflow: Value = serde_saphyr::from_str(&text(".github/workflows/release.yaml")).unwrap();
    let machines = workflow["jobs"]["check"]["strategy"]["matrix"]["machine"].clone();
    assert_eq!(machines, json!(["ubuntu-24.04", "ubuntu-24.04-arm"]));
}

/// What the layer of dependencies is built of changes with them and with nothing else: no source is in it, and cargo takes it.
#[test]
fn the_skeleton_has_all_manifests_and_no_source() {
    let folder = tempfile::tempdir().unwrap();
    let skeleton = folder.path().join("skeleton");
    said(&["scripts/skeleton", skeleton.to_str().unwrap()]);
    let listed =
        run(Command::new("find").arg(&skeleton).args(["-type", "f", "-printf", "%P\\n"]), b"", PATIENCE).unwrap();
    let mut sources = 0;
    for place in listed.text().lines() {
        let content = fs::read_to_string(skeleton.join(place)).unwrap();
        if place.ends_with(".rs") {
            sources += 1;
            assert_eq!(content, "fn main() {}\n", "{place}");
        } else {
            assert_eq!(content, text(place), "{place}");
        }
    }
    assert!(sources > 10, "{}", listed.text());
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--locked", "--offline", "--no-deps", "--format-version", "1"]).current_dir(&skeleton);
    let taken = run(&mut cargo, b"", PATIENCE).unwrap();
    assert_eq!(taken.code, Some(0), "{}", taken.stderr);
}
