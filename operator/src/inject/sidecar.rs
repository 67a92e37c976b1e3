//! The sidecar's container and its volumes. The names of the objects are those that the operator writes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapProjection, Container, ContainerPort, DownwardAPIProjection, DownwardAPIVolumeFile,
    EmptyDirVolumeSource, EnvVar, EnvVarSource, HTTPGetAction, KeyToPath, ObjectFieldSelector,
    PersistentVolumeClaimVolumeSource, Probe, ProjectedVolumeSource, ResourceRequirements, SeccompProfile,
    SecretProjection, SecurityContext, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sidecar_config::Size;
use sidecar_config::settings::Chain;

use super::overrides::Overrides;
use crate::index::pod::SIDECAR_CONTAINER;
use crate::limits::CHUNKS;
use crate::workload::names;

/// Beginning of the variables that the sidecar reads.
pub const VARIABLE_PREFIX: &str = "POSTERN__";
/// What is written for the workload, as the sidecar reads it.
pub const CONFIG_VOLUME: &str = "postern-config";
/// Where it is mounted.
const CONFIG_PATH: &str = "/etc/postern";
/// The namespace's own Secret that says where rows of the log are sent to, and has the keys of what is in them. The operator never reads it.
pub const LOG_SECRET: &str = "postern-log";
/// What is taken of it, each if it is there.
const LOG_SECRET_KEYS: [&str; 6] = ["url", "password", "ca.crt", "chain-key", "capture-salt", "body-key"];
/// What was accepted last, and the admin socket.
pub const STATE_VOLUME: &str = "postern-state";
/// The request log.
pub const LOG_VOLUME: &str = "postern-log";
/// All volumes of ours.
pub const VOLUMES: [&str; 3] = [CONFIG_VOLUME, STATE_VOLUME, LOG_VOLUME];
/// Name of the one port that has a name: a listener's would take over the application's Services.
const PORT_NAME: &str = "postern";
/// The user that the sidecar runs as, known to nobody.
const USER: i64 = 65_532;
/// A file that anybody in the container may read: 0400 cannot be read by another user than root.
const READABLE: i32 = 0o444;
/// Seconds in which a Secret may come late; the probe looks once in each. A small number restarts a pod for nothing.
const STARTUP_SECONDS: i32 = 86_400;
/// Most that the last accepted parts take, in memory.
const STATE_LIMIT: &str = "32Mi";
/// The log's file, unless a pod says otherwise.
const LOG_BYTES: u64 = 256 << 20;
/// How often the log's size is in its volume: a damaged file is set aside whole. A volume that overflows ends the pod.
const LOG_ROOM: u64 = 2;

/// What all sidecars have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Common {
    /// The image.
    pub image: String,
    /// When it is pulled; `None` leaves it to Kubernetes.
    pub image_pull_policy: Option<String>,
    /// Port of the probes and of `/status`.
    pub status_port: u16,
}

/// A pod's gate.
#[derive(Clone, Debug, PartialEq)]
pub struct Sidecar {
    /// The container.
    pub container: Container,
    /// The volumes it mounts.
    pub volumes: Vec<Volume>,
}

