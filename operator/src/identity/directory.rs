//! All clients of all namespaces: how each is recognised, and what is revoked of it. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use postern_crds::ClientIdentity;
use postern_crds::clientidentity::{External, Source, State};
use postern_crds::trust::{CaCertificateRef, VouchesFor};
use sidecar_config::identities::{KnownIdentity, Recogniser};
use sidecar_config::trust::{IdentityRevocation, RevocationState};
use sidecar_decide::accept;

use super::trust::{OUR_BUNDLE, bundle_name};
use crate::pki::names::Names;

/// All clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    entries: BTreeMap<String, Entry>,
}

/// A client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its namespace.
    pub namespace: String,
    /// How it is recognised. Without recognisers nobody is it.
    pub known: KnownIdentity,
    /// Whose certificates it shows.
    pub bundle: BundleUse,
    /// What is revoked of it.
    pub revocation: Option<IdentityRevocation>,
    /// Why it is not known, or not by all that it says.
    pub problem: Option<Problem>,
    /// How many clients of its namespace with certificates of ours are older.
    pub older_in_namespace: usize,
}

/// Whose certificates a client shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BundleUse {
    /// Ours.
    Ours,
    /// Others', which are found in objects of its namespace.
    External {
        /// Name of the bundle.
        name: String,
        /// Where the certificates are.
        refs: Vec<CaCertificateRef>,
        /// What they may vouch for.
        vouches_for: VouchesFor,
    },
}

impl BundleUse {
    /// Name of the bundle.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Ours => OUR_BUNDLE,
            Self::External { name, .. } => name,
        }
    }
}

/// Why a client is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Something it says cannot be.
    Invalid(String),
    /// An older client is recognised by the same.
    Conflicted(String),
}

impl Directory {
    /// Of all there are. Of two that say they are recognised by the same, the older is.
    #[must_use]
    pub fn of<'a>(identities: impl IntoIterator<Item = &'a ClientIdentity>, names: &Names) -> Self {
        let mut by_age: Vec<_> = identities.into_iter().collect();
        by_age.sort_by_cached_key(|identity| {
            let created = identity.metadata.creation_timestamp.as_ref().map(|time| time.0);
            // One without a time has not been seen by the API server.
            (created.is_none(), created, full_name(identity))
        });
        let mut owners = HashMap::new();
        let mut counts: HashMap<String, usize> = HashMap::new();
        let mut entries = BTreeMap::new();
        for identity in by_age {
            let mut entry = entry(identity, names);
            if identity.spec.issue.is_some() || identity.spec.csr.is_some() {
                let count = counts.entry(entry.namespace.clone()).or_default();
                entry.older_in_namespace = *count;
                *count += 1;
            }
            keep_unclaimed(&mut entry, &mut owners);
            entries.insert(entry.known.name.clone(), entry);
        }
        Self { entries }
    }

    /// A client by its name, `namespace/name`.
    #[must_use]
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// All clients of a namespace that have these labels.
    pub fn select<'a>(
        &'a self,
        namespace: &'a str,
        labels: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'a Entry> {
        let has_them = |entry: &&Entry| labels.iter().all(|(key, value)| entry.known.labels.get(key) == Some(value));
        self.entries.values().filter(move |entry| entry.namespace == namespace).filter(has_them)
    }

    /// Part `identities` of a workload: those its rules name, and every one of any namespace that is not plainly welcome,
    /// as far as certificates of its bundle are let in at all. Rules for any verified client and for SPIFFE IDs name
    /// nobody, and must refuse those, too.
    #[must_use]
    pub fn known(&self, named: &BTreeSet<String>, bundles: &BTreeSet<String>) -> Vec<KnownIdentity> {
        let concerns = |entry: &&Entry| {
            let is_refused = entry.revocation.is_some() && bundles.contains(entry.bundle.name());
            !entry.known.recognise.is_empty() && (is_refused || named.contains(&entry.known.name))
        };
        self.entries.values().filter(concerns).map(|entry| entry.known.clone()).collect()
    }

    /// What is revoked, by name.
    pub fn revocations(&self) -> impl Iterator<Item = &IdentityRevocation> {
        self.entries.values().filter_map(|entry| entry.revocation.as_ref())
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }
}

