//! The one place where identity reads wall time: never below what was seen before.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crux_core::identity::UnixTime;

use crate::identity::{Error, files};

/// How far the floor may lag behind on disk. 10 min: one small write then, and a third of what a leaf is dated back.
const FLOOR_LAG_SECONDS: u64 = 600;

/// Wall time with a floor: a clock that is set back stands still until it has caught up. Cloning shares it.
#[derive(Debug, Clone)]
pub struct WallClock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    floor: AtomicU64,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// The system's clock; the floor is kept in a file, if there is one.
    System {
        file: Option<PathBuf>,
        kept: AtomicU64,
    },
    /// Set by hand.
    Manual,
}

impl WallClock {
    /// The system's clock, with a floor while this process lives.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(Inner {
            floor: AtomicU64::new(0),
            source: Source::System {
                file: None,
                kept: AtomicU64::new(0),
            },
        }))
    }

    /// The system's clock, with a floor kept in `file`.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Damaged`].
    pub fn with_floor(file: &Path) -> Result<Self, Error> {
        let floor = match files::read(file)? {
            None => 0,
            Some(bytes) => std::str::from_utf8(&bytes)
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .ok_or_else(|| Error::Damaged {
                    path: file.to_owned(),
                    what: "it is not a number of seconds",
                })?,
        };
        let source = Source::System {
            file: Some(file.to_owned()),
            kept: AtomicU64::new(floor),
        };
        Ok(Self(Arc::new(Inner {
            floor: AtomicU64::new(floor),
            source,
        })))
    }

    /// A clock that shows `time` until it is [set](Self::set): for simulations and tests.
    #[must_use]
    pub fn manual(time: UnixTime) -> Self {
        Self(Arc::new(Inner {
            floor: AtomicU64::new(time.seconds()),
            source: Source::Manual,
        }))
    }

    /// Sets a manual clock forward; others, and the past, are left alone.
    pub fn set(&self, time: UnixTime) {
        if matches!(self.0.source, Source::Manual) {
            self.0.floor.fetch_max(time.seconds(), Ordering::AcqRel);
        }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> UnixTime {
        let Source::System { file, kept } = &self.0.source else {
            return UnixTime::from_seconds(self.0.floor.load(Ordering::Acquire));
        };
        let shown = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let now = self.0.floor.fetch_max(shown, Ordering::AcqRel).max(shown);
        if let Some(file) = file {
            keep(file, kept, now);
        }
        UnixTime::from_seconds(now)
    }
}

/// Writes the floor when it has fallen behind. A failure is logged: the clock goes on with the floor in memory.
fn keep(file: &Path, kept: &AtomicU64, now: u64) {
    let before = kept.load(Ordering::Acquire);
    let due = now >= before.saturating_add(FLOOR_LAG_SECONDS);
    if due
        && kept
            .compare_exchange(before, now, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
        && let Err(error) = files::write(file, now.to_string().as_bytes())
    {
        tracing::warn!(%error, "the wall clock's floor could not be kept");
    }
}