/// Makes the sidecar of a pod of a workload.
#[must_use]
pub fn sidecar(common: &Common, workload: &str, service_account: &str, overrides: &Overrides) -> Sidecar {
    let port = i32::from(common.status_port);
    let container = Container {
        name: SIDECAR_CONTAINER.to_owned(),
        image: Some(overrides.image.clone().unwrap_or_else(|| common.image.clone())),
        image_pull_policy: overrides.image_pull_policy.clone().or_else(|| common.image_pull_policy.clone()),
        args: Some(["run", "--config", CONFIG_PATH].map(str::to_owned).into()),
        restart_policy: Some("Always".to_owned()),
        env: Some(variables(common, workload, overrides)),
        ports: Some(vec![ContainerPort {
            name: Some(PORT_NAME.to_owned()),
            container_port: port,
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        startup_probe: Some(Probe { failure_threshold: Some(STARTUP_SECONDS), ..probe("/startupz", port, 1) }),
        readiness_probe: Some(Probe { failure_threshold: Some(2), ..probe("/readyz", port, 5) }),
        liveness_probe: Some(Probe { failure_threshold: Some(6), ..probe("/livez", port, 10) }),
        resources: Some(resources(overrides)),
        security_context: Some(security(overrides)),
        termination_message_path: Some("/dev/termination-log".to_owned()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(vec![
            mount(CONFIG_VOLUME, CONFIG_PATH, Some(true)),
            mount(STATE_VOLUME, "/run/postern", None),
            mount(LOG_VOLUME, "/var/lib/postern", None),
        ]),
        ..Container::default()
    };
    let volumes = vec![config_volume(workload, service_account), state_volume(), log_volume(overrides)];
    Sidecar { container, volumes }
}

/// A sidecar refuses variables that it does not know, and a pod may name an older one: what all are told is in contract 1.6.
/// Keys of what came later are looked for where they are.
fn variables(common: &Common, workload: &str, overrides: &Overrides) -> Vec<EnvVar> {
    let value = |name: &str, value: String| EnvVar {
        name: format!("{VARIABLE_PREFIX}{name}"),
        value: Some(value),
        ..EnvVar::default()
    };
    let field = |name: &str, path: &str| EnvVar {
        name: format!("{VARIABLE_PREFIX}{name}"),
        value_from: Some(EnvVarSource { field_ref: Some(field(path)), ..EnvVarSource::default() }),
        ..EnvVar::default()
    };
    let mut variables = vec![
        field("POD__NAME", "metadata.name"),
        field("POD__UID", "metadata.uid"),
        field("POD__NAMESPACE", "metadata.namespace"),
        value("POD__WORKLOAD", workload.to_owned()),
        value("STATUS_ADDRESS", format!("0.0.0.0:{}", common.status_port)),
        value("STATE_DIR", "/run/postern/state".to_owned()),
        value("ADMIN__SOCKET", "/run/postern/admin.sock".to_owned()),
        // Pods that share a claim have files of their own in it.
        value("LOG__PATH", format!("/var/lib/postern/$({VARIABLE_PREFIX}POD__NAME).db")),
        value("LOG__MAX_SIZE", log_size(overrides).to_string()),
        // Files of a Secret that may be there or come: without them nothing is sent.
        value("LOG__POSTGRES__URL_FILE", format!("{CONFIG_PATH}/log/url")),
        value("LOG__POSTGRES__PASSWORD_FILE", format!("{CONFIG_PATH}/log/password")),
        value("LOG__POSTGRES__CA_FILE", format!("{CONFIG_PATH}/log/ca.crt")),
    ];
    let said = [
        ("WORKERS", overrides.workers.map(|workers| workers.to_string())),
        ("DRAIN_TIMEOUT", overrides.drain_timeout.map(|time| time.to_string())),
        ("LOG_LEVEL", overrides.log_level.clone()),
        ("LOG__CLIENT_ADDRESS", overrides.log_client_address.clone()),
        ("LOG__CHAIN", overrides.log_chain.map(|chain| format!("{chain:?}"))),
        (
            "LOG__POSTGRES__APPLY_SCHEMA",
            overrides.apply_log_schema.filter(|applies| *applies).map(|_| "true".to_owned()),
        ),
        (
            "LOG__CHAIN_KEY_FILE",
            overrides.log_chain.filter(|chain| *chain == Chain::Keyed).map(|_| format!("{CONFIG_PATH}/log/chain-key")),
        ),
    ];
    variables.extend(said.into_iter().filter_map(|(name, said)| Some(value(name, said?))));
    variables
}

fn log_size(overrides: &Overrides) -> Size {
    overrides.log_size.unwrap_or_else(|| Size::from_bytes(LOG_BYTES))
}

fn field(path: &str) -> ObjectFieldSelector {
    ObjectFieldSelector { api_version: Some("v1".to_owned()), field_path: path.to_owned() }
}

/// A probe of the status port. What Kubernetes would fill in is said, so that a second look changes nothing.
fn probe(path: &str, port: i32, period_seconds: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(port),
            scheme: Some("HTTP".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(2),
        success_threshold: Some(1),
        ..Probe::default()
    }
}

fn resources(overrides: &Overrides) -> ResourceRequirements {
    let quantity = |said: &Option<String>, default: Option<&str>| {
        said.clone().or_else(|| default.map(str::to_owned)).map(Quantity)
    };
    let both = |cpu: Option<Quantity>, memory: Option<Quantity>| {
        let both = [("cpu", cpu), ("memory", memory)];
        let both = both.into_iter().filter_map(|(name, quantity)| Some((name.to_owned(), quantity?)));
        Some(both.collect::<BTreeMap<_, _>>())
    };
    ResourceRequirements {
        requests: both(
            quantity(&overrides.cpu_request, Some("10m")),
            quantity(&overrides.memory_request, Some("16Mi")),
        ),
        limits: both(quantity(&overrides.cpu_limit, None), quantity(&overrides.memory_limit, Some("64Mi"))),
        ..ResourceRequirements::default()
    }
}

/// What Pod Security `restricted` asks for, and a file system that cannot be written.
fn security(overrides: &Overrides) -> SecurityContext {
    let user = overrides.run_as_user.unwrap_or(USER);
    SecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(user),
        run_as_group: Some(user),
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), ..Capabilities::default() }),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), ..SeccompProfile::default() }),
        ..SecurityContext::default()
    }
}

