//! The smallest change of the objects that would turn a verdict: tried, each by deciding again. Pure.

use std::fmt;

use postern_crds::clientidentity::State;
use postern_crds::proxyroute::{
    Allow, AllowedIdentity, Anyone, ClientAuth, Listener, Match, Mode, PathMatch, PathMatchType,
};
use postern_crds::trust::NamedTrust;
use postern_crds::{ClientIdentity, ProxyRoute};
use sidecar_decide::Verdict;

use super::world::{Common, From, Outcome, Question, World};
use crate::index::ObjectName;

/// Most edits that are tried together.
const EDITS_MAX: usize = 4;

/// A place in the objects that is to say something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// `spec.state` of the identity is `Active`.
    Activate(ObjectName),
    /// Its older certificates count again.
    AcceptAll(ObjectName),
    /// It is suspended.
    Suspend(ObjectName),
    /// The listener, which this route defines, lets certificates of the identity's authorities in.
    Trust(ObjectName, NamedTrust),
    /// It lets clients without a certificate in.
    Optional(ObjectName),
    /// A host is served.
    Host(ObjectName, String),
    /// A rule matches a request.
    Match(ObjectName, usize, Match),
    /// A rule allows somebody.
    Allow(ObjectName, usize, Allow),
    /// Some entries of a rule's `allow` go, the last first; with all of them the rule.
    Disallow(ObjectName, usize, Vec<usize>),
    /// A rule refuses.
    Enforce(ObjectName, usize),
}

/// What would turn the verdict; nothing where nobody knows.
#[must_use]
pub fn smallest(world: &World, common: &Common, question: &Question, outcome: &Outcome) -> Option<Vec<Edit>> {
    let passes = |world: &World| world.decide(common, question).is_ok_and(|outcome| admits(&outcome, &question.to));
    if passes_at_all(outcome) {
        let turns = |edits: &Vec<Edit>| {
            let changed = edited(world, edits);
            changed.decide(common, question).is_ok_and(|outcome| !passes_at_all(&outcome))
        };
        return refusing(world, common, question, outcome).into_iter().find(turns);
    }
    let choices = admitting(world, question, outcome);
    (1..=EDITS_MAX).find_map(|count| {
        let mut tried = choices.iter().flat_map(|edits| subsets(edits, count));
        tried.find(|edits| passes(&edited(world, edits)))
    })
}

/// Whether a request passes, watched or not.
#[must_use]
pub fn passes_at_all(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Decided { decision, .. } if decision.verdict != Verdict::Refused)
}

/// Whether a rule of a route allows it.
#[must_use]
pub fn admits(outcome: &Outcome, route: &ObjectName) -> bool {
    matches!(outcome, Outcome::Decided { route: by, decision, .. }
        if decision.verdict == Verdict::Allowed && *by == route.to_string())
}

/// What could be in the way, for each rule: that which was asked first.
fn admitting(world: &World, question: &Question, outcome: &Outcome) -> Vec<Vec<Edit>> {
    let to = &question.to;
    let Some(route) = world.routes.iter().find(|route| ObjectName::of(*route) == *to) else { return Vec::new() };
    let defining = defining(world, route);
    let mut always = Vec::new();
    if let From::Identity(name) = &question.from
        && let Some(identity) = identity(world, name)
    {
        if identity.spec.state == State::Suspended {
            always.push(Edit::Activate(name.clone()));
        }
        if identity.spec.accept_issued_after.is_some() {
            always.push(Edit::AcceptAll(name.clone()));
        }
        if let Some(external) = identity.spec.external.as_ref().filter(|_| name.namespace == to.namespace) {
            let trust = NamedTrust {
                name: name.name.clone(),
                ca_certificate_refs: external.trust.ca_certificate_refs.clone(),
                vouches_for: external.trust.vouches_for.clone(),
            };
            always.push(Edit::Trust(defining.clone(), trust));
        }
    }
    if question.from == From::Nobody {
        always.push(Edit::Optional(defining));
    }
    if !route.spec.hostnames.is_empty() {
        always.push(Edit::Host(to.clone(), question.host.clone()));
    }
    let path = PathMatch { kind: PathMatchType::Exact, value: question.path.clone() };
    let request = Match { path: Some(path), method: Some(question.method.to_string()), ..Match::default() };
    let first = match outcome {
        Outcome::Decided { rule, .. } => route.spec.rules.iter().position(|one| one.name == *rule),
        _ => None,
    };
    let mut order: Vec<_> = (0..route.spec.rules.len()).collect();
    order.sort_by_key(|index| Some(*index) != first);
    let of_rule = |index: usize| {
        let allow = Edit::Allow(to.clone(), index, allowing(question));
        let own = [Edit::Match(to.clone(), index, request.clone()), allow];
        always.iter().cloned().chain(own).collect()
    };
    order.into_iter().map(of_rule).collect()
}

