//! One peer's standing on one connection: judged again at every call, cheaply while nothing changed.

use std::sync::{Mutex, PoisonError};

use crux_core::identity::{Principal, Refusal, UnixTime};
use tokio::sync::watch;

use crate::identity::Trust;

/// Who is at the other end.
pub(crate) enum Session {
    /// Known by certificate.
    Certified(Box<Certified>),
    /// Known by the socket it was given: for as long as it holds that.
    Given(Box<Principal>),
}

pub(crate) struct Certified {
    chain: Vec<Vec<u8>>,
    trust: Trust,
    changes: watch::Receiver<u64>,
    judged: Mutex<(u64, Principal)>,
}

impl Session {
    /// Judges `chain` for the first time.
    pub(crate) fn begin(chain: Vec<Vec<u8>>, trust: Trust) -> Result<Self, Refusal> {
        let changes = trust.changes();
        let version = *changes.borrow();
        let principal = trust.verify(&chain)?;
        Ok(Self::Certified(Box::new(Certified {
            chain,
            trust,
            changes,
            judged: Mutex::new((version, principal)),
        })))
    }

    /// Who it is, judged now.
    pub(crate) fn principal(&self) -> Result<Principal, Refusal> {
        match self {
            Self::Given(principal) => Ok((**principal).clone()),
            Self::Certified(certified) => certified.principal(),
        }
    }

    /// Judges again after a change, open streams included: the clock does not count for those.
    pub(crate) fn recheck(&self) -> Result<(), Refusal> {
        match self {
            Self::Given(_) => Ok(()),
            Self::Certified(certified) => certified.trust.recheck(&certified.chain).map(drop),
        }
    }

    /// Ticks when a judgement may have changed; `None`: it never does.
    pub(crate) fn changes(&self) -> Option<watch::Receiver<u64>> {
        match self {
            Self::Given(_) => None,
            Self::Certified(certified) => Some(certified.trust.changes()),
        }
    }

    /// Seconds after which the peer should come again with its next leaf; `None`: never.
    pub(crate) fn seconds_to_renewal(&self) -> Option<u64> {
        match self {
            Self::Given(_) => None,
            Self::Certified(certified) => {
                let until = certified.lock().1.valid.until;
                let now = certified.trust.clock().now();
                Some(until.seconds().saturating_sub(now.seconds()) / 2)
            }
        }
    }

    /// Whether the peer's leaf is so old that it should come again with its next one.
    pub(crate) fn is_due(&self, renew_at: Option<UnixTime>) -> bool {
        match (self, renew_at) {
            (Self::Certified(certified), Some(renew_at)) => {
                certified.trust.clock().now() >= renew_at
            }
            _ => false,
        }
    }

    /// The moment [`seconds_to_renewal`](Self::seconds_to_renewal) from now.
    pub(crate) fn renew_at(&self) -> Option<UnixTime> {
        let Self::Certified(certified) = self else {
            return None;
        };
        let seconds = self.seconds_to_renewal()?;
        Some(certified.trust.clock().now().plus(seconds))
    }
}

impl Certified {
    fn principal(&self) -> Result<Principal, Refusal> {
        let version = *self.changes.borrow();
        let now = self.trust.clock().now();
        {
            let judged = self.lock();
            if judged.0 == version && judged.1.valid.contains(now) {
                return Ok(judged.1.clone());
            }
        }
        let principal = self.trust.verify(&self.chain)?;
        *self.lock() = (version, principal.clone());
        Ok(principal)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (u64, Principal)> {
        self.judged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
