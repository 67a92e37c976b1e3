//! Tables of statuses, and what holds for all of them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use postern_crds::condition::Verdict as Condition;
use postern_crds::proxyroute::WorkloadStatus;
use postern_crds::{ConditionStatus, ConditionType, ProxyRoute, Reason};
use serde_json::json;

use super::{Kept, View, status, verdicts};
use crate::limits::STATUS_WORKLOADS;
use crate::workload::enclosed::Ways;
use crate::workload::plan::Missing;
use crate::workload::validate::Refused;

/// A workload by its counts: pods, started, programmed, rejected, unreachable.
fn workload(name: &str, [pods, started, programmed, rejected, unreachable]: [u32; 5]) -> WorkloadStatus {
    let message = if rejected + unreachable > 0 { format!("{name}-1: why") } else { String::new() };
    WorkloadStatus { name: name.to_owned(), pods, started, programmed, rejected, unreachable, message }
}

fn view(counts: &[[u32; 5]]) -> View {
    let workloads = counts.iter().enumerate().map(|(number, counts)| workload(&format!("w{number:02}"), *counts));
    View {
        refused: None,
        kept: None,
        missing: Vec::new(),
        ways: ways(0, 0),
        allow_bypass: false,
        workloads: workloads.collect(),
    }
}

/// So many pods have started, and so many of them have told of no way around the gate.
fn ways(started: u32, told: u32) -> Ways {
    Ways { started, told, is_local: true, ..Ways::default() }
}

fn missing(message: &str) -> Missing {
    Missing { reason: Reason::RefNotFound, message: message.to_owned() }
}

fn of(found: &[Condition], kind: ConditionType) -> &Condition {
    found.iter().find(|one| one.kind == kind).expect("every kind is there")
}

#[test]
fn programmed_is_what_pods_say() {
    use ConditionStatus::{False, True, Unknown};
    let rows: &[(&[[u32; 5]], ConditionStatus, Reason, &str)] = &[
        (&[], False, Reason::NoPods, "it selects no pod with a sidecar"),
        (&[[2, 0, 0, 0, 0]], False, Reason::NoPods, "none of 2 pods has started"),
        (&[[3, 3, 3, 0, 0]], True, Reason::Programmed, "all of 3 started pods have it"),
        (&[[3, 2, 2, 0, 0]], True, Reason::Programmed, "all of 2 started pods have it"),
        (&[[3, 3, 2, 0, 0]], False, Reason::Pending, "2 of 3 pods have it"),
        (&[[3, 3, 2, 1, 0]], False, Reason::Rejected, "1 of 3 pods have refused it: w00: w00-1: why"),
        (&[[3, 3, 1, 1, 1]], False, Reason::Rejected, "1 of 3 pods have refused it: w00: w00-1: why"),
        (&[[3, 3, 2, 0, 1]], Unknown, Reason::Unreachable, "1 of 3 pods do not answer: w00: w00-1: why"),
        (&[[3, 3, 1, 0, 1]], False, Reason::Pending, "1 of 3 pods have it: w00: w00-1: why"),
        (&[[1, 1, 1, 0, 0], [1, 1, 0, 0, 0]], False, Reason::Pending, "1 of 2 pods have it"),
        (&[[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]], True, Reason::Programmed, "all of 1 started pods have it"),
    ];
    for (counts, expected, reason, message) in rows {
        let found = verdicts(&view(counts));
        let found = of(&found, ConditionType::Programmed);
        assert_eq!((found.status, found.reason, found.message.as_str()), (*expected, *reason, *message), "{counts:?}");
    }
}

