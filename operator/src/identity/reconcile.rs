//! One identity from what its owner wrote to what its owner is told: observe → validate → plan → apply → status.

use std::borrow::Cow;
use std::collections::BTreeSet;

use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use postern_crds::ClientIdentity;
use postern_crds::clientidentity::State;
use serde_json::json;
use tracing::{Instrument, error_span};

use super::apply::{Placed, Writer, in_place};
use super::directory::{Directory, Entry, full_name};
use super::enforced::{ToKnow, TrustView};
use super::error::ReconcileError;
use super::ledgers::Ledgers;
use super::observe::{Observed, observe};
use super::plan::{AGAIN_SECONDS, Around, Plan, Standing, held, plan, uid, usable};
use super::status::{Facts, Outcome, Told, status};
use super::validate::{Issued, Refusal, Valid, validate};
use crate::FIELD_MANAGER;
use crate::events::Events;
use crate::events::transition::of_identity;
use crate::pki::authority::Issuer;
use crate::pki::names::Names;

/// What surrounds an identity.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// Seconds since the epoch.
    pub now: i64,
    /// Who signs, or why nobody does.
    pub issuer: Result<&'a Issuer, &'a str>,
    /// Who owns which names.
    pub names: &'a Names,
    /// All identities.
    pub directory: &'a Directory,
    /// How many identities with certificates a namespace may have.
    pub quota: usize,
    /// What was written to sidecars, and what they say.
    pub trust: TrustView<'a>,
    /// Whether the identity's namespace is being deleted.
    pub is_ending: bool,
}

/// What came of a turn.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// When to look again if nothing happens before, in seconds since the epoch.
    pub next_look: Option<i64>,
    /// Whether the ledger was written: part `trust` of all namespaces may have to say more.
    pub revoked: bool,
    /// The identity with the status that was written, if one was: whoever compares with the one before writes it, and
    /// tells of it, again.
    pub written: Option<Box<ClientIdentity>>,
}

impl Done {
    fn again_at(next_look: Option<i64>) -> Self {
        Self { next_look, ..Self::default() }
    }
}

/// Reconciles identities.
#[derive(Clone)]
pub struct Reconciler {
    client: Client,
    ledgers: Ledgers,
    /// Where it is told what became of identities, if anywhere.
    events: Option<Events>,
}

impl Reconciler {
    /// With a client that may write, and the namespace where ledgers are kept.
    #[must_use]
    pub fn new(client: Client, operator_namespace: impl Into<String>) -> Self {
        Self { ledgers: Ledgers::new(client.clone(), operator_namespace.into()), client, events: None }
    }

    /// The same, telling of what becomes of identities.
    #[must_use]
    pub fn telling(self, events: Events) -> Self {
        Self { events: Some(events), ..self }
    }

    /// Brings one identity's objects and status into order.
    ///
    /// # Errors
    /// When the API server or the ledger did not take what was to be written. What was written stays, and the next turn
    /// goes on from there.
    pub async fn reconcile(&self, identity: &ClientIdentity, around: Surroundings<'_>) -> Result<Done, ReconcileError> {
        let name = full_name(identity);
        let entry = around.directory.entry(&name).ok_or(ReconcileError::Unknown(name))?;
        let newest = self.newest(identity).await?;
        let Some(identity) = newest.as_deref() else { return Ok(Done::default()) };
        let valid = validate(identity, entry, around.names, around.quota);
        let observed = observe(&self.client, self.ledgers.operator_namespace(), identity, &valid).await?;
        let seen = Around { now: around.now, issuer: around.issuer, is_ending: around.is_ending };
        let turn = Turn { identity, entry, valid: &valid, observed: &observed, around };
        let writer = Writer { client: &self.client, ledgers: &self.ledgers, identity, now: around.now };
        let (outcome, done) = match plan(identity, &valid, &observed, seen) {
            Plan::Leave => return Ok(Done::default()),
            Plan::Release => return release(&writer, around.is_ending).await,
            Plan::Stay { revoke, certificate, next_look } => {
                if revoke {
                    writer.revoke().await?;
                }
                (turn.stays(certificate), Done { revoked: revoke, ..Done::again_at(next_look) })
            }
            Plan::Rewrite { next_look } => turn.rewrite(&writer, next_look).await?,
            Plan::Make(_) => turn.make(&writer).await?,
        };
        let written = self.tell(&turn, &outcome).await?;
        Ok(Done { written, ..done })
    }

