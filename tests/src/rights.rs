//! The operator's account with the rights that are shipped, and no others: deploy/operator, for one test's namespaces.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::apiserver::{ApiServer, Namespace, succeeded};
use crate::wait::{PATIENCE, eventually};

/// Name of the account, its roles and its bindings.
const NAME: &str = "postern-operator";
/// The role that is bound in each namespace that is served.
pub const SERVED: &str = "postern-operator-namespace";
/// Its namespace as the files have it.
const SHIPPED_NAMESPACE: &str = "postern-system";
/// Longer than any run of tests.
const TOKEN_LIFE: &str = "12h";

/// What is shipped: what there is once, and what there is for each account.
#[derive(Debug, Default)]
pub(crate) struct Shipped {
    pub(crate) once: Vec<Value>,
    each: Vec<Value>,
}

impl Shipped {
    /// Reads the files.
    pub(crate) fn read(server: &ApiServer) -> Result<Self> {
        let mut shipped = Self::default();
        for object in objects(server)? {
            match object["kind"].as_str().unwrap_or_default() {
                "Namespace" => {}
                "ClusterRole" | "ValidatingAdmissionPolicy" => shipped.once.push(object),
                _ => shipped.each.push(object),
            }
        }
        ensure!(!shipped.once.is_empty() && !shipped.each.is_empty(), "no rights in deploy/operator");
        Ok(shipped)
    }

    /// The account of a namespace, and what it has where it serves.
    fn granted(&self, own: &str, served: &[String], later: &[String]) -> Vec<Value> {
        let mut all = self.each.clone();
        let is_of_cluster = |object: &Value| object["metadata"]["namespace"].is_null();
        for object in &mut all {
            if is_of_cluster(object) {
                // Other tests have theirs.
                let name = format!("{}-{own}", object["metadata"]["name"].as_str().unwrap_or_default());
                object["metadata"]["name"] = json!(name);
            }
            if object["kind"] == "ValidatingAdmissionPolicyBinding" {
                let others = served.iter().chain(later).map(String::as_str);
                let namespaces: Vec<_> = std::iter::once(own).chain(others).collect();
                let here = json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": namespaces});
                object["spec"]["matchResources"] = json!({"namespaceSelector": {"matchExpressions": [here]}});
            }
            rename(object, own);
        }
        all.extend(served.iter().map(|namespace| binding(namespace, own)));
        all
    }
}

/// All that is in deploy/operator.
///
/// # Errors
/// When kubectl cannot read it.
pub fn objects(server: &ApiServer) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    for file in ["rbac.yaml", "admission.yaml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/operator").join(file);
        let path = path.to_str().context("a path of the checkout")?;
        let read = ["create", "--dry-run=client", "--validate=false", "-o", "json", "-f", path];
        let text = succeeded(&server.kubectl(&read, "")?)?;
        objects.extend(serde_json::Deserializer::from_str(&text).into_iter().collect::<Result<Vec<Value>, _>>()?);
    }
    Ok(objects)
}

/// Puts the account's namespace where the files have theirs.
fn rename(value: &mut Value, own: &str) {
    match value {
        Value::String(text) if text == SHIPPED_NAMESPACE => own.clone_into(text),
        Value::Array(values) => values.iter_mut().for_each(|value| rename(value, own)),
        Value::Object(fields) => fields.values_mut().for_each(|value| rename(value, own)),
        _ => {}
    }
}

/// That a namespace is served by the operator in another.
fn binding(served: &str, own: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": SERVED, "namespace": served},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": SERVED},
        "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": own}],
    })
}

/// The operator's account in its namespace.
#[derive(Clone, Debug)]
pub struct Account {
    /// Who it is to the API server.
    pub user: String,
    /// What it says to be.
    pub kubeconfig: PathBuf,
}

impl Account {
    /// Makes it, with its rights in the namespaces that it serves, and waits until it has them.
    ///
    /// # Errors
    /// When something of it cannot be made.
    pub fn make(own: &Namespace<'_>, served: &[&Namespace<'_>]) -> Result<Self> {
        Self::make_for(own, served, &[])
    }

    /// The same where further namespaces will be served: what keeps it from more than it needs is there from the start.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub fn make_for(own: &Namespace<'_>, served: &[&Namespace<'_>], later: &[&Namespace<'_>]) -> Result<Self> {
        let server = own.server;
        let names_of = |of: &[&Namespace<'_>]| of.iter().map(|namespace| namespace.name.clone()).collect::<Vec<_>>();
        let (names, later) = (names_of(served), names_of(later));
        let granted = server.shipped().granted(&own.name, &names, &later);
        let list = json!({"apiVersion": "v1", "kind": "List", "items": granted});
        succeeded(&server.kubectl(&["apply", "--server-side", "-f", "-"], &list.to_string())?)?;
        let user = format!("system:serviceaccount:{}:{NAME}", own.name);
        let names = names.iter().map(String::as_str);
        let rights = names.flat_map(|name| [("postern.dev", "proxyroutes", name), ("", "secrets", name)]);
        wait_allowed(server, &user, &rights.chain([("", "secrets", own.name.as_str())]).collect::<Vec<_>>())?;
        let token = ["create", "token", NAME, &format!("--duration={TOKEN_LIFE}")];
        let token = succeeded(&own.kubectl(&token, "")?)?;
        let kubeconfig = server.bearer(&format!("{NAME}-of-{}", own.name), token.trim())?;
        Ok(Self { user, kubeconfig })
    }

    /// Another kubeconfig of it, of one of several who work with the account: who it was is told by this group.
    ///
    /// # Errors
    /// When its certificate cannot be made.
    pub fn as_one_of(&self, server: &ApiServer, group: &str) -> Result<PathBuf> {
        server.user_as(group, &self.user, group)
    }
}

/// Waits until an account may list these: bindings are seen a moment after they are made.
fn wait_allowed(server: &ApiServer, user: &str, rights: &[(&str, &str, &str)]) -> Result<()> {
    let reviews = rights.iter().map(|(group, resource, namespace)| {
        let asked = json!({"verb": "list", "group": group, "resource": resource, "namespace": namespace});
        json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "resourceAttributes": asked},
        })
    });
    let list = json!({"apiVersion": "v1", "kind": "List", "items": reviews.collect::<Vec<_>>()}).to_string();
    eventually("the account's rights", PATIENCE, || {
        let said = server.kubectl(&["create", "-f", "-", "-o", "jsonpath={.status.allowed} "], &list)?;
        let said = succeeded(&said)?;
        let is_allowed = said.split_whitespace().filter(|word| *word == "true").count() == rights.len();
        Ok(is_allowed.then_some(()))
    })
}
