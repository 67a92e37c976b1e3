//! `enable` and `disable`: which namespaces the operator may work in.

use std::io::Write;

use anyhow::{Context, Result, bail};
use clap::Args;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::Ended;
use super::cluster::{Connection, run as wait};
use super::manifests;

/// The role, and the name of its binding. deploy/operator/rbac.yaml has it.
const ROLE: &str = "postern-operator-namespace";
/// Label by which pods of a namespace get a gate.
const INJECT: &str = "postern.dev/inject";
/// Who the API server says has written.
const FIELD_MANAGER: &str = "kubectl-postern";

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
            writeln!(output, "namespace {name}: the operator may work in it")?;
            if arguments.inject {
                let namespaces = Api::<Namespace>::all(cluster.client.clone());
                let written = namespaces.patch(name, &parameters, &Patch::Apply(labelled(name))).await;
                written.with_context(|| format!("label {INJECT} of namespace {name}"))?;
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
                writeln!(output, "namespace {name}: RoleBinding {ROLE} and label {INJECT} would go")?;
                continue;
            }
            let bindings = Api::<RoleBinding>::namespaced(cluster.client.clone(), name);
            match bindings.delete(ROLE, &DeleteParams::default()).await {
                Ok(_) => writeln!(output, "namespace {name}: the operator may not work in it any more")?,
                Err(kube::Error::Api(error)) if error.code == 404 => {
                    writeln!(output, "namespace {name}: the operator was not allowed in by a RoleBinding")?;
                }
                Err(error) => return Err(error).with_context(|| format!("RoleBinding {name}/{ROLE}")),
            }
            let namespaces = Api::<Namespace>::all(cluster.client.clone());
            let patch = Patch::Merge(json!({"metadata": {"labels": {INJECT: null}}}));
            let written = namespaces.patch(name, &PatchParams::default(), &patch).await;
            written.with_context(|| format!("label {INJECT} of namespace {name}"))?;
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

fn objects(arguments: &Arguments, name: &str) -> Vec<Value> {
    let mut objects = vec![binding(arguments, name)];
    objects.extend(arguments.inject.then(|| labelled(name)));
    objects
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

fn labelled(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {INJECT: "enabled"}}})
}
