//! What the store's quota leaves: blobs that are there, and blobs that are about to be.

use std::sync::{MutexGuard, PoisonError};

use super::{Error, Store};

/// Bytes of the store.
#[derive(Debug, Default)]
pub(super) struct Used {
    /// Of the blobs that are there; unknown until they are listed, and after one was removed.
    counted: Option<u64>,
    /// Of blobs that are being named.
    claimed: u64,
    /// How often they were forgotten: a count that began before is none for what ended after.
    forgotten: u64,
}

/// Room for a blob that is being named; given back unless it was.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    store: &'a Store,
    size: u64,
    forgotten: u64,
    named: bool,
}

impl Store {
    /// Bytes of all blobs, and of those that are being named.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        let mut used = self.used();
        self.count(&mut used).unwrap_or(u64::MAX)
    }

    /// Whether `size` more bytes stay within the quota now.
    pub(super) fn admit(&self, size: u64) -> Result<(), Error> {
        self.claim(size).map(drop)
    }

    /// Takes room for a blob; two at once do not get the same.
    pub(super) fn claim(&self, size: u64) -> Result<Claim<'_>, Error> {
        let mut used = self.used();
        if let Some(quota) = self.limits.total_bytes_max
            && self.count(&mut used)?.saturating_add(size) > quota
        {
            return Err(Error::quota(quota));
        }
        used.claimed = used.claimed.saturating_add(size);
        Ok(Claim {
            store: self,
            size,
            forgotten: used.forgotten,
            named: false,
        })
    }

    /// Has the blobs listed anew when the count is next asked for.
    pub(super) fn recount(&self) {
        let mut used = self.used();
        used.counted = None;
        used.forgotten += 1;
    }

    fn count(&self, used: &mut Used) -> Result<u64, Error> {
        let counted = match used.counted {
            Some(counted) => counted,
            None => self.list()?.map(|blob| blob.size).sum(),
        };
        used.counted = Some(counted);
        Ok(counted.saturating_add(used.claimed))
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        // Plain numbers are never half written.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim<'_> {
    /// The blob has its name now.
    pub(super) fn named(mut self) {
        self.named = true;
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut used = self.store.used();
        used.claimed = used.claimed.saturating_sub(self.size);
        if !self.named {
            return;
        }
        if used.forgotten == self.forgotten {
            used.counted = used.counted.map(|counted| counted + self.size);
        } else {
            // It may or may not have been listed since.
            used.counted = None;
        }
    }
}
