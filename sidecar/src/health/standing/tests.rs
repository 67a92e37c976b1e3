//! When results of checks change what is thought of an endpoint.

use sidecar_config::health::HealthCheck;

use super::{Health, Sign, Standing};

fn check(healthy: u32, unhealthy: u32) -> HealthCheck {
    let document = serde_json::json!({ "tcp": {}, "healthyThreshold": healthy, "unhealthyThreshold": unhealthy });
    serde_json::from_value(document).unwrap()
}

/// What is thought after each result: `?`, `+` or `-`; results are `p` for passed and `f` for failed.
fn thought(results: &str, check: &HealthCheck) -> String {
    let mut standing = Standing::default();
    let after = |result| {
        standing = standing.after(result == 'p', check);
        match standing.health {
            Health::Unknown => '?',
            Health::Healthy => '+',
            Health::Unhealthy => '-',
        }
    };
    results.chars().map(after).collect()
}

#[test]
fn so_many_results_in_a_row_change_it() {
    let table = [
        // The first decides, either way.
        (2, 3, "p", "+"),
        (2, 3, "f", "-"),
        (2, 3, "pff", "+++"),
        (2, 3, "pfff", "+++-"),
        (2, 3, "pffpff", "++++++"),
        (2, 3, "fpp", "--+"),
        (2, 3, "fpfpp", "----+"),
        (2, 3, "pfffppfff", "+++--+++-"),
        (1, 1, "pfpf", "+-+-"),
        (3, 1, "pfppfppp", "+------+"),
    ];
    for (healthy, unhealthy, results, expected) in table {
        assert_eq!(thought(results, &check(healthy, unhealthy)), expected, "{healthy} {unhealthy} {results}");
    }
}

#[test]
fn a_sign_says_what_it_was_told() {
    let sign = Sign::default();
    assert_eq!(sign.health(), Health::Unknown);
    for health in [Health::Unhealthy, Health::Healthy, Health::Unknown] {
        sign.set(health);
        assert_eq!(sign.health(), health);
    }
}
