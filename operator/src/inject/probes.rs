//! Probes of applications that listen on loopback only: the kubelet asks the gate, and the gate asks the application as
//! the kubelet would have done.

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe as KubernetesProbe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};
use sidecar_config::Duration;
use sidecar_config::health::{GrpcCheck, TcpCheck};
use sidecar_config::probe::{HttpProbe, Probe, ProbeHeader};

/// The setting of the sidecar with the probes it makes.
pub(super) const VARIABLE: &str = "POSTERN__PROBES";
/// The probes of a container, and what they are called.
const KINDS: [(&str, &str); 3] =
    [("livenessProbe", "liveness"), ("readinessProbe", "readiness"), ("startupProbe", "startup")];
/// What the sidecar takes.
const PROBES: usize = 64;
/// How long the status port keeps a connection, and so the longest that a probe may take.
const TIMEOUT_SECONDS: i32 = 10;

/// What became of a pod's probes.
#[derive(Debug, Default)]
pub(super) struct Forwarded {
    /// What the sidecar is to make.
    pub(super) probes: Vec<Probe>,
    /// What its author should know.
    pub(super) warnings: Vec<String>,
}

impl Forwarded {
    /// The sidecar's setting. In values of variables Kubernetes takes `$(…)` for another one.
    pub(super) fn value(&self) -> String {
        // Types of the contract hold texts, numbers and lists; serialising those cannot fail.
        serde_json::to_string(&self.probes).unwrap_or_default().replace("$(", "$$(")
    }

    /// What a sidecar that is there was told.
    fn earlier(pod: &Value) -> Vec<Probe> {
        let containers = pod["spec"]["initContainers"].as_array().into_iter().flatten();
        let variables = containers.flat_map(|container| container["env"].as_array().into_iter().flatten());
        let told = variables.filter(|one| one["name"] == VARIABLE).find_map(|one| one["value"].as_str());
        told.and_then(|told| serde_json::from_str(&told.replace("$$(", "$(")).ok()).unwrap_or_default()
    }
}

/// Has the kubelet ask the sidecar at this port. Commands (`exec`) run in the application's container and stay.
///
/// # Errors
/// With every probe that cannot be forwarded.
pub(super) fn forward(pod: &mut Value, containers: &[Container], port: u16) -> Result<Forwarded, Vec<String>> {
    let earlier = Forwarded::earlier(pod);
    let (mut forwarded, mut wrong) = (Forwarded::default(), Vec::new());
    for (index, container) in containers.iter().enumerate() {
        let probes = [&container.liveness_probe, &container.readiness_probe, &container.startup_probe];
        for ((field, kind), probe) in KINDS.into_iter().zip(probes) {
            let Some(probe) = probe else { continue };
            let name = format!("{}/{kind}", container.name);
            let place = &mut pod["spec"]["containers"][index][field];
            if is_forwarded(probe, &name, port) {
                match earlier.iter().find(|one| one.name == name) {
                    Some(known) => forwarded.probes.push(known.clone()),
                    None => wrong.push(format!("{field} of container {}: nobody knows what it was", container.name)),
                }
                continue;
            }
            match made(probe, container, &name) {
                Ok(Some(made)) => {
                    for way in ["httpGet", "tcpSocket", "grpc"] {
                        place.as_object_mut().map(|probe| probe.remove(way));
                    }
                    place["httpGet"] = json!({"path": path(&name), "port": port, "scheme": "HTTP"});
                    if probe.timeout_seconds.unwrap_or(1) > TIMEOUT_SECONDS {
                        let why = format!(
                            "postern: {field} of container {}: the gate waits {TIMEOUT_SECONDS} s",
                            container.name
                        );
                        forwarded.warnings.push(why);
                    }
                    forwarded.probes.push(made);
                }
                Ok(None) => {}
                Err(Refusal::Kept(why)) => {
                    forwarded
                        .warnings
                        .push(format!("postern: {field} of container {} is not forwarded: {why}", container.name));
                }
                Err(Refusal::Wrong(why)) => wrong.push(format!("{field} of container {}: {why}", container.name)),
            }
        }
    }
    if forwarded.probes.len() > PROBES {
        wrong.push(format!("the pod has {} probes; at most {PROBES} can be forwarded", forwarded.probes.len()));
    }
    if wrong.is_empty() { Ok(forwarded) } else { Err(wrong) }
}

fn path(name: &str) -> String {
    format!("/probe/{name}")
}

fn is_forwarded(probe: &KubernetesProbe, name: &str, port: u16) -> bool {
    let ours = HTTPGetAction {
        path: Some(path(name)),
        port: IntOrString::Int(port.into()),
        scheme: Some("HTTP".to_owned()),
        ..HTTPGetAction::default()
    };
    probe.http_get.as_ref() == Some(&ours)
}

