//! Which crate may depend on which, over what cargo resolved.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, PackageId};

use super::scan::{Finding, finding};

/// Each member with the members it may depend on. Tests may use anything.
const ARROWS: [(&str, &[&str]); 10] = [
    ("sidecar-config", &[]),
    ("sidecar-decide", &["sidecar-config"]),
    ("postern-telemetry", &[]),
    ("postern-postgres", &[]),
    ("postern-sidecar", &["postern-postgres", "postern-telemetry", "sidecar-config", "sidecar-decide"]),
    ("postern-crds", &[]),
    (
        "postern-operator",
        &["postern-crds", "postern-postgres", "postern-telemetry", "sidecar-config", "sidecar-decide"],
    ),
    ("postern-tests", &["postern-sidecar", "sidecar-config", "sidecar-decide"]),
    ("postern-bench", &["postern-postgres", "postern-tests"]),
    ("postern-packaging", &["postern-operator", "postern-sidecar"]),
];

/// What a member must not reach, however far away.
const FORBIDDEN: [(&str, &[&str]); 3] = [
    ("sidecar-config", &["hyper", "tokio", "sqlx", "rustls", "kube"]),
    ("sidecar-decide", &["hyper", "tokio", "sqlx", "rustls", "kube"]),
    ("postern-sidecar", &["kube"]),
];

/// Members that depend on a member they must not know, and members without a place in the order.
pub(crate) fn wrong_arrows(metadata: &Metadata) -> Vec<Finding> {
    let members: BTreeSet<&str> = metadata.workspace_packages().iter().map(|package| package.name.as_str()).collect();
    let mut findings = Vec::new();
    for package in metadata.workspace_packages() {
        let manifest = format!("{}/Cargo.toml", package.name);
        let dependencies = package.dependencies.iter().filter(|found| found.kind != DependencyKind::Development);
        let names: Vec<&str> = dependencies.map(|found| found.name.as_str()).collect();
        match ARROWS.iter().find(|(name, _)| *name == package.name.as_str()) {
            Some((name, allowed)) => findings.extend(beyond(name, &names, &members, allowed)),
            None => findings.push(finding(&manifest, 1, "give the new member its place in ARROWS of this test")),
        }
    }
    findings
}

/// Dependencies on members that are not allowed.
pub(crate) fn beyond(name: &str, names: &[&str], members: &BTreeSet<&str>, allowed: &[&str]) -> Vec<Finding> {
    let wrong = names.iter().filter(|found| members.contains(*found) && !allowed.contains(found));
    let remedy = |found: &&str| format!("must not depend on {found}; move what both need into {allowed:?}");
    wrong.map(|found| finding(&format!("{name}/Cargo.toml"), 1, remedy(found))).collect()
}

/// Members that reach a crate which would make them impure.
pub(crate) fn impure(metadata: &Metadata) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (member, forbidden) in FORBIDDEN {
        let reached = reached_from(metadata, member);
        for found in forbidden.iter().filter(|name| reached.contains(**name)) {
            let remedy = format!("reaches {found}; see who brings it: cargo tree --package {member} --invert {found}");
            findings.push(finding(&format!("{member}/Cargo.toml"), 1, remedy));
        }
    }
    findings
}

/// Names of all crates a member needs to build and run.
fn reached_from(metadata: &Metadata, member: &str) -> BTreeSet<String> {
    let names: BTreeMap<&PackageId, &str> = metadata.packages.iter().map(|p| (&p.id, p.name.as_str())).collect();
    let resolve = metadata.resolve.as_ref().unwrap();
    let mut waiting: Vec<&PackageId> = names.iter().filter(|(_, name)| **name == member).map(|(id, _)| *id).collect();
    assert!(!waiting.is_empty(), "no member is called {member}; correct FORBIDDEN of this test");
    let mut reached = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if !reached.insert(names[id].to_owned()) {
            continue;
        }
        let node = resolve.nodes.iter().find(|node| node.id == *id).unwrap();
        let needed = node.deps.iter().filter(|d| d.dep_kinds.iter().any(|k| k.kind != DependencyKind::Development));
        waiting.extend(needed.map(|dependency| &dependency.pkg));
    }
    reached
}
