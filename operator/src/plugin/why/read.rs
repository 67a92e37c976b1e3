//! What `why` is asked about: from a cluster, or from files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DynamicObject, ListParams};
use kube::{Api, Client, ResourceExt};
use postern_crds::{ClientIdentity, ProxyRoute};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sidecar_decide::MessageType;
use sidecar_decide::route::Sent;

use super::Arguments;
use super::world::{Common, From, Question, World};
use crate::index::slice::SERVICE_LABEL;
use crate::index::{self, Cluster, Grant, Object, ObjectName, Slice, Source, named_services, served};
use crate::pki::authority::{AuthoritySettings, INTERMEDIATE_SECONDS, Issuer, ROOT_SECONDS, Root};
use crate::pki::fresh;
use crate::pki::key::Algorithm;
use crate::pki::names::Names;
use crate::plugin::cluster::run as wait;
use crate::plugin::manifests;
use crate::workload::names;
use crate::workload::trust::written;

/// Objects of files without a namespace are in this one, as with kubectl.
const DEFAULT_NAMESPACE: &str = "default";

/// All that it takes.
pub(super) struct Read {
    pub(super) world: World,
    pub(super) common: Common,
    pub(super) question: Question,
    /// What could not be looked at.
    pub(super) notes: Vec<String>,
}

/// Reads it.
pub(super) fn read(arguments: &Arguments) -> Result<Read> {
    let mut notes = Vec::new();
    let (mut world, namespace) =
        if arguments.filename.is_empty() { cluster(arguments, &mut notes)? } else { files(arguments)? };
    let to = name(&arguments.to, &namespace);
    let route = world.routes.iter().find(|route| ObjectName::of(*route) == to);
    let route = route.with_context(|| format!("ProxyRoute {to} does not exist"))?;
    // A pod that has what the route asks for, where there is none to look at.
    if world.labels.is_empty() {
        world.labels.clone_from(&route.spec.pod_selector.match_labels);
    }
    let host = match (&arguments.host, route.spec.hostnames.first()) {
        (Some(host), _) => host.clone(),
        (None, Some(host)) => host.replacen("*.", "any.", 1),
        (None, None) => format!("{}.{}.svc", to.name, to.namespace),
    };
    let names = Names {
        trust_domain: arguments.trust_domain.clone(),
        cluster_domain: "cluster.local".to_owned(),
        extra: BTreeMap::new(),
    };
    let (method, target) = arguments.request.split_once(' ').unwrap_or(("GET", &arguments.request));
    let (path, query) =
        target.trim().split_once('?').map_or((target.trim(), None), |(path, query)| (path, Some(query)));
    let headers = headers(&arguments.header)?;
    let question = Question {
        from: from(&arguments.from, &to.namespace, &names),
        to,
        method: Method::from_bytes(method.trim().as_bytes()).with_context(|| format!("`{method}` is no method"))?,
        path: path.to_owned(),
        query: query.map(str::to_owned),
        host,
        message: arguments.message_type.map_or_else(|| Sent::of(&headers), Sent::Known),
        headers,
    };
    let now = Timestamp::now().as_second();
    Ok(Read { world, common: Common { issuer: somebody(now)?, names, now }, question, notes })
}

/// `NAMESPACE/NAME`, or a name in a namespace.
fn name(text: &str, namespace: &str) -> ObjectName {
    let (namespace, name) = text.split_once('/').unwrap_or((namespace, text));
    ObjectName::new(namespace, name)
}

fn from(text: &str, namespace: &str, names: &Names) -> From {
    if text == "nobody" {
        return From::Nobody;
    }
    if text.starts_with("spiffe://") {
        return From::Spiffe(text.to_owned());
    }
    match text.strip_prefix("serviceaccount:") {
        Some(account) => {
            let account = name(account, namespace);
            From::Spiffe(names.service_account(&account.namespace, &account.name))
        }
        None => From::Identity(name(text, namespace)),
    }
}

pub(super) fn message_type(text: &str) -> Result<MessageType, String> {
    let advice = "write a root element of IEEE 2030.5 such as `DERControlResponse`, or one of exi, json, other";
    MessageType::named(text).ok_or_else(|| advice.to_owned())
}

fn headers(fields: &[String]) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for field in fields {
        let (name, value) = field.split_once(':').with_context(|| format!("`{field}` is no header field"))?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).with_context(|| format!("`{field}`"))?;
        headers.append(name, HeaderValue::from_str(value.trim()).with_context(|| format!("`{field}`"))?);
    }
    Ok(headers)
}