#[test]
fn ready_gives_the_reason_of_what_is_missing() {
    use ConditionStatus::{False, True, Unknown};
    let good = View { allow_bypass: true, ..view(&[[1, 1, 1, 0, 0]]) };
    let around = || Ways { services: vec!["shop/direct".to_owned()], ..ways(1, 1) };
    let refused = Refused { reason: Reason::Conflicted, message: "shop/older has it".to_owned() };
    let rows = [
        ("good", good.clone(), True, Reason::Ready),
        ("a way around may be there", View { allow_bypass: false, ..good.clone() }, Unknown, Reason::NotChecked),
        ("no way around", View { allow_bypass: false, ways: ways(1, 1), ..good.clone() }, True, Reason::Ready),
        ("a way around", View { allow_bypass: false, ways: around(), ..good.clone() }, False, Reason::ServiceBypasses),
        ("a way around that may be", View { ways: around(), ..good.clone() }, True, Reason::Ready),
        ("refused", View { refused: Some(refused), ..good.clone() }, False, Reason::Conflicted),
        ("refers in vain", View { missing: vec![missing("it")], ..good.clone() }, False, Reason::RefNotFound),
        ("no pods", View { workloads: Vec::new(), ..good.clone() }, False, Reason::NoPods),
        ("silent", View { workloads: view(&[[1, 1, 0, 0, 1]]).workloads, ..good }, Unknown, Reason::Unreachable),
    ];
    for (case, view, expected, reason) in rows {
        let found = verdicts(&view);
        let ready = of(&found, ConditionType::Ready);
        assert_eq!((ready.status, ready.reason), (expected, reason), "{case}");
    }
}

/// Numbers that look like chance and are the same in each run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 33).unwrap_or_default() % bound
    }

    fn ways(&mut self) -> Ways {
        let some = |is_so: bool| if is_so { vec!["a way".to_owned()] } else { Vec::new() };
        let started = self.below(3);
        let (services, pods) = (some(self.below(4) == 0), some(self.below(4) == 0));
        Ways { services, pods, is_local: self.below(4) > 0, ..ways(started, self.below(started + 1)) }
    }

    fn view(&mut self) -> View {
        let workloads = self.below(4);
        let counts = (0..workloads).map(|_| {
            let pods = self.below(5);
            let started = self.below(pods + 1);
            let programmed = self.below(started + 1);
            let rejected = self.below(started - programmed + 1);
            [pods, started, programmed, rejected, self.below(started - programmed - rejected + 1)]
        });
        let counts: Vec<_> = counts.collect();
        let refused = Refused { reason: Reason::Invalid, message: "why".to_owned() };
        let is_refused = self.below(4) == 0;
        View {
            refused: is_refused.then_some(refused),
            kept: (is_refused && self.below(2) == 0).then_some(Kept { started: 2, loaded: 2 }),
            missing: if self.below(4) == 0 { vec![missing("what")] } else { Vec::new() },
            ways: self.ways(),
            allow_bypass: self.below(2) == 0,
            ..view(&counts)
        }
    }
}

#[test]
fn conditions_never_contradict_each_other() {
    use ConditionStatus::{False, True, Unknown};
    let mut chance = Chance(6);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20_000 {
        let view = chance.view();
        let found = verdicts(&view);
        let kinds: Vec<_> = found.iter().map(|one| one.kind).collect();
        use ConditionType::{Accepted, Enclosed, Programmed, Ready, ResolvedRefs};
        assert_eq!(kinds, [Accepted, ResolvedRefs, Programmed, Enclosed, Ready]);
        let says = |kind| of(&found, kind).status;
        seen.insert(kinds.iter().map(|kind| says(*kind).as_str()).collect::<Vec<_>>());
        let all = [says(Accepted), says(ResolvedRefs), says(Programmed)];
        let needed = if view.allow_bypass { all.to_vec() } else { [&all[..], &[says(Enclosed)]].concat() };
        let ready = if needed.contains(&False) {
            False
        } else if needed.contains(&Unknown) {
            Unknown
        } else {
            True
        };
        assert_eq!(says(Ready), ready, "{view:?}");
        let is_around = !view.ways.services.is_empty() || !view.ways.pods.is_empty();
        assert_eq!(says(Enclosed) == False, is_around, "{view:?}");
        let all_told = view.ways.started > 0 && view.ways.told == view.ways.started;
        assert_eq!(says(Enclosed) == True, !is_around && (all_told || !view.ways.is_local), "{view:?}");
        if says(Accepted) == False {
            assert_eq!((says(Programmed), of(&found, Programmed).reason), (False, of(&found, Accepted).reason));
            assert_ne!(says(ResolvedRefs), True, "{view:?}");
        }
        if says(Programmed) == True {
            assert!(view.workloads.iter().all(|one| one.programmed == one.started), "{view:?}");
            assert!(view.workloads.iter().any(|one| one.started > 0), "{view:?}");
        }
        if says(Ready) != True {
            assert!(found.iter().any(|one| one.kind != Ready && one.reason == of(&found, Ready).reason), "{view:?}");
        }
    }
    assert_eq!(seen.len(), 24, "all that there can be have come up: {seen:?}");
}

