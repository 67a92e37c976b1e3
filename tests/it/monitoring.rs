//! What Prometheus and Grafana are given names what there is: metrics and their labels in rules and dashboards, runbooks of alerts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

type Names = BTreeSet<String>;

/// What whoever scrapes adds (deploy/prometheus/prometheus.yaml, the chart's monitors).
const OF_TARGETS: [&str; 4] = ["job", "namespace", "workload", "pod"];
/// What Prometheus says of targets itself.
const OF_PROMETHEUS: [&str; 1] = ["up"];
/// Words of the query language that stand where a metric could.
const WORDS: [&str; 12] =
    ["and", "or", "unless", "bool", "offset", "sum", "min", "max", "avg", "count", "topk", "quantile"];
/// Words before labels in parentheses.
const BEFORE_LABELS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
/// What a runbook says, in this order.
const SECTIONS: [&str; 4] = ["## What it means", "## What is affected", "## How to look", "## What to do"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn files(folder: &str) -> Vec<String> {
    let names =
        fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

fn names(words: impl IntoIterator<Item = impl Into<String>>) -> Names {
    words.into_iter().map(Into::into).collect()
}

/// What stands in backticks.
fn codes(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Metrics with their labels, as the documents have them.
fn documented() -> BTreeMap<String, Names> {
    let mut found = BTreeMap::new();
    let gates = read("docs/operations.md");
    let gates = gates.split("\n## Metrics\n").nth(1).unwrap().split("\n## ").next().unwrap();
    for row in gates.lines().filter(|line| line.starts_with("| `postern_") || line.starts_with("| `process_")) {
        let cells: Vec<_> = row.split('|').collect();
        let name = codes(cells[1]).next().unwrap();
        if name.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_') {
            // What comes behind a colon are values.
            let labels = cells[3].split(',').filter_map(|part| codes(part.split(':').next()?).next());
            found.insert(name.to_owned(), names(labels));
        }
    }
    for page in ["docs/operator.md", "docs/injection.md"] {
        let page = read(page);
        for row in page.lines().filter(|line| line.starts_with("| `postern_")) {
            for code in codes(row.split('|').nth(1).unwrap()) {
                let (name, labels) = code.split_once('{').unwrap_or((code, ""));
                let labels = labels.trim_end_matches('}').split(", ").filter(|label| !label.is_empty());
                found.insert(name.to_owned(), names(labels));
            }
        }
    }
    assert!(found.len() > 80, "only {} metrics are found", found.len());
    found
}

/// A metric by the name of one of its series, with labels.
fn family<'a>(documented: &'a BTreeMap<String, Names>, series: &str) -> Option<(&'a str, Names)> {
    let parts = ["_bucket", "_sum", "_count"].iter().filter_map(|part| series.strip_suffix(part));
    let (name, labels) = [series].into_iter().chain(parts).find_map(|name| documented.get_key_value(name))?;
    let bound = series.ends_with("_bucket").then(|| "le".to_owned());
    Some((name, labels.iter().cloned().chain(bound).collect()))
}

/// Each series of a page of a running program has a name and labels that the documents have.
pub(crate) fn assert_documented(page: &str) {
    let documented = documented();
    let mut wrong = BTreeSet::new();
    for line in page.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (name, labels) =
            line.rsplit_once(' ').unwrap().0.split_once('{').unwrap_or((line.split(' ').next().unwrap(), ""));
        // Values may have anything in them but a quotation mark.
        let labels = names(
            labels.split('"').step_by(2).map(|text| text.trim_matches([',', '=', '}'])).filter(|text| !text.is_empty()),
        );
        match family(&documented, name) {
            Some((_, known)) if labels.is_subset(&known) => {}
            known => drop(wrong.insert(format!("{name}: {labels:?}, documented: {known:?}"))),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What a query names: metrics with the labels that it chooses them by, and labels that it groups by.
#[derive(Debug, Default)]
struct Named {
    metrics: Vec<(String, Names)>,
    groups: Names,
}

fn named(query: &str) -> Named {
    let mut named = Named::default();
    let mut rest = query.trim_start();
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            rest = rest[1..].split_once('"').unwrap_or_else(|| panic!("a string without end in {query}")).1;
        } else if first == '[' {
            rest = rest.split_once(']').unwrap_or_else(|| panic!("a range without end in {query}")).1;
        } else if first.is_ascii_alphabetic() || first == '_' || first == ':' {
            let (word, after) = word(rest);
            rest = after.trim_start();
            if BEFORE_LABELS.contains(&word) {
                let (labels, after) =
                    rest.strip_prefix('(').and_then(|inner| inner.split_once(')')).unwrap_or(("", rest));
                named
                    .groups
                    .extend(labels.split(',').map(|label| label.trim().to_owned()).filter(|label| !label.is_empty()));
                rest = after;
            } else if let Some(matchers) = rest.strip_prefix('{') {
                let (labels, after) = chosen_by(matchers);
                named.metrics.push((word.to_owned(), labels));
                rest = after;
            } else if !rest.starts_with('(') && !WORDS.contains(&word) {
                named.metrics.push((word.to_owned(), Names::new()));
            }
        } else if first.is_ascii_digit() || first == '$' {
            rest = word(&rest[1..]).1;
        } else {
            rest = &rest[first.len_utf8()..];
        }
        rest = rest.trim_start();
    }
    named
}

fn word(text: &str) -> (&str, &str) {
    let end = text.find(|letter: char| !(letter.is_ascii_alphanumeric() || "_:".contains(letter)));
    text.split_at(end.unwrap_or(text.len()))
}

/// Labels up to the brace, and what comes behind it.
fn chosen_by(matchers: &str) -> (Names, &str) {
    let (mut labels, mut rest) = (Names::new(), matchers.trim_start());
    while !rest.starts_with('}') {
        let (label, after) = word(rest);
        labels.insert(label.to_owned());
        let mut parts = after.splitn(3, '"');
        rest = parts.nth(2).unwrap().trim_start_matches([',', ' ']);
    }
    (labels, &rest[1..])
}

#[test]
fn a_query_is_taken_apart() {
    let query = r#"max by (a, b) (rate(x_total{c=~"}(d",e!=""}[5m])) / on (f) group_left sum(y:z offset 30m) and w or 0.5 * v > 3600"#;
    let found = named(query);
    let expected = [("x_total", names(["c", "e"])), ("y:z", Names::new()), ("w", Names::new()), ("v", Names::new())];
    assert_eq!(found.metrics, expected.map(|(name, labels)| (name.to_owned(), labels)));
    assert_eq!(found.groups, names(["a", "b", "f"]));
}

/// Rules: those that record, by name with what is asked, and alerts.
fn rules() -> (BTreeMap<String, String>, Vec<Value>) {
    let document: Value = serde_saphyr::from_str(&read("deploy/prometheus/rules.yaml")).unwrap();
    let (mut records, mut alerts) = (BTreeMap::new(), Vec::new());
    for rule in document["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()) {
        if let Some(name) = rule["record"].as_str() {
            records.insert(name.to_owned(), rule["expr"].as_str().unwrap().to_owned());
        } else {
            alerts.push(rule.clone());
        }
    }
    (records, alerts)
}

/// All queries, with where they stand.
fn queries() -> Vec<(String, String)> {
    let (records, alerts) = rules();
    let mut found: Vec<_> = records.into_iter().collect();
    let alert = |rule: &Value| (rule["alert"].as_str().unwrap().to_owned(), rule["expr"].as_str().unwrap().to_owned());
    found.extend(alerts.iter().map(alert));
    for name in files("charts/postern/dashboards") {
        let dashboard: Value = serde_json::from_str(&read(&format!("charts/postern/dashboards/{name}"))).unwrap();
        for panel in dashboard["panels"].as_array().unwrap() {
            let place = format!("{name}: {}", panel["title"].as_str().unwrap());
            let targets = panel["targets"].as_array().unwrap();
            found.extend(targets.iter().map(|target| (place.clone(), target["expr"].as_str().unwrap().to_owned())));
        }
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            if let Some(query) = variable["definition"].as_str() {
                // The name of a metric is a regular expression there, or a metric.
                let values = query.strip_prefix("label_values(").unwrap().strip_suffix(')').unwrap();
                let (series, label) = values.rsplit_once(", ").unwrap();
                assert!(OF_TARGETS.contains(&label), "{name}: {query}");
                let series = series.strip_prefix("{__name__=~\"").map_or(series, |names| names.trim_end_matches("\"}"));
                found.extend(series.split('|').map(|series| (format!("{name}: variable"), series.to_owned())));
            }
        }
    }
    found
}