/// Whose certificates they are decides nothing here, but no bundle is without some.
pub(super) fn somebody(now: i64) -> Result<Issuer> {
    let settings = AuthoritySettings {
        algorithm: Algorithm::EcdsaP256,
        root_seconds: ROOT_SECONDS,
        intermediate_seconds: INTERMEDIATE_SECONDS,
        organisation: "why".to_owned(),
    };
    let root = Root::make(&settings, fresh::key(settings.algorithm)?, fresh::serial()?, now)?;
    let root = Root::read(&root, now)?;
    let key = fresh::key(settings.algorithm)?;
    let files = root.make_intermediate(&settings, &key, fresh::serial()?, now)?;
    Ok(Issuer::read(&files, &root, now)?)
}

fn cluster(arguments: &Arguments, notes: &mut Vec<String>) -> Result<(World, String)> {
    wait(async {
        let cluster = arguments.connection.open().await?;
        let to = name(&arguments.to, &cluster.namespace);
        let all = ListParams::default();
        let routes = Api::<ProxyRoute>::namespaced(cluster.client.clone(), &to.namespace).list(&all).await;
        let routes = routes.context("list ProxyRoutes")?.items;
        let identities = Api::<ClientIdentity>::all(cluster.client.clone()).list(&all).await;
        let identities = match identities {
            Ok(list) => list.items,
            // Whoever may look into their own namespaces only is answered for those.
            Err(kube::Error::Api(error)) if error.code == 403 => {
                let own = Api::<ClientIdentity>::namespaced(cluster.client.clone(), &to.namespace).list(&all).await;
                own.context("list ClientIdentities")?.items
            }
            Err(error) => return Err(error).context("list ClientIdentities"),
        };
        let mut labels = BTreeMap::new();
        if let Some(route) = routes.iter().find(|route| ObjectName::of(*route) == to) {
            let wanted = &route.spec.pod_selector.match_labels;
            let selector = wanted.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",");
            let pods = Api::<Pod>::namespaced(cluster.client.clone(), &to.namespace);
            let pods = pods.list_metadata(&all.clone().labels(&selector).limit(1)).await.context("list pods")?;
            labels = pods.items.first().map(|pod| pod.labels().clone()).unwrap_or_default();
        }
        let revoked = revoked(&cluster.client, &to.namespace).await;
        let revoked = permitted(revoked, "whether certificates are revoked by their serial numbers", notes)?;
        let services = services(&cluster.client, &routes).await;
        let services = permitted(services, "whether Services answer", notes)?.map(Arc::new);
        let revoked = revoked.unwrap_or_default();
        let unaddressed = BTreeSet::new();
        Ok((World { routes, identities, labels, revoked, services, unaddressed }, cluster.namespace))
    })
}

/// What was read, unless whoever asks may not; then it is noted what is not known.
fn permitted<T>(read: kube::Result<T>, what: &str, notes: &mut Vec<String>) -> Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(kube::Error::Api(error)) if error.code == 403 => {
            notes.push(format!("{what} is not known: {}", error.message));
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("find out {what}")),
    }
}

/// Serial numbers that gates of a namespace refuse, by what the operator has written for them.
async fn revoked(client: &Client, namespace: &str) -> kube::Result<BTreeSet<String>> {
    let trust = Api::<ConfigMap>::namespaced(client.clone(), namespace).get_opt(names::TRUST).await?;
    Ok(trust.into_iter().flat_map(serials).collect())
}

/// The Services that routes name, with their addresses and the grants beside them.
async fn services(client: &Client, routes: &[ProxyRoute]) -> kube::Result<Cluster> {
    let mut cluster = Cluster::default();
    let named: BTreeSet<_> = routes.iter().flat_map(named_services).collect();
    for name in &named {
        let service = Api::<Service>::namespaced(client.clone(), &name.namespace).get_opt(&name.name).await?;
        if let Some(service) = service {
            cluster.set(Object::Service(Arc::new(index::Service::of(service))), Source::List);
        }
        let slices = Api::<EndpointSlice>::namespaced(client.clone(), &name.namespace);
        let of_service = ListParams::default().labels(&format!("{SERVICE_LABEL}={}", name.name));
        for slice in slices.list(&of_service).await?.items.into_iter().filter_map(Slice::of) {
            cluster.set(Object::Slice(Arc::new(slice)), Source::List);
        }
    }
    let is_own = |namespace: &str| routes.iter().any(|route| route.metadata.namespace.as_deref() == Some(namespace));
    let others: BTreeSet<_> = named.iter().map(|name| &*name.namespace).filter(|name| !is_own(name)).collect();
    if let Some(kind) = if others.is_empty() { None } else { served(client).await? } {
        for namespace in others {
            let grants = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &kind);
            for grant in grants.list(&ListParams::default()).await?.items {
                cluster.set(Object::Grant(Arc::new(Grant::of(&grant))), Source::List);
            }
        }
    }
    Ok(cluster)
}

