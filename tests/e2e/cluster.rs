//! The cluster that all cases share, with Postern installed in it by whoever comes first.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use postern_tests::clients::{Finished, run};
use postern_tests::wait::eventually;
use serde_json::Value;

/// Pods start, images are unpacked, probes pass: on two busy cores.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);
/// The namespace of the release.
pub(crate) const OWN: &str = "postern-system";

/// A cluster, and what speaks to it.
#[derive(Debug)]
pub(crate) struct Cluster {
    kubectl: PathBuf,
    helm: PathBuf,
}

impl Cluster {
    /// The one of this process, with Postern running in it.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Result<Cluster>> = OnceLock::new();
        let made = SHARED.get_or_init(|| {
            let cluster = Self::found()?;
            cluster.install()?;
            Ok(cluster)
        });
        made.as_ref().map_err(|error| anyhow!("{error:#}")).unwrap()
    }

    fn found() -> Result<Self> {
        ensure!(
            env::var_os("KUBECONFIG").is_some(),
            "KUBECONFIG is not set; `make e2e` sets it to a cluster that is there"
        );
        Ok(Self { kubectl: program("kubectl")?, helm: program("helm")? })
    }

    /// Both charts, as they are. All namespaces are served, because each case has another.
    pub(crate) fn install(&self) -> Result<()> {
        let [definitions, chart] = ["charts/postern-crds", "charts/postern"].map(in_checkout);
        self.helm(&["upgrade", "--install", "postern-crds", path(&definitions)?])?;
        self.helm(&[
            "upgrade",
            "--install",
            "postern",
            path(&chart)?,
            "--namespace",
            OWN,
            "--create-namespace",
            "--force-conflicts",
        ])?;
        for deployment in ["deployment/postern-operator", "deployment/postern-injector"] {
            self.rolled_out(OWN, deployment)?;
        }
        Ok(())
    }

    /// What Helm says, which has to end well.
    pub(crate) fn helm(&self, arguments: &[&str]) -> Result<String> {
        let finished = run(Command::new(&self.helm).args(arguments), b"", PATIENCE)?;
        ensure!(finished.code == Some(0), "helm {}: {}", arguments.join(" "), finished.stderr);
        Ok(finished.text())
    }

    /// Waits until all pods of it are there and ready, or says what is in the way.
    pub(crate) fn rolled_out(&self, namespace: &str, name: &str) -> Result<()> {
        let limit = format!("--timeout={}s", PATIENCE.as_secs());
        let waited = self.run(&["-n", namespace, "rollout", "status", name, &limit]);
        waited.map(drop).map_err(|error| {
            let pods = self.run(&["-n", namespace, "describe", "pods"]).unwrap_or_default();
            let events = self.run(&["-n", namespace, "get", "events"]).unwrap_or_default();
            error.context(format!("{pods}\n{events}"))
        })
    }

    /// Applies objects, each again while the webhook that looks at it is not there yet.
    pub(crate) fn apply(&self, object: &Value) -> Result<()> {
        eventually("an object to be applied", PATIENCE, || {
            let finished = self.kubectl(&["apply", "--server-side", "-f", "-"], &object.to_string())?;
            let early = ["failed calling webhook", "serviceaccount \"default\" not found"];
            let is_early = early.iter().any(|words| finished.stderr.contains(words));
            ensure!(finished.code == Some(0) || is_early, "{}{object}", finished.stderr);
            Ok((finished.code == Some(0)).then_some(()))
        })
    }

    /// What kubectl says, which has to end well.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String> {
        let finished = self.kubectl(arguments, "")?;
        ensure!(finished.code == Some(0), "kubectl {}: {}", arguments.join(" "), finished.stderr);
        Ok(finished.text())
    }

    /// Runs kubectl.
    pub(crate) fn kubectl(&self, arguments: &[&str], input: &str) -> Result<Finished> {
        run(&mut self.command(arguments), input.as_bytes(), PATIENCE + PATIENCE)
    }

    /// kubectl, for whoever wants to see what it says while it does.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.args(arguments);
        command
    }
}

/// Where a program is, as the scripts of the checkout find it.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let looked = run(Command::new(in_checkout("scripts/kubernetes")).args(["where", name]), b"", PATIENCE)?;
    ensure!(looked.code == Some(0), "{}", looked.stderr);
    Ok(PathBuf::from(looked.text().trim_end()))
}

/// A file of the checkout.
pub(crate) fn in_checkout(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

pub(crate) fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path of the checkout")
}
