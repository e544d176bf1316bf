//! A quota that copies share: what is there, and what those under way will bring.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Age after which what is there is counted anew, for others write there, too. 10 s: a walk of many files takes one.
const COUNTED_FOR: Duration = Duration::from_secs(10);

type Count = Box<dyn Fn() -> u64 + Send + Sync>;

/// One quota of one rnode.
pub struct Quota {
    quota_bytes: u64,
    /// Walks what is there; slow.
    walk: Count,
    /// What is known at any time.
    known: Count,
    counted: Mutex<Option<(Instant, u64)>>,
    /// Bytes that copies under way may still name.
    under_way: AtomicU64,
}

/// Room that one copy has; what it did not use is given back when it is dropped.
#[derive(Debug)]
pub struct Reserved {
    quota: Arc<Quota>,
    left: AtomicU64,
}

/// There is not so much room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beyond {
    /// The quota.
    pub quota_bytes: u64,
    /// What it leaves.
    pub left_bytes: u64,
}

impl Quota {
    /// A quota over what `walk` finds and `known` tells. `walk` may be slow and is called seldom, off the runtime.
    #[must_use]
    pub fn new(
        quota_bytes: u64,
        walk: impl Fn() -> u64 + Send + Sync + 'static,
        known: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        Self {
            quota_bytes,
            walk: Box::new(walk),
            known: Box::new(known),
            counted: Mutex::default(),
            under_way: AtomicU64::new(0),
        }
    }

    /// Takes room for a copy; two at once do not get the same. Blocks while it counts.
    ///
    /// # Errors
    /// [`Beyond`]; nothing was taken.
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reserved, Beyond> {
        // Ordering: held from counting to taking, so that nobody takes, or names, in between.
        let mut counted = self.counted();
        let fresh = counted.filter(|(at, _)| at.elapsed() < COUNTED_FOR);
        let left = match fresh.map(|(_, there)| self.left(there)) {
            Some(left) if left >= bytes => left,
            // Something may have been removed since.
            _ => {
                let there = (self.walk)();
                *counted = Some((Instant::now(), there));
                self.left(there)
            }
        };
        if left < bytes {
            return Err(Beyond {
                quota_bytes: self.quota_bytes,
                left_bytes: left,
            });
        }
        self.under_way.fetch_add(bytes, Ordering::Relaxed);
        Ok(Reserved {
            quota: Arc::clone(self),
            left: AtomicU64::new(bytes),
        })
    }

    fn left(&self, there: u64) -> u64 {
        let under_way = self.under_way.load(Ordering::Relaxed);
        let used = there
            .saturating_add(under_way)
            .saturating_add((self.known)());
        self.quota_bytes.saturating_sub(used)
    }

    fn counted(&self) -> MutexGuard<'_, Option<(Instant, u64)>> {
        // Whole values are put in only.
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reserved {
    /// So many bytes of it have their names: they are there, no longer under way. Blocks while somebody counts.
    pub fn named(&self, bytes: u64) {
        let mut counted = self.quota.counted();
        let bytes = bytes.min(self.left.load(Ordering::Relaxed));
        self.left.fetch_sub(bytes, Ordering::Relaxed);
        self.quota.under_way.fetch_sub(bytes, Ordering::Relaxed);
        if let Some((_, there)) = counted.as_mut() {
            *there = there.saturating_add(bytes);
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let left = *self.left.get_mut();
        self.quota.under_way.fetch_sub(left, Ordering::Relaxed);
    }
}

impl fmt::Debug for Quota {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Quota")
            .field("quota_bytes", &self.quota_bytes)
            .field("under_way", &self.under_way)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(quota: u64) -> (Arc<Quota>, Arc<AtomicU64>, Arc<AtomicU64>) {
        let (there, walks) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (seen, walked) = (Arc::clone(&there), Arc::clone(&walks));
        let walk = move || {
            walked.fetch_add(1, Ordering::Relaxed);
            seen.load(Ordering::Relaxed)
        };
        (Arc::new(Quota::new(quota, walk, || 10)), there, walks)
    }

    #[test]
    fn what_is_under_way_counts_until_it_is_named_or_given_up() {
        let (quota, there, walks) = quota(110);
        let first = quota.reserve(60).unwrap();
        let beyond = quota.reserve(41).unwrap_err();
        assert_eq!((beyond.quota_bytes, beyond.left_bytes), (110, 40));
        let second = quota.reserve(40).unwrap();
        there.store(60, Ordering::Relaxed);
        first.named(60);
        drop(first);
        assert_eq!(quota.reserve(1).unwrap_err().left_bytes, 0);
        drop(second);
        let walked = walks.load(Ordering::Relaxed);
        drop(quota.reserve(40).unwrap());
        assert_eq!(
            walks.load(Ordering::Relaxed),
            walked,
            "it was counted just before"
        );
        // What was removed makes room at once, what others wrote takes it after a while.
        there.store(0, Ordering::Relaxed);
        drop(quota.reserve(100).unwrap());
        there.store(90, Ordering::Relaxed);
        assert_eq!(quota.reserve(11).map(drop), Ok(()));
        quota.counted().as_mut().unwrap().0 -= COUNTED_FOR;
        assert_eq!(quota.reserve(11).unwrap_err().left_bytes, 10);
    }

    #[test]
    fn many_at_once_never_get_more_than_there_is() {
        let (quota, _, _) = quota(1010);
        let reserving = || {
            let taken: Vec<_> = (0..100).filter_map(|_| quota.reserve(7).ok()).collect();
            let bytes = taken.len() as u64 * 7;
            std::thread::sleep(Duration::from_millis(20));
            (taken, bytes)
        };
        let taken: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(reserving)).collect();
            let held: Vec<_> = threads.into_iter().map(|one| one.join().unwrap()).collect();
            held.iter().map(|(_, bytes)| bytes).sum()
        });
        assert_eq!(taken, 994);
        assert_eq!(quota.under_way.load(Ordering::Relaxed), 0);
    }
}
