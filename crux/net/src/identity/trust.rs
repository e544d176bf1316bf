//! What a process believes: the charter, the denies and the claims it has seen; shared by all its credentials.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crux_core::identity::{
    self as judge, Charter, Claim, ClaimTable, Conflict, Denied, Denies, Enrolment, Moment,
    Novelty, Precedence, Principal, Refusal, Signed,
};
use crux_core::names::{OwnerId, RnodeId};
use tokio::sync::watch;

use crate::identity::{Error, WallClock, files};

/// Most reports kept until somebody takes them; beyond it the oldest go.
const REPORTS_MAX: usize = 256;
/// Most pairs remembered as reported; beyond it no new ones are reported.
const REPORTED_MAX: usize = 4_096;

/// Something that the owner should hear of. Each is reported once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A second rnode came with a claim that another holds; it was refused.
    SecondTaker {
        /// What both took.
        claim: Claim,
        /// Who holds it.
        holder: RnodeId,
        /// Who was refused.
        taker: RnodeId,
    },
}

/// What one process believes. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Trust(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: RwLock<State>,
    reports: Mutex<Reports>,
    changes: watch::Sender<u64>,
    clock: WallClock,
    dir: Option<PathBuf>,
    writing: Mutex<()>,
}

/// What is kept in a file of its own.
#[derive(Clone, Copy)]
enum Part {
    Charter,
    Denies,
    Claims,
}

#[derive(Debug)]
struct State {
    charter: Charter,
    denies: Denies,
    claims: ClaimTable,
}

#[derive(Debug, Default)]
struct Reports {
    waiting: VecDeque<Report>,
    made: BTreeSet<(Claim, RnodeId)>,
}

impl Trust {
    /// Belief in `charter` alone, kept in memory.
    #[must_use]
    pub fn new(charter: Charter, clock: WallClock) -> Self {
        Self::build(
            State {
                charter,
                denies: Denies::default(),
                claims: ClaimTable::default(),
            },
            clock,
            None,
        )
    }

    /// Belief in `charter`, with claims and denies kept in `dir`.
    pub(crate) fn open(dir: &Path, charter: Charter, clock: WallClock) -> Result<Self, Error> {
        let claims = match files::read(&dir.join("claims"))? {
            Some(bytes) => ClaimTable::decode(&bytes)?,
            None => ClaimTable::default(),
        };
        let denies = match files::read(&dir.join("denies"))? {
            Some(bytes) => decode_denies(&bytes).ok_or_else(|| Error::Damaged {
                path: dir.join("denies"),
                what: "a line of it names nothing to deny",
            })?,
            None => Denies::default(),
        };
        Ok(Self::build(
            State {
                charter,
                denies,
                claims,
            },
            clock,
            Some(dir.to_owned()),
        ))
    }

    /// Judges a chain shown on a connection: [`crux_core::identity::verify`], then the claims.
    ///
    /// A claim seen for the first time is on disk before this returns.
    ///
    /// # Errors
    /// Why it is refused; a second taker is also [reported](Self::take_reports).
    pub fn verify<C: AsRef<[u8]>>(&self, chain: &[C]) -> Result<Principal, Refusal> {
        let now = self.0.clock.now();
        let principal = {
            let state = self.read();
            judge::verify(chain, &state.charter, &state.denies, Moment::Now(now))?
        };
        self.admit(principal)
    }

    /// Judges again someone whose connection stands: charter, denies and claims, but not the leaf's clock.
    ///
    /// # Errors
    /// Why it is refused now.
    pub fn recheck<C: AsRef<[u8]>>(&self, chain: &[C]) -> Result<Principal, Refusal> {
        let principal = {
            let state = self.read();
            judge::verify(chain, &state.charter, &state.denies, Moment::Kept)?
        };
        self.admit(principal)
    }

