//! Who may use a rule: names, labels and SPIFFE IDs become indices and sets once, so that a request compares numbers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use sidecar_config::Part;
use sidecar_config::policy::{Allow, IdentitySelector, Route, Rule, ServiceAccount};

use super::missing;
use crate::identity::IdentityIndex;
use crate::policy::{Allowed, IdentitySet};
use crate::problem::Problems;
use crate::snapshot::{AcceptedIdentities, Bundle, Snapshot};
use crate::spiffe::Pattern;

/// The known identities by their names and labels.
#[derive(Default)]
pub(super) struct Known<'a> {
    names: HashMap<&'a str, IdentityIndex>,
    /// By namespace, label and value. Ascending.
    labels: HashMap<(&'a str, &'a str, &'a str), Vec<IdentityIndex>>,
    /// What was chosen already in a namespace: many rules with few selectors share their sets.
    selected: HashMap<(&'a str, &'a BTreeMap<String, String>), Arc<IdentitySet>>,
}

impl<'a> Known<'a> {
    /// Of identities that stand in the directory in their own order.
    pub(super) fn of(identities: &'a AcceptedIdentities) -> Self {
        let mut known = Self::default();
        for (index, identity) in identities.identities.iter().enumerate() {
            known.names.insert(&identity.name, index);
            let namespace = namespace(&identity.name);
            for (label, value) in &identity.labels {
                known.labels.entry((namespace, label, value)).or_default().push(index);
            }
        }
        known
    }

    pub(super) fn name(&self, name: &str) -> Option<IdentityIndex> {
        self.names.get(name).copied()
    }

    /// Compiles the `allow` of a rule of a route. An entry that names something missing allows nobody.
    pub(super) fn allowed(
        &mut self,
        snapshot: &mut Snapshot,
        route: &'a Route,
        rule: &'a Rule,
        place: &str,
        problems: &mut Problems,
    ) -> Allowed {
        let mut allowed = Allowed::default();
        for (number, entry) in rule.allow.iter().enumerate() {
            let place = format!("{place}.allow[{number}]");
            match entry {
                Allow::Anyone(_) => allowed.anyone = true,
                Allow::Identity(name) => match self.name(name) {
                    Some(identity) => allowed.identities.push(identity),
                    None => missing(problems, &place, "identity", name, Part::Identities),
                },
                Allow::IdentitySelector(selector) => {
                    allowed.selected.push(self.select(namespace(&route.name), selector));
                }
                Allow::Verified(name) => match snapshot.bundle(name) {
                    Some(bundle) => allowed.bundles.push(bundle),
                    None => missing(problems, &place, "bundle", name, Part::Trust),
                },
                Allow::ServiceAccount(account) => match service_account(account, &snapshot.bundles) {
                    Ok(pattern) => add_pattern(snapshot, &pattern, &mut allowed, &place, problems),
                    Err(error) => problems.add_missing(format_args!("{place}.serviceAccount"), error, Part::Trust),
                },
                // The part was accepted, so it can be read.
                Allow::Spiffe(text) => {
                    if let Some(pattern) = Pattern::parse(text) {
                        add_pattern(snapshot, &pattern, &mut allowed, &place, problems);
                    }
                }
            }
        }
        allowed.identities.sort_unstable();
        allowed.patterns.sort_unstable();
        allowed
    }

    /// The identities of a namespace that have all labels of a selector. Whoever may label in another namespace must
    /// not let anybody in here. That it chooses nobody today is no mistake.
    fn select(&mut self, namespace: &'a str, selector: &'a IdentitySelector) -> Arc<IdentitySet> {
        let labels = &self.labels;
        let select = || {
            let mut wanted =
                selector.match_labels.iter().map(|(label, value)| labels.get(&(namespace, &**label, &**value)));
            let first = wanted.next().flatten().cloned().unwrap_or_default();
            let in_all = |chosen: Vec<IdentityIndex>, having: Option<&Vec<IdentityIndex>>| {
                let has =
                    |identity: &IdentityIndex| having.is_some_and(|having| having.binary_search(identity).is_ok());
                chosen.into_iter().filter(has).collect()
            };
            Arc::new(wanted.fold(first, in_all).into_iter().collect())
        };
        Arc::clone(self.selected.entry((namespace, &selector.match_labels)).or_insert_with(select))
    }
}

/// The namespace of an identity or a route: what stands in front of its name's slash. Without one it is empty.
fn namespace(name: &str) -> &str {
    name.split_once('/').map_or("", |(namespace, _)| namespace)
}

fn add_pattern(
    snapshot: &mut Snapshot,
    pattern: &Pattern,
    allowed: &mut Allowed,
    place: &str,
    problems: &mut Problems,
) {
    let vouches = |bundle: &Bundle| bundle.vouches_for_domain(pattern.trust_domain());
    let vouching = snapshot.bundles.iter().enumerate().filter(|(_, bundle)| vouches(bundle));
    let vouching: Vec<_> = vouching.map(|(index, _)| index).collect();
    if vouching.is_empty() {
        let domain = pattern.trust_domain();
        let advice = "add it to trust.bundles.NAME.vouchesFor.spiffe of the bundle whose it is";
        let detail = format_args!("no bundle vouches for SPIFFE trust domain `{domain}`; {advice}");
        problems.add_missing(place, detail, Part::Trust);
    } else {
        allowed.patterns.push(snapshot.directory_mut().add_pattern(pattern, &vouching));
    }
}

/// The SPIFFE ID of a service account.
fn service_account(account: &ServiceAccount, bundles: &[Bundle]) -> Result<Pattern, String> {
    let domain = match &account.trust_domain {
        Some(domain) => domain,
        None => only_domain(bundles)?,
    };
    let id = format!("spiffe://{domain}/ns/{}/sa/{}", account.namespace, account.name);
    Ok(Pattern::Exact(id.into()))
}

/// The one trust domain that bundles vouch for. Were any of several meant, a partner's authority could make service
/// accounts of its own domain into ours.
fn only_domain(bundles: &[Bundle]) -> Result<&str, String> {
    let domains: BTreeSet<_> = bundles.iter().flat_map(|bundle| &bundle.vouches_for.spiffe).collect();
    let mut domains = domains.into_iter();
    match (domains.next(), domains.next()) {
        (None, _) => {
            let advice = "name one in trust.bundles.NAME.vouchesFor.spiffe";
            Err(format!("no bundle vouches for a SPIFFE trust domain; {advice}"))
        }
        (Some(one), None) => Ok(one),
        (Some(first), Some(second)) => {
            Err(format!("could be of several trust domains, such as `{first}` and `{second}`; write its trustDomain"))
        }
    }
}
