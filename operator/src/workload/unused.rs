//! Workloads without pods: what was written stays for the pods that come, with or without an operator, and goes when none
//! has come for long.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::turn::{TurnError, Worker};
use crate::index::held::{PART_LABEL, UNUSED_ANNOTATION};
use crate::index::{Held, HeldKind, ObjectName};
use crate::limits::UNUSED_KEPT;
use crate::queue::{Key, Outcome, Pace};

/// What becomes of the objects of a workload without pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unused {
    /// It is written down since when there has been none.
    Mark,
    /// They stay for so long.
    Wait(Duration),
    /// They go.
    Remove,
}

/// Decides, by what is written down, in seconds since the epoch. A time to come is a clock that was wrong, and counts as
/// now.
#[must_use]
pub fn decide(since: Option<&str>, now: i64) -> Unused {
    let Some(since) = since.and_then(|text| text.parse::<i64>().ok()) else { return Unused::Mark };
    let age = Duration::from_secs(u64::try_from(now.saturating_sub(since)).unwrap_or_default());
    match UNUSED_KEPT.checked_sub(age) {
        Some(left) if !left.is_zero() => Unused::Wait(left),
        _ => Unused::Remove,
    }
}

impl Worker {
    /// A workload without pods has nobody to write for.
    ///
    /// # Errors
    /// When its objects can be neither marked nor removed.
    pub(super) async fn leave(&self, workload: &ObjectName, is_ending: bool) -> Result<Outcome, TurnError> {
        if self.board.forget(workload) {
            self.wake_clients();
        }
        self.memories.forget(workload);
        self.unfollow(&Key::Workload(workload.clone()));
        let objects = self.objects_of(workload);
        // All that is in a namespace goes with it.
        let Some(marked) = objects.iter().find(|held| is_policy(held)).or(objects.first()).filter(|_| !is_ending)
        else {
            return Ok(Outcome::Done);
        };
        let now = Timestamp::now().as_second();
        let since = objects.iter().filter_map(|held| held.annotations.get(UNUSED_ANNOTATION)).max();
        match decide(since, now) {
            Unused::Mark => {
                self.writer.annotate(marked, UNUSED_ANNOTATION, &now.to_string()).await?;
                Ok(Outcome::Again(UNUSED_KEPT))
            }
            Unused::Wait(left) => Ok(Outcome::Again(left)),
            Unused::Remove => {
                tracing::info!(%workload, objects = objects.len(), "nobody has used what was written for it; it goes");
                for held in &objects {
                    self.writer.remove(held.kind, &held.name).await?;
                }
                self.queue.add(Key::Trust(workload.namespace.clone()), Pace::Gathered);
                Ok(Outcome::Done)
            }
        }
    }

    /// What was written for a workload, the mark last.
    fn objects_of(&self, workload: &ObjectName) -> Vec<Arc<Held>> {
        let cluster = self.index.cluster();
        let kinds = [HeldKind::Secret, HeldKind::ConfigMap];
        let all = kinds.into_iter().flat_map(|kind| cluster.held_in(kind, &workload.namespace));
        let mut all: Vec<_> = all.filter(|held| held.workload().as_ref() == Some(workload)).cloned().collect();
        all.sort_by_key(|held| held.annotations.get(UNUSED_ANNOTATION).is_some());
        all
    }
}

fn is_policy(held: &Held) -> bool {
    held.labels.get(PART_LABEL).is_some_and(|part| part == "policy")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Unused, decide};
    use crate::limits::UNUSED_KEPT;

    #[test]
    fn what_nobody_uses_goes_after_a_while() {
        const NOW: i64 = 1_800_000_000;
        let kept = i64::try_from(UNUSED_KEPT.as_secs()).expect("a week");
        let since = |second: i64| Some(second.to_string());
        let rows = [
            ("nothing is written down", None, Unused::Mark),
            ("nor anything that can be read", Some("yesterday".to_owned()), Unused::Mark),
            ("a moment ago", since(NOW), Unused::Wait(UNUSED_KEPT)),
            ("some days", since(NOW - kept + 5), Unused::Wait(Duration::from_secs(5))),
            ("a week", since(NOW - kept), Unused::Remove),
            ("for ever", since(0), Unused::Remove),
            ("a clock that was wrong", since(NOW + 60), Unused::Wait(UNUSED_KEPT)),
        ];
        for (case, since, expected) in rows {
            assert_eq!(decide(since.as_deref(), NOW), expected, "{case}");
        }
    }
}
