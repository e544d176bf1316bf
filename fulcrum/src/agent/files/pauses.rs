//! Pauses between tries to have what nobody gave: each twice as long as the one before, none when there is news.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// What could not be had, by id.
#[derive(Debug)]
pub(crate) struct Pauses {
    first: Duration,
    most: Duration,
    paused: BTreeMap<String, Paused>,
}

#[derive(Debug)]
struct Paused {
    /// Who was asked.
    sources: Vec<String>,
    pause: Duration,
    until: Instant,
}

impl Pauses {
    /// None yet; the first is `first`, none is longer than `most`.
    pub(crate) const fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            paused: BTreeMap::new(),
        }
    }

    /// Forgets those that are not wanted any more.
    pub(crate) fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        self.paused.retain(|id, _| wanted(id));
    }

    /// Whether it is to be tried: first, after its pause, or when somebody is there who was not asked.
    pub(crate) fn is_due(&self, id: &str, sources: &[String], now: Instant) -> bool {
        let new = |paused: &Paused| sources.iter().any(|it| !paused.sources.contains(it));
        let paused = self.paused.get(id);
        paused.is_none_or(|paused| now >= paused.until || new(paused))
    }

    /// Until when it is left alone; `None` if it is not.
    pub(crate) fn until(&self, id: &str) -> Option<Instant> {
        self.paused.get(id).map(|paused| paused.until)
    }

    /// Notes a try; each in a row that brought nothing doubles the pause, until a source is asked that was not before.
    pub(crate) fn tried(&mut self, id: &str, here: bool, sources: &[String], now: Instant) {
        let before = self.paused.remove(id);
        if here {
            return;
        }
        let same = before.filter(|before| sources.iter().all(|it| before.sources.contains(it)));
        let pause = same.map_or(self.first, |before| before.pause * 2);
        let pause = pause.min(self.most);
        let paused = Paused {
            sources: sources.to_owned(),
            pause,
            until: now + pause,
        };
        self.paused.insert(id.to_owned(), paused);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::limits::{FETCH_PAUSE_MAX, FETCH_RETRY, NEED_PAUSE_MAX, NEEDS_INTERVAL};

    #[test]
    fn what_cannot_be_had_is_tried_ever_more_rarely_until_a_source_appears() {
        let sources = |names: &[&str]| -> Vec<String> {
            names.iter().map(|name| (*name).to_owned()).collect()
        };
        let waits = |first, most| {
            let (mut pauses, mut now) = (Pauses::new(first, most), Instant::now());
            let mut waited = Vec::new();
            for _ in 0..9 {
                assert!(pauses.is_due("n", &sources(&["a"]), now));
                pauses.tried("n", false, &sources(&["a"]), now);
                let until = pauses.until("n").unwrap();
                let just_before = until - Duration::from_millis(1);
                assert!(!pauses.is_due("n", &sources(&["a"]), just_before));
                waited.push((until - now).as_millis());
                now = until;
            }
            pauses.tried("n", false, &sources(&["a"]), now);
            assert!(pauses.is_due("n", &sources(&["a", "b"]), now));
            // One that left is no reason.
            assert!(!pauses.is_due("n", &sources(&[]), now));
            pauses.tried("n", false, &sources(&["a", "b"]), now);
            assert_eq!(pauses.until("n"), Some(now + first));
            pauses.tried("n", true, &sources(&["a", "b"]), now);
            assert!(pauses.is_due("n", &sources(&["a"]), now));
            waited
        };
        let needs = [2, 4, 8, 16, 32, 64, 128, 256, 300].map(|seconds| seconds * 1000);
        assert_eq!(waits(NEEDS_INTERVAL, NEED_PAUSE_MAX), needs);
        let pins = [500, 1000, 2000, 4000, 8000, 15_000, 15_000, 15_000, 15_000];
        assert_eq!(waits(FETCH_RETRY, FETCH_PAUSE_MAX), pins);
    }
}
