//! The definitions of the API on a real API server: what it takes, and what it refuses with which words.

mod constraints;
mod contract;
mod mechanical;
mod rules;
mod samples;
mod served;
mod table;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use postern_crds::generate::files;
use postern_tests::apiserver::ApiServer;
use serde_json::Value;

use constraints::{Constraint, constraints, schemas};
use table::{Row, Table};

/// Every row there is: those that follow from the schema, and those by hand for what is said in CEL.
fn rows() -> Vec<Row> {
    let mut rows = rules::rows();
    for schema in schemas() {
        let samples = samples::of(&schema.kind);
        let all = constraints(&schema);
        let mechanical = all.iter().filter_map(|constraint| mechanical::violate(&schema.kind, constraint, &samples));
        rows.extend(mechanical);
    }
    rows
}

/// Computed from the definitions: a bound that is added and not violated by a row fails here.
#[test]
fn every_constraint_is_violated_by_a_row() {
    let covered: BTreeSet<_> = rows().into_iter().map(|row| (row.kind, row.violates)).collect();
    for schema in schemas() {
        let open: Vec<Constraint> = constraints(&schema)
            .into_iter()
            .filter(|constraint| !covered.contains(&(schema.kind.clone(), constraint.clone())))
            .collect();
        assert!(open.is_empty(), "{}: no row violates these; add samples or rows: {open:#?}", schema.kind);
    }
}

#[test]
fn every_row_violates_something_that_is_there() {
    let there: BTreeSet<_> = schemas()
        .iter()
        .flat_map(|schema| constraints(schema).into_iter().map(|constraint| (schema.kind.clone(), constraint)))
        .collect();
    let stray: Vec<_> =
        rows().into_iter().filter(|row| !there.contains(&(row.kind.clone(), row.violates.clone()))).collect();
    assert!(stray.is_empty(), "no definition has what these violate: {stray:#?}");
}

#[test]
fn every_violation_is_refused_with_its_place() {
    let server = ApiServer::shared().unwrap();
    let table = Table::new(server).unwrap();
    for sample in samples::all() {
        table.take(&sample).unwrap();
    }
    let wrong = table.wrong(&rows()).unwrap();
    assert!(wrong.is_empty(), "{} rows were not refused as they should be:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn generated_files_are_those_of_the_types() {
    for file in files().unwrap() {
        let path = root().join(&file.path);
        let on_disk = fs::read_to_string(&path).unwrap_or_default();
        assert!(on_disk == file.text, "{} differs from the types; run `make generate`", path.display());
    }
}

/// Without a bound the API server cannot tell what a rule costs, and a user not what is too much.
#[test]
fn everything_is_bounded_and_documented() {
    for schema in schemas() {
        let mut found = Vec::new();
        constraints::unbounded(&schema.root, &schema.kind, &mut found);
        assert!(found.is_empty(), "{found:#?}");
    }
}

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn messages(schema: &Value) -> Vec<&str> {
    schema
        .pointer("/x-kubernetes-validations")
        .and_then(Value::as_array)
        .map_or_else(Vec::new, |rules| rules.iter().filter_map(|rule| rule.get("message")?.as_str()).collect())
}
