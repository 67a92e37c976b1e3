//! Chains of clients that were verified a while ago, so that who comes again without a ticket costs less: a third of a
//! handshake is the verification of its chain. That the client has the key is shown in each handshake all the same.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};
use sidecar_decide::CertificateFacts;

use super::path::{Sum, VerifiedPath};
use crate::limits::KNOWN_CHAINS;

/// The chains that one listener of one worker knows, under one trust. They go when either changes.
#[derive(Debug, Default)]
pub(super) struct Chains(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    chains: HashMap<Sum, Chain>,
    /// In the order in which they came, the oldest first.
    order: VecDeque<Sum>,
}

/// A verified chain.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub(super) facts: Arc<CertificateFacts>,
    pub(super) path: Arc<VerifiedPath>,
    /// Seconds since the epoch when it was verified: before that its certificates may not be valid yet.
    since: u64,
}

impl Chains {
    /// What a chain is known by: every byte that the client presented.
    pub(super) fn sum(leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Sum {
        let mut sum = Sha256::new();
        for certificate in std::iter::once(leaf).chain(intermediates) {
            // With its length in front no two chains can be read as one.
            sum.update(u64::try_from(certificate.len()).unwrap_or(u64::MAX).to_be_bytes());
            sum.update(certificate);
        }
        sum.finalize().into()
    }

    /// A chain that was verified, and would be now.
    pub(super) fn find(&self, sum: &Sum, now: UnixTime) -> Option<Chain> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let chain = known.chains.get(sum)?;
        let until = chain.path.valid_until.min(chain.path.believed_until);
        (chain.since..=until).contains(&now.as_secs()).then(|| chain.clone())
    }

    /// Remembers a chain, and forgets the oldest where there are too many.
    pub(super) fn insert(&self, sum: Sum, facts: &Arc<CertificateFacts>, path: &Arc<VerifiedPath>, now: UnixTime) {
        let chain = Chain { facts: Arc::clone(facts), path: Arc::clone(path), since: now.as_secs() };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.chains.insert(sum, chain).is_some() {
            return;
        }
        known.order.push_back(sum);
        if known.order.len() > KNOWN_CHAINS
            && let Some(oldest) = known.order.pop_front()
        {
            known.chains.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    fn facts() -> Arc<CertificateFacts> {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        Arc::new(CertificateFacts::of(certificate.der()).unwrap())
    }

    fn path(valid_until: u64, believed_until: u64) -> Arc<VerifiedPath> {
        Arc::new(VerifiedPath { leaf: [0; 32], ends: Vec::new(), valid_until, believed_until })
    }

    #[test]
    fn a_chain_is_known_as_long_as_it_would_be_verified() {
        let facts = facts();
        for (valid_until, believed_until) in [(20, u64::MAX), (u64::MAX, 20), (20, 30)] {
            let chains = Chains::default();
            chains.insert([1; 32], &facts, &path(valid_until, believed_until), at(10));
            let known = [9, 10, 20, 21].map(|now| chains.find(&[1; 32], at(now)).is_some());
            assert_eq!(known, [false, true, true, false], "{valid_until} {believed_until}");
            assert!(chains.find(&[2; 32], at(15)).is_none());
        }
    }

    #[test]
    fn the_oldest_make_room() {
        let (facts, path, chains) = (facts(), path(u64::MAX, u64::MAX), Chains::default());
        let sum = |number: usize| {
            let mut sum = [0; 32];
            sum[..8].copy_from_slice(&number.to_be_bytes());
            sum
        };
        for number in 0..=KNOWN_CHAINS {
            chains.insert(sum(number), &facts, &path, at(10));
            chains.insert(sum(number), &facts, &path, at(11));
        }
        let known = (0..=KNOWN_CHAINS).filter(|number| chains.find(&sum(*number), at(11)).is_some());
        assert_eq!(known.collect::<Vec<_>>(), (1..=KNOWN_CHAINS).collect::<Vec<_>>());
    }

    #[test]
    fn a_chain_is_known_by_all_of_it() {
        let der = |bytes: &[u8]| CertificateDer::from(bytes.to_vec());
        let sums = [
            Chains::sum(&der(b"leaf"), &[]),
            Chains::sum(&der(b"leaf"), &[der(b"")]),
            Chains::sum(&der(b"leaf"), &[der(b"a"), der(b"b")]),
            Chains::sum(&der(b"leaf"), &[der(b"ab")]),
            Chains::sum(&der(b"leaf"), &[der(b"b"), der(b"a")]),
        ];
        let distinct: std::collections::HashSet<_> = sums.iter().collect();
        assert_eq!(distinct.len(), sums.len());
    }
}