#[test]
fn what_is_served_on_is_told() {
    let refused = Refused { reason: Reason::Invalid, message: "why".repeat(400) };
    let view = View { refused: Some(refused), kept: Some(Kept { started: 3, loaded: 2 }), ..view(&[[3, 3, 0, 0, 0]]) };
    let found = verdicts(&view);
    let (accepted, programmed) = (of(&found, ConditionType::Accepted), of(&found, ConditionType::Programmed));
    let served_on = "the form that was accepted last is served on";
    assert!(accepted.message.starts_with("whywhy") && accepted.message.ends_with(&format!("; {served_on}")));
    assert!(accepted.message.len() <= 1024, "{}", accepted.message.len());
    let expected = format!("as it is it is not accepted; {served_on}: 2 of 3 started pods have it");
    assert_eq!((programmed.status, &programmed.message), (ConditionStatus::False, &expected));
}

fn route() -> ProxyRoute {
    let spec = json!({
        "podSelector": {"matchLabels": {"app": "orders"}},
        "listener": {"port": 8443},
        "rules": [{"name": "all", "allow": [{"anyone": {}}], "backendRefs": [{"localPort": 8080}]}],
    });
    let metadata = json!({"name": "orders", "namespace": "shop", "generation": 7});
    let object =
        json!({"apiVersion": "postern.dev/v1alpha1", "kind": "ProxyRoute", "metadata": metadata, "spec": spec});
    serde_json::from_value(object).expect("a route")
}

fn at(second: i64) -> Time {
    Time(Timestamp::from_second(second).expect("a time"))
}

#[test]
fn what_stays_the_same_is_the_same_status_whenever_it_is_asked_for() {
    let mut route = route();
    let good = view(&[[1, 1, 1, 0, 0]]);
    let first = status(&route, &good, &at(1_000));
    route.status = Some(first.clone());
    assert_eq!(status(&route, &good, &at(2_000)), first);
    let worse = status(&route, &view(&[[2, 2, 1, 0, 0]]), &at(3_000));
    let time = |kind: &str, status: &postern_crds::ProxyRouteStatus| {
        let found = status.conditions.iter().find(|one| one.type_ == kind).expect("it is there");
        (found.last_transition_time.clone(), found.observed_generation)
    };
    assert_eq!(time("Programmed", &worse), (at(3_000), Some(7)));
    assert_eq!(time("Accepted", &worse), (at(1_000), Some(7)));
}

#[test]
fn sixteen_workloads_are_named_and_all_are_counted() {
    let counts = vec![[2, 2, 1, 1, 0]; 20];
    let found = status(&route(), &view(&counts), &at(0));
    assert_eq!(found.workloads.len(), STATUS_WORKLOADS);
    let totals = found.totals.expect("totals");
    let sums = [totals.workloads, totals.pods, totals.started, totals.programmed, totals.rejected, totals.unreachable];
    assert_eq!(sums, [20, 40, 40, 20, 20, 0]);
}
