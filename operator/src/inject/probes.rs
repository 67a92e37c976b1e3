//! Probes and hooks of applications that listen on loopback only: the kubelet asks the gate, and the gate asks the
//! application as the kubelet would have done.

use k8s_openapi::api::core::v1::{
    Container, GRPCAction, HTTPGetAction, LifecycleHandler, PodSpec, Probe as KubernetesProbe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};
use sidecar_config::Duration;
use sidecar_config::health::{GrpcCheck, TcpCheck};
use sidecar_config::probe::{HttpProbe, Probe, ProbeHeader};
use sidecar_decide::probe::{PROBES, TIMEOUT_SECONDS, problems_of};

use crate::index::pod::SIDECAR_CONTAINER;

/// The setting of the sidecar with the probes it makes.
pub(super) const VARIABLE: &str = "POSTERN__PROBES";
/// The ways of asking that are taken out where the gate is asked instead. Commands (`exec`) run in the application's
/// container and stay.
const WAYS: [&str; 3] = ["httpGet", "tcpSocket", "grpc"];

/// What a pod wants forwarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) probes: bool,
    pub(super) hooks: bool,
}

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

/// Something that the kubelet asks a container.
struct Asked<'a> {
    container: &'a Container,
    /// Where it stands in the pod.
    place: String,
    /// What it is called in messages.
    field: &'static str,
    /// What it is called by the gate.
    name: String,
    http: Option<&'a HTTPGetAction>,
    tcp: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    seconds: i32,
}

/// Has the kubelet ask the sidecar at this port.
///
/// # Errors
/// With everything that cannot be forwarded.
pub(super) fn forward(pod: &mut Value, spec: &PodSpec, wanted: Wanted, port: u16) -> Result<Forwarded, Vec<String>> {
    let earlier = Forwarded::earlier(pod);
    let (mut forwarded, mut wrong) = (Forwarded::default(), Vec::new());
    for asked in all(spec, wanted) {
        let (field, container) = (asked.field, &asked.container.name);
        if asked.is_forwarded(port) {
            match earlier.iter().find(|one| one.name == asked.name) {
                Some(known) => forwarded.probes.push(known.clone()),
                None => wrong.push(format!("{field} of container {container}: nobody knows what it was")),
            }
            continue;
        }
        match asked.made() {
            Ok(Some(made)) => {
                let Some(place) = pod.pointer_mut(&asked.place) else { continue };
                for way in WAYS {
                    place.as_object_mut().map(|probe| probe.remove(way));
                }
                place["httpGet"] = json!({"path": path(&asked.name), "port": port, "scheme": "HTTP"});
                if i64::from(asked.seconds) > seconds() {
                    let why = format!("postern: {field} of container {container}: the gate waits {} s", seconds());
                    forwarded.warnings.push(why);
                }
                forwarded.probes.push(made);
            }
            Ok(None) => {}
            Err(Refusal::Kept(why)) => {
                let warning = format!("postern: {field} of container {container} is not forwarded: {why}");
                forwarded.warnings.push(warning);
            }
            Err(Refusal::Wrong(why)) => wrong.push(format!("{field} of container {container}: {why}")),
        }
    }
    if forwarded.probes.len() > PROBES {
        let count = forwarded.probes.len();
        wrong.push(format!("the pod has {count} probes and hooks; at most {PROBES} can be forwarded"));
    }
    if wrong.is_empty() { Ok(forwarded) } else { Err(wrong) }
}

/// The longest that the gate waits, in whole seconds.
fn seconds() -> i64 {
    i64::try_from(TIMEOUT_SECONDS).unwrap_or(i64::MAX)
}

/// What the kubelet asks of the containers that stay: those of the application, and init containers that are sidecars. The
/// others have no probes.
fn all(spec: &PodSpec, wanted: Wanted) -> impl Iterator<Item = Asked<'_>> {
    let containers = spec.containers.iter().enumerate().map(|(index, one)| ("containers", index, one));
    let sidecars = spec.init_containers.iter().flatten().enumerate();
    let sidecars = sidecars
        .map(|(index, one)| ("initContainers", index, one))
        .filter(|(.., one)| one.restart_policy.as_deref() == Some("Always") && one.name != SIDECAR_CONTAINER);
    containers.chain(sidecars).flat_map(move |(list, index, container)| {
        let probes = [
            ("livenessProbe", "liveness", &container.liveness_probe),
            ("readinessProbe", "readiness", &container.readiness_probe),
            ("startupProbe", "startup", &container.startup_probe),
        ];
        let probes = probes.into_iter().filter(move |_| wanted.probes).filter_map(move |(field, kind, probe)| {
            Some(Asked::of_probe(container, format!("/spec/{list}/{index}/{field}"), (field, kind), probe.as_ref()?))
        });
        let lifecycle = container.lifecycle.as_ref();
        let hooks = [
            ("lifecycle.postStart", "postStart", lifecycle.and_then(|all| all.post_start.as_ref())),
            ("lifecycle.preStop", "preStop", lifecycle.and_then(|all| all.pre_stop.as_ref())),
        ];
        let hooks = hooks.into_iter().filter(move |_| wanted.hooks).filter_map(move |(field, kind, hook)| {
            Some(Asked::of_hook(container, format!("/spec/{list}/{index}/lifecycle/{kind}"), (field, kind), hook?))
        });
        probes.chain(hooks)
    })
}