/// `namespace/name`, as rules and rows have it.
#[must_use]
pub fn full_name(identity: &ClientIdentity) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}/{}", part(&identity.metadata.namespace), part(&identity.metadata.name))
}

/// What is revoked of an identity. One that is being deleted is revoked until the ledger has its certificates.
#[must_use]
pub fn revocation(identity: &ClientIdentity) -> Option<IdentityRevocation> {
    let is_going = identity.metadata.deletion_timestamp.is_some();
    let state = match identity.spec.state {
        _ if is_going => Some(RevocationState::Revoked),
        State::Active => None,
        State::Suspended => Some(RevocationState::Suspended),
        State::Revoked => Some(RevocationState::Revoked),
    };
    // The schema lets nothing through that cannot be read.
    let accept_issued_after = identity.spec.accept_issued_after.as_ref().and_then(|time| time.as_str().parse().ok());
    let revocation = IdentityRevocation { name: full_name(identity), state, accept_issued_after };
    (state.is_some() || accept_issued_after.is_some()).then_some(revocation)
}

fn entry(identity: &ClientIdentity, names: &Names) -> Entry {
    let namespace = identity.metadata.namespace.clone().unwrap_or_default();
    let name = identity.metadata.name.as_deref().unwrap_or_default();
    let ours = |uri| vec![Recogniser { uri: Some(uri), ..empty(OUR_BUNDLE) }];
    let (recognise, bundle) = match identity.spec.source() {
        Some(Source::Issue(_) | Source::Csr(_)) => (ours(names.client(&namespace, name)), BundleUse::Ours),
        Some(Source::ServiceAccount(account)) => {
            (ours(names.service_account(&namespace, &account.name)), BundleUse::Ours)
        }
        Some(Source::External(external)) => of_external(external, &namespace),
        None => (Vec::new(), BundleUse::Ours),
    };
    let labels = identity.metadata.labels.clone().unwrap_or_default();
    let known = KnownIdentity { name: full_name(identity), labels, recognise };
    let mut entry =
        Entry { namespace, known, bundle, revocation: revocation(identity), problem: None, older_in_namespace: 0 };
    if let Some(problem) = invalid(&entry, identity, names) {
        // One that cannot be read would refuse the whole part.
        entry.known.recognise.clear();
        entry.problem = Some(Problem::Invalid(problem));
    }
    entry
}

fn empty(bundle: &str) -> Recogniser {
    Recogniser {
        bundle: bundle.to_owned(),
        uri: None,
        dns_name: None,
        common_name: None,
        fingerprint: None,
        lfdi: None,
        sfdi: None,
        serial: None,
        spki: None,
    }
}

fn of_external(external: &External, namespace: &str) -> (Vec<Recogniser>, BundleUse) {
    let trust = &external.trust;
    let name = bundle_name(namespace, &trust.ca_certificate_refs, trust.vouches_for.as_ref());
    let each = |values: &[String], with: fn(String, Recogniser) -> Recogniser| -> Vec<Recogniser> {
        values.iter().map(|value| with(value.clone(), empty(&name))).collect()
    };
    let recognise = [
        each(&external.uris, |value, all| Recogniser { uri: Some(value), ..all }),
        each(&external.dns_names, |value, all| Recogniser { dns_name: Some(value), ..all }),
        each(&external.common_names, |value, all| Recogniser { common_name: Some(value), ..all }),
        each(&external.fingerprints, |value, all| Recogniser { fingerprint: Some(value), ..all }),
        each(&external.lfdi, |value, all| Recogniser { lfdi: Some(value), ..all }),
        each(&external.sfdi, |value, all| Recogniser { sfdi: Some(value), ..all }),
        each(&external.serials, |value, all| Recogniser { serial: Some(value), ..all }),
        each(&external.spki, |value, all| Recogniser { spki: Some(value), ..all }),
    ];
    let vouches_for = trust.vouches_for.clone().unwrap_or_default();
    let bundle = BundleUse::External { refs: trust.ca_certificate_refs.clone(), vouches_for, name };
    (recognise.concat(), bundle)
}

