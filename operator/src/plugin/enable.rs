//! `enable` and `disable`: which namespaces the operator works in. A RoleBinding permits it, and a label of the namespace
//! tells it to.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Ended;
use super::cluster::{Connection, run as wait};
use super::manifests;
use crate::index::OPERATOR_LABEL;

/// The role, and the name of its binding. deploy/operator/rbac.yaml has it.
const ROLE: &str = "postern-operator-namespace";
/// Label by which pods of a namespace get a gate.
const INJECT: &str = "postern.dev/inject";
/// Who the API server says has written the binding and the label of injection.
const FIELD_MANAGER: &str = "kubectl-postern";
/// The same of the operator's label: whoever enables again without injection takes nothing of it away.
const ENABLE_MANAGER: &str = "kubectl-postern-enable";
/// How long it may take until a binding counts. It is a moment, as a rule; the operator tries again if it was too soon.
const RIGHTS_PATIENCE: Duration = Duration::from_secs(10);
const RIGHTS_LOOK: Duration = Duration::from_millis(100);

/// What both are told.
#[derive(Args, Clone, Debug)]
struct Common {
    #[command(flatten)]
    connection: Connection,
    /// Namespaces [that of the context]
    #[arg(value_name = "NAMESPACE")]
    names: Vec<String>,
    /// Write what would be applied, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// What `enable` is told.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Have pods of the namespace get a gate, too
    #[arg(long)]
    inject: bool,
    /// The operator's namespace
    #[arg(long, value_name = "NAMESPACE", default_value = "postern-system")]
    operator_namespace: String,
    /// The operator's account there
    #[arg(long, value_name = "NAME", default_value = "postern-operator")]
    service_account: String,
}

/// What `disable` is told.
#[derive(Args, Clone, Debug)]
pub struct Undo {
    #[command(flatten)]
    common: Common,
}

/// Lets the operator work in namespaces.
///
/// # Errors
/// When something cannot be written, such as a namespace that is not there.
pub fn run(arguments: &Arguments, output: &mut dyn Write) -> Result<Ended> {
    let common = &arguments.common;
    if common.dry_run && !common.names.is_empty() {
        let objects: Vec<_> = common.names.iter().flat_map(|name| objects(arguments, name)).collect();
        output.write_all(manifests::write(&objects)?.as_bytes())?;
        return Ok(Ended::Well);
    }
    wait(async {
        let cluster = common.connection.open().await?;
        for name in common.names_or(&cluster.namespace) {
            if common.dry_run {
                output.write_all(manifests::write(&objects(arguments, name))?.as_bytes())?;
                continue;
            }
            exists(&cluster.client, name).await?;
            let parameters = PatchParams::apply(FIELD_MANAGER).force();
            let bindings = Api::<RoleBinding>::namespaced(cluster.client.clone(), name);
            let written = bindings.patch(ROLE, &parameters, &Patch::Apply(binding(arguments, name))).await;
            written.with_context(|| format!("RoleBinding {name}/{ROLE}"))?;
            wait_permitted(&cluster.client, arguments, name).await;
            label(&cluster.client, name, ENABLE_MANAGER, served(arguments, name), OPERATOR_LABEL).await?;
            writeln!(output, "namespace {name}: the operator works in it")?;
            if arguments.inject {
                label(&cluster.client, name, FIELD_MANAGER, injected(name), INJECT).await?;
                writeln!(output, "namespace {name}: pods that are made from now on get a gate")?;
            }
        }
        Ok(Ended::Well)
    })
}