fn mount(volume: &str, path: &str, read_only: Option<bool>) -> VolumeMount {
    VolumeMount { name: volume.to_owned(), mount_path: path.to_owned(), read_only, ..VolumeMount::default() }
}

/// Everything that is written for the workload, in one folder that changes at once. All of it may come late.
fn config_volume(workload: &str, service_account: &str) -> Volume {
    let map = |name: String| VolumeProjection {
        config_map: Some(ConfigMapProjection { name, optional: Some(true), ..ConfigMapProjection::default() }),
        ..VolumeProjection::default()
    };
    let secret = |name: String| VolumeProjection {
        secret: Some(SecretProjection { name, optional: Some(true), ..SecretProjection::default() }),
        ..VolumeProjection::default()
    };
    let mut sources = vec![map(names::TRUST.to_owned()), secret(names::identity(workload, service_account))];
    sources.extend((0..CHUNKS).map(|chunk| map(names::identities(workload, chunk))));
    sources.extend([names::policy(workload), names::good_policy(workload), names::endpoints(workload)].map(map));
    sources.push(log_secret());
    sources.push(VolumeProjection {
        downward_api: Some(DownwardAPIProjection {
            items: Some(vec![DownwardAPIVolumeFile {
                path: "labels".to_owned(),
                field_ref: Some(field("metadata.labels")),
                ..DownwardAPIVolumeFile::default()
            }]),
        }),
        ..VolumeProjection::default()
    });
    Volume {
        name: CONFIG_VOLUME.to_owned(),
        projected: Some(ProjectedVolumeSource { default_mode: Some(READABLE), sources: Some(sources) }),
        ..Volume::default()
    }
}

/// By name, so that nothing else in the Secret comes between documents.
fn log_secret() -> VolumeProjection {
    let items = LOG_SECRET_KEYS.map(|key| KeyToPath {
        key: key.to_owned(),
        path: format!("log/{key}"),
        ..KeyToPath::default()
    });
    let secret = SecretProjection { name: LOG_SECRET.to_owned(), items: Some(items.into()), optional: Some(true) };
    VolumeProjection { secret: Some(secret), ..VolumeProjection::default() }
}

fn state_volume() -> Volume {
    Volume {
        name: STATE_VOLUME.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: Some("Memory".to_owned()),
            size_limit: Some(Quantity(STATE_LIMIT.to_owned())),
        }),
        ..Volume::default()
    }
}

fn log_volume(overrides: &Overrides) -> Volume {
    let name = LOG_VOLUME.to_owned();
    match &overrides.log_volume_claim {
        Some(claim) => Volume {
            name,
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.clone(),
                ..PersistentVolumeClaimVolumeSource::default()
            }),
            ..Volume::default()
        },
        None => {
            let mebibytes = log_size(overrides).bytes().saturating_mul(LOG_ROOM).div_ceil(1 << 20);
            let size_limit = Some(Quantity(format!("{mebibytes}Mi")));
            Volume {
                name,
                empty_dir: Some(EmptyDirVolumeSource { size_limit, ..EmptyDirVolumeSource::default() }),
                ..Volume::default()
            }
        }
    }
}
