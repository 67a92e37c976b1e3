//! Pods before and after.

use serde_json::{Value, json};
use sidecar_config::newer_places;

use super::{Common, Injected, Maker, Verdict, patch, pod, template};

fn common() -> Common {
    Common { image: "postern-sidecar:1".to_owned(), image_pull_policy: None, status_port: 6190 }
}

fn app() -> Value {
    json!({
        "metadata": {"generateName": "orders-5d4-", "labels": {"app": "orders", "pod-template-hash": "5d4"}, "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "orders-5d4", "uid": "u", "controller": true},
        ]},
        "spec": {"serviceAccountName": "seller", "containers": [{"name": "app", "image": "a"}, {"name": "b", "image": "b"}],
            "initContainers": [{"name": "first", "image": "f"}], "futureField": {"kept": true}},
    })
}

fn injected(object: &Value) -> Injected {
    match pod(object, true, &common()) {
        Verdict::Injected(injected) => injected,
        other => panic!("expected a sidecar, it was {other:?}"),
    }
}

fn with(object: Value, place: &str, value: Value) -> Value {
    let mut object = object;
    let (parent, name) = place.rsplit_once('/').expect("a place");
    object.pointer_mut(parent).expect(parent)[name.replace("~1", "/")] = value;
    object
}

#[test]
fn a_pod_gets_its_gate_before_everything_else() {
    let after = injected(&app()).object;
    let names = |place: &str| -> Vec<Value> {
        let list = after.pointer(place).and_then(Value::as_array).expect("a list");
        list.iter().map(|one| one["name"].clone()).collect()
    };
    assert_eq!(names("/spec/initContainers"), ["postern-sidecar", "first"]);
    assert_eq!(names("/spec/containers"), ["app", "b"]);
    assert_eq!(names("/spec/volumes"), ["postern-config", "postern-state", "postern-log"]);
    let labels = json!({
        "app": "orders", "pod-template-hash": "5d4", "postern.dev/workload": "orders.deployment",
        "postern.dev/sidecar": env!("CARGO_PKG_VERSION"), "postern.dev/sidecar-contract": "1",
    });
    assert_eq!(after["metadata"]["labels"], labels);
    assert_eq!(after["metadata"]["annotations"], json!({"kubectl.kubernetes.io/default-container": "app"}));
    assert_eq!(after["spec"]["futureField"], json!({"kept": true}), "what this program does not know is kept");
    let ports = &after["spec"]["initContainers"][0]["ports"];
    assert_eq!(*ports, json!([{"name": "postern", "containerPort": 6190, "protocol": "TCP"}]));
}

/// The contract, word for word.
#[test]
fn the_volume_has_what_the_operator_writes() {
    let after = injected(&app()).object;
    let map = |name: &str| json!({"configMap": {"name": name, "optional": true}});
    let sources = json!([
        map("postern-trust"),
        {"secret": {"name": "postern-id-orders.deployment-seller", "optional": true}},
        map("postern-identities-orders.deployment-0"),
        map("postern-identities-orders.deployment-1"),
        map("postern-identities-orders.deployment-2"),
        map("postern-identities-orders.deployment-3"),
        map("postern-policy-orders.deployment"),
        map("postern-policy-orders.deployment-good"),
        map("postern-endpoints-orders.deployment"),
        {"secret": {
            "name": "postern-log",
            "items": [
                {"key": "url", "path": "log/url"},
                {"key": "password", "path": "log/password"},
                {"key": "ca.crt", "path": "log/ca.crt"},
                {"key": "chain-key", "path": "log/chain-key"},
                {"key": "capture-salt", "path": "log/capture-salt"},
                {"key": "body-key", "path": "log/body-key"},
            ],
            "optional": true,
        }},
        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels"}}]}},
    ]);
    let volumes = json!([
        {"name": "postern-config", "projected": {"defaultMode": 0o444, "sources": sources}},
        {"name": "postern-state", "emptyDir": {"medium": "Memory", "sizeLimit": "32Mi"}},
        {"name": "postern-log", "emptyDir": {"sizeLimit": "512Mi"}},
    ]);
    assert_eq!(after["spec"]["volumes"], volumes);
}

