//! The form in which a route was accepted last: what is served of one whose change is refused. Pure.
//!
//! It is found in the policy that was written last, so that it outlives the operator. What is there is believed only with
//! the digest it was written with, and accepted again by the sidecar's code like anything else.

use std::collections::BTreeMap;

use postern_crds::ProxyRoute;
use serde_json::Value;
use sidecar_config::policy::{Allow, Backend, Limits, Policy, Route};
use sidecar_config::{Document, Part};

use crate::identity::trust::bundle_name;
use crate::index::ObjectName;
use crate::render::{Bundle, Needs, Rendered};

/// The policy that was written last, and where the bundles are that its routes use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastGood {
    policy: Policy,
    bundles: BTreeMap<String, Bundle>,
}

impl LastGood {
    /// Of what was written; `None` of what is no policy.
    #[must_use]
    pub fn read(document: &str, bundles: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(document).ok()?;
        let part = value.get(Part::Policy.name())?.clone();
        // A newer operator may have written what this one cannot read.
        Document::from_value(value).ok()?;
        let policy = Document::read(Part::Policy.name(), part).ok()?;
        Some(Self { policy, bundles: read_bundles(bundles) })
    }

    /// A route as it was. `None` of one that was not served.
    #[must_use]
    pub fn form(&self, route: &ProxyRoute) -> Option<Rendered> {
        let name = ObjectName::of(route).to_string();
        let document = self.policy.routes.iter().find(|route| route.name == name)?.clone();
        let listener = self.policy.listeners.iter().find(|listener| listener.name == document.listener)?.clone();
        let needs = self.needs(&document, listener.tls.iter().flat_map(|tls| &tls.trust));
        // Nothing tells whose the bounds are, but whoever still asks for some had a say.
        let had_limits = route.spec.limits.is_some() && self.policy.limits != Limits::default();
        Some(Rendered {
            // What others define counts for one that joins; whether it was one nothing tells but what it says now.
            joins: !route.spec.listener.is_definition() || route.spec.listener.port != listener.address.port(),
            listener,
            route: document,
            limits: had_limits.then(|| self.policy.limits.clone()),
            forwarding: route.spec.forwarding.is_some().then_some(self.policy.forwarding),
            needs,
        })
    }

    /// What a route in the contract's words refers to.
    fn needs<'a>(&'a self, route: &'a Route, listener: impl Iterator<Item = &'a String>) -> Needs {
        let namespace = route.name.split_once('/').map_or("", |(namespace, _)| namespace);
        let mut needs = Needs::default();
        let mut bundles: Vec<_> = listener.collect();
        for rule in &route.rules {
            for entry in &rule.allow {
                match entry {
                    Allow::Identity(name) => drop(needs.identities.insert(name.clone())),
                    Allow::IdentitySelector(selector) => {
                        needs.selectors.push((namespace.to_owned(), selector.match_labels.clone()));
                    }
                    Allow::Verified(bundle) => bundles.push(bundle),
                    Allow::ServiceAccount(_) | Allow::Spiffe(_) | Allow::Anyone(_) => {}
                }
            }
            let trusted = |backend: &'a Backend| backend.tls.iter().flat_map(|tls| &tls.trust);
            bundles.extend(rule.backends.iter().flat_map(trusted));
        }
        let known = bundles.into_iter().filter_map(|name| self.bundles.get_key_value(name));
        needs.bundles = known.map(|(name, bundle)| (name.clone(), bundle.clone())).collect();
        needs
    }
}

/// Bundles as they are written beside a policy.
#[must_use]
pub fn write_bundles(bundles: &BTreeMap<String, Bundle>) -> String {
    // Strings and lists; serialising those cannot fail.
    serde_json::to_string(bundles).unwrap_or_default()
}

/// Bundles beside a policy. One is believed only under the name that its objects give it.
#[must_use]
pub fn read_bundles(text: &str) -> BTreeMap<String, Bundle> {
    let mut bundles: BTreeMap<String, Bundle> = serde_json::from_str(text).unwrap_or_default();
    bundles.retain(|name, bundle| *name == bundle_name(&bundle.namespace, &bundle.refs, Some(&bundle.vouches_for)));
    bundles
}
