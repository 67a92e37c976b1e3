//! `analyze`: tells what is wrong with routes and clients of a folder before they are applied, with the code that the
//! operator and the sidecars judge them with. What a cluster has beside it is not known here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Args;
use postern_crds::{ClientIdentity, ProxyRoute};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::manifests::{Files, Manifest, pod_place, title};
use super::{Ended, printable};
use crate::identity::directory::Directory;
use crate::identity::validate::validate as validate_identity;
use crate::index::{ObjectName, Pod};
use crate::pki::names::Names;
use crate::render;
use crate::workload::validate::{Input, Refused, validate};

/// Group of our own kinds.
const GROUP: &str = "postern.dev/";

/// What `analyze` is told.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    #[command(flatten)]
    files: Files,
    /// Namespace of objects that do not say theirs
    #[arg(short, long, value_name = "NAMESPACE", default_value = "default")]
    namespace: String,
    /// SPIFFE trust domain, as the operator has it
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    trust_domain: String,
    /// DNS domain of the cluster, as the operator has it
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    cluster_domain: String,
    /// ClientIdentities with certificates that a namespace may have, as the operator has it
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    identities_per_namespace: usize,
}

/// Tells what is wrong, a line for each problem, with what to do.
///
/// # Errors
/// When something cannot be read, or there is nothing to analyze.
pub fn run(arguments: &Arguments, output: &mut dyn Write) -> Result<Ended> {
    let manifests = arguments.files.read()?;
    let found = analyze(&manifests, arguments);
    if found.objects == 0 {
        bail!("there is no ProxyRoute or ClientIdentity in it");
    }
    for line in &found.lines {
        writeln!(output, "{line}")?;
    }
    let problems = found.lines.iter().filter(|line| line.is_problem).count();
    writeln!(output, "{problems} problems in {} routes and clients", found.objects)?;
    Ok(if problems == 0 { Ended::Well } else { Ended::Found })
}

/// What was found.
#[derive(Default)]
struct Found {
    lines: BTreeSet<Line>,
    objects: usize,
}

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    file: String,
    object: String,
    /// Whether it is wrong, or only worth a look.
    is_problem: bool,
    message: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, object, is_problem, message } = self;
        let note = if *is_problem { "" } else { "note: " };
        f.write_str(&printable(&format!("{file}: {object}: {note}{message}")))
    }
}

/// An object with the file it is in.
struct Read<T> {
    file: String,
    title: String,
    object: Arc<T>,
}

impl<T> Read<T> {
    fn line(&self, is_problem: bool, message: impl Into<String>) -> Line {
        Line { file: self.file.clone(), object: self.title.clone(), is_problem, message: message.into() }
    }
}

fn analyze(manifests: &[Manifest], arguments: &Arguments) -> Found {
    let mut found = Found::default();
    let (mut routes, mut clients, mut pods) = (Vec::new(), Vec::new(), Vec::new());
    for manifest in manifests {
        for object in manifest.objects() {
            let mut object = object.clone();
            if object["metadata"].is_object() && object["metadata"]["namespace"].is_null() {
                object["metadata"]["namespace"] = arguments.namespace.clone().into();
            }
            let (version, kind) = (object["apiVersion"].as_str(), object["kind"].as_str());
            match (version.is_some_and(|version| version.starts_with(GROUP)), kind) {
                (true, Some("ProxyRoute")) => routes.extend(found.read::<ProxyRoute>(&manifest.file, &object)),
                (true, Some("ClientIdentity")) => clients.extend(found.read::<ClientIdentity>(&manifest.file, &object)),
                (true, _) => found.unreadable(
                    &manifest.file,
                    &object,
                    "there is no such kind; write ProxyRoute or ClientIdentity",
                ),
                _ => pods.extend(labels_of_pods(&object)),
            }
        }
    }
    found.objects += routes.len() + clients.len();
    let names = Names {
        trust_domain: arguments.trust_domain.clone(),
        cluster_domain: arguments.cluster_domain.clone(),
        extra: BTreeMap::new(),
    };
    found.judge_clients(&clients, &names, arguments.identities_per_namespace);
    found.judge_routes(&routes, &pods, &arguments.trust_domain);
    found.look_for_references(&routes, &clients, &arguments.trust_domain);
    found
}

/// Namespace and labels of the pods that an object makes or is.
fn labels_of_pods(object: &Value) -> Option<(String, BTreeMap<String, String>)> {
    let labels = object.pointer(&format!("{}/metadata/labels", pod_place(object)?)).cloned();
    let labels = serde_json::from_value(labels.unwrap_or_default()).unwrap_or_default();
    Some((object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned(), labels))
}

impl Found {
    fn unreadable(&mut self, file: &str, object: &Value, message: impl Into<String>) {
        self.objects += 1;
        self.lines.insert(Line {
            file: file.to_owned(),
            object: title(object),
            is_problem: true,
            message: message.into(),
        });
    }