#[test]
fn what_annotations_say_is_in_the_container() {
    let annotations = json!({
        "config.postern.dev/image": "other:2", "config.postern.dev/max-connections": "10000",
        "config.postern.dev/cpu-limit": "1", "config.postern.dev/log-volume-claim": "logs",
        "config.postern.dev/log-size": "1Gi", "config.postern.dev/log-level": "Debug",
        "config.postern.dev/workers": "2", "config.postern.dev/drain-timeout": "5s",
        "config.postern.dev/run-as-user": "1000", "config.postern.dev/log-schema": "apply", "kubectl.kubernetes.io/default-container": "b",
    });
    let after = injected(&with(app(), "/metadata/annotations", annotations.clone())).object;
    let container = &after["spec"]["initContainers"][0];
    assert_eq!(after["metadata"]["annotations"], annotations, "whoever chose a container has chosen");
    let resources = json!({"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "1", "memory": "537Mi"}});
    assert_eq!((&container["resources"], &container["image"]), (&resources, &json!("other:2")));
    assert_eq!(container["securityContext"]["runAsUser"], 1000);
    assert_eq!(
        after["spec"]["volumes"][2],
        json!({"name": "postern-log", "persistentVolumeClaim": {"claimName": "logs"}})
    );
    let variables: Vec<_> = container["env"].as_array().expect("variables").iter().collect();
    let value = |name: &str| variables.iter().find(|one| one["name"] == name).map(|one| one["value"].clone());
    for (name, expected) in [
        ("LOG__MAX_SIZE", "1Gi"),
        ("LOG_LEVEL", "Debug"),
        ("WORKERS", "2"),
        ("DRAIN_TIMEOUT", "5s"),
        ("LOG__POSTGRES__APPLY_SCHEMA", "true"),
    ] {
        assert_eq!(value(&format!("POSTERN__{name}")), Some(json!(expected)), "{name}");
    }
}

/// A sidecar refuses variables that it does not know, and a pod may name an older image.
#[test]
fn what_every_gate_is_told_contract_1_6_has() {
    let after = injected(&app()).object;
    let mut settings = Value::Null;
    for variable in after["spec"]["initContainers"][0]["env"].as_array().expect("variables") {
        let name = variable["name"].as_str().expect("a name").strip_prefix("POSTERN__").expect("ours").to_lowercase();
        let place = name.split("__").fold(&mut settings, |table, name| {
            let words = name.split('_').enumerate();
            &mut table[words.map(|(index, word)| capitalized(word, index > 0)).collect::<String>()]
        });
        *place = json!("said");
    }
    let newer = |than: &str| newer_places(than.parse().expect("a version"), "settings", &settings).len();
    assert_eq!((newer("1.6"), newer("1.5")), (0, 1), "{settings}");
}

fn capitalized(word: &str, is_so: bool) -> String {
    let (first, rest) = word.split_at(usize::from(is_so));
    first.to_uppercase() + rest
}

#[test]
fn a_second_time_changes_nothing() {
    let first = injected(&app()).object;
    assert_eq!(patch(&app(), &first).len(), 4);
    let second = injected(&first).object;
    assert_eq!(patch(&first, &second), [""; 0]);
    // What others have done meanwhile stays, and the gate is first again.
    let token = json!({"name": "kube-api-access", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true});
    let mut changed = first.clone();
    let containers = changed["spec"]["initContainers"].as_array_mut().expect("containers");
    containers.rotate_left(1);
    containers[1]["volumeMounts"].as_array_mut().expect("mounts").push(token.clone());
    containers[1]["env"].as_array_mut().expect("variables").push(json!({"name": "TZ", "value": "UTC"}));
    containers[1]["resources"]["limits"]["cpu"] = json!("500m");
    containers[1]["imagePullPolicy"] = json!("IfNotPresent");
    let third = injected(&changed).object;
    let gate = &third["spec"]["initContainers"][0];
    assert_eq!((&gate["name"], &gate["volumeMounts"][3]), (&json!("postern-sidecar"), &token));
    assert_eq!(
        (&gate["resources"]["limits"]["cpu"], &gate["imagePullPolicy"]),
        (&json!("500m"), &json!("IfNotPresent"))
    );
    assert_eq!(gate["env"].as_array().and_then(|all| all.last()), Some(&json!({"name": "TZ", "value": "UTC"})));
    assert_eq!(injected(&third).object, third);
}

/// Whoever writes a container of that name beforehand has not written the gate.
#[test]
fn a_container_that_only_has_its_name_becomes_the_gate() {
    let false_one = json!([{"name": "postern-sidecar", "image": "evil", "command": ["sleep"], "securityContext": {"privileged": true}}]);
    let after = injected(&with(app(), "/spec/initContainers", false_one)).object;
    assert_eq!(after["spec"]["initContainers"], json!([injected(&app()).object["spec"]["initContainers"][0]]));
    let reason = "container postern-sidecar: the name is the sidecar's; call it otherwise";
    let containers = with(app(), "/spec/containers", json!([{"name": "postern-sidecar"}]));
    assert_eq!(pod(&containers, true, &common()), Verdict::Refused(reason.to_owned()));
}

#[test]
fn who_gets_a_gate_and_who_does_not() {
    let label = |value: &str| with(app(), "/metadata/labels/postern.dev~1inject", json!(value));
    let rows = [
        (app(), true, true),
        (app(), false, false),
        (label("enabled"), true, true),
        (label("enabled"), false, true),
        (label("disabled"), true, false),
        (label("disabled"), false, false),
    ];
    for (object, is_asked, expected) in rows {
        let verdict = pod(&object, is_asked, &common());
        assert_eq!(matches!(verdict, Verdict::Injected(_)), expected, "{is_asked} {object}");
        assert!(expected || verdict == Verdict::Untouched(None));
    }
    let unknown = "label postern.dev/inject: `yes` is not known; write enabled or disabled";
    assert_eq!(pod(&label("yes"), true, &common()), Verdict::Refused(unknown.to_owned()));
    for (place, value, why) in [
        ("/spec/hostNetwork", json!(true), "hostNetwork"),
        ("/spec/os", json!({"name": "windows"}), "Windows"),
        ("/metadata/annotations", json!({"kubernetes.io/config.mirror": "x"}), "static pod"),
    ] {
        match pod(&with(app(), place, value), true, &common()) {
            Verdict::Untouched(Some(warning)) => assert!(warning.contains(why), "{warning}"),
            other => panic!("{place}: {other:?}"),
        }
    }
}

#[test]
fn everything_that_is_wrong_is_refused_at_once() {
    let object = with(app(), "/metadata/labels/postern.dev~1workload", json!("A"));
    let annotations = json!({"config.postern.dev/log-level": "Loud", "config.postern.dev/memory-request": "65Mi"});
    let object = with(object, "/metadata/annotations", annotations);
    let Verdict::Refused(why) = pod(&object, true, &common()) else { panic!("it was not refused") };
    let told: Vec<_> = why.split("; ").map(|one| one.split('`').next().unwrap_or_default().trim()).collect();
    assert_eq!(told[0], "label postern.dev/workload:");
    assert!(why.contains("annotation config.postern.dev/log-level: `Loud` is no level"), "{why}");
    let object = with(app(), "/metadata/annotations", json!({"config.postern.dev/memory-request": "65Mi"}));
    let both = "annotations config.postern.dev/memory-request and config.postern.dev/memory-limit: 65Mi are requested, and 64Mi are the limit";
    assert_eq!(pod(&object, true, &common()), Verdict::Refused(both.to_owned()));
}

#[test]
fn a_template_gets_what_its_pods_would_get() {
    let object = json!({"metadata": {"labels": {"app": "orders"}}, "spec": app()["spec"]});
    let maker = Maker { api_version: "apps/v1", kind: "Deployment", name: "orders" };
    let Verdict::Injected(template) = template(&object, maker, true, &common()) else { panic!("no sidecar") };
    assert_eq!(template.object["spec"], injected(&app()).object["spec"]);
    assert_eq!(template.object["metadata"]["labels"]["postern.dev/workload"], "orders.deployment");
    // And its pods are not changed any more.
    let mut pod = app();
    pod["spec"] = template.object["spec"].clone();
    pod["metadata"]["annotations"] = template.object["metadata"]["annotations"].clone();
    for (label, value) in template.object["metadata"]["labels"].as_object().expect("labels") {
        pod["metadata"]["labels"][label] = value.clone();
    }
    assert_eq!(injected(&pod).object, pod);
}

#[test]
fn a_port_that_both_want_is_told() {
    let ports = json!([{"name": "a", "ports": [{"containerPort": 6190}]}]);
    for list in ["/spec/containers", "/spec/initContainers"] {
        let warnings = injected(&with(app(), list, ports.clone())).warnings;
        let told = "postern: port 6190 is the sidecar's, and a container of the pod has it too; only one can listen";
        assert_eq!(warnings, [told], "{list}");
    }
    let first = injected(&app()).object;
    assert_eq!(injected(&first).warnings, [""; 0], "its own is no other's");
}

#[test]
fn a_pod_that_is_ended_too_soon_is_told() {
    let of = |seconds: i64| injected(&with(app(), "/spec/terminationGracePeriodSeconds", json!(seconds))).warnings;
    let told = "postern: terminationGracePeriodSeconds is 25, and requests in flight have 25s at the end; raise it, or write less in annotation config.postern.dev/drain-timeout";
    assert_eq!((of(25), of(30)), (vec![told.to_owned()], Vec::new()));
    let object = with(app(), "/spec/terminationGracePeriodSeconds", json!(10));
    let object = with(object, "/metadata/annotations", json!({"config.postern.dev/drain-timeout": "5s"}));
    assert_eq!(injected(&object).warnings, [""; 0]);
}

#[test]
fn probes_go_the_way_of_the_gate_once() {
    let object = with(app(), "/metadata/annotations", json!({"config.postern.dev/probes": "forward"}));
    let probe = json!({"httpGet": {"path": "/$(PATH)", "port": 8080}});
    let object = with(object, "/spec/containers", json!([{"name": "app", "image": "a", "livenessProbe": probe}]));
    let first = injected(&object).object;
    let variables = first["spec"]["initContainers"][0]["env"].as_array().expect("variables");
    let probes = json!({"name": "POSTERN__PROBES", "value": "[{\"name\":\"app/liveness\",\"port\":8080,\"http\":{\"path\":\"/$$(PATH)\"},\"timeout\":\"1s\"}]"});
    assert_eq!(variables.last(), Some(&probes));
    let ours = json!({"httpGet": {"path": "/probe/app/liveness", "port": 6190, "scheme": "HTTP"}});
    assert_eq!(first["spec"]["containers"][0]["livenessProbe"], ours);
    assert_eq!(injected(&first).object, first);
}
