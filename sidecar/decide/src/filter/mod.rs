//! What rules do to requests and responses on their way: header fields in, out and over. Pure: heads in, heads out.

mod changes;
mod encode;
mod hops;
mod identity;
mod names;
mod subject;

use std::sync::Arc;

use sidecar_config::filters::Filter;

pub use self::changes::HeaderChanges;
pub use self::encode::base64;
pub use self::hops::{Arrival, request_id, trace_id, write_hops};
pub use self::identity::{Client, FORWARDED_MAX_BYTES, IdentityHeaders};
pub use self::names::GateNames;
pub(crate) use self::names::{is_fixed, is_hop};

/// What one rule does, compiled.
#[derive(Clone, Debug, Default)]
pub struct Filters {
    /// How the application is told who calls. The same of several rules is one, so that it is worked out once.
    pub identity: Option<Arc<IdentityHeaders>>,
    /// What happens to requests.
    pub request: HeaderChanges,
    /// What happens to responses.
    pub response: HeaderChanges,
}

impl Filters {
    /// Of a rule whose filters were accepted.
    pub(crate) fn of(filters: &[Filter]) -> Self {
        let mut compiled = Self::default();
        for filter in filters {
            match filter {
                Filter::ForwardIdentity(identity) => compiled.identity = Some(Arc::new(IdentityHeaders::of(identity))),
                Filter::RequestHeaderModifier(changes) => compiled.request = HeaderChanges::of(changes),
                Filter::ResponseHeaderModifier(changes) => compiled.response = HeaderChanges::of(changes),
            }
        }
        compiled
    }
}