fn path(name: &str) -> String {
    format!("/probe/{name}")
}

/// Why something is not forwarded.
enum Refusal {
    /// It stays as it is.
    Kept(&'static str),
    /// It cannot be right.
    Wrong(String),
}

impl<'a> Asked<'a> {
    fn of_probe(
        container: &'a Container,
        place: String,
        (field, kind): (&'static str, &str),
        probe: &'a KubernetesProbe,
    ) -> Self {
        Self {
            container,
            place,
            field,
            name: format!("{}/{kind}", container.name),
            http: probe.http_get.as_ref(),
            tcp: probe.tcp_socket.as_ref(),
            grpc: probe.grpc.as_ref(),
            seconds: probe.timeout_seconds.unwrap_or(1),
        }
    }

    /// A hook has no time of its own: it gets all there is.
    fn of_hook(
        container: &'a Container,
        place: String,
        (field, kind): (&'static str, &str),
        hook: &'a LifecycleHandler,
    ) -> Self {
        Self {
            container,
            place,
            field,
            name: format!("{}/{kind}", container.name),
            http: hook.http_get.as_ref(),
            // Kubernetes takes it and never carries it out.
            tcp: None,
            grpc: None,
            seconds: i32::try_from(seconds()).unwrap_or(i32::MAX),
        }
    }

    fn is_forwarded(&self, port: u16) -> bool {
        let ours = HTTPGetAction {
            path: Some(path(&self.name)),
            port: IntOrString::Int(port.into()),
            scheme: Some("HTTP".to_owned()),
            ..HTTPGetAction::default()
        };
        self.http == Some(&ours)
    }

    /// The same for the sidecar; `None` where there is nothing to forward.
    fn made(&self) -> Result<Option<Probe>, Refusal> {
        let elsewhere = |host: &Option<String>| host.as_ref().is_some_and(|host| !host.is_empty());
        let timeout = format!("{}s", i64::from(self.seconds).clamp(1, seconds()));
        let timeout = timeout.parse::<Duration>().map_err(Refusal::Wrong)?;
        let mut made = Probe { name: self.name.clone(), port: 0, http: None, tcp: None, grpc: None, timeout };
        if let Some(get) = self.http {
            if elsewhere(&get.host) {
                return Err(Refusal::Kept("it asks another host"));
            }
            made.port = self.number(&get.port)?;
            let headers = get.http_headers.iter().flatten();
            let headers = headers.map(|field| ProbeHeader { name: field.name.clone(), value: field.value.clone() });
            // The kubelet puts the slash there that is missing.
            let path = format!("/{}", get.path.as_deref().unwrap_or_default().trim_start_matches('/'));
            let tls = get.scheme.as_deref() == Some("HTTPS");
            made.http = Some(HttpProbe { path, tls, headers: headers.collect() });
        } else if let Some(socket) = self.tcp {
            if elsewhere(&socket.host) {
                return Err(Refusal::Kept("it asks another host"));
            }
            made.port = self.number(&socket.port)?;
            made.tcp = Some(TcpCheck {});
        } else if let Some(grpc) = self.grpc {
            made.port = self.number(&IntOrString::Int(grpc.port))?;
            made.grpc = Some(GrpcCheck { service: grpc.service.clone().unwrap_or_default() });
        } else {
            return Ok(None);
        }
        // A gate that is told what it refuses does not start.
        let problems = problems_of(&made);
        if problems.is_empty() { Ok(Some(made)) } else { Err(Refusal::Wrong(problems.join("; "))) }
    }

    fn number(&self, port: &IntOrString) -> Result<u16, Refusal> {
        let named = |name: &str| {
            let mut ports = self.container.ports.iter().flatten();
            ports.find(|one| one.name.as_deref() == Some(name)).map(|one| one.container_port)
        };
        let number = match port {
            IntOrString::Int(number) => Some(*number),
            // A number may be written as text.
            IntOrString::String(text) => named(text).or_else(|| text.parse().ok()),
        };
        let number = number.and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0);
        let told = match port {
            IntOrString::Int(number) => number.to_string(),
            IntOrString::String(text) => format!("`{text}`"),
        };
        number.ok_or_else(|| Refusal::Wrong(format!("the container has no port {told}")))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodSpec;
    use serde_json::{Value, json};

    use super::{Wanted, forward};

    /// What is forwarded and the warnings, or what is wrong.
    type Told = Result<(Value, Vec<String>), Vec<String>>;

    const PROBES: Wanted = Wanted { probes: true, hooks: false };

    /// A pod with this container, and what it has then.
    fn of(container: &Value) -> (Value, Told) {
        let mut container = container.clone();
        container["name"] = json!("app");
        let (mut pod, told) = of_pod(&json!({"containers": [container]}), PROBES);
        (pod["containers"][0].take(), told)
    }

    fn of_pod(spec: &Value, wanted: Wanted) -> (Value, Told) {
        let typed: PodSpec = serde_json::from_value(spec.clone()).expect("a pod");
        let mut pod = json!({"spec": spec});
        let forwarded = forward(&mut pod, &typed, wanted, 6190);
        let told =
            forwarded.map(|forwarded| (serde_json::from_str(&forwarded.value()).expect("JSON"), forwarded.warnings));
        (pod["spec"].take(), told)
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
                json!({"httpGet": {"port": 8443, "path": "live", "scheme": "HTTPS"}}),
                json!({"name": "app/readiness", "port": 8443, "http": {"path": "/live", "tls": true}, "timeout": "1s"}),
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
            (json!({"tcpSocket": {"port": 1, "host": "other"}}), 1),
        ];
        for (probe, warnings) in kept {
            let (after, told) = of(&json!({"livenessProbe": probe}));
            assert_eq!(after["livenessProbe"], probe);
            assert_eq!(told.map(|(probes, told)| (probes, told.len())), Ok((json!([]), warnings)));
        }
        for (probe, why) in [
            (json!({"tcpSocket": {"port": "web"}}), "startupProbe of container app: the container has no port `web`"),
            (
                json!({"httpGet": {"port": 80, "path": "/a b"}}),
                "startupProbe of container app: `http.path` is no path; write one such as `/healthz`",
            ),
            (
                json!({"httpGet": {"port": 6190, "path": "/probe/app/startup", "scheme": "HTTP"}}),
                "startupProbe of container app: nobody knows what it was",
            ),
        ] {
            assert_eq!(of(&json!({"startupProbe": probe})).1, Err(vec![why.to_owned()]));
        }
    }

    /// Who asks for probes has not asked that whoever reaches the status port can call hooks.
    #[test]
    fn probes_and_hooks_of_all_containers_that_stay_are_forwarded_as_it_is_asked() {
        let hooks = json!({
            "postStart": {"httpGet": {"port": 8080, "path": "/warm"}},
            "preStop": {"httpGet": {"port": 8443, "path": "/drain", "scheme": "HTTPS"}},
        });
        let probe = json!({"httpGet": {"port": 8080}});
        let spec = json!({
            "containers": [{"name": "app", "livenessProbe": probe, "lifecycle": hooks}],
            "initContainers": [
                {"name": "postern-sidecar", "restartPolicy": "Always", "livenessProbe": probe},
                {"name": "once", "lifecycle": hooks},
                {"name": "proxy", "restartPolicy": "Always", "startupProbe": {"tcpSocket": {"port": 81}},
                    "lifecycle": {"preStop": {"sleep": {"seconds": 5}}, "postStart": {"tcpSocket": {"port": 81}}}},
            ],
        });
        let ours = |name: &str| json!({"path": format!("/probe/{name}"), "port": 6190, "scheme": "HTTP"});
        let probes = [
            json!({"name": "app/liveness", "port": 8080, "http": {"path": "/"}, "timeout": "1s"}),
            json!({"name": "proxy/startup", "port": 81, "tcp": {}, "timeout": "1s"}),
        ];
        let (after, told) = of_pod(&spec, PROBES);
        assert_eq!(told, Ok((json!(probes), Vec::new())));
        let mut expected = spec.clone();
        expected["containers"][0]["livenessProbe"]["httpGet"] = ours("app/liveness");
        expected["initContainers"][2]["startupProbe"] = json!({"httpGet": ours("proxy/startup")});
        assert_eq!(after, expected);

        let (after, told) = of_pod(&spec, Wanted { probes: false, hooks: true });
        let called = [
            json!({"name": "app/postStart", "port": 8080, "http": {"path": "/warm"}, "timeout": "10s"}),
            json!({"name": "app/preStop", "port": 8443, "http": {"path": "/drain", "tls": true}, "timeout": "10s"}),
        ];
        assert_eq!(told, Ok((json!(called), Vec::new())));
        let mut expected = spec.clone();
        expected["containers"][0]["lifecycle"] =
            json!({"postStart": {"httpGet": ours("app/postStart")}, "preStop": {"httpGet": ours("app/preStop")}});
        assert_eq!(after, expected);
        let (after, told) = of_pod(&spec, Wanted::default());
        assert_eq!((after, told), (spec, Ok((json!([]), Vec::new()))));
    }
}
