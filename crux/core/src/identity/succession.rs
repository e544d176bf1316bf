//! Which of an owner's charters holds: the line of successors, and rivals that nothing yet decides against.
//!
//! Two successors of one charter are weighed by the keys of that charter which signed them: its recovery key, the last it
//! names, weighs more than all others together. The heavier stays, whichever came first; of two that weigh the same the one
//! that came first stays where it is, the other is kept as its rival, and a heavier one ends both. Nothing in it can be
//! ground for. Next: `identity/charter.rs`.

use std::collections::BTreeSet;

use crate::digest::Digest;
use crate::identity::{Charter, Refusal};

/// Most charters kept of the line, so that those who were off can follow; beyond it the oldest go.
pub const SUCCESSION_MAX: usize = 65;
/// Most rivals kept; beyond it another is refused, unless it is heavier.
pub const RIVALS_MAX: usize = 16;

/// What became of a charter that was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It was known, or is older than what is known.
    Known,
    /// The same, with signatures that were not known.
    Signed,
    /// It follows the one held, and holds now.
    Followed,
    /// It holds now in place of `lost`, which followed the same charter and weighs less.
    Overturned {
        /// The charter held until now.
        lost: Box<Charter>,
    },
    /// It weighs as much as what is held: a rival, kept.
    Rival,
}

/// The charters of one owner that one holder knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Succession {
    /// Ascending, each the successor of the one before; never empty, the last one holds.
    line: Vec<Charter>,
    /// Successors of one in the line, or of another rival.
    rivals: Vec<Charter>,
    /// Which of the rivals nothing known follows. Kept, since finding out takes a signature for each pair, and marks are
    /// compared at each change of a flock.
    newest: BTreeSet<usize>,
}

impl Succession {
    /// Of a charter that is taken on trust.
    #[must_use]
    pub fn new(charter: Charter) -> Self {
        Self {
            line: vec![charter],
            rivals: Vec::new(),
            newest: BTreeSet::new(),
        }
    }

    /// Puts what lay on disk in order: `held` holds, of `others` those that lead to it come before it.
    #[must_use]
    pub fn restore(held: Charter, others: &[Vec<u8>]) -> Self {
        let mut before: Vec<Charter> = others
            .iter()
            .filter_map(|bytes| Charter::decode(bytes).ok())
            .filter(|charter| charter.owner() == held.owner())
            .filter(|charter| charter.generation() < held.generation())
            .collect();
        before.sort_by_key(Charter::generation);
        let mut line = vec![held];
        while let Some(charter) = before.pop() {
            if line.len() < SUCCESSION_MAX && charter.succeed(line[0].encoded()).is_ok() {
                line.insert(0, charter);
            }
        }
        let mut restored = Self {
            line,
            rivals: Vec::new(),
            newest: BTreeSet::new(),
        };
        for bytes in others {
            // What no longer fits is no loss: it was judged when it came.
            restored.take(bytes).ok();
        }
        restored
    }

    /// The charter that holds.
    #[must_use]
    pub fn held(&self) -> &Charter {
        &self.line[self.line.len() - 1]
    }

    /// The charters that led to it, and it, ascending.
    #[must_use]
    pub fn line(&self) -> &[Charter] {
        &self.line
    }

    /// All that is known, ascending by generation, so that whoever takes them in this order can place each.
    #[must_use]
    pub fn all(&self) -> Vec<&Charter> {
        let mut all: Vec<&Charter> = self.line.iter().chain(&self.rivals).collect();
        all.sort_by_key(|charter| charter.generation());
        all
    }

    /// Newest rivals that stand against the charter held; empty once one holds that followed or outweighed them all.
    #[must_use]
    pub fn open(&self) -> Vec<&Charter> {
        self.newest.iter().map(|at| &self.rivals[*at]).collect()
    }

    fn find_newest(&self) -> BTreeSet<usize> {
        let all = 0..self.rivals.len();
        let newest = all.filter(|at| {
            let rival = &self.rivals[*at];
            let mut others = self.rivals.iter().chain(&self.line);
            !others.any(|other| rival.succeed(other.encoded()).is_ok())
        });
        newest.collect()
    }

    /// The last charter that both `rival` and the one held descend from.
    #[must_use]
    pub fn common(&self, rival: &Charter) -> Option<&Charter> {
        let mut at = rival;
        loop {
            if let Some(parent) = self.parent_in_line(at) {
                return self.line.get(parent);
            }
            at = self
                .rivals
                .iter()
                .find(|other| other.succeed(at.encoded()).is_ok())?;
        }
    }

