//! `status`: routes and identities in a table, what is wrong with them first.

use std::io::Write;

use anyhow::{Context, Result};
use clap::Args;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use postern_crds::{ClientIdentity, ProxyRoute};

use super::cluster::{Connection, run as wait};
use super::{Ended, printable};

/// What `status` is told.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// All namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

/// How an object is. What is compared first is what is shown first: what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    is_ready: bool,
    namespace: String,
    kind: &'static str,
    name: String,
    detail: String,
    reason: String,
    message: String,
}

/// Shows them, and tells by its end whether all are ready.
///
/// # Errors
/// When the cluster does not answer.
pub fn run(arguments: &Arguments, output: &mut dyn Write) -> Result<Ended> {
    let (namespace, mut rows) = wait(async {
        let cluster = arguments.connection.open().await?;
        let all = ListParams::default();
        let (routes, identities): (Api<ProxyRoute>, Api<ClientIdentity>) = if arguments.all_namespaces {
            (Api::all(cluster.client.clone()), Api::all(cluster.client))
        } else {
            let namespace = &cluster.namespace;
            (Api::namespaced(cluster.client.clone(), namespace), Api::namespaced(cluster.client, namespace))
        };
        let routes = routes.list(&all).await.context("list ProxyRoutes")?;
        let identities = identities.list(&all).await.context("list ClientIdentities")?;
        let rows = routes.iter().map(of_route).chain(identities.iter().map(of_identity));
        Ok((cluster.namespace, rows.collect::<Vec<_>>()))
    })?;
    if rows.is_empty() {
        let place =
            if arguments.all_namespaces { "any namespace".to_owned() } else { format!("namespace {namespace}") };
        writeln!(output, "no ProxyRoutes and no ClientIdentities in {place}")?;
        return Ok(Ended::Well);
    }
    rows.sort_unstable();
    output.write_all(table(&rows, arguments.all_namespaces).as_bytes())?;
    Ok(if rows.iter().all(|row| row.is_ready) { Ended::Well } else { Ended::Found })
}

fn of_route(route: &ProxyRoute) -> Row {
    let status = route.status.clone().unwrap_or_default();
    let totals = status.totals.unwrap_or_default();
    let detail = format!("{}/{} pods have it", totals.programmed, totals.pods);
    row(route, "route", detail, &status.conditions)
}

fn of_identity(identity: &ClientIdentity) -> Row {
    let status = identity.status.clone().unwrap_or_default();
    let detail = match &status.certificate {
        Some(certificate) => format!("until {}", certificate.not_after.as_str()),
        None => String::new(),
    };
    row(identity, "identity", detail, &status.conditions)
}

fn row(object: &impl ResourceExt, kind: &'static str, detail: String, conditions: &[Condition]) -> Row {
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
    let is_current = ready.and_then(|ready| ready.observed_generation) == object.meta().generation;
    let (is_ready, reason, message) = match ready {
        None => (false, "Unseen", "no operator has said anything about it; does it serve this namespace?"),
        Some(_) if !is_current => (false, "Outdated", "no operator has said anything about its last change"),
        Some(ready) => (ready.status == "True", ready.reason.as_str(), ready.message.as_str()),
    };
    Row {
        is_ready,
        namespace: object.namespace().unwrap_or_default(),
        kind,
        name: object.name_any(),
        detail,
        reason: printable(reason),
        // What is as it should be needs no words.
        message: if is_ready { String::new() } else { printable(message) },
    }
}

/// In columns; the last is as long as it is.
fn table(rows: &[Row], has_namespaces: bool) -> String {
    let head = ["NAMESPACE", "OBJECT", "READY", "REASON", "", "MESSAGE"].map(str::to_owned);
    let cells = |row: &Row| {
        let ready = if row.is_ready { "yes" } else { "NO" };
        let object = format!("{}/{}", row.kind, row.name);
        let [namespace, reason, detail, message] =
            [&row.namespace, &row.reason, &row.detail, &row.message].map(Clone::clone);
        [namespace, object, ready.to_owned(), reason, detail, message]
    };
    let lines: Vec<_> = std::iter::once(head).chain(rows.iter().map(cells)).collect();
    let widths: [usize; 6] =
        std::array::from_fn(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default());
    let mut text = String::new();
    for line in &lines {
        let shown = line.iter().zip(widths).skip(usize::from(!has_namespaces));
        let padded: Vec<_> = shown.map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{of_identity, of_route, table};

    fn object(name: &str, generation: i64, ready: &Value) -> Value {
        let condition = |(kind, [status, reason, message]): (&str, [&str; 3])| {
            json!({
                "type": kind, "status": status, "reason": reason, "message": message,
                "observedGeneration": 1, "lastTransitionTime": "2026-11-20T00:00:00Z",
            })
        };
        let words = |value: &Value| std::array::from_fn(|index| value[index].as_str().expect("a word").to_owned());
        let conditions = if ready.is_null() {
            json!([])
        } else {
            let [status, reason, message]: [String; 3] = words(ready);
            json!([condition(("Ready", [&status, &reason, &message]))])
        };
        json!({
            "metadata": {"name": name, "namespace": "shop", "generation": generation},
            "status": {"conditions": conditions},
        })
    }

    #[test]
    fn what_is_wrong_comes_first() {
        let route = |name: &str, generation, ready: Value, totals: Value| {
            let mut object = object(name, generation, &ready);
            object["spec"] =
                json!({"podSelector": {"matchLabels": {"app": "a"}}, "listener": {"port": 1}, "rules": []});
            object["status"]["totals"] = totals;
            of_route(&serde_json::from_value(object).expect("a route"))
        };
        let identity = |name: &str, ready: Value| {
            let mut object = object(name, 1, &ready);
            object["spec"] = json!({"issue": {"secretName": "x"}});
            of_identity(&serde_json::from_value(object).expect("an identity"))
        };
        let three = json!({"workloads": 1, "pods": 3, "started": 3, "programmed": 3, "rejected": 0, "unreachable": 0});
        let mut rows = vec![
            route("good", 1, json!(["True", "Ready", "all of it"]), three),
            route("changed", 2, json!(["True", "Ready", ""]), Value::Null),
            // Nobody writes a line of his own into the table.
            route("bad", 1, json!(["False", "NoPods", "no pod\nhas it\u{1b}[2J"]), Value::Null),
            identity("billing", json!(["True", "Ready", ""])),
            identity("new", Value::Null),
        ];
        rows.sort_unstable();
        let expected = "\
OBJECT            READY  REASON                      MESSAGE
identity/new      NO     Unseen                      no operator has said anything about it; does it serve this namespace?
route/bad         NO     NoPods    0/0 pods have it  no pod\u{fffd}has it\u{fffd}[2J
route/changed     NO     Outdated  0/0 pods have it  no operator has said anything about its last change
identity/billing  yes    Ready
route/good        yes    Ready     3/3 pods have it
";
        assert_eq!(table(&rows, false), expected);
        assert!(table(&rows, true).starts_with("NAMESPACE  OBJECT"));
    }
}