    /// The identity as it is now, where its status is where its certificate is: one that was just written would be issued
    /// again. `None` where it is gone.
    async fn newest<'a>(
        &self,
        identity: &'a ClientIdentity,
    ) -> Result<Option<Cow<'a, ClientIdentity>>, ReconcileError> {
        if identity.spec.csr.is_none() {
            return Ok(Some(Cow::Borrowed(identity)));
        }
        let meta = &identity.metadata;
        let identities: Api<ClientIdentity> =
            Api::namespaced(self.client.clone(), meta.namespace.as_deref().unwrap_or_default());
        let found = identities.get_opt(meta.name.as_deref().unwrap_or_default()).await;
        let found = found.map_err(ReconcileError::kube("read the identity"))?;
        Ok(found.filter(|found| found.metadata.uid == meta.uid).map(Cow::Owned))
    }

    /// Revokes what was issued in a namespace to identities that are not among these: somebody has removed them past
    /// their finalizer. Only with a complete list. It is asked for when the ledger was read, so that no identity is
    /// missing that something was issued to meanwhile.
    ///
    /// # Errors
    /// When the ledger cannot be read or written.
    pub async fn sweep(
        &self,
        namespace: &str,
        uids: impl Fn() -> BTreeSet<String> + Send + Sync + 'static,
        now: i64,
    ) -> Result<(), ReconcileError> {
        self.ledgers.change(namespace, now, move |ledger| Ok(ledger.revoke_all_but(&uids()))).await
    }

    /// Writes the status, where it says something new.
    async fn tell(&self, turn: &Turn<'_>, outcome: &Outcome) -> Result<Option<Box<ClientIdentity>>, ReconcileError> {
        let identity = turn.identity;
        let ledger = &turn.observed.ledger;
        let mut serials: Vec<_> = ledger.revoked_of(uid(identity)).map(str::to_owned).collect();
        if identity.spec.state == State::Revoked {
            // They are revoked in this very turn.
            serials.extend(ledger.issued(uid(identity)).map(str::to_owned));
        }
        let name = full_name(identity);
        let facts = Facts {
            identity,
            valid: turn.valid,
            subject: turn.subject(),
            outcome,
            to_know: ToKnow { name: &name, revocation: turn.entry.revocation.as_ref(), serials: &serials },
            view: turn.around.trust,
            now: turn.around.now,
        };
        let status = status(&facts);
        if identity.status.as_ref() == Some(&status) {
            return Ok(None);
        }
        let meta = &identity.metadata;
        let identities: Api<ClientIdentity> =
            Api::namespaced(self.client.clone(), meta.namespace.as_deref().unwrap_or_default());
        let name = meta.name.as_deref().unwrap_or_default();
        let patch = json!({
            "apiVersion": ClientIdentity::api_version(&()),
            "kind": ClientIdentity::kind(&()),
            // With its UID, so that another one of the same name is not told what became of this one.
            "metadata": {"name": name, "uid": meta.uid},
            "status": status,
        });
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(patch);
        let told = identities.patch_status(name, &parameters, &patch).instrument(error_span!("report")).await;
        let mut written = told.map_err(ReconcileError::kube("write the status"))?;
        written.metadata.managed_fields = None;
        if let Some(events) = &self.events {
            events.tell(identity, of_identity(identity, identity.status.as_ref(), &status));
        }
        Ok(Some(Box::new(written)))
    }
}

/// What is known in one turn.
struct Turn<'a> {
    identity: &'a ClientIdentity,
    entry: &'a Entry,
    valid: &'a Result<Valid, Refusal>,
    observed: &'a Observed,
    around: Surroundings<'a>,
}

