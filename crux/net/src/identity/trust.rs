//! What a process believes: the charter, the denies and the claims it has seen; shared by all its credentials.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crux_core::identity::{
    self as judge, Charter, Claim, ClaimTable, Denials, Denied, Denies, Enrolment, Judged, Moment,
    Notice, Novelty, Principal, Refusal, Signed, SignedNotice, SignedVerdict, Step, Succession,
    Verdict, Verdicts, Vouchers, Weight, Who,
};
use crux_core::names::{OwnerId, RnodeId};
use crux_wire::document::v1::{self as wire, Authority, AuthorityMark, DenyNotice};
use prost::Message as _;
use tokio::sync::watch;

use crate::identity::dispute::{DISPUTES_MAX, Dispute, enrolled_part};
use crate::identity::issued::IssuedCertificate;
use crate::identity::report::Report;
use crate::identity::{Error, WallClock, files};

/// Most bytes of what rnodes pass on about their owner. 4 MiB: a full deny list with its chains, and every charter.
pub const AUTHORITY_BYTES_MAX: usize = 4 << 20;

/// Most reports kept until somebody takes them; beyond it the oldest go.
const REPORTS_MAX: usize = 256;
/// Most pairs remembered as reported; beyond it no new ones are reported.
const REPORTED_MAX: usize = 4_096;

/// What became of what somebody passed on about our owner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// Whether anything of it was new, and counts.
    pub changed: bool,
    /// Why parts of it do not count; at most 16 reasons.
    pub refused: Vec<String>,
}

/// Most reasons given for what was refused of an authority.
const REASONS_MAX: usize = 16;

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
    Authority,
}

#[derive(Debug)]
struct State {
    /// The charter held, those that led to it, and rivals.
    succession: Succession,
    /// What the owner denies.
    denials: Denials,
    /// Whom the root vouches for although an operator above them is denied.
    vouchers: Vouchers,
    /// What this rnode alone denies: who lost a claim.
    local: Denies,
    /// Both together.
    denies: Denies,
    claims: ClaimTable,
    /// Who stays of two that made one claim.
    verdicts: Verdicts,
    /// Claims that two made, as long as this rnode holds for the first what no verdict says.
    disputes: BTreeMap<Claim, Dispute>,
}

impl State {
    fn new(charter: Charter) -> Self {
        Self {
            succession: Succession::new(charter),
            denials: Denials::default(),
            vouchers: Vouchers::default(),
            local: Denies::default(),
            denies: Denies::default(),
            claims: ClaimTable::default(),
            verdicts: Verdicts::default(),
            disputes: BTreeMap::new(),
        }
    }

    /// Computes again what is denied.
    fn settle(&mut self) {
        self.denials.settle(self.succession.held());
        self.vouchers.settle(self.succession.held());
        let of_owner = self.denials.denies(self.succession.held());
        self.verdicts
            .settle(self.succession.held(), (&of_owner, &self.vouchers));
        let denied = of_owner.iter().chain(self.local.iter()).copied();
        self.denies = denied.collect::<Denies>().with_closings_of(&of_owner);
        for judged in self.verdicts.iter() {
            self.denies.settle(judged.claim, judged.holder);
            self.claims.settle(judged.claim, judged.holder);
            // What was asked is answered; a heavier verdict the other way asks again.
            let answered = |dispute: &Dispute| dispute.holder == judged.holder;
            if self.disputes.get(&judged.claim).is_some_and(answered) {
                self.disputes.remove(&judged.claim);
            }
        }
    }

    /// Takes over a verdict; one against whom we met first leaves a dispute, for us to outweigh it if we can.
    fn take_verdict(&mut self, signed: &SignedVerdict) -> Result<Option<Judged>, Refusal> {
        let of_owner = self.denials.denies(self.succession.held());
        let denied = (&of_owner, &self.vouchers);
        let (novelty, judged) =
            self.verdicts
                .add(signed, self.succession.held(), denied, &self.claims)?;
        if novelty == Novelty::Known {
            return Ok(None);
        }
        let ours = self.claims.holder(&judged.claim);
        if ours == Some(judged.rival) {
            let verdict = Verdict::decode(&signed.payload)?;
            let rival = verdict.rival_chain();
            match self.disputes.get_mut(&judged.claim) {
                Some(known) if known.holder == judged.rival => {
                    known.chains.0.get_or_insert(rival);
                }
                Some(_) => {}
                None => {
                    let chains = (Some(rival), verdict.holder);
                    self.dispute(judged.claim, (judged.rival, judged.holder), chains);
                }
            }
        }
        self.settle();
        Ok(Some(judged))
    }

