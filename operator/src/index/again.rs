//! What a watch tells, and how soon it is begun again when the API server does not answer.

use std::fmt::Debug;
use std::time::Duration;

use futures_util::Stream;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, DefaultBackoff, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use crate::limits::WATCH_AGAIN_LONGEST;

/// Follows what `api` has, and does not end: after an error it tries again, soon after the API server is back.
pub(crate) fn watched<K>(
    api: Api<K>,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    watcher(api, config).backoff(Again::default())
}

/// Waits that grow as those of other programs do, but not as long.
#[derive(Default)]
struct Again(DefaultBackoff);

impl Iterator for Again {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|wait| wait.min(WATCH_AGAIN_LONGEST))
    }
}

impl Backoff for Again {
    fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_long_it_was_away_it_is_asked_again_soon() {
        let mut again = Again::default();
        assert!(again.next().unwrap() < WATCH_AGAIN_LONGEST, "at first sooner");
        assert_eq!(again.by_ref().nth(10), Some(WATCH_AGAIN_LONGEST));
        again.reset();
        assert!(again.next().unwrap() < WATCH_AGAIN_LONGEST);
    }
}
