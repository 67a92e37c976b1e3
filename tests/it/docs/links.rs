//! Links between documents lead somewhere: to a file that is there, and a heading in it.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::{documents, page, root};

#[test]
fn every_link_leads_somewhere() {
    let mut dead = Vec::new();
    for document in documents() {
        for (number, link) in links(&page(&document)) {
            if let Err(why) = follow(&document, link.as_str()) {
                dead.push(format!("{document}:{number}: ({link}) {why}"));
            }
        }
    }
    assert!(dead.is_empty(), "{}", dead.join("\n"));
}

#[test]
fn links_and_headings_are_read_as_a_forge_reads_them() {
    let page =
        "# A `b`, c: d!\n\n## Two\n## Two\n```sh\n# no heading [x](no)\n```\n`[x](no)` [y](a.md#b) and [z](#two-1)\n";
    assert_eq!(links(page), [(8, "a.md#b".to_owned()), (8, "#two-1".to_owned())]);
    let expected: BTreeSet<_> = ["a-b-c-d", "two", "two-1"].map(str::to_owned).into();
    assert_eq!(anchors(page), expected);
}

fn follow(document: &str, link: &str) -> Result<(), &'static str> {
    let is_elsewhere = ["https://", "http://", "mailto:"].iter().any(|scheme| link.starts_with(scheme));
    if is_elsewhere {
        return Ok(());
    }
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = if path.is_empty() { document.to_owned() } else { beside(document, path) };
    if !root().join(&target).exists() {
        return Err("is not there");
    }
    let is_missing = !anchor.is_empty() && target.ends_with(".md") && !anchors(&page(&target)).contains(anchor);
    if is_missing { Err("has no such heading") } else { Ok(()) }
}

/// A path from the checkout's root, of one that is relative to a document.
fn beside(document: &str, path: &str) -> String {
    let mut joined = PathBuf::new();
    for component in Path::new(document).parent().unwrap().join(path).components() {
        if component == Component::ParentDir {
            joined.pop();
        } else {
            joined.push(component);
        }
    }
    joined.to_str().unwrap().to_owned()
}

/// Lines outside of fences, with their numbers.
fn prose(page: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    (1..).zip(page.lines()).filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        !fenced && !is_fence
    })
}

/// Targets of links, with the numbers of their lines.
fn links(page: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(page) {
        // What stands in backticks is no link.
        let text: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        found.extend(targets.map(|(target, _)| (number, target.to_owned())));
    }
    found
}

/// Anchors of the headings.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (_, line) in prose(page) {
        let heading = line.trim_start_matches('#');
        if heading.len() < line.len() && heading.starts_with(' ') {
            let kept = heading.trim().to_lowercase();
            let kept: String = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect();
            let anchor = kept.replace(' ', "-");
            let next = (1..).map(|count| format!("{anchor}-{count}")).find(|next| !found.contains(next));
            found.insert(if found.contains(&anchor) { next.unwrap() } else { anchor });
        }
    }
    found
}