    /// Takes a charter that somebody shows, whoever it is.
    ///
    /// # Errors
    /// [`Refusal::Charter`] and the like when it cannot be read; when it follows none that is known; when it weighs less than
    /// the one held in its place; when there are [`RIVALS_MAX`] rivals. Nothing changes then.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Step, Refusal> {
        let step = self.take_shown(bytes)?;
        if step != Step::Known {
            self.newest = self.find_newest();
        }
        Ok(step)
    }

    fn take_shown(&mut self, bytes: &[u8]) -> Result<Step, Refusal> {
        let shown = Charter::decode(bytes)?;
        if shown.owner() != self.held().owner() {
            return Err(Refusal::ForeignOwner(self.held().owner()));
        }
        let id = shown.id();
        if let Some(at) = self.line.iter().position(|known| known.id() == id) {
            return Ok(self.sign_again(at, shown));
        }
        let mut known = false;
        if let Some(rival) = self.rivals.iter().position(|rival| rival.id() == id) {
            known = true;
            let parent = self.parent_in_line(&shown);
            let fresh = parent.is_some_and(|parent| {
                let over = &self.line[parent];
                shown.weight(over) > self.rivals[rival].weight(over)
            });
            if !fresh {
                return Ok(Step::Known);
            }
            self.rivals.remove(rival);
        }
        let step = self.place(shown);
        match step {
            Ok(Step::Rival) if known => Ok(Step::Signed),
            step => step,
        }
    }

    /// The same charter with other signatures: the heavier stands, so that nobody can take signatures away.
    fn sign_again(&mut self, at: usize, shown: Charter) -> Step {
        let Some(before) = at.checked_sub(1).map(|before| &self.line[before]) else {
            return Step::Known;
        };
        if shown.weight(before) <= self.line[at].weight(before) {
            return Step::Known;
        }
        self.line[at] = shown;
        self.settle();
        Step::Signed
    }

    fn place(&mut self, shown: Charter) -> Result<Step, Refusal> {
        // The earliest first: what outweighs a charter outweighs all that followed it.
        for at in 0..self.line.len() - 1 {
            if self.line[at].succeed(shown.encoded()).is_err() {
                continue;
            }
            let (ours, theirs) = (
                self.line[at + 1].weight(&self.line[at]),
                shown.weight(&self.line[at]),
            );
            if theirs > ours {
                let lost = Box::new(self.held().clone());
                self.line.truncate(at + 1);
                self.follow(shown);
                return Ok(Step::Overturned { lost });
            }
            if self.held().succeed(shown.encoded()).is_ok() {
                break;
            }
            if theirs < ours {
                return Err(Refusal::Charter(
                    "keys that weigh less than those of the one held in its place signed it",
                ));
            }
            return self.keep_rival(shown);
        }
        if self.held().succeed(shown.encoded()).is_ok() {
            self.follow(shown);
            return Ok(Step::Followed);
        }
        let mut rivals = self.rivals.iter();
        if rivals.any(|rival| rival.succeed(shown.encoded()).is_ok()) {
            return self.keep_rival(shown);
        }
        if shown.generation() <= self.held().generation() {
            // Before what is remembered, or of a branch that lost.
            return Ok(Step::Known);
        }
        Err(Refusal::Charter("no root key of the one held signed it"))
    }

    fn keep_rival(&mut self, shown: Charter) -> Result<Step, Refusal> {
        if self.rivals.len() >= RIVALS_MAX {
            return Err(Refusal::Charter("too many rivals of it are known"));
        }
        self.rivals.push(shown);
        Ok(Step::Rival)
    }

    fn follow(&mut self, shown: Charter) {
        self.line.push(shown);
        let surplus = self.line.len().saturating_sub(SUCCESSION_MAX);
        self.line.drain(..surplus);
        self.settle();
    }

    /// Drops rivals that weigh less than the line, or follow nothing any more.
    fn settle(&mut self) {
        let mut kept: Vec<Charter> = Vec::new();
        let mut rivals = std::mem::take(&mut self.rivals);
        rivals.sort_by_key(Charter::generation);
        for rival in rivals {
            let stands = match self.parent_in_line(&rival) {
                Some(at) => match self.line.get(at + 1) {
                    Some(ours) => rival.weight(&self.line[at]) >= ours.weight(&self.line[at]),
                    None => true,
                },
                None => kept
                    .iter()
                    .any(|other| other.succeed(rival.encoded()).is_ok()),
            };
            let in_line = self.line.iter().any(|known| known.id() == rival.id());
            if stands && !in_line {
                kept.push(rival);
            }
        }
        self.rivals = kept;
    }

    /// The first of the line that `charter` follows.
    fn parent_in_line(&self, charter: &Charter) -> Option<usize> {
        let mut line = self.line.iter();
        line.position(|parent| parent.succeed(charter.encoded()).is_ok())
    }

    /// `of` with a mark of which charters stand against each other: unchanged when none do.
    #[must_use]
    pub fn mark(&self, of: Digest) -> Digest {
        let open = self.open();
        if open.is_empty() {
            return of;
        }
        let ids: BTreeSet<Digest> = open
            .iter()
            .copied()
            .chain([self.held()])
            .map(Charter::id)
            .collect();
        let ids = std::iter::once(&of).chain(&ids);
        Digest::of(&ids.flat_map(Digest::as_bytes).copied().collect::<Vec<u8>>())
    }
}
