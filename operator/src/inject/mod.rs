//! The gate is put into pods: which pods, of which workload, and how. Pure; the webhook and the plugin do the same.

pub mod audit;
mod certificate;
pub mod gate;
mod metrics;
pub mod overrides;
mod patch;
mod probes;
mod quantity;
pub mod review;
pub mod server;
pub mod settings;
pub mod sidecar;
pub mod upkeep;
pub mod workload;

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerPort, EnvVar, Pod, PodSpec, PodTemplateSpec};
use serde_json::Value;
use sidecar_config::CONTRACT_MAX;

pub use self::patch::patch;
pub use self::sidecar::Common;

use self::overrides::Overrides;
use self::probes::Wanted;
use self::quantity::Quantity;
use crate::index::pod::{SIDECAR_CONTAINER, WORKLOAD_LABEL};

/// Label by which pods and namespaces choose.
pub const INJECT_LABEL: &str = "postern.dev/inject";
/// Label with the version that put the sidecar in.
pub const VERSION_LABEL: &str = "postern.dev/sidecar";
/// Label with the contract that the sidecar reads.
pub const CONTRACT_LABEL: &str = "postern.dev/sidecar-contract";
/// The version that this program puts in.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The image that it puts in unless it is told another.
pub const IMAGE: &str = concat!("postern-sidecar:", env!("CARGO_PKG_VERSION"));
/// Port of the sidecar's probes and `/status` unless it is told another.
pub const STATUS_PORT: u16 = 6190;
/// The sidecar's time for requests in flight at the end, unless a pod says otherwise.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);
/// Which container kubectl means where none is named: the application, as before there was a gate.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// Set on what the kubelet runs from files, and shows to the API server without being told anything by it.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It has not asked for a sidecar, or cannot have one: then it is said why.
    Untouched(Option<String>),
    /// What it says of its sidecar cannot be.
    Refused(String),
    /// It gets one.
    Injected(Injected),
}

/// A pod with its sidecar.
#[derive(Clone, Debug, PartialEq)]
pub struct Injected {
    /// The pod, or the template.
    pub object: Value,
    /// What its author should know.
    pub warnings: Vec<String>,
}

/// What makes pods of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maker<'a> {
    /// Its `apiVersion`.
    pub api_version: &'a str,
    /// Its kind.
    pub kind: &'a str,
    /// Its name.
    pub name: &'a str,
}

/// Judges a pod as it is created. `is_asked` says whether its namespace asks for sidecars.
#[must_use]
pub fn pod(object: &Value, is_asked: bool, common: &Common) -> Verdict {
    match serde_json::from_value::<Pod>(object.clone()) {
        Ok(pod) => judge(object, &pod, None, is_asked, common),
        Err(error) => Verdict::Refused(format!("it is no pod: {error}")),
    }
}

/// Judges the template of a Deployment or of anything else that makes pods.
#[must_use]
pub fn template(object: &Value, maker: Maker<'_>, is_asked: bool, common: &Common) -> Verdict {
    match serde_json::from_value::<PodTemplateSpec>(object.clone()) {
        Ok(PodTemplateSpec { metadata, spec }) => {
            let pod = Pod { metadata: metadata.unwrap_or_default(), spec, status: None };
            judge(object, &pod, Some(maker), is_asked, common)
        }
        Err(error) => Verdict::Refused(format!("it is no template of pods: {error}")),
    }
}

fn judge(object: &Value, pod: &Pod, maker: Option<Maker<'_>>, is_asked: bool, common: &Common) -> Verdict {
    let asks = pod.metadata.labels.iter().flatten().find(|(label, _)| *label == INJECT_LABEL);
    match asks.map(|(_, value)| value.as_str()) {
        Some("enabled") => {}
        None if is_asked => {}
        None | Some("disabled") => return Verdict::Untouched(None),
        Some(other) => {
            return Verdict::Refused(format!(
                "label {INJECT_LABEL}: `{other}` is not known; write enabled or disabled"
            ));
        }
    }
    if let Some(why) = cannot_have_one(pod) {
        return Verdict::Untouched(Some(why));
    }
    inject(object, pod, maker, common).unwrap_or_else(|wrong| Verdict::Refused(wrong.join("; ")))
}

/// Why a pod has no place for a gate.
pub(crate) fn cannot_have_one(pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let why = if spec.host_network == Some(true) {
        "it uses the network of its node (hostNetwork), where a gate would stand beside those of other pods"
    } else if pod.metadata.annotations.iter().flatten().any(|(name, _)| name == MIRROR) {
        "it is a static pod, which the kubelet runs as its file says"
    } else if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        "it runs on Windows"
    } else {
        return None;
    };
    Some(format!("postern: the pod gets no sidecar: {why}"))
}

