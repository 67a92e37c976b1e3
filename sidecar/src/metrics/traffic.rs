//! The families of what passes and is refused, by rule, listener and backend.

use std::collections::BTreeMap;

use postern_telemetry::page::{Kind, Page};
use sidecar_decide::{Limiter, Verdict};

use super::place::{BUCKETS_US, Event, Outcome, PlaceName};
use super::registry::{Counts, Sums};

const MICROSECONDS_PER_SECOND: f64 = 1e6;

type Label<'a> = (&'static str, &'a str);

/// Where something is decided: listener, route, rule.
type Rule<'a> = [&'a str; 3];

/// Writes all of them.
pub fn write(page: &mut Page, counts: &Counts) {
    let help = "Requests decided, by rule.";
    decided(page, counts, Event::Request, "postern_requests_total", help);
    let help = "Connections of TLS listeners decided, by rule.";
    decided(page, counts, Event::Forwarded, "postern_forwarded_connections_total", help);
    let help = "Requests that were upgraded, when their tunnel has ended, by rule.";
    decided(page, counts, Event::Tunnel, "postern_tunnels_total", help);
    messages(page, counts);
    passed(page, counts);
    durations(page, counts);
    let help = "TLS handshakes and connections refused, by reason.";
    by_listener(page, counts, Event::Refused, "postern_handshakes_refused_total", help);
    by_listener(page, counts, Event::Cut, "postern_connections_cut_total", "Open connections cut, by reason.");
    by_backend(page, counts);
}

fn rule(name: &PlaceName) -> Option<Rule<'_>> {
    match name {
        PlaceName::Rule { listener, route, rule } => Some([listener, route, rule]),
        PlaceName::Backend(_) => None,
    }
}

/// Which limit refused: the last label, and nothing where none did. An empty label is none at all to Prometheus, and most
/// series would have it.
fn limiter(outcome: &Outcome) -> Label<'static> {
    ("limiter", outcome.limiter.map_or("", Limiter::name))
}

/// The labels up to the last, and that one too where it says something.
fn labelled<'a, 'b>(labels: &'a [Label<'b>]) -> &'a [Label<'b>] {
    match labels {
        [others @ .., (_, "")] => others,
        all => all,
    }
}

fn decided(page: &mut Page, counts: &Counts, event: Event, name: &str, help: &str) {
    let mut family = page.family(Kind::Counter, name, help);
    for (place, outcomes) in &counts.places {
        let Some([listener, route, rule]) = rule(place) else { continue };
        for (outcome, sums) in outcomes.iter().filter(|(outcome, _)| outcome.event == event) {
            let (verdict, reason) = (outcome.verdict.name(), outcome.reason.map_or("", |reason| reason.code()));
            let labels = [
                ("listener", listener),
                ("route", route),
                ("rule", rule),
                ("verdict", verdict),
                ("reason", reason),
                limiter(outcome),
            ];
            family.series(labelled(&labels), sums.count);
        }
    }
}

fn messages(page: &mut Page, counts: &Counts) {
    let help = "Requests by the type of their message, where that is known, by rule.";
    let mut family = page.family(Kind::Counter, "postern_messages_total", help);
    for (place, messages) in &counts.messages {
        let Some([listener, route, rule]) = rule(place) else { continue };
        for (message, count) in messages {
            let labels = [("listener", listener), ("route", route), ("rule", rule), ("message_type", message)];
            family.series(&labels, count);
        }
    }
}