/// An entry that allows whoever asks.
fn allowing(question: &Question) -> Allow {
    match &question.from {
        From::Identity(name) => {
            let namespace = (name.namespace != question.to.namespace).then(|| name.namespace.clone());
            Allow { identity: Some(AllowedIdentity { name: name.name.clone(), namespace }), ..Allow::default() }
        }
        From::Spiffe(uri) => Allow { spiffe: Some(uri.clone()), ..Allow::default() },
        From::Nobody => Allow { anyone: Some(Anyone {}), ..Allow::default() },
    }
}

/// What could be taken away, the least first.
fn refusing(world: &World, common: &Common, question: &Question, outcome: &Outcome) -> Vec<Vec<Edit>> {
    let Outcome::Decided { route, rule, decision, .. } = outcome else { return Vec::new() };
    let found = world.routes.iter().find(|one| ObjectName::of(*one).to_string() == *route);
    let place = found.and_then(|route| Some((route, route.spec.rules.iter().position(|one| one.name == *rule)?)));
    let Some((route, index)) = place else { return Vec::new() };
    let name = ObjectName::of(route);
    if decision.verdict == Verdict::WouldRefuse {
        return vec![vec![Edit::Enforce(name, index)]];
    }
    let admitting = admitting_entries(world, common, question, route, index);
    let suspend = match &question.from {
        From::Identity(name) => Some(vec![Edit::Suspend(name.clone())]),
        _ => None,
    };
    let disallow = vec![Edit::Disallow(name, index, admitting.clone())];
    if admitting.len() == 1 {
        return std::iter::once(disallow).chain(suspend).collect();
    }
    suspend.into_iter().chain(std::iter::once(disallow)).collect()
}

/// Entries of a rule's `allow` each of which would be enough.
#[must_use]
pub fn admitting_entries(
    world: &World,
    common: &Common,
    question: &Question,
    route: &ProxyRoute,
    rule: usize,
) -> Vec<usize> {
    let name = ObjectName::of(route);
    let entries = route.spec.rules.get(rule).map_or(0, |rule| rule.allow.len());
    let is_enough = |entry: &usize| {
        let others = (0..entries).filter(|other| other != entry).collect();
        let alone = edited(world, &[Edit::Disallow(name.clone(), rule, others)]);
        alone.decide(common, &Question { to: name.clone(), ..question.clone() }).is_ok_and(
            |outcome| matches!(outcome, Outcome::Decided { decision, .. } if decision.verdict == Verdict::Allowed),
        )
    };
    (0..entries).filter(is_enough).collect()
}

/// The route that says how the listener is: itself, or the one that it joins.
fn defining(world: &World, route: &ProxyRoute) -> ObjectName {
    let listener = |route: &ProxyRoute| route.spec.listener.clone();
    let others = world.routes.iter().filter(|other| listener(other).port == route.spec.listener.port);
    let defines = |route: &&ProxyRoute| listener(route).is_definition();
    let found = if defines(&route) { Some(route) } else { others.into_iter().find(defines) };
    ObjectName::of(found.unwrap_or(route))
}

fn identity<'a>(world: &'a World, name: &ObjectName) -> Option<&'a ClientIdentity> {
    world.identities.iter().find(|identity| ObjectName::of(*identity) == *name)
}

/// All choices of so many edits, in their order.
fn subsets(edits: &[Edit], count: usize) -> Vec<Vec<Edit>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let mut found = Vec::new();
    for (index, first) in edits.iter().enumerate() {
        for rest in subsets(&edits[index + 1..], count - 1) {
            found.push(std::iter::once(first.clone()).chain(rest).collect());
        }
    }
    found
}

/// The world after some edits.
#[must_use]
pub fn edited(world: &World, edits: &[Edit]) -> World {
    let mut world = world.clone();
    edits.iter().for_each(|edit| apply(&mut world, edit));
    world
}

