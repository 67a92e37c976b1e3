//! Accepts what rows tell of a route's requests.

use sidecar_config::capture::{Capture, Captured, CapturedAs};

use crate::capture::{ENTRIES_MAX, is_secret};
use crate::problem::Problems;
use crate::route::header_name;

/// Most bytes of a body that are kept: a row has to fit into memory, and a batch of them.
const BODY_BYTES_MAX: u32 = 64 << 10;

pub(super) fn check_capture(capture: &Capture, place: &str, problems: &mut Problems) {
    let Capture { headers, query, cookies, bodies } = capture;
    for (list, entries) in [("headers", headers), ("query", query), ("cookies", cookies)] {
        let place = format!("{place}.{list}");
        if entries.len() > ENTRIES_MAX {
            problems.add(&place, format_args!("has {} entries; write at most {ENTRIES_MAX}", entries.len()));
        }
        for (index, entry) in entries.iter().enumerate() {
            let before = &entries[..index];
            if let Some(error) = entry_error(entry, before, list) {
                problems.add(format_args!("{place}[{index}].name"), error);
            }
        }
    }
    if let Some(bodies) = bodies {
        if !(1..=BODY_BYTES_MAX).contains(&bodies.max_bytes) {
            let detail = format_args!("is {}; write a number from 1 to {BODY_BYTES_MAX}", bodies.max_bytes);
            problems.add(format_args!("{place}.bodies.maxBytes"), detail);
        }
        if !bodies.request && !bodies.response {
            problems.add(format_args!("{place}.bodies"), "keeps none; write `request = true` or `response = true`");
        }
    } else if headers.is_empty() && query.is_empty() && cookies.is_empty() {
        problems.add(place, "takes nothing; write headers, query, cookies or bodies, or leave it out");
    }
}

fn entry_error(entry: &Captured, before: &[Captured], list: &str) -> Option<String> {
    let Captured { name, kept } = entry;
    let beginning = name.strip_suffix('*').unwrap_or(name);
    let same =
        |one: &&Captured| if list == "headers" { one.name.eq_ignore_ascii_case(name) } else { one.name == *name };
    if name.is_empty() {
        Some("is empty; give a name, or `*` for all".to_owned())
    } else if beginning.contains('*') {
        Some(format!("`{name}` has a `*` before its end; write one at the end alone, for every name that begins so"))
    } else if let Some(error) = header_name(beginning).err().filter(|_| list == "headers" && !beginning.is_empty()) {
        Some(error)
    } else if before.iter().any(|one| same(&one)) {
        Some(format!("`{name}` is named before; the first entry that has a name counts"))
    } else if *kept == CapturedAs::Keep && is_secret(name) {
        let instead =
            if name.eq_ignore_ascii_case("cookie") { ", and cookies by their names in `cookies`" } else { "" };
        Some(format!(
            "`{name}` is a secret, which is not kept as it is; write `as` `Mask`, `Sha256` or `Drop`{instead}"
        ))
    } else {
        None
    }
}