    fn dispute(
        &mut self,
        claim: Claim,
        (holder, rival): (RnodeId, RnodeId),
        chains: (Option<Vec<Vec<u8>>>, Vec<Vec<u8>>),
    ) {
        if self.disputes.len() < DISPUTES_MAX {
            let dispute = Dispute {
                claim,
                holder,
                rival,
                chains,
            };
            self.disputes.entry(claim).or_insert(dispute);
        }
    }

    fn charter(&self) -> &Charter {
        self.succession.held()
    }

    fn take_charter(&mut self, bytes: &[u8]) -> Result<Option<Report>, Refusal> {
        let step = self.succession.take(bytes)?;
        let generation = self.charter().generation();
        let report = match step {
            Step::Known => return Ok(None),
            Step::Signed => None,
            Step::Followed => Some(Report::Succeeded { generation }),
            Step::Overturned { lost } => Some(Report::Overturned {
                held: self.charter().id(),
                lost: lost.id(),
            }),
            Step::Rival => Some(Report::Rival {
                held: self.charter().id(),
                rival: Charter::decode(bytes)?.id(),
            }),
        };
        self.settle();
        Ok(report)
    }

    /// Takes what lay on disk: it was judged when it came, and may be newer than the charter beside it by one crash.
    fn believe(&mut self, authority: &Authority) {
        self.succession = Succession::restore(self.charter().clone(), &authority.charters);
        take(self, authority, &mut Vec::new());
        // What stands against what was seen first was thought about when it came.
        self.disputes.clear();
    }

    fn authority(&self) -> Authority {
        let charters = self.succession.all().into_iter();
        Authority {
            charters: charters.map(|charter| charter.encoded().to_vec()).collect(),
            notices: self.denials.signed().map(wire_notice).collect(),
            vouchers: self.vouchers.iter().map(<[u8]>::to_vec).collect(),
            verdicts: self.verdicts.signed().map(wire_verdict).collect(),
        }
    }

    fn mark(&self) -> AuthorityMark {
        let fingerprint = self.vouchers.mark(self.denials.fingerprint());
        let fingerprint = self.succession.mark(self.verdicts.mark(fingerprint));
        AuthorityMark {
            charter: self.charter().generation(),
            charter_id: self.charter().id().as_bytes().to_vec(),
            fingerprint: fingerprint.as_bytes().to_vec(),
        }
    }

    fn judge<C: AsRef<[u8]>>(&self, chain: &[C], moment: Moment) -> Result<Principal, Refusal> {
        self.vouchers
            .verify(chain, self.succession.held(), &self.denies, moment)
    }

    fn judge_signed<C: AsRef<[u8]>>(
        &self,
        signed: &Signed<'_, C>,
        moment: Moment,
    ) -> Result<Principal, Refusal> {
        self.vouchers
            .verify_signed(signed, self.succession.held(), &self.denies, moment)
    }
}

fn wire_verdict(signed: &SignedVerdict) -> wire::Verdict {
    wire::Verdict {
        payload: signed.payload.clone(),
        signature: signed.signature.clone(),
        chain: signed.chain.clone(),
    }
}

