//! What rules do to requests and responses on their way: header fields in, out and over. Pure: heads in, heads out.

mod changes;
mod encode;
mod hops;
mod identity;
mod ids;
mod names;
mod rewrite;
mod subject;

use std::sync::Arc;

use http::header::HeaderValue;
use sidecar_config::filters::Filter;
use sidecar_config::policy::Rule;

pub use self::changes::HeaderChanges;
pub use self::encode::base64;
pub use self::hops::{Arrival, PeerAddress, write_hops};
pub use self::identity::{Client, FORWARDED_MAX_BYTES, IdentityHeaders};
pub use self::ids::{RequestId, TRACEPARENT, TraceContext, Uuid7, X_REQUEST_ID, trace_context};
pub use self::names::GateNames;
pub(crate) use self::names::{is_fixed, is_hop};
pub(crate) use self::rewrite::common_prefix;
pub use self::rewrite::{Came, PathChange, Redirect};

/// What one rule does, compiled.
#[derive(Clone, Debug, Default)]
pub struct Filters {
    /// How the application is told who calls. The same of several rules is one, so that it is worked out once.
    pub identity: Option<Arc<IdentityHeaders>>,
    /// What happens to requests.
    pub request: HeaderChanges,
    /// What happens to responses.
    pub response: HeaderChanges,
    /// Where clients are sent instead of the application.
    pub redirect: Option<Redirect>,
    /// How the path is changed, of what is forwarded or of where clients are sent.
    pub path: Option<PathChange>,
    /// The host that the application is asked for instead of the client's.
    pub host: Option<HeaderValue>,
}

impl Filters {
    /// Of a rule whose filters were accepted.
    pub(crate) fn of(rule: &Rule) -> Self {
        let mut compiled = Self::default();
        let path = |path: &Option<_>| path.as_ref().map(|path| PathChange::of(path, &rule.matches));
        for filter in &rule.filters {
            match filter {
                Filter::ForwardIdentity(identity) => compiled.identity = Some(Arc::new(IdentityHeaders::of(identity))),
                Filter::RequestHeaderModifier(changes) => compiled.request = HeaderChanges::of(changes),
                Filter::ResponseHeaderModifier(changes) => compiled.response = HeaderChanges::of(changes),
                Filter::RequestRedirect(redirect) => {
                    compiled.path = path(&redirect.path);
                    compiled.redirect = Some(Redirect::of(redirect));
                }
                Filter::UrlRewrite(rewrite) => {
                    compiled.path = path(&rewrite.path);
                    // A name that was accepted is a value.
                    compiled.host = rewrite.hostname.as_deref().and_then(|host| HeaderValue::from_str(host).ok());
                }
            }
        }
        compiled
    }
}
