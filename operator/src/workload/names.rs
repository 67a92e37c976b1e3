//! Names of the objects that carry a workload's parts. The injector names the same in the pod's volume.

use sha2::{Digest, Sha256};

/// ConfigMap with part `trust`, one for each namespace.
pub const TRUST: &str = "postern-trust";
/// Type of a Secret with part `identity`.
pub const IDENTITY_TYPE: &str = "postern.dev/identity";
/// Entry with part `policy`, as it is to be.
pub const POLICY_ENTRY: &str = "policy.json";
/// Entry with part `policy`, as every started pod had it last.
pub const GOOD_POLICY_ENTRY: &str = "policy.good";
/// Longest name of an object.
const NAME_BYTES: usize = 253;

/// Secret with part `identity` of the pods of a workload that run as a service account.
#[must_use]
pub fn identity(workload: &str, service_account: &str) -> String {
    bounded(format!("postern-id-{workload}-{service_account}"))
}

/// ConfigMap with a chunk of part `identities`.
#[must_use]
pub fn identities(workload: &str, chunk: usize) -> String {
    bounded(format!("postern-identities-{workload}-{chunk}"))
}

/// ConfigMap with part `policy`, as it is to be.
#[must_use]
pub fn policy(workload: &str) -> String {
    bounded(format!("postern-policy-{workload}"))
}

/// ConfigMap with part `policy`, as every started pod had it last.
#[must_use]
pub fn good_policy(workload: &str) -> String {
    bounded(format!("postern-policy-{workload}-good"))
}

/// ConfigMap with part `endpoints`.
#[must_use]
pub fn endpoints(workload: &str) -> String {
    bounded(format!("postern-endpoints-{workload}"))
}

/// What is too long ends in a digest of all of it.
fn bounded(name: String) -> String {
    if name.len() <= NAME_BYTES {
        return name;
    }
    let digest: String = Sha256::digest(&name).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    // Names of objects are ASCII; at a boundary of anything else there would be nothing to cut.
    let start = name.get(..NAME_BYTES - digest.len() - 1).unwrap_or_default();
    format!("{}-{digest}", start.trim_end_matches(['-', '.']))
}

#[cfg(test)]
mod tests {
    use super::identity;

    #[test]
    fn names_that_are_too_long_are_still_different() {
        assert_eq!(identity("orders.deployment", "default"), "postern-id-orders.deployment-default");
        let workload = "w".repeat(63);
        let long = |last: &str| identity(&workload, &format!("{}{last}", "s".repeat(252)));
        assert!(long("a").len() <= 253 && long("a") != long("b"), "{}", long("a"));
        assert!(identity(&workload, &"s".repeat(178)).len() == 253);
    }
}
