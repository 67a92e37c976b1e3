//! Accepts part `endpoints`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use sidecar_config::Part;
use sidecar_config::endpoints::{Endpoint, EndpointSet};

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
        if sets.insert(set.name.clone(), usable(&set.addresses)).is_some() {
            let detail = format_args!("`{}` is taken by an earlier set; names are unique", set.name);
            problems.add(format_args!("[{index}].name"), detail);
        }
    }
    problems.or(Revision::of(&document), |revision| AcceptedEndpoints { revision, sets })
}

/// The addresses that get requests: those that are ready and stay, else those that still serve. Whoever is on its way out
/// answers what it has begun and gets nothing new, unless there is nobody else.
#[must_use]
pub fn usable(endpoints: &[Endpoint]) -> Vec<SocketAddr> {
    let chosen = |is_chosen: fn(&Endpoint) -> bool| -> Vec<SocketAddr> {
        endpoints.iter().filter(|endpoint| is_chosen(endpoint)).map(|endpoint| endpoint.address).collect()
    };
    let staying = chosen(|endpoint| endpoint.ready && !endpoint.terminating);
    if staying.is_empty() { chosen(|endpoint| endpoint.serving) } else { staying }
}

#[cfg(test)]
mod tests {
    use sidecar_config::endpoints::Endpoint;

    use super::usable;

    #[test]
    fn whoever_is_on_its_way_out_is_used_when_there_is_nobody_else() {
        // Ready, serving, terminating; and who is used.
        type Row = (&'static [(bool, bool, bool)], &'static [u16]);
        const READY: (bool, bool, bool) = (true, true, false);
        const LEAVING: (bool, bool, bool) = (false, true, true);
        const STARTING: (bool, bool, bool) = (false, false, false);
        const GONE: (bool, bool, bool) = (false, false, true);
        // A Service that publishes all that it has calls them ready, on their way out or not.
        const PUBLISHED: (bool, bool, bool) = (true, true, true);
        let rows: [Row; 8] = [
            (&[], &[]),
            (&[READY, READY], &[1, 2]),
            (&[LEAVING, READY, STARTING], &[2]),
            (&[PUBLISHED, READY], &[2]),
            (&[LEAVING, STARTING, LEAVING], &[1, 3]),
            (&[PUBLISHED, GONE], &[1]),
            (&[STARTING, GONE], &[]),
            (&[GONE, LEAVING], &[2]),
        ];
        for (states, expected) in rows {
            let endpoints = states.iter().zip(1..).map(|((ready, serving, terminating), port)| Endpoint {
                address: ([127, 0, 0, 1], port).into(),
                ready: *ready,
                serving: *serving,
                terminating: *terminating,
            });
            let endpoints: Vec<_> = endpoints.collect();
            let ports: Vec<_> = usable(&endpoints).iter().map(std::net::SocketAddr::port).collect();
            assert_eq!(ports, expected, "{states:?}");
        }
    }
}
