//! Part `trust` of every namespace: whose signatures count there, and what is revoked everywhere. Pure.

use std::collections::{BTreeMap, BTreeSet};

use postern_crds::trust::{CaCertificateRef, VouchesFor};
use sha2::{Digest, Sha256};
use sidecar_config::trust::{Bundle, Revocations, SerialRevocation, Trust, VouchesFor as Vouched};

use super::directory::Directory;
use crate::pki::authority::Issuer;
use crate::pki::ledger::Ledger;
use crate::pki::names::Names;

/// The bundle of our own authorities.
pub const OUR_BUNDLE: &str = "postern";

const ROOTS_FILE: &str = "postern-roots.pem";
const INTERMEDIATES_FILE: &str = "postern-intermediates.pem";
/// Longest name of a bundle that is written out; the contract takes 317 bytes.
const BUNDLE_NAME_MAX_BYTES: usize = 253;

/// The bundle of certificates in objects of a namespace. The same objects that may vouch for the same are the same bundle,
/// whoever names them and in which order; what is in the objects does not matter, so that an authority can be changed
/// without a name changing in three documents at once.
#[must_use]
pub fn bundle_name(namespace: &str, refs: &[CaCertificateRef], vouches_for: Option<&VouchesFor>) -> String {
    let names: BTreeSet<_> = refs.iter().map(|reference| reference.name.as_str()).collect();
    let names = names.into_iter().collect::<Vec<_>>().join("+");
    let plain = format!("{namespace}/{names}");
    let vouches_for = vouches_for.filter(|vouched| vouched.common_name || !vouched.spiffe.is_empty());
    let name = match vouches_for {
        None => plain,
        Some(vouched) => {
            let domains: BTreeSet<_> = vouched.spiffe.iter().map(String::as_str).collect();
            let said = domains.into_iter().collect::<Vec<_>>().join(" ");
            format!("{plain}~{}", short_digest(&format!("{} {said}", vouched.common_name)))
        }
    };
    if name.len() <= BUNDLE_NAME_MAX_BYTES { name } else { format!("{namespace}/{}", short_digest(&name)) }
}

/// The first 12 hex digits of a digest.
fn short_digest(text: &str) -> String {
    Sha256::digest(text)[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Authorities of others, read from the objects that hold them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExternalBundle {
    /// Their certificates in PEM.
    pub pem: String,
    /// What they may vouch for.
    pub vouches_for: VouchesFor,
}

/// All that decides what part `trust` of a namespace says.
#[derive(Debug)]
pub struct TrustInput<'a> {
    /// Who signs for us.
    pub issuer: &'a Issuer,
    /// Who owns which names.
    pub names: &'a Names,
    /// All clients of all namespaces.
    pub directory: &'a Directory,
    /// The ledgers of all namespaces.
    pub ledgers: &'a [Ledger],
    /// The bundles that routes of the namespace use, by [`bundle_name`].
    pub bundles: &'a BTreeMap<String, ExternalBundle>,
}

/// Part `trust`, and the files it refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustDocument {
    /// The part.
    pub document: Trust,
    /// PEM by file name.
    pub files: BTreeMap<String, String>,
}

/// What part `trust` of a namespace says. Revocations are the same in all of them: certificates are shown wherever their
/// owners like.
#[must_use]
pub fn document(input: &TrustInput<'_>) -> TrustDocument {
    let mut files = BTreeMap::from([
        (ROOTS_FILE.to_owned(), input.issuer.roots_pem()),
        (INTERMEDIATES_FILE.to_owned(), input.issuer.chain_pem()),
    ]);
    let ours = Bundle {
        roots: vec![ROOTS_FILE.to_owned()],
        intermediates: vec![INTERMEDIATES_FILE.to_owned()],
        crls: Vec::new(),
        vouches_for: Vouched { spiffe: vec![input.names.trust_domain.clone()], common_name: false },
    };
    let mut bundles = BTreeMap::from([(OUR_BUNDLE.to_owned(), ours)]);
    for (name, external) in input.bundles {
        let file = format!("bundle-{}.pem", short_digest(name));
        files.insert(file.clone(), external.pem.clone());
        let bundle = Bundle {
            roots: vec![file],
            intermediates: Vec::new(),
            crls: Vec::new(),
            vouches_for: vouched(&external.vouches_for, &input.names.trust_domain),
        };
        bundles.insert(name.clone(), bundle);
    }
    let identities = input.directory.revocations().cloned().collect();
    let serials: BTreeSet<_> = input.ledgers.iter().flat_map(Ledger::revoked).collect();
    let serial = |serial: &str| SerialRevocation { bundle: OUR_BUNDLE.to_owned(), serial: serial.to_owned() };
    let revocations = Revocations { identities, serials: serials.into_iter().map(serial).collect() };
    TrustDocument { document: Trust { bundles, revocations }, files }
}

/// What others may vouch for: never our own trust domain, whatever they are said to.
fn vouched(said: &VouchesFor, ours: &str) -> Vouched {
    let domains: BTreeSet<_> = said.spiffe.iter().filter(|domain| *domain != ours).cloned().collect();
    Vouched { spiffe: domains.into_iter().collect(), common_name: said.common_name }
}
