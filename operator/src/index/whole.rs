//! Turns for all there is, in the cluster or a namespace, and what a namespace leaves behind that is let go of.

use super::{Cluster, ObjectKind, concern};
use crate::queue::{Key, Pace};

impl Cluster {
    /// A turn for everything there is: whoever begins to lead knows of no change.
    #[must_use]
    pub fn everything(&self) -> Vec<(Key, Pace)> {
        concern::of_everything(self)
    }

    /// A turn for everything there is in a namespace.
    #[must_use]
    pub fn everything_in(&self, namespace: &str) -> Vec<(Key, Pace)> {
        concern::of_everything_in(self, namespace)
    }

    /// Forgets what there is of these kinds in a namespace, and tells whose turn it is.
    pub fn forget(&mut self, namespace: &str, kinds: &[ObjectKind]) -> Vec<(Key, Pace)> {
        let mut turns = Vec::new();
        for kind in kinds {
            for name in self.names(*kind, Some(namespace)) {
                turns.extend(self.remove(*kind, &name));
            }
        }
        turns
    }
}