fn wire_notice(signed: &SignedNotice) -> DenyNotice {
    DenyNotice {
        payload: signed.payload.clone(),
        signature: signed.signature.clone(),
        chain: signed.chain.clone(),
    }
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
        Self::build(State::new(charter), clock, None)
    }

    /// Belief in `charter` and in what was passed on about its owner, kept in memory.
    pub(crate) fn with_authority(
        charter: Charter,
        authority: Option<&Authority>,
        clock: WallClock,
    ) -> Self {
        let mut state = State::new(charter);
        if let Some(authority) = authority {
            state.believe(authority);
        }
        Self::build(state, clock, None)
    }

    /// Belief in `charter`, with claims and denies kept in `dir`.
    pub(crate) fn open(dir: &Path, charter: Charter, clock: WallClock) -> Result<Self, Error> {
        let mut state = State::new(charter);
        if let Some(bytes) = files::read(&dir.join("claims"))? {
            state.claims = ClaimTable::decode(&bytes)?;
        }
        if let Some(bytes) = files::read(&dir.join("denies"))? {
            state.local = decode_denies(&bytes).ok_or_else(|| Error::Damaged {
                path: dir.join("denies"),
                what: "a line of it names nothing to deny",
            })?;
        }
        if let Some(authority) = read_authority(dir)? {
            state.believe(&authority);
        }
        state.settle();
        Ok(Self::build(state, clock, Some(dir.to_owned())))
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
            state.judge(chain, Moment::Now(now))?
        };
        self.admit(chain, principal)
    }

    /// Judges again someone whose connection stands: charter, denies and claims, but not the leaf's clock.
    ///
    /// # Errors
    /// Why it is refused now.
    pub fn recheck<C: AsRef<[u8]>>(&self, chain: &[C]) -> Result<Principal, Refusal> {
        let principal = {
            let state = self.read();
            state.judge(chain, Moment::Kept)?
        };
        self.admit(chain, principal)
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
            state.judge_signed(signed, moment)?
        };
        self.admit(signed.chain, principal)
    }

    /// Judges an invitation by its own chain, its certificate first; its claim-by is not judged.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn judge_invitation<C: AsRef<[u8]>>(
        &self,
        chain: &[C],
    ) -> Result<IssuedCertificate, Error> {
        let der = chain.first().ok_or(Refusal::NoCertificate)?;
        {
            let state = self.read();
            judge::verify_invitation(chain, state.succession.held(), &state.denies)?;
        }
        IssuedCertificate::read(der.as_ref().to_vec())
    }

    /// Denies a key, rnode or invitation from now on: open connections of whoever falls under it are cut.
    ///
    /// # Errors
    /// [`Error::Io`]: denied while this process lives, but not on disk.
    pub fn deny(&self, denied: Denied) -> Result<(), Error> {
        {
            let mut state = self.write();
            if !state.local.deny(denied) {
                return Ok(());
            }
            state.settle();
        }
        self.changed();
        self.keep(Part::Denies)
    }

    /// What there is to pass on about the owner: charters and deny notices.
    #[must_use]
    pub fn authority(&self) -> Authority {
        self.read().authority()
    }

    /// A mark of that: two who hold the same charter and notices have equal marks.
    #[must_use]
    pub fn authority_mark(&self) -> AuthorityMark {
        self.read().mark()
    }

    /// Takes over what somebody passed on, whoever it was: each part is judged by its own signature.
    ///
    /// # Errors
    /// [`Error::Io`]: taken over while this process lives, but not on disk.
    pub fn take_authority(&self, authority: &Authority) -> Result<Taken, Error> {
        let mut taken = Taken::default();
        let reports = {
            let mut state = self.write();
            take(&mut state, authority, &mut taken.refused)
        };
        if reports.is_empty() {
            return Ok(taken);
        }
        taken.changed = true;
        {
            let mut held = self.reports();
            for report in reports {
                if held.waiting.len() >= REPORTS_MAX {
                    held.waiting.pop_front();
                }
                held.waiting.push_back(report);
            }
        }
        self.changed();
        self.keep(Part::Authority)?;
        self.keep(Part::Claims)?;
        // Ordering: the charter last; a crash between the two finds the newer one among the others.
        self.keep(Part::Charter)?;
        Ok(taken)
    }

    /// What the owner denies, oldest first, with who signed it, for people.
    #[must_use]
    pub fn notices(&self) -> Vec<(Notice, String)> {
        let state = self.read();
        let notices = state.denials.notices().into_iter();
        notices
            .map(|(notice, signer)| (notice.clone(), signer))
            .collect()
    }

    /// The notices that root keys signed: a new root signs them again.
    #[must_use]
    pub(crate) fn notices_of_root(&self) -> Vec<Notice> {
        self.read().denials.of_root().cloned().collect()
    }

    /// Claims that two made of whom this process met both, without a verdict that lets the first stay; ascending.
    #[must_use]
    pub fn disputes(&self) -> Vec<Dispute> {
        let state = self.read();
        let open = state.disputes.values().filter(|dispute| {
            let judged = state.verdicts.on(&dispute.claim);
            judged.is_none_or(|judged| judged.holder != dispute.holder)
        });
        open.cloned().collect()
    }

    /// Whether a verdict of a flock that weighs so much would count on `claim`.
    #[must_use]
    pub fn outweighs(&self, claim: &Claim, weight: Weight) -> bool {
        self.read().verdicts.outweighs(claim, weight)
    }

    /// Lets the verdict held on `claim` be the answer to what we asked: ours would not count against it. Asked again later,
    /// when our flock weighs more, it would be: then both takers would have to go.
    pub fn concede(&self, claim: &Claim) {
        let mut state = self.write();
        if state.verdicts.on(claim).is_some() {
            state.disputes.remove(claim);
        }
    }

    /// Who stays of two that made one claim, as far as anybody said; ascending by claim.
    #[must_use]
    pub fn verdicts(&self) -> Vec<Judged> {
        self.read().verdicts.iter().copied().collect()
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
        self.read().charter().clone()
    }

    /// Whose charter it is.
    #[must_use]
    pub fn owner(&self) -> OwnerId {
        self.read().charter().owner()
    }

    /// Newest charters that stand against the one held, of which none weighs more: see [`Succession`].
    #[must_use]
    pub fn rivals(&self) -> Vec<Charter> {
        self.read().succession.open().into_iter().cloned().collect()
    }

    /// All that is known of the owner's charters.
    #[must_use]
    pub(crate) fn succession(&self) -> Succession {
        self.read().succession.clone()
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
    fn admit<C: AsRef<[u8]>>(
        &self,
        chain: &[C],
        principal: Principal,
    ) -> Result<Principal, Refusal> {
        let Some(Enrolment { claim, taker }) = principal.enrolment else {
            return Ok(principal);
        };
        let (held, wanted) = {
            let state = self.read();
            let dispute = state.disputes.get(&claim);
            let wanted = dispute.is_some_and(|known| known.chains.0.is_none());
            (state.claims.holder(&claim) == Some(taker), wanted)
        };
        if held && !wanted {
            return Ok(principal);
        }
        let taken = self.write().claims.take(claim, taker);
        match taken {
            Ok(Novelty::Known) => self.show_holder(claim, enrolled_part(chain)),
            Ok(Novelty::New) => {
                if let Err(error) = self.keep(Part::Claims) {
                    tracing::warn!(%error, "a claim could not be kept");
                }
            }
            Err(refusal) => {
                if let Refusal::AlreadyClaimed { holder, .. } = refusal {
                    if matches!(principal.who, Who::Rnode { .. } | Who::App { .. }) {
                        let chains = (None, enrolled_part(chain));
                        self.write().dispute(claim, (holder, taker), chains);
                    }
                    self.report(claim, holder, taker);
                }
                return Err(refusal);
            }
        }
        Ok(principal)
    }

    /// The holder of a disputed claim was met again: its enrolment is part of what a verdict shows.
    fn show_holder(&self, claim: Claim, chain: Vec<Vec<u8>>) {
        if let Some(dispute) = self.write().disputes.get_mut(&claim) {
            dispute.chains.0.get_or_insert(chain);
        }
        self.changed();
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
                Part::Charter => ("charter", state.charter().encoded().to_vec()),
                Part::Denies => ("denies", encode_denies(&state.local)),
                Part::Authority => ("authority", state.authority().encode_to_vec()),
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

/// Takes over what is good of `authority`, charters first; answers what there is to report.
fn take(state: &mut State, authority: &Authority, refused: &mut Vec<String>) -> Vec<Report> {
    let mut reports = Vec::new();
    let mut refuse = |refusal: Refusal| {
        if refused.len() < REASONS_MAX {
            refused.push(refusal.to_string());
        }
    };
    let most = judge::SUCCESSION_MAX + judge::RIVALS_MAX;
    for bytes in authority.charters.iter().take(most) {
        match state.take_charter(bytes) {
            // Older ones, and ours, are sent for those who were off.
            Ok(report) => reports.extend(report),
            Err(refusal) => refuse(refusal),
        }
    }
    for der in authority.vouchers.iter().take(judge::VOUCHERS_MAX) {
        match state.vouchers.add(der, state.succession.held()) {
            Ok(Novelty::Known) => {}
            Ok(Novelty::New) => {
                if let Ok(key) = judge::PublicKey::of_certificate(der) {
                    let invitation = key.invitation_id();
                    reports.push(Report::Vouched { invitation });
                }
            }
            Err(refusal) => refuse(refusal),
        }
    }
    for notice in authority.notices.iter().take(judge::NOTICES_MAX) {
        let signed = SignedNotice {
            payload: notice.payload.clone(),
            signature: notice.signature.clone(),
            chain: notice.chain.clone(),
        };
        match state.denials.add(&signed, state.succession.held()) {
            Ok(Novelty::Known) => {}
            Ok(Novelty::New) => {
                if let Ok(notice) = Notice::decode(&signed.payload) {
                    let signer = signer_of(&state.denials, &notice);
                    reports.push(Report::Denied { notice, signer });
                }
            }
            Err(refusal) => refuse(refusal),
        }
    }
    for verdict in authority.verdicts.iter().take(judge::VERDICTS_MAX) {
        let signed = SignedVerdict {
            payload: verdict.payload.clone(),
            signature: verdict.signature.clone(),
            chain: verdict.chain.clone(),
        };
        match state.take_verdict(&signed) {
            Ok(None) => {}
            Ok(Some(judged)) => reports.push(Report::Verdict(judged)),
            Err(refusal) => refuse(refusal),
        }
    }
    state.settle();
    reports
}

fn signer_of(denials: &Denials, notice: &Notice) -> String {
    let notices = denials.notices().into_iter();
    notices
        .filter(|(held, _)| *held == notice)
        .map(|(_, signer)| signer)
        .next()
        .unwrap_or_default()
}

/// Reads the file of what is passed on; one that cannot be read is an error: it may deny somebody.
pub(crate) fn read_authority(dir: &Path) -> Result<Option<Authority>, Error> {
    let path = dir.join("authority");
    let Some(bytes) = files::read(&path)? else {
        return Ok(None);
    };
    let authority = Authority::decode(bytes.as_slice());
    authority.map(Some).map_err(|_| Error::Damaged {
        path,
        what: "it is cut short",
    })
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
