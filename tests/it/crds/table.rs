//! Rows of violations, and how an API server is asked about many at once.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use postern_tests::apiserver::{ApiServer, Namespace};
use serde_json::Value;

use super::constraints::Constraint;

/// An object that violates something.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Its kind.
    pub(super) kind: String,
    /// What it violates.
    pub(super) violates: Constraint,
    /// The place that the refusal names.
    pub(super) place: String,
    /// What the refusal says about it.
    pub(super) said: String,
    /// What was there before, for what must not be changed.
    pub(super) before: Option<Value>,
    /// The object.
    pub(super) object: Value,
}

impl Row {
    /// A status is written by itself, where its object is already there.
    fn is_of_status(&self) -> bool {
        self.violates.place.starts_with("status")
    }
}

/// A namespace of an API server that knows the definitions.
pub(super) struct Table<'a> {
    namespace: Namespace<'a>,
}

impl<'a> Table<'a> {
    /// With a namespace of its own.
    pub(super) fn new(server: &'a ApiServer) -> Result<Self> {
        Ok(Self { namespace: server.namespace("crds")? })
    }

    /// Has it take a good object, with its status.
    pub(super) fn take(&self, object: &Value) -> Result<()> {
        self.namespace.apply(&without_status(object))?;
        let finished = self.namespace.kubectl(&["replace", "--subresource=status", "-f", "-"], &object.to_string())?;
        ensure!(finished.code == Some(0), "{}: {}", object["metadata"]["name"], finished.stderr);
        Ok(())
    }

    /// What of the rows was not refused, or not as it should be.
    pub(super) fn wrong(&self, rows: &[Row]) -> Result<Vec<String>> {
        let named: Vec<(String, &Row)> =
            rows.iter().enumerate().map(|(number, row)| (format!("row-{number}"), row)).collect();
        let mut created = Vec::new();
        let mut before = Vec::new();
        let mut replaced = Vec::new();
        let mut statuses = Vec::new();
        for (name, row) in &named {
            let object = called(&row.object, name);
            if row.is_of_status() {
                before.push(called(&without_status(super::samples::of(&row.kind).first().context("a sample")?), name));
                statuses.push(object);
            } else if let Some(old) = &row.before {
                before.push(called(&without_status(old), name));
                replaced.push(object);
            } else {
                created.push(object);
            }
        }
        let there = self.namespace.kubectl(&["create", "-f", "-"], &stream(&before))?;
        ensure!(there.code == Some(0), "{}", there.stderr);
        let dry = "--dry-run=server";
        let mut said = self.refusals(&["create", dry, "-f", "-"], &created)?;
        said.extend(self.refusals(&["replace", dry, "-f", "-"], &replaced)?);
        said.extend(self.refusals(&["replace", dry, "--subresource=status", "-f", "-"], &statuses)?);
        // Whoever watches this server besides has no use for them.
        self.namespace.run(&["delete", "proxyroutes,clientidentities", "--all", "--wait=false"])?;
        Ok(named.iter().filter_map(|(name, row)| complaint(row, said.get(name))).collect())
    }

    /// What is said about each object, by its name.
    fn refusals(&self, arguments: &[&str], objects: &[Value]) -> Result<BTreeMap<String, String>> {
        let finished = self.namespace.kubectl(arguments, &stream(objects))?;
        Ok(finished.stderr.lines().filter_map(refusal).collect())
    }
}

/// Whom a line of kubectl is about, and what the API server said.
fn refusal(line: &str) -> Option<(String, String)> {
    let (start, said) = line.split_once(" is invalid: ")?;
    let name = start.rsplit('"').nth(1)?;
    Some((name.to_owned(), said.to_owned()))
}

/// What is wrong with the refusal of a row.
fn complaint(row: &Row, said: Option<&String>) -> Option<String> {
    let Row { kind, violates, place, said: expected, .. } = row;
    let Some(said) = said else { return Some(format!("{kind} {violates:?}: taken, or not told about")) };
    let is_told = single(said).iter().any(|one| {
        one.strip_prefix(place.as_str()).is_some_and(|rest| rest.starts_with(':') && rest.contains(expected))
    });
    (!is_told).then(|| format!("{kind} {violates:?}: expected `{place}: … {expected}`, but: {said}"))
}

/// The problems of a refusal, each with its place in front.
fn single(refusal: &str) -> Vec<String> {
    let list = refusal.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(refusal);
    let mut list = list.to_owned();
    for place in ["spec", "status", "<nil>"] {
        list = list.replace(&format!(", {place}"), &format!("\n{place}"));
    }
    list.lines().map(str::to_owned).collect()
}

fn called(object: &Value, name: &str) -> Value {
    let mut object = object.clone();
    object["metadata"]["name"] = name.into();
    object
}

fn without_status(object: &Value) -> Value {
    let mut object = object.clone();
    object.as_object_mut().map(|fields| fields.remove("status"));
    object
}

/// One after the other, not as a `List`, of which kubectl sends nothing once it dislikes one by itself.
fn stream(objects: &[Value]) -> String {
    objects.iter().map(|object| format!("{object}\n")).collect()
}