fn inject(object: &Value, pod: &Pod, maker: Option<Maker<'_>>, common: &Common) -> Result<Verdict, Vec<String>> {
    let workload = match maker {
        Some(maker) => workload::of_template(maker.api_version, maker.kind, maker.name, &pod.metadata),
        None => workload::of_pod(&pod.metadata),
    };
    let mut wrong: Vec<_> = workload.as_ref().err().map(ToString::to_string).into_iter().collect();
    let annotations = pod.metadata.annotations.clone().unwrap_or_default();
    let overrides = Overrides::read(&annotations).unwrap_or_else(|told| {
        wrong.extend(told);
        Overrides::default()
    });
    let spec = pod.spec.clone().unwrap_or_default();
    if spec.containers.iter().any(|container| container.name == SIDECAR_CONTAINER) {
        wrong.push(format!("container {SIDECAR_CONTAINER}: the name is the sidecar's; call it otherwise"));
    }
    let account = spec.service_account_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("default");
    let workload = workload.unwrap_or_default();
    let mut sidecar = sidecar::sidecar(common, &workload, account, &overrides);
    wrong.extend(out_of_order(&sidecar));
    let mut after = object.clone();
    let mut warnings: Vec<_> =
        port_taken(&spec, common.status_port).into_iter().chain(hurried(&spec, &overrides)).collect();
    let is_wanted = |said: Option<bool>| said == Some(true);
    let wanted = Wanted { probes: is_wanted(overrides.forward_probes), hooks: is_wanted(overrides.forward_hooks) };
    if wanted != Wanted::default() {
        match probes::forward(&mut after, &spec, wanted, common.status_port) {
            Ok(forwarded) => {
                sidecar.container.env.get_or_insert_default().push(EnvVar {
                    name: probes::VARIABLE.to_owned(),
                    value: Some(forwarded.value()),
                    ..EnvVar::default()
                });
                warnings.extend(forwarded.warnings);
            }
            Err(told) => wrong.extend(told),
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let contract = CONTRACT_MAX.major.to_string();
    let labels = [(WORKLOAD_LABEL, workload.as_str()), (VERSION_LABEL, VERSION), (CONTRACT_LABEL, &contract)];
    patch::set_words(&mut after, "labels", &labels);
    if let Some(first) = spec.containers.first().filter(|_| !annotations.contains_key(DEFAULT_CONTAINER)) {
        patch::set_words(&mut after, "annotations", &[(DEFAULT_CONTAINER, &first.name)]);
    }
    patch::put_container(&mut after, &sidecar);
    patch::put_volumes(&mut after, &sidecar.volumes);
    Ok(Verdict::Injected(Injected { warnings, object: after }))
}

fn port_taken(spec: &PodSpec, port: u16) -> Option<String> {
    let others = spec.init_containers.iter().flatten().filter(|container| container.name != SIDECAR_CONTAINER);
    let mut ports = spec.containers.iter().chain(others).flat_map(|container| container.ports.iter().flatten());
    let is_it = |one: &ContainerPort| {
        one.container_port == i32::from(port) && one.protocol.as_deref().unwrap_or("TCP") == "TCP"
    };
    let advice = "a container of the pod has it too; only one can listen";
    ports.any(is_it).then(|| format!("postern: port {port} is the sidecar's, and {advice}"))
}

/// A pod that is ended before its gate has let finish what is under way.
fn hurried(spec: &PodSpec, overrides: &Overrides) -> Option<String> {
    let drain = overrides.drain_timeout.map_or(DRAIN_TIMEOUT, |time| time.as_std());
    let grace = spec.termination_grace_period_seconds.and_then(|seconds| u64::try_from(seconds).ok())?;
    (Duration::from_secs(grace) <= drain).then(|| {
        let remedy = "raise it, or write less in annotation";
        format!(
            "postern: terminationGracePeriodSeconds is {grace}, and requests in flight have {drain:?} at the end; {remedy} {}drain-timeout",
            overrides::PREFIX
        )
    })
}

/// Requests above their limits, by the annotations that one can mend.
fn out_of_order(sidecar: &sidecar::Sidecar) -> Vec<String> {
    let resources = sidecar.container.resources.clone().unwrap_or_default();
    let (requests, limits) = (resources.requests.unwrap_or_default(), resources.limits.unwrap_or_default());
    let above = requests.iter().filter_map(|(name, request)| {
        let limit = limits.get(name)?;
        let is_above = request.0.parse::<Quantity>().ok()? > limit.0.parse::<Quantity>().ok()?;
        let prefix = overrides::PREFIX;
        is_above.then(|| {
            format!(
                "annotations {prefix}{name}-request and {prefix}{name}-limit: {} are requested, and {} are the limit",
                request.0, limit.0
            )
        })
    });
    above.collect()
}

#[cfg(test)]
mod tests;