    /// Judges a signed thing and its signer: now, or as something that was accepted before.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn verify_signed<C: AsRef<[u8]>>(
        &self,
        signed: &Signed<'_, C>,
        acceptance: Acceptance,
    ) -> Result<Principal, Refusal> {
        let moment = match acceptance {
            Acceptance::New => Moment::Now(self.0.clock.now()),
            Acceptance::Kept => Moment::Kept,
        };
        let principal = {
            let state = self.read();
            judge::verify_signed(signed, &state.charter, &state.denies, moment)?
        };
        self.admit(principal)
    }

    /// Denies a key, rnode or invitation from now on: open connections of whoever falls under it are cut.
    ///
    /// # Errors
    /// [`Error::Io`]: denied while this process lives, but not on disk.
    pub fn deny(&self, denied: Denied) -> Result<(), Error> {
        if !self.write().denies.deny(denied) {
            return Ok(());
        }
        self.changed();
        self.keep(Part::Denies)
    }

    /// Takes over the claims of a flock met in a merge, and denies who loses.
    ///
    /// # Errors
    /// [`Error::Io`]: merged while this process lives, but not on disk.
    pub fn merge_claims(
        &self,
        other: &ClaimTable,
        precedence: Precedence,
    ) -> Result<Vec<Conflict>, Error> {
        let conflicts = self.write().claims.merge(other, precedence);
        for conflict in &conflicts {
            self.report(conflict.claim, conflict.holder, conflict.loser);
            self.deny(Denied::Rnode(conflict.loser))?;
        }
        self.changed();
        self.keep(Part::Claims)?;
        Ok(conflicts)
    }

    /// The claims seen so far.
    #[must_use]
    pub fn claims(&self) -> ClaimTable {
        self.read().claims.clone()
    }

    /// What is denied.
    #[must_use]
    pub fn denies(&self) -> Denies {
        self.read().denies.clone()
    }

    /// The charter believed in.
    #[must_use]
    pub fn charter(&self) -> Charter {
        self.read().charter.clone()
    }

    /// Whose charter it is.
    #[must_use]
    pub fn owner(&self) -> OwnerId {
        self.read().charter.owner()
    }

    /// Takes over a successor of the charter.
    ///
    /// # Errors
    /// [`Error::Refused`] when it is none; [`Error::Io`]: taken over, but not on disk.
    pub fn succeed(&self, charter: &[u8]) -> Result<(), Error> {
        {
            let mut state = self.write();
            state.charter = state.charter.succeed(charter)?;
        }
        self.changed();
        self.keep(Part::Charter)
    }

    /// Ticks whenever someone who passed may no longer (charter, denies, claims lost in a merge), and at each report.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// The reports made since the last call, oldest first.
    #[must_use]
    pub fn take_reports(&self) -> Vec<Report> {
        self.reports().waiting.drain(..).collect()
    }

    /// The clock judgements go by.
    #[must_use]
    pub fn clock(&self) -> &WallClock {
        &self.0.clock
    }

    fn build(state: State, clock: WallClock, dir: Option<PathBuf>) -> Self {
        Self(Arc::new(Inner {
            state: RwLock::new(state),
            reports: Mutex::default(),
            changes: watch::Sender::new(0),
            clock,
            dir,
            writing: Mutex::default(),
        }))
    }

    /// Takes note of the claim by which `principal`, or who vouches for it, came in.
    fn admit(&self, principal: Principal) -> Result<Principal, Refusal> {
        let Some(Enrolment { claim, taker }) = principal.enrolment else {
            return Ok(principal);
        };
        if self.read().claims.holder(&claim) == Some(taker) {
            return Ok(principal);
        }
        let taken = self.write().claims.take(claim, taker);
        match taken {
            Ok(Novelty::Known) => {}
            Ok(Novelty::New) => {
                if let Err(error) = self.keep(Part::Claims) {
                    tracing::warn!(%error, "a claim could not be kept");
                }
            }
            Err(refusal) => {
                if let Refusal::AlreadyClaimed { holder, .. } = refusal {
                    self.report(claim, holder, taker);
                }
                return Err(refusal);
            }
        }
        Ok(principal)
    }

    fn report(&self, claim: Claim, holder: RnodeId, taker: RnodeId) {
        {
            let mut reports = self.reports();
            if reports.made.len() >= REPORTED_MAX || !reports.made.insert((claim, taker)) {
                return;
            }
            if reports.waiting.len() >= REPORTS_MAX {
                reports.waiting.pop_front();
            }
            reports.waiting.push_back(Report::SecondTaker {
                claim,
                holder,
                taker,
            });
        }
        self.changed();
    }

    /// Writes one part of what is believed, as it is now.
    fn keep(&self, part: Part) -> Result<(), Error> {
        let Some(dir) = &self.0.dir else {
            return Ok(());
        };
        // Ordering: what is encoded later is written later, so the newest stays.
        let _writing = self
            .0
            .writing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (name, bytes) = {
            let state = self.read();
            match part {
                Part::Charter => ("charter", state.charter.encoded().to_vec()),
                Part::Denies => ("denies", encode_denies(&state.denies)),
                Part::Claims => ("claims", state.claims.encode()),
            }
        };
        files::write(&dir.join(name), &bytes)
    }

    fn changed(&self) {
        self.0
            .changes
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.0.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.0.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn reports(&self) -> MutexGuard<'_, Reports> {
        self.0
            .reports
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a signed thing is judged for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceptance {
    /// It is new here: the signer's grant must hold now.
    New,
    /// It was accepted before: only charter, denies and claims count.
    Kept,
}

fn encode_denies(denies: &Denies) -> Vec<u8> {
    let mut text = String::new();
    for denied in denies.iter() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{denied}");
    }
    text.into_bytes()
}

fn decode_denies(bytes: &[u8]) -> Option<Denies> {
    std::str::from_utf8(bytes)
        .ok()?
        .lines()
        .map(|line| line.parse().ok())
        .collect()
}
