//! Which group a key exchange is in: the hybrid one with every client that has it.
//!
//! rustls takes the first group of the client's list that the server has, whatever the server's order. A client that has
//! the hybrid group and names it last would get one that a recording of today can be broken with tomorrow.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::crypto::{ActiveKeyExchange, CompletedKeyExchange, CryptoProvider, SupportedKxGroup};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::server::ClientHello;
use rustls::{Error, NamedGroup, ProtocolVersion};

/// The groups that a handshake can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Groups {
    /// The hybrid one in TLS 1.3: the client has it.
    Hybrid,
    /// Those of the client's own order: they are equally strong, and another than its first would cost it a round.
    Classical,
}

impl Groups {
    /// For a client that has just begun.
    pub(super) fn of(hello: &ClientHello<'_>) -> Self {
        let names = hello.named_groups().unwrap_or_default();
        if names.contains(&kx_group::X25519MLKEM768.name()) { Self::Hybrid } else { Self::Classical }
    }

    /// A provider with these groups.
    pub(super) fn provider(self) -> Arc<CryptoProvider> {
        let mut provider = aws_lc_rs::default_provider();
        if self == Self::Hybrid {
            // A client that names it and agrees on TLS 1.2 still needs one of the others: TLS 1.2 has no hybrid group.
            provider.kx_groups = vec![kx_group::X25519MLKEM768, &X25519, &SECP256R1, &SECP384R1];
        }
        Arc::new(provider)
    }
}

static X25519: OnlyTls12 = OnlyTls12(kx_group::X25519);
static SECP256R1: OnlyTls12 = OnlyTls12(kx_group::SECP256R1);
static SECP384R1: OnlyTls12 = OnlyTls12(kx_group::SECP384R1);

/// A group that TLS 1.3 does not get to choose.
#[derive(Debug)]
struct OnlyTls12(&'static dyn SupportedKxGroup);

impl SupportedKxGroup for OnlyTls12 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        self.0.start()
    }

    fn start_and_complete(&self, peer_pub_key: &[u8]) -> Result<CompletedKeyExchange, Error> {
        self.0.start_and_complete(peer_pub_key)
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        self.0.ffdhe_group()
    }

    fn name(&self) -> NamedGroup {
        self.0.name()
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version == ProtocolVersion::TLSv1_2 && self.0.usable_for_version(version)
    }
}

#[cfg(test)]
mod tests {
    use rustls::ProtocolVersion;
    use rustls::crypto::aws_lc_rs;

    use super::Groups;

    /// A group that a newer library has by default would else be missing where the hybrid one is named.
    #[test]
    fn both_have_the_same_groups_in_the_same_order() {
        let names = |groups: Groups, version| -> Vec<_> {
            let provider = groups.provider();
            let usable = provider.kx_groups.iter().filter(|group| group.usable_for_version(version));
            usable.map(|group| group.name()).collect()
        };
        let (older, newer) = (ProtocolVersion::TLSv1_2, ProtocolVersion::TLSv1_3);
        assert_eq!(names(Groups::Hybrid, older), names(Groups::Classical, older));
        assert_eq!(names(Groups::Hybrid, newer), names(Groups::Classical, newer)[..1]);
        let all = |groups: Groups| groups.provider().kx_groups.iter().map(|group| group.name()).collect::<Vec<_>>();
        assert_eq!(all(Groups::Hybrid), all(Groups::Classical));
        assert_eq!(all(Groups::Classical).len(), aws_lc_rs::DEFAULT_KX_GROUPS.len());
    }
}
