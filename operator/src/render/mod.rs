//! From the API's words to the contract's: what of a ProxyRoute a sidecar is told. Pure; a function for each concern.
//!
//! Each takes its source apart without `..`, so that a field that is new in the API does not compile until it has its
//! place here.

mod allow;
mod backend;
mod capture;
mod filter;
mod health;
mod limits;
mod listener;
mod rule;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use postern_crds::ProxyRoute;
use postern_crds::proxyroute::ProxyRouteSpec;
use postern_crds::trust::{CaCertificateRef, VouchesFor};
use serde::{Deserialize, Serialize};
use sidecar_config::policy::{Forwarding, Limits, Listener, PodSelector, Route};
use thiserror::Error;

use crate::identity::trust::bundle_name;
use crate::index::ObjectName;

pub use listener::listener_name;

/// Something of a route that cannot be put into a document.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{place}: {detail}")]
pub struct RenderError {
    /// Where in the object.
    pub place: String,
    /// What is wrong with it.
    pub detail: String,
}

impl RenderError {
    fn new(place: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { place: place.into(), detail: detail.into() }
    }
}

/// A route in the contract's words, and what it needs of the other parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The listener as the route defines it.
    pub listener: Listener,
    /// Whether the route says only the port, and takes the listener as others define it.
    pub joins: bool,
    /// The route.
    pub route: Route,
    /// Bounds for all routes of the workload, if it sets some.
    pub limits: Option<Limits>,
    /// What is believed of proxies in front, if it says something.
    pub forwarding: Option<Forwarding>,
    /// What has to be known.
    pub needs: Needs,
}

/// What routes refer to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Names of ClientIdentities.
    pub identities: BTreeSet<String>,
    /// Choices of ClientIdentities, each with its namespace.
    pub selectors: Vec<(String, BTreeMap<String, String>)>,
    /// Bundles beside our own, by name.
    pub bundles: BTreeMap<String, Bundle>,
}

/// Where the certificates of a bundle are, and what it may vouch for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bundle {
    /// The namespace of the objects.
    pub namespace: String,
    /// The objects.
    pub refs: Vec<CaCertificateRef>,
    /// What certificates under it may claim.
    pub vouches_for: VouchesFor,
}

impl Needs {
    /// Enters a bundle, and gives its name.
    fn bundle(&mut self, namespace: &str, refs: &[CaCertificateRef], vouches_for: Option<&VouchesFor>) -> String {
        let name = bundle_name(namespace, refs, vouches_for);
        let new = || Bundle {
            namespace: namespace.to_owned(),
            refs: refs.to_vec(),
            vouches_for: vouches_for.cloned().unwrap_or_default(),
        };
        self.bundles.entry(name.clone()).or_insert_with(new);
        name
    }
}

/// Renders a route.
///
/// # Errors
/// When a value cannot be put into a document. The schema refuses most of them.
pub fn route(route: &ProxyRoute, trust_domain: &str) -> Result<Rendered, RenderError> {
    let name = ObjectName::of(route);
    let ProxyRouteSpec {
        pod_selector,
        listener: listener_spec,
        hostnames,
        rules,
        backend_policy,
        limits,
        forwarding,
        capture,
        // The status' business.
        allow_bypass: _,
    } = &route.spec;
    let mut context =
        Context { namespace: &name.namespace, trust_domain, trust: BTreeMap::new(), needs: Needs::default() };
    let listener = listener::listener(listener_spec, &mut context);
    let rules =
        rules.iter().enumerate().map(|(index, rule)| rule::rule(rule, &format!("spec.rules[{index}]"), &mut context));
    let rules = rules.collect::<Result<_, _>>()?;
    let backend_policy = backend_policy.as_ref().map(|policy| backend::policy(policy, "spec.backendPolicy"));
    let route = Route {
        name: name.to_string(),
        listener: listener.name.clone(),
        pod_selector: Some(PodSelector { match_labels: pod_selector.match_labels.clone() }),
        hostnames: hostnames.clone(),
        rules,
        backend_policy: backend_policy.transpose()?.unwrap_or_default(),
        capture: capture.as_ref().map(capture::capture),
    };
    Ok(Rendered {
        listener,
        joins: !listener_spec.is_definition(),
        route,
        limits: limits.as_ref().map(limits::limits).transpose()?,
        forwarding: forwarding.as_ref().map(limits::forwarding),
        needs: context.needs,
    })
}

/// What is known while a route is rendered.
struct Context<'a> {
    namespace: &'a str,
    trust_domain: &'a str,
    /// Names of bundles by the names that the listener gives them.
    trust: BTreeMap<String, String>,
    needs: Needs,
}

fn duration(text: &postern_crds::Duration, place: &str) -> Result<sidecar_config::Duration, RenderError> {
    text.as_str().parse().map_err(|error: String| RenderError::new(place, error))
}

fn some_duration(
    text: Option<&postern_crds::Duration>,
    place: &str,
) -> Result<Option<sidecar_config::Duration>, RenderError> {
    text.map(|text| duration(text, place)).transpose()
}