    /// An object as its type; what has no place in it is told, because the API server would drop it.
    fn read<T: DeserializeOwned + Serialize>(&mut self, file: &str, object: &Value) -> Option<Read<T>> {
        let typed: T = match serde_json::from_value(object.clone()) {
            Ok(typed) => typed,
            Err(error) => {
                self.unreadable(file, object, format!("{error}; see kubectl explain"));
                return None;
            }
        };
        let read = Read { file: file.to_owned(), title: title(object), object: Arc::new(typed) };
        let written = serde_json::to_value(&*read.object).unwrap_or_default();
        let mut unknown = Vec::new();
        find_unknown(&object["spec"], &written["spec"], "spec", &mut unknown);
        self.lines.extend(
            unknown
                .into_iter()
                .map(|place| read.line(true, format!("{place}: there is no such field; see kubectl explain"))),
        );
        Some(read)
    }

    fn judge_clients(&mut self, clients: &[Read<ClientIdentity>], names: &Names, quota: usize) {
        let directory = Directory::of(clients.iter().map(|client| &*client.object), names);
        for client in clients {
            let Some(entry) = directory.entry(&ObjectName::of(&*client.object).to_string()) else { continue };
            if let Err(refusal) = validate_identity(&client.object, entry, names, quota) {
                self.lines.insert(client.line(true, format!("{}: {}", refusal.reason.as_str(), refusal.message)));
            }
        }
    }

    /// Judges the routes of each kind of pods together, and those that select none of them with whoever selects the same.
    fn judge_routes(
        &mut self,
        routes: &[Read<ProxyRoute>],
        pods: &[(String, BTreeMap<String, String>)],
        trust_domain: &str,
    ) {
        let selector = |route: &Read<ProxyRoute>| {
            let name = ObjectName::of(&*route.object);
            (name.namespace, route.object.spec.pod_selector.match_labels.clone())
        };
        let selects = |route: &Read<ProxyRoute>, (namespace, labels): &(String, BTreeMap<String, String>)| {
            let (own, wanted) = selector(route);
            own == *namespace && wanted.iter().all(|(label, value)| labels.get(label) == Some(value))
        };
        let mut all: BTreeSet<_> = pods.iter().cloned().collect();
        for route in routes.iter().filter(|route| !pods.iter().any(|pod| selects(route, pod))) {
            if !pods.is_empty() {
                self.lines.insert(route.line(false, "spec.podSelector selects no pods of these files"));
            }
            all.insert(selector(route));
        }
        for pod in &all {
            let mut its: Vec<_> = routes.iter().filter(|route| selects(route, pod)).collect();
            // As the operator hears them: what is applied at once has no age.
            its.sort_by_key(|route| ObjectName::of(&*route.object));
            for (index, refused) in judge(&its, pod, trust_domain) {
                let Refused { reason, message } = refused;
                self.lines.insert(its[index].line(true, format!("{}: {message}", reason.as_str())));
            }
        }
    }

    /// Whom routes name and these files have not may be in the cluster.
    fn look_for_references(
        &mut self,
        routes: &[Read<ProxyRoute>],
        clients: &[Read<ClientIdentity>],
        trust_domain: &str,
    ) {
        let known: BTreeSet<_> = clients.iter().map(|client| ObjectName::of(&*client.object).to_string()).collect();
        for route in routes {
            let Ok(rendered) = render::route(&route.object, trust_domain) else { continue };
            for name in rendered.needs.identities.difference(&known) {
                self.lines.insert(route.line(false, format!("ClientIdentity {name} is not in these files")));
            }
        }
    }
}

/// What is refused of routes that serve the same pods, by their place.
fn judge(
    routes: &[&Read<ProxyRoute>],
    (namespace, labels): &(String, BTreeMap<String, String>),
    trust_domain: &str,
) -> Vec<(usize, Refused)> {
    let objects: Vec<_> = routes.iter().map(|route| Arc::clone(&route.object)).collect();
    let pods = [Arc::new(Pod::imagined(ObjectName::new(namespace.clone(), "pod"), labels.clone()))];
    let newest = sidecar_config::CONTRACT_MAX;
    let judged = validate(&Input { routes: &objects, pods: &pods, last: None, trust_domain, newest }).routes;
    let place = |name: &ObjectName| objects.iter().position(|route| ObjectName::of(&**route) == *name);
    judged.into_iter().filter_map(|(name, judged)| Some((place(&name)?, judged.accepted.err()?))).collect()
}

