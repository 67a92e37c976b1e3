//! Who gets how many of the requests.

use std::collections::BTreeMap;

use sidecar_config::backend::LoadBalancerType::{self, LeastRequest, RoundRobin};
use sidecar_decide::{Backend, EndpointIndex};

use super::{Balancer, Choice, Random};

fn backends(list: &[(u32, &[EndpointIndex])]) -> Vec<Backend> {
    list.iter()
        .map(|(weight, endpoints)| Backend {
            name: "orders".into(),
            weight: *weight,
            endpoints: (*endpoints).into(),
            is_named: false,
        })
        .collect()
}

/// Chooses so many times among endpoints of which some are not to be used.
fn choose(
    kind: LoadBalancerType,
    backends: &[Backend],
    count: usize,
    out: &[EndpointIndex],
) -> Vec<Option<EndpointIndex>> {
    let (balancer, random) = (Balancer::default(), Random::from_seed(7));
    let load = |endpoint| if out.contains(&endpoint) { None } else { Some(0) };
    let choice = Choice { kind, tried: &[], load, random: &random };
    (0..count).map(|_| Some(balancer.choose(backends, &choice)?.endpoint)).collect()
}

fn counted(chosen: &[Option<EndpointIndex>]) -> BTreeMap<Option<EndpointIndex>, usize> {
    let mut counts = BTreeMap::new();
    chosen.iter().for_each(|endpoint| *counts.entry(*endpoint).or_default() += 1);
    counts
}

#[test]
fn turns_go_round() {
    type Row = (&'static [(u32, &'static [usize])], &'static [usize], &'static [Option<usize>]);
    let table: [Row; 9] = [
        (&[], &[], &[None, None]),
        (&[(1, &[])], &[], &[None, None]),
        (&[(1, &[5])], &[], &[Some(5), Some(5)]),
        (&[(1, &[1, 2, 3])], &[], &[Some(1), Some(2), Some(3), Some(1)]),
        (&[(1, &[1, 2, 3])], &[2], &[Some(1), Some(3), Some(1), Some(3)]),
        (&[(1, &[1, 2])], &[1, 2], &[None, None]),
        // Each backend has its share, whatever the number of its endpoints.
        (&[(1, &[1]), (1, &[2, 3])], &[], &[Some(1), Some(2), Some(1), Some(3)]),
        (&[(0, &[1]), (1, &[2])], &[], &[Some(2), Some(2)]),
        (&[(0, &[1])], &[], &[None]),
    ];
    for (list, out, expected) in table {
        assert_eq!(choose(RoundRobin, &backends(list), expected.len(), out), expected, "{list:?} without {out:?}");
    }
}

#[test]
fn weights_are_shares_and_turns_are_spread() {
    type Row = (&'static [(u32, &'static [usize])], &'static [usize], &'static [usize]);
    let table: [Row; 5] = [
        (&[(5, &[1]), (1, &[2]), (1, &[3])], &[], &[1, 1, 2, 1, 3, 1, 1]),
        (&[(1, &[1]), (3, &[2])], &[], &[2, 1, 2, 2]),
        // Who has nobody leaves its share to the others, in their proportion.
        (&[(5, &[1]), (2, &[2]), (1, &[3])], &[1], &[2, 3, 2]),
        (&[(5, &[]), (1, &[2])], &[], &[2, 2]),
        (&[(3, &[1, 2]), (1, &[3])], &[], &[1, 2, 3, 1]),
    ];
    for (list, out, expected) in table {
        let rounds = 1000;
        let chosen = choose(RoundRobin, &backends(list), rounds * expected.len(), out);
        let mut first: Vec<_> = chosen.iter().take(expected.len()).flatten().copied().collect();
        if list.len() < 3 || out.is_empty() {
            assert_eq!(first, expected, "{list:?} without {out:?}");
        }
        first.sort_unstable();
        let mut sorted = expected.to_vec();
        sorted.sort_unstable();
        assert_eq!(first, sorted, "{list:?} without {out:?}");
        if list.iter().all(|(_, endpoints)| endpoints.len() < 2) {
            let exact = counted(&expected.iter().map(|endpoint| Some(*endpoint)).collect::<Vec<_>>());
            let exact: BTreeMap<_, _> = exact.into_iter().map(|(endpoint, count)| (endpoint, count * rounds)).collect();
            assert_eq!(counted(&chosen), exact, "{list:?} without {out:?}");
        }
    }
}