fn files(arguments: &Arguments) -> Result<(World, String)> {
    let namespace = arguments.connection.namespace.clone().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    let mut given = Given::for_route(name(&arguments.to, &namespace));
    for path in &arguments.filename {
        for manifest in manifests::read(path, arguments.recursive)? {
            for object in manifest.objects() {
                given
                    .add(object, &namespace)
                    .with_context(|| format!("{}: {}", manifest.file, manifests::title(object)))?;
            }
        }
    }
    let world = given.world();
    if world.routes.is_empty() {
        bail!("there is no ProxyRoute in these files");
    }
    Ok((world, namespace))
}

/// What files tell of a cluster.
pub(super) struct Given {
    to: ObjectName,
    world: World,
    cluster: Cluster,
    services: BTreeSet<ObjectName>,
    /// Services whose addresses are among it. A controller makes those, so that most files have none.
    addressed: BTreeSet<ObjectName>,
}

impl Given {
    /// Nothing yet, to be asked about a route.
    pub(super) fn for_route(to: ObjectName) -> Self {
        let (services, addressed) = (BTreeSet::new(), BTreeSet::new());
        Self { to, world: World::default(), cluster: Cluster::default(), services, addressed }
    }

    /// Takes in an object, which is in this namespace if it says none.
    pub(super) fn add(&mut self, object: &Value, namespace: &str) -> Result<()> {
        let word = |field: &str| object[field].as_str().unwrap_or_default();
        let group = word("apiVersion").rsplit_once('/').map_or("", |(group, _)| group);
        let taken = match (group, word("kind")) {
            ("postern.dev", "ProxyRoute") => {
                self.world.routes.push(typed(object, namespace)?);
                return Ok(());
            }
            ("postern.dev", "ClientIdentity") => {
                self.world.identities.push(typed(object, namespace)?);
                return Ok(());
            }
            ("", "ConfigMap") => {
                let map: ConfigMap = typed(object, namespace)?;
                if ObjectName::of(&map) == ObjectName::new(&self.to.namespace, names::TRUST) {
                    self.world.revoked.extend(serials(map));
                }
                return Ok(());
            }
            ("", "Service") => {
                let service = index::Service::of(typed(object, namespace)?);
                self.services.insert(service.name.clone());
                Object::Service(Arc::new(service))
            }
            ("discovery.k8s.io", "EndpointSlice") => {
                let Some(slice) = Slice::of(typed(object, namespace)?) else { return Ok(()) };
                self.addressed.insert(slice.service.clone());
                Object::Slice(Arc::new(slice))
            }
            ("gateway.networking.k8s.io", "ReferenceGrant") => {
                Object::Grant(Arc::new(Grant::of(&typed::<DynamicObject>(object, namespace)?)))
            }
            _ => return Ok(()),
        };
        self.cluster.set(taken, Source::List);
        Ok(())
    }

    /// All of it. Who gives no Service tells nothing of any.
    pub(super) fn world(self) -> World {
        let Self { to: _, mut world, cluster, services, addressed } = self;
        world.unaddressed = services.difference(&addressed).cloned().collect();
        world.services = (!services.is_empty()).then(|| Arc::new(cluster));
        world
    }
}

/// Serial numbers that a namespace's part `trust` refuses.
fn serials(trust: ConfigMap) -> impl Iterator<Item = String> {
    let revocations = written(trust).map(|trust| trust.document.revocations);
    revocations.into_iter().flat_map(|revocations| revocations.serials).map(|one| one.serial)
}

fn typed<T: DeserializeOwned>(object: &Value, namespace: &str) -> Result<T> {
    let mut object = object.clone();
    if object["metadata"]["namespace"].is_null() {
        object["metadata"]["namespace"] = json!(namespace);
    }
    serde_json::from_value(object).map_err(|error| anyhow!("{error}"))
}