/// What the schema lets through and a sidecar would not.
fn invalid(entry: &Entry, identity: &ClientIdentity, names: &Names) -> Option<String> {
    if identity.spec.source().is_none() {
        return Some("spec: write exactly one of issue, csr, serviceAccount and external".to_owned());
    }
    if let Err(refusal) = accept::identities(std::slice::from_ref(&entry.known)) {
        let details: Vec<_> = refusal.problems.into_iter().map(|problem| problem.detail).collect();
        return Some(details.join("; "));
    }
    let BundleUse::External { vouches_for, .. } = &entry.bundle else { return None };
    let domain = entry.known.recognise.iter().find_map(|one| {
        let domain = one.uri.as_deref()?.strip_prefix("spiffe://")?.split('/').next()?;
        let is_vouched = domain != names.trust_domain && vouches_for.spiffe.iter().any(|vouched| vouched == domain);
        (!is_vouched).then(|| domain.to_owned())
    })?;
    if domain == names.trust_domain {
        return Some(format!(
            "external.uris: SPIFFE IDs of `{domain}` count under Postern's own authorities only; use issue, csr or serviceAccount"
        ));
    }
    Some(format!(
        "external.uris: a SPIFFE ID of `{domain}` counts only if trust.vouchesFor.spiffe has `{domain}`; add it"
    ))
}

/// Takes away what an older identity is recognised by, and remembers the rest as this one's.
fn keep_unclaimed(entry: &mut Entry, owners: &mut HashMap<Recogniser, String>) {
    let mut taken = Vec::new();
    let name = entry.known.name.clone();
    entry.known.recognise.retain(|one| {
        let owner = owners.entry(canonical(one)).or_insert_with(|| name.clone());
        if *owner != name {
            taken.push(format!("{} is how older `{owner}` is recognised", claim_of(one)));
        }
        *owner == name
    });
    let mut seen = BTreeSet::new();
    entry.known.recognise.retain(|one| seen.insert(claim_of(&canonical(one))));
    if !taken.is_empty() && entry.problem.is_none() {
        let shown: Vec<_> = taken.iter().take(3).map(String::as_str).collect();
        let more = taken.len().saturating_sub(shown.len());
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        entry.problem = Some(Problem::Conflicted(format!("{}{more}", shown.join("; "))));
    }
}

/// The same claim in one spelling.
fn canonical(one: &Recogniser) -> Recogniser {
    let lower = |text: &Option<String>| text.as_ref().map(|text| text.to_ascii_lowercase());
    Recogniser {
        bundle: one.bundle.clone(),
        uri: one.uri.clone(),
        dns_name: lower(&one.dns_name),
        common_name: one.common_name.clone(),
        fingerprint: lower(&one.fingerprint),
        lfdi: lower(&one.lfdi),
        sfdi: one.sfdi.clone(),
        serial: lower(&one.serial).map(|serial| serial.replace(':', "").trim_start_matches("00").to_owned()),
        spki: lower(&one.spki),
    }
}

/// The claim in words.
fn claim_of(one: &Recogniser) -> String {
    let claims = [
        ("uri", &one.uri),
        ("dnsName", &one.dns_name),
        ("commonName", &one.common_name),
        ("fingerprint", &one.fingerprint),
        ("lfdi", &one.lfdi),
        ("sfdi", &one.sfdi),
        ("serial", &one.serial),
        ("spki", &one.spki),
    ];
    let said = claims.iter().find_map(|(name, value)| Some(format!("{name} `{}`", value.as_ref()?)));
    said.unwrap_or_default()
}