#[test]
fn what_was_tried_is_not_tried_again() {
    for kind in [RoundRobin, LeastRequest] {
        let (balancer, random) = (Balancer::default(), Random::from_seed(7));
        let backends = backends(&[(1, &[1, 2]), (1, &[3])]);
        let mut tried = Vec::new();
        while let Some(chosen) =
            balancer.choose(&backends, &Choice { kind, tried: &tried, load: |_| Some(0), random: &random })
        {
            tried.push(chosen.endpoint);
        }
        tried.sort_unstable();
        assert_eq!(tried, [1, 2, 3], "{kind:?}");
    }
}

/// A request that has to try again takes nobody's turn: else one that is down would come first in each request.
#[test]
fn trying_again_takes_no_turn() {
    for list in [&[(1, &[1, 2][..])][..], &[(1, &[1]), (1, &[2])]] {
        let (balancer, random) = (Balancer::default(), Random::from_seed(7));
        let backends = backends(list);
        let choose = |tried: &[EndpointIndex]| {
            let choice = Choice { kind: RoundRobin, tried, load: |_| Some(0), random: &random };
            Some(balancer.choose(&backends, &choice)?.endpoint)
        };
        for _ in 0..3 {
            assert_eq!((choose(&[]), choose(&[1])), (Some(1), Some(2)), "{list:?}");
            assert_eq!(choose(&[]), Some(2), "{list:?}");
        }
    }
}

/// Two choices: the busiest of all is never chosen, because whoever it is compared with has less to do.
#[test]
fn the_busiest_of_all_gets_nothing_and_the_idle_one_most() {
    let (balancer, random) = (Balancer::default(), Random::from_seed(7));
    let loads = [4, 9, 0, 4];
    let all = backends(&[(1, &[0, 1, 2, 3])]);
    let choice =
        Choice { kind: LeastRequest, tried: &[], load: |endpoint: usize| Some(loads[endpoint]), random: &random };
    let chosen: Vec<_> = (0..12_000).map(|_| Some(balancer.choose(&all, &choice)?.endpoint)).collect();
    let counts = counted(&chosen);
    assert_eq!(counts.get(&Some(1)), None, "{counts:?}");
    // Of six pairs three have the idle one, and of the three others one has neither of the busiest.
    let share = |endpoint: usize| counts[&Some(endpoint)];
    assert!((5_700..6_300).contains(&share(2)), "{counts:?}");
    assert!((2_700..3_300).contains(&share(0)) && (2_700..3_300).contains(&share(3)), "{counts:?}");
}

#[test]
fn equals_are_chosen_evenly() {
    for count in [2, 3, 7] {
        let endpoints: Vec<_> = (0..count).collect();
        let all = [Backend { name: "orders".into(), weight: 1, endpoints: endpoints.into(), is_named: false }];
        let counts = counted(&choose(LeastRequest, &all, 10_000 * count, &[]));
        assert_eq!(counts.len(), count);
        assert!(counts.values().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }
}

/// Where what is chosen is worked off at the same speed everywhere, nobody has much more to do than the others.
#[test]
fn load_stays_even() {
    let (balancer, random) = (Balancer::default(), Random::from_seed(7));
    let all = backends(&[(1, &[0, 1, 2, 3, 4])]);
    let mut loads = [0_usize; 5];
    for round in 0..10_000 {
        let chosen = balancer.choose(
            &all,
            &Choice { kind: LeastRequest, tried: &[], load: |endpoint: usize| Some(loads[endpoint]), random: &random },
        );
        loads[chosen.unwrap().endpoint] += 1;
        if round % 5 == 4 {
            loads.iter_mut().for_each(|load| *load = load.saturating_sub(1));
        }
        assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 6, "{loads:?} after {round}");
    }
}

/// Whose share it was is told with the endpoint: two backends may have one in common.
#[test]
fn the_backend_is_told() {
    for (list, expected) in
        [(&[(1, &[4][..])][..], [0, 0]), (&[(1, &[4]), (1, &[4])], [0, 1]), (&[(0, &[4]), (1, &[4])], [1, 1])]
    {
        let (balancer, random) = (Balancer::default(), Random::from_seed(7));
        let backends = backends(list);
        let chosen = || {
            let choice = Choice { kind: RoundRobin, tried: &[], load: |_| Some(0), random: &random };
            balancer.choose(&backends, &choice).map(|chosen| (chosen.backend, chosen.endpoint))
        };
        assert_eq!([chosen(), chosen()], expected.map(|backend| Some((backend, 4))), "{list:?}");
    }
}