/// Why a probe is not forwarded.
enum Refusal {
    /// It stays as it is.
    Kept(&'static str),
    /// It cannot be right.
    Wrong(String),
}

/// The same probe for the sidecar; `None` where there is nothing to forward.
fn made(probe: &KubernetesProbe, container: &Container, name: &str) -> Result<Option<Probe>, Refusal> {
    let elsewhere = |host: &Option<String>| host.as_ref().is_some_and(|host| !host.is_empty());
    let seconds = probe.timeout_seconds.unwrap_or(1).clamp(1, TIMEOUT_SECONDS);
    let timeout = format!("{seconds}s").parse::<Duration>().map_err(Refusal::Wrong)?;
    let mut made = Probe { name: name.to_owned(), port: 0, http: None, tcp: None, grpc: None, timeout };
    if let Some(get) = &probe.http_get {
        if elsewhere(&get.host) {
            return Err(Refusal::Kept("it asks another host"));
        }
        if get.scheme.as_deref() == Some("HTTPS") {
            return Err(Refusal::Kept("the gate asks by HTTP alone; use HTTP, tcpSocket or exec"));
        }
        made.port = number(&get.port, container)?;
        let headers = get.http_headers.iter().flatten();
        let headers = headers.map(|field| ProbeHeader { name: field.name.clone(), value: field.value.clone() });
        let path = get.path.clone().filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned());
        made.http = Some(HttpProbe { path, headers: headers.collect() });
    } else if let Some(socket) = &probe.tcp_socket {
        if elsewhere(&socket.host) {
            return Err(Refusal::Kept("it asks another host"));
        }
        made.port = number(&socket.port, container)?;
        made.tcp = Some(TcpCheck {});
    } else if let Some(grpc) = &probe.grpc {
        made.port = number(&IntOrString::Int(grpc.port), container)?;
        made.grpc = Some(GrpcCheck { service: grpc.service.clone().unwrap_or_default() });
    } else {
        return Ok(None);
    }
    Ok(Some(made))
}

fn number(port: &IntOrString, container: &Container) -> Result<u16, Refusal> {
    let named = |name: &str| {
        let mut ports = container.ports.iter().flatten();
        ports.find(|one| one.name.as_deref() == Some(name)).map(|one| one.container_port)
    };
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        // A number may be written as text.
        IntOrString::String(text) => named(text).or_else(|| text.parse().ok()),
    };
    let number = number.and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0);
    number.ok_or_else(|| Refusal::Wrong(format!("the container has no such port: {port:?}")))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Container;
    use serde_json::{Value, json};

    use super::forward;

    /// What is forwarded and the warnings, or what is wrong.
    type Told = Result<(Value, Vec<String>), Vec<String>>;

    fn of(container: &Value) -> (Value, Told) {
        let mut container = container.clone();
        container["name"] = json!("app");
        let mut pod = json!({"spec": {"containers": [container.clone()]}});
        let typed: Container = serde_json::from_value(container).expect("a container");
        let forwarded = forward(&mut pod, &[typed], 6190);
        let told =
            forwarded.map(|forwarded| (serde_json::from_str(&forwarded.value()).expect("JSON"), forwarded.warnings));
        (pod["spec"]["containers"][0].take(), told)
    }

    #[test]
    fn every_kind_of_probe_goes_the_way_of_the_gate() {
        let ours = |kind: &str| json!({"path": format!("/probe/app/{kind}"), "port": 6190, "scheme": "HTTP"});
        let rows = [
            (
                json!({"httpGet": {"port": 8080}, "periodSeconds": 3}),
                json!({"name": "app/readiness", "port": 8080, "http": {"path": "/"}, "timeout": "1s"}),
            ),
            (
                json!({"httpGet": {"port": "web", "path": "/a", "httpHeaders": [{"name": "A", "value": "b"}]}, "timeoutSeconds": 5}),
                json!({"name": "app/readiness", "port": 80, "http": {"path": "/a", "headers": [{"name": "A", "value": "b"}]}, "timeout": "5s"}),
            ),
            (
                json!({"tcpSocket": {"port": "81"}}),
                json!({"name": "app/readiness", "port": 81, "tcp": {}, "timeout": "1s"}),
            ),
            (
                json!({"grpc": {"port": 82, "service": "orders"}}),
                json!({"name": "app/readiness", "port": 82, "grpc": {"service": "orders"}, "timeout": "1s"}),
            ),
        ];
        for (probe, expected) in rows {
            let (after, told) = of(&json!({"readinessProbe": probe, "ports": [{"name": "web", "containerPort": 80}]}));
            assert_eq!(told, Ok((json!([expected]), Vec::new())), "{probe}");
            let mut others = probe;
            for way in ["httpGet", "tcpSocket", "grpc"] {
                others.as_object_mut().expect("a probe").remove(way);
            }
            others["httpGet"] = ours("readiness");
            assert_eq!(after["readinessProbe"], others, "what else it says stays");
        }
    }

    #[test]
    fn what_stays_stays_and_what_cannot_be_is_told() {
        let kept = [
            (json!({"exec": {"command": ["true"]}}), 0),
            (json!({"httpGet": {"port": 1, "host": "other"}}), 1),
            (json!({"httpGet": {"port": 1, "scheme": "HTTPS"}}), 1),
            (json!({"tcpSocket": {"port": 1, "host": "other"}}), 1),
        ];
        for (probe, warnings) in kept {
            let (after, told) = of(&json!({"livenessProbe": probe}));
            assert_eq!(after["livenessProbe"], probe);
            assert_eq!(told.map(|(probes, told)| (probes, told.len())), Ok((json!([]), warnings)));
        }
        for (probe, why) in [
            (
                json!({"tcpSocket": {"port": "web"}}),
                "startupProbe of container app: the container has no such port: String(\"web\")",
            ),
            (
                json!({"httpGet": {"port": 6190, "path": "/probe/app/startup", "scheme": "HTTP"}}),
                "startupProbe of container app: nobody knows what it was",
            ),
        ] {
            assert_eq!(of(&json!({"startupProbe": probe})).1, Err(vec![why.to_owned()]));
        }
    }
}