/// Places of a value that were lost when it was read.
fn find_unknown(given: &Value, known: &Value, place: &str, unknown: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(given), known) => {
            for (name, value) in given {
                let place = format!("{place}.{name}");
                match known.get(name) {
                    Some(known) => find_unknown(value, known, &place, unknown),
                    // What says nothing may be left out.
                    None if is_empty(value) => {}
                    None => unknown.push(place),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (index, (given, known)) in given.iter().zip(known).enumerate() {
                find_unknown(given, known, &format!("{place}[{index}]"), unknown);
            }
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{Arguments, analyze};
    use crate::plugin::manifests::{Files, parse};

    fn lines(text: &str) -> Vec<String> {
        let arguments = Arguments {
            files: Files::default(),
            namespace: "shop".to_owned(),
            trust_domain: "cluster.local".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            identities_per_namespace: 1,
        };
        let manifests = parse("a.yaml", text).expect("YAML");
        analyze(&manifests, &arguments).lines.iter().map(ToString::to_string).collect()
    }

    const ROUTE: &str = "
apiVersion: postern.dev/v1alpha1
kind: ProxyRoute
metadata: {name: NAME}
spec:
  podSelector: {matchLabels: {app: orders}}
  listener: {port: 8443}
  rules:
  - name: read
    matches: [{path: {type: PathPrefix, value: /orders}}]
    allow: [{identity: {name: billing}}]
    backendRefs: [{localPort: 8080}]
";
    const CLIENT: &str = "
apiVersion: postern.dev/v1alpha1
kind: ClientIdentity
metadata: {name: NAME}
spec: {issue: {secretName: NAME}}
";

    fn stream(documents: &[String]) -> String {
        documents.join("\n---\n")
    }

    #[test]
    fn what_is_good_is_told_nothing_of() {
        let (route, client) = (ROUTE.replace("NAME", "orders"), CLIENT.replace("NAME", "billing"));
        assert_eq!(lines(&stream(&[route, client])), [""; 0]);
    }

    #[test]
    fn each_problem_has_its_file_object_and_remedy() {
        let orders = ROUTE.replace("NAME", "orders");
        let with = |from: &str, to: &str| orders.replace(from, to);
        let client = CLIENT.replace("NAME", "billing");
        let rows = [
            (
                with("type: PathPrefix, value: /orders", "type: RegularExpression, value: \"(\""),
                "a.yaml: ProxyRoute shop/orders: Invalid: spec.rules[0].matches[0].path.value: ",
            ),
            (
                with("listener:", "lisener: {port: 1}\n  listener:"),
                "a.yaml: ProxyRoute shop/orders: spec.lisener: there is no such field; see kubectl explain",
            ),
            (with("  rules:", "  rulez:"), "a.yaml: ProxyRoute shop/orders: missing field `rules`"),
            (
                with("kind: ProxyRoute", "kind: ProxyRout"),
                "a.yaml: ProxyRout shop/orders: there is no such kind; write ProxyRoute or ClientIdentity",
            ),
            (
                client
                    .replace("secretName: NAME", "secretName: b")
                    .replace("spec: {", "spec: {certificate: {dnsNames: [a.other.svc]}, "),
                "a.yaml: ClientIdentity shop/billing: NotPermitted: certificate.dnsNames: `a.other.svc` is not under namespace `shop`; ask for",
            ),
        ];
        for (text, expected) in rows {
            let told = lines(&text);
            let problems: Vec<_> = told.iter().filter(|line| !line.contains(": note: ")).collect();
            assert!(problems.len() == 1 && problems[0].starts_with(expected), "{told:#?}\nexpected {expected}");
        }
    }

    /// Two listeners of one port, on the same pods and on others.
    #[test]
    fn routes_are_judged_together_where_they_meet() {
        let (one, other) = (
            ROUTE.replace("NAME", "a").replace("port: 8443", "port: 8443, protocol: HTTPS"),
            ROUTE.replace("NAME", "b").replace("port: 8443", "port: 8443, protocol: TLS"),
        );
        let other = other.replace("    matches: [{path: {type: PathPrefix, value: /orders}}]\n", "");
        let client = CLIENT.replace("NAME", "billing");
        let told = lines(&stream(&[one.clone(), other.clone(), client.clone()]));
        assert!(
            told.len() == 1 && told[0].starts_with("a.yaml: ProxyRoute shop/b: Conflicted: spec.listener: "),
            "{told:?}"
        );
        let apart = other.replace("app: orders", "app: stock");
        assert_eq!(lines(&stream(&[one.clone(), apart.clone(), client.clone()])), [""; 0]);
        let pod = |labels: &str| format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: p, labels: {{{labels}}}}}\n");
        let told = lines(&stream(&[
            one.clone(),
            other.replace("app: orders", "tier: a"),
            client.clone(),
            pod("app: orders, tier: a"),
        ]));
        assert!(told.len() == 1 && told[0].contains("Conflicted"), "they meet in a pod: {told:?}");
        // A template that has no labels has not those of whoever makes pods of it.
        let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: p, labels: {app: orders}}\nspec: {template: {spec: {containers: []}}}\n";
        let told = lines(&stream(&[one.clone(), client.clone(), deployment.to_owned()]));
        assert_eq!(told, ["a.yaml: ProxyRoute shop/a: note: spec.podSelector selects no pods of these files"]);
        let told = lines(&stream(&[one, client, pod("app: stock")]));
        assert_eq!(told, ["a.yaml: ProxyRoute shop/a: note: spec.podSelector selects no pods of these files"]);
    }

    #[test]
    fn who_is_not_there_is_worth_a_note() {
        let told = lines(&ROUTE.replace("NAME", "orders"));
        assert_eq!(told, ["a.yaml: ProxyRoute shop/orders: note: ClientIdentity shop/billing is not in these files"]);
    }
}