fn apply(world: &mut World, edit: &Edit) {
    match edit {
        Edit::Activate(name) => with_identity(world, name, |identity| identity.spec.state = State::Active),
        Edit::Suspend(name) => with_identity(world, name, |identity| identity.spec.state = State::Suspended),
        Edit::AcceptAll(name) => with_identity(world, name, |identity| identity.spec.accept_issued_after = None),
        Edit::Trust(name, trust) => with_listener(world, name, |listener| {
            listener.tls.get_or_insert_default().trust.push(trust.clone());
        }),
        Edit::Optional(name) => with_listener(world, name, |listener| {
            listener.tls.get_or_insert_default().client_auth = ClientAuth::Optional;
        }),
        Edit::Host(name, host) => with_route(world, name, |route| route.spec.hostnames.push(host.clone())),
        Edit::Match(name, rule, one) => with_route(world, name, |route| {
            route.spec.rules.get_mut(*rule).into_iter().for_each(|rule| rule.matches.push(one.clone()));
        }),
        Edit::Allow(name, rule, one) => with_route(world, name, |route| {
            route.spec.rules.get_mut(*rule).into_iter().for_each(|rule| rule.allow.push(one.clone()));
        }),
        Edit::Disallow(name, rule, entries) => with_route(world, name, |route| {
            let Some(found) = route.spec.rules.get_mut(*rule) else { return };
            let kept = found.allow.iter().enumerate().filter(|(index, _)| !entries.contains(index));
            found.allow = kept.map(|(_, entry)| entry.clone()).collect();
            if found.allow.is_empty() {
                route.spec.rules.remove(*rule);
            }
        }),
        Edit::Enforce(name, rule) => with_route(world, name, |route| {
            route.spec.rules.get_mut(*rule).into_iter().for_each(|rule| rule.mode = Mode::Enforce);
        }),
    }
}

fn with_identity(world: &mut World, name: &ObjectName, change: impl FnOnce(&mut ClientIdentity)) {
    if let Some(found) = world.identities.iter_mut().find(|identity| ObjectName::of(&**identity) == *name) {
        change(found);
    }
}

fn with_route(world: &mut World, name: &ObjectName, change: impl FnOnce(&mut ProxyRoute)) {
    if let Some(found) = world.routes.iter_mut().find(|route| ObjectName::of(&**route) == *name) {
        change(found);
    }
}

fn with_listener(world: &mut World, name: &ObjectName, change: impl FnOnce(&mut Listener)) {
    with_route(world, name, |route| change(&mut route.spec.listener));
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written = |value: serde_json::Result<String>| value.unwrap_or_default();
        match self {
            Self::Activate(name) => write!(f, "ClientIdentity {name}: write `spec.state: Active`"),
            Self::AcceptAll(name) => write!(f, "ClientIdentity {name}: remove spec.acceptIssuedAfter"),
            Self::Suspend(name) => write!(f, "ClientIdentity {name}: write `spec.state: Suspended`"),
            Self::Trust(name, trust) => {
                write!(f, "ProxyRoute {name}: add {} to spec.listener.tls.trust", written(serde_json::to_string(trust)))
            }
            Self::Optional(name) => write!(f, "ProxyRoute {name}: write `spec.listener.tls.clientAuth: Optional`"),
            Self::Host(name, host) => write!(f, "ProxyRoute {name}: add {host} to spec.hostnames"),
            Self::Match(name, rule, one) => {
                let one = written(serde_json::to_string(one));
                write!(f, "ProxyRoute {name}: add {one} to spec.rules[{rule}].matches")
            }
            Self::Allow(name, rule, one) => {
                let one = written(serde_json::to_string(one));
                write!(f, "ProxyRoute {name}: add {one} to spec.rules[{rule}].allow")
            }
            Self::Disallow(name, rule, entries) => {
                let places: Vec<_> = entries.iter().map(|entry| format!("spec.rules[{rule}].allow[{entry}]")).collect();
                write!(f, "ProxyRoute {name}: remove {}; a rule that allows nobody goes", places.join(" and "))
            }
            Self::Enforce(name, rule) => write!(f, "ProxyRoute {name}: write `spec.rules[{rule}].mode: Enforce`"),
        }
    }
}