/// Takes that back. What the operator has written stays, and gates go on with it.
///
/// # Errors
/// When something cannot be removed.
pub fn undo(arguments: &Undo, output: &mut dyn Write) -> Result<Ended> {
    wait(async {
        let common = &arguments.common;
        let cluster = common.connection.open().await?;
        for name in common.names_or(&cluster.namespace) {
            exists(&cluster.client, name).await?;
            if common.dry_run {
                writeln!(
                    output,
                    "namespace {name}: RoleBinding {ROLE}, labels {OPERATOR_LABEL} and {INJECT} would go"
                )?;
                continue;
            }
            // First what tells the operator to work there, then what permits it.
            let namespaces = Api::<Namespace>::all(cluster.client.clone());
            let patch = Patch::Merge(json!({"metadata": {"labels": {OPERATOR_LABEL: null, INJECT: null}}}));
            let written = namespaces.patch(name, &PatchParams::default(), &patch).await;
            written.with_context(|| format!("labels {OPERATOR_LABEL} and {INJECT} of namespace {name}"))?;
            let bindings = Api::<RoleBinding>::namespaced(cluster.client.clone(), name);
            match bindings.delete(ROLE, &DeleteParams::default()).await {
                Ok(_) => writeln!(output, "namespace {name}: the operator may not work in it any more")?,
                Err(kube::Error::Api(error)) if error.code == 404 => {
                    writeln!(output, "namespace {name}: the operator was not allowed in by a RoleBinding")?;
                }
                Err(error) => return Err(error).with_context(|| format!("RoleBinding {name}/{ROLE}")),
            }
        }
        Ok(Ended::Well)
    })
}

impl Common {
    fn names_or<'a>(&'a self, context: &'a str) -> Vec<&'a str> {
        let names = self.names.iter().map(String::as_str).collect::<Vec<_>>();
        let said = self.connection.namespace.as_deref().unwrap_or(context);
        if names.is_empty() { vec![said] } else { names }
    }
}

/// A server-side apply would make a namespace of a misspelt name.
async fn exists(client: &Client, name: &str) -> Result<()> {
    let found = Api::<Namespace>::all(client.clone()).get_opt(name).await;
    if found.with_context(|| format!("namespace {name}"))?.is_none() {
        bail!("namespace {name} does not exist");
    }
    Ok(())
}

async fn label(client: &Client, name: &str, manager: &str, labelled: Value, label: &str) -> Result<()> {
    let namespaces = Api::<Namespace>::all(client.clone());
    let written = namespaces.patch(name, &PatchParams::apply(manager).force(), &Patch::Apply(labelled)).await;
    written.map(drop).with_context(|| format!("label {label} of namespace {name}"))
}

/// Waits until the API server lets the operator's account in, so that the operator does not look too soon. Who may not ask
/// that, or waits for too long, goes on: the operator looks again.
async fn wait_permitted(client: &Client, arguments: &Arguments, name: &str) {
    let reviews = Api::<SubjectAccessReview>::all(client.clone());
    let user = format!("system:serviceaccount:{}:{}", arguments.operator_namespace, arguments.service_account);
    let asked = ResourceAttributes {
        namespace: Some(name.to_owned()),
        verb: Some("list".to_owned()),
        resource: Some("secrets".to_owned()),
        ..ResourceAttributes::default()
    };
    let spec = SubjectAccessReviewSpec {
        user: Some(user),
        resource_attributes: Some(asked),
        ..SubjectAccessReviewSpec::default()
    };
    let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
    let begun = Instant::now();
    while begun.elapsed() < RIGHTS_PATIENCE {
        match reviews.create(&PostParams::default(), &review).await {
            Ok(said) if said.status.as_ref().is_some_and(|status| status.allowed) => return,
            Ok(_) => sleep(RIGHTS_LOOK).await,
            Err(_) => return,
        }
    }
}

fn objects(arguments: &Arguments, name: &str) -> Vec<Value> {
    let mut namespace = served(arguments, name);
    if arguments.inject {
        namespace["metadata"]["labels"][INJECT] = json!("enabled");
    }
    vec![binding(arguments, name), namespace]
}

fn binding(arguments: &Arguments, name: &str) -> Value {
    let account = json!({
        "kind": "ServiceAccount",
        "name": arguments.service_account,
        "namespace": arguments.operator_namespace,
    });
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": ROLE, "namespace": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ROLE},
        "subjects": [account],
    })
}

fn served(arguments: &Arguments, name: &str) -> Value {
    labelled(name, OPERATOR_LABEL, &arguments.operator_namespace)
}

fn injected(name: &str) -> Value {
    labelled(name, INJECT, "enabled")
}

fn labelled(name: &str, label: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {label: value}}})
}
