//! Accepts part `endpoints`.

use std::collections::BTreeMap;

use sidecar_config::Part;
use sidecar_config::endpoints::EndpointSet;

use super::name_error;
use crate::Revision;
use crate::problem::{Problems, Refusal};
use crate::snapshot::AcceptedEndpoints;

/// Accepts the address sets of a document.
///
/// # Errors
/// Every problem of the part.
pub fn endpoints(document: &[EndpointSet]) -> Result<AcceptedEndpoints, Refusal> {
    let mut problems = Problems::of(Part::Endpoints);
    let mut sets = BTreeMap::new();
    for (index, set) in document.iter().enumerate() {
        if let Some(error) = name_error(&set.name) {
            problems.add(format_args!("[{index}].name"), error);
        }
        for (number, endpoint) in set.addresses.iter().enumerate() {
            if endpoint.address.port() == 0 {
                let place = format_args!("[{index}].addresses[{number}].address");
                problems.add(place, format_args!("{} has no port; write `address:port`", endpoint.address));
            }
        }
        let addresses = set.addresses.iter().map(|endpoint| endpoint.address).collect();
        if sets.insert(set.name.clone(), addresses).is_some() {
            let detail = format_args!("`{}` is taken by an earlier set; names are unique", set.name);
            problems.add(format_args!("[{index}].name"), detail);
        }
    }
    problems.or(Revision::of(&document), |revision| AcceptedEndpoints { revision, sets })
}