/// How long requests took and how much passed, by rule.
fn passed(page: &mut Page, counts: &Counts) {
    let mut by_rule: Vec<(Rule<'_>, Sums, u64)> = Vec::new();
    for (place, outcomes) in &counts.places {
        let Some(rule) = rule(place) else { continue };
        let (mut all, mut passed_us, mut is_any) = (Sums::default(), 0, false);
        for (outcome, sums) in outcomes {
            if matches!(outcome.event, Event::Request | Event::Forwarded | Event::Tunnel) {
                all.join(*sums);
                is_any = true;
            }
            if outcome.event == Event::Request && outcome.verdict != Verdict::Refused {
                passed_us += sums.duration_us;
            }
        }
        if is_any {
            by_rule.push((rule, all, passed_us));
        }
    }
    let mut write = |name: &str, help: &str, value: &dyn Fn(&Sums, u64) -> f64| {
        let mut family = page.family(Kind::Counter, name, help);
        for ([listener, route, rule], sums, passed_us) in &by_rule {
            let labels = [("listener", *listener), ("route", *route), ("rule", *rule)];
            family.series(&labels, value(sums, *passed_us));
        }
    };
    let help = "Time of requests that were let through, from head to the end of the response, summed up.";
    write("postern_request_seconds_total", help, &|_, passed_us| seconds(passed_us));
    let help = "Bytes of requests' bodies, and from clients of tunnels and TLS listeners.";
    write("postern_request_bytes_total", help, &|sums, _| float(sums.request_bytes));
    let help = "Bytes of responses' bodies, and to clients of tunnels and TLS listeners.";
    write("postern_response_bytes_total", help, &|sums, _| float(sums.response_bytes));
}

fn durations(page: &mut Page, counts: &Counts) {
    let help = "From the head of a request that was let through to the end of its response.";
    let mut family = page.family(Kind::Histogram, "postern_request_duration_seconds", help);
    for (listener, durations) in &counts.durations {
        let count: u64 = durations.buckets.iter().sum();
        if count == 0 {
            continue;
        }
        let mut cumulative = 0;
        for (bound_us, in_bucket) in BUCKETS_US.iter().zip(&durations.buckets) {
            cumulative += in_bucket;
            let bound = seconds(*bound_us).to_string();
            family.part("_bucket", &[("listener", listener), ("le", &bound)], cumulative);
        }
        family.part("_bucket", &[("listener", listener), ("le", "+Inf")], count);
        family.part("_sum", &[("listener", listener)], seconds(durations.sum_us));
        family.part("_count", &[("listener", listener)], count);
    }
}

fn by_listener(page: &mut Page, counts: &Counts, event: Event, name: &str, help: &str) {
    let mut counted: BTreeMap<[Label<'_>; 3], u64> = BTreeMap::new();
    for (place, outcomes) in &counts.places {
        let Some([listener, ..]) = rule(place) else { continue };
        for (outcome, sums) in outcomes.iter().filter(|(outcome, _)| outcome.event == event) {
            let reason = outcome.reason.map_or("closed_before_first_byte", |reason| reason.code());
            let labels = [("listener", listener), ("reason", reason), limiter(outcome)];
            *counted.entry(labels).or_default() += sums.count;
        }
    }
    let mut family = page.family(Kind::Counter, name, help);
    for (labels, count) in counted {
        family.series(labelled(&labels), count);
    }
}

fn by_backend(page: &mut Page, counts: &Counts) {
    let mut sums: Vec<(&str, Outcome, Sums)> = Vec::new();
    for (place, outcomes) in &counts.places {
        let PlaceName::Backend(backend) = place else { continue };
        sums.extend(outcomes.iter().map(|(outcome, sums)| (&**backend, *outcome, *sums)));
    }
    let of = |event: Event| sums.iter().filter(move |(_, outcome, _)| outcome.event == event);
    let help = "Tries of requests and connections at a backend.";
    let mut family = page.family(Kind::Counter, "postern_upstream_attempts_total", help);
    for (backend, _, sums) in of(Event::Attempt) {
        family.series(&[("backend", backend)], sums.count);
    }
    let help = "Tries that failed, and responses that broke off, by reason.";
    let mut family = page.family(Kind::Counter, "postern_upstream_failures_total", help);
    for (backend, outcome, sums) in of(Event::Failure) {
        let reason = outcome.reason.map_or("", |reason| reason.code());
        family.series(labelled(&[("backend", backend), ("reason", reason), limiter(outcome)]), sums.count);
    }
    let help = "Connections made to a backend.";
    let mut family = page.family(Kind::Counter, "postern_upstream_connects_total", help);
    for (backend, _, sums) in of(Event::Connect) {
        family.series(&[("backend", backend)], sums.count);
    }
    let help = "Time until they were made, summed up.";
    let mut family = page.family(Kind::Counter, "postern_upstream_connect_seconds_total", help);
    for (backend, _, sums) in of(Event::Connect) {
        family.series(&[("backend", backend)], seconds(sums.duration_us));
    }
}

fn seconds(duration_us: u64) -> f64 {
    float(duration_us) / MICROSECONDS_PER_SECOND
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus' numbers are 64-bit floats; counts are exact to 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}