impl Turn<'_> {
    /// What the identity is recognised by: its SPIFFE ID, or its first claim.
    fn subject(&self) -> Option<String> {
        let first = self.entry.known.recognise.first()?;
        let claims = [
            &first.uri,
            &first.dns_name,
            &first.common_name,
            &first.fingerprint,
            &first.lfdi,
            &first.sfdi,
            &first.serial,
            &first.spki,
        ];
        claims.into_iter().find_map(Clone::clone)
    }

    fn issued(&self) -> Option<(&Issued, &Issuer)> {
        match (self.valid, self.around.issuer) {
            (Ok(Valid::Issued(issued)), Ok(issuer)) => Some((issued, issuer)),
            _ => None,
        }
    }

    async fn make(&self, writer: &Writer<'_>) -> Result<(Outcome, Done), ReconcileError> {
        let Some((issued, issuer)) = self.issued() else {
            return Ok((Outcome::NoneToBe, Done::default()));
        };
        match writer.make(issued, self.observed, issuer).await {
            Ok(placed) => {
                let done = Done::again_at(Some(placed.renewal));
                Ok((Outcome::Good(told(placed)), done))
            }
            Err(error) if error.is_transient() => Err(error),
            Err(error) => {
                let done = Done::again_at(Some(self.around.now + AGAIN_SECONDS));
                Ok((self.stuck(error.to_string(), false), done))
            }
        }
    }

    async fn rewrite(&self, writer: &Writer<'_>, next_look: i64) -> Result<(Outcome, Done), ReconcileError> {
        if let Some((issued, issuer)) = self.issued() {
            writer.rewrite(issued, self.observed, issuer).await?;
        }
        let outcome = self.stays(Standing::Good { renewal: next_look });
        Ok((outcome, Done::again_at(Some(next_look))))
    }

    fn stays(&self, standing: Standing) -> Outcome {
        match standing {
            Standing::NoneToBe => Outcome::NoneToBe,
            Standing::Good { renewal } => match in_place(self.identity, self.observed, renewal) {
                Some(placed) => Outcome::Good(told(placed)),
                None => self.stuck("it is not there".to_owned(), false),
            },
            Standing::AsItIs { why } => self.stuck(why, false),
            Standing::Taken { what } => self.stuck(what, true),
        }
    }

    fn stuck(&self, why: String, is_taken: bool) -> Outcome {
        // One that nothing is issued to, has nothing to be issued, whatever else is wrong with it.
        let asks = self.identity.spec.issue.is_some() || self.identity.spec.csr.is_some();
        if !asks {
            return Outcome::NoneToBe;
        }
        let held = held(self.identity, self.observed);
        let certificate = usable(&held, self.around.issuer, self.around.now);
        let chain = in_place(self.identity, self.observed, 0).and_then(|placed| placed.chain);
        let certificate = certificate.map(|certificate| Told { certificate, chain, renewal: None });
        let has_expired =
            certificate.is_none() && held.leaf().is_some_and(|leaf| leaf.facts.not_after <= self.around.now);
        Outcome::Stuck { why, is_taken, certificate, has_expired }
    }
}

fn told(placed: Placed) -> Told {
    Told { certificate: placed.certificate, chain: placed.chain, renewal: Some(placed.renewal) }
}

/// Lets a deleted identity go, once its certificates are in the ledger. A ledger that cannot be written, and will not be
/// by trying again, does not keep a namespace from ending.
async fn release(writer: &Writer<'_>, is_ending: bool) -> Result<Done, ReconcileError> {
    match writer.revoke().await {
        Ok(()) => {}
        Err(error) if is_ending && !error.is_transient() => {
            tracing::error!(identity = full_name(writer.identity), %error, "deleted with certificates that stay valid");
        }
        Err(error) => return Err(error),
    }
    writer.remove_finalizer().await?;
    Ok(Done { revoked: true, ..Done::default() })
}
