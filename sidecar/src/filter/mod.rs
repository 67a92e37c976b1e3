//! What is done to requests on their way to the application: what clients must not say is dropped, how the request came
//! and who calls is written. What is written is decided in `sidecar-decide`; here is what that needs of a connection.

mod request_id;
mod told;

use std::rc::Rc;
use std::sync::Arc;

use http::header::{HOST, HeaderMap, HeaderValue};
use sidecar_decide::filter::{
    Arrival, IdentityHeaders, PeerAddress, RequestId, TRACEPARENT, TraceContext, Uuid7, X_REQUEST_ID, trace_context,
    write_hops,
};
use sidecar_decide::{Reason, Rule, Snapshot};

pub use request_id::{ConnectionIds, RequestIds};
pub use told::{Fields, Told};

/// By which names a request is found again.
pub struct Ids {
    /// Its own.
    pub request: RequestId,
    /// What it says of the trace it belongs to.
    pub trace: Option<TraceContext>,
}

/// Drops what no client can say, before rules are asked: no rule rests on it, and nothing passes it on.
pub fn arrive(snapshot: &Snapshot, headers: &mut HeaderMap, fresh: impl FnOnce() -> Uuid7) -> Ids {
    snapshot.gate_names.strip(headers);
    // Whoever reads downstream what is said of a trace must read what others read.
    Ids { request: RequestId::of(headers, snapshot.trusted_hops, fresh), trace: trace_context(headers) }
}

/// How a request came, for whoever is told of it.
pub fn arrival(snapshot: &Snapshot, is_tls: bool) -> Arrival {
    Arrival { is_tls, trusted_hops: snapshot.trusted_hops }
}

/// How a request came to the gate.
pub struct Origin<'a> {
    /// The other end of its connection.
    pub peer: &'a PeerAddress,
    /// Whether it came over TLS.
    pub is_tls: bool,
    /// The request's id.
    pub request_id: Option<HeaderValue>,
    /// The gate's place in the request's trace, where it takes one.
    pub traceparent: Option<HeaderValue>,
}

/// Writes what the application is told of a request, into a head from which hop-by-hop fields are gone already: a client
/// must not have any of it taken out again by naming it in `Connection`.
///
/// # Errors
/// Where what a rule tells of the caller cannot be told.
pub fn depart(
    snapshot: &Snapshot,
    rule: &Rule,
    origin: Origin<'_>,
    told: impl FnOnce(&Arc<IdentityHeaders>) -> Rc<Fields>,
    headers: &mut HeaderMap,
) -> Result<(), Reason> {
    write_hops(headers, &arrival(snapshot, origin.is_tls), origin.peer);
    if let Some(id) = origin.request_id {
        headers.insert(&X_REQUEST_ID, id);
    }
    if let Some(place) = origin.traceparent {
        headers.insert(&TRACEPARENT, place);
    }
    // What the client asked for was told above.
    if let Some(host) = &rule.filters.host {
        headers.insert(HOST, host.clone());
    }
    rule.filters.request.apply(headers);
    if let Some(asked) = &rule.filters.identity {
        for (name, value) in told(asked).as_ref().as_ref().map_err(|reason| *reason)? {
            headers.insert(name, value.clone());
        }
    }
    Ok(())
}