#[test]
fn rules_and_dashboards_name_what_programs_tell() {
    let (documented, records) = (documented(), rules().0);
    let known = |metric: &str| {
        let own = family(&documented, metric).map(|(_, labels)| labels);
        let recorded = records.get(metric).map(|query| named(query).groups);
        let labels = own.or(recorded).or_else(|| OF_PROMETHEUS.contains(&metric).then(Names::new))?;
        Some(labels.into_iter().chain(OF_TARGETS.map(str::to_owned)).collect::<Names>())
    };
    let (mut wrong, mut count) = (Vec::new(), 0);
    for (place, query) in queries() {
        let found = named(&query);
        let mut all = Names::new();
        for (metric, labels) in &found.metrics {
            count += 1;
            match known(metric) {
                Some(known) if labels.is_subset(&known) => all.extend(known),
                Some(known) => wrong.push(format!("{place}: {metric} has {known:?} and not all of {labels:?}")),
                None => wrong.push(format!("{place}: nobody has {metric}")),
            }
        }
        // A label that a rule makes up of a word.
        all.extend(query.contains("label_replace(").then(|| "limit".to_owned()));
        let strange: Vec<_> = found.groups.difference(&all).collect();
        if !strange.is_empty() {
            wrong.push(format!("{place}: {query} groups by {strange:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(count > 150, "only {count} metrics are found in queries");
}

#[test]
fn lines_are_called_by_labels_that_they_have() {
    for name in files("charts/postern/dashboards") {
        let dashboard: Value = serde_json::from_str(&read(&format!("charts/postern/dashboards/{name}"))).unwrap();
        let panels = dashboard["panels"].as_array().unwrap().iter();
        for target in panels.flat_map(|panel| panel["targets"].as_array().unwrap()) {
            let (query, legend) = (target["expr"].as_str().unwrap(), target["legendFormat"].as_str().unwrap());
            let called = legend.split("{{").skip(1).map(|part| part.split("}}").next().unwrap().to_owned());
            let has: Names = named(query).groups.into_iter().chain(OF_TARGETS.map(str::to_owned)).collect();
            let strange: Vec<_> = called.filter(|label| !has.contains(label)).collect();
            assert!(strange.is_empty(), "{name}: {query} has no {strange:?}");
        }
    }
}

/// Each alert has a runbook, and each runbook an alert.
#[test]
fn alerts_have_runbooks() {
    let (_, alerts) = rules();
    for alert in &alerts {
        let expected = format!("docs/runbooks/{}.md", alert["alert"].as_str().unwrap());
        assert_eq!(alert["annotations"]["runbook_url"].as_str(), Some(expected.as_str()));
        assert!(["critical", "warning"].contains(&alert["labels"]["severity"].as_str().unwrap()), "{expected}");
    }
    let expected = names(alerts.iter().map(|alert| format!("{}.md", alert["alert"].as_str().unwrap())));
    let there: Names = files("docs/runbooks").into_iter().filter(|name| name != "README.md").collect();
    assert_eq!(there, expected);
    let index = read("docs/runbooks/README.md");
    for name in there {
        let (page, title) = (read(&format!("docs/runbooks/{name}")), name.trim_end_matches(".md"));
        assert_eq!(page.lines().next(), Some(format!("# {title}").as_str()));
        let sections: Vec<_> = page.lines().filter(|line| line.starts_with("## ")).collect();
        assert_eq!(sections, SECTIONS, "{name}");
        let how = page.split("\n## How to look\n").nth(1).unwrap().split("\n## ").next().unwrap();
        assert!(how.contains("```sh\n"), "{name}: no command to look with");
        assert!(index.contains(&format!("[{title}]({name})")), "{name} is not in README.md");
    }
}
