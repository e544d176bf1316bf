//! This rnode's own word, and entries of others as they come in.

use super::limits::{MEMBERS_MAX, NUDGE_AFTER, REMEMBERED_MAX, SEQUENCE_RESERVE};
use super::members::State;
use super::record::{CREDENTIAL_KEY, RECORD_KEY, Record};
use super::wire::Message;
use super::{Flock, Output};
use crate::ken::{Draft, Entry, KEY_BYTES_MAX, Novelty, RESERVED_PREFIX, Refusal, VALUE_BYTES_MAX};
use crate::names::RnodeId;

/// Least time between two changes of our own incarnation because someone else used it.
const ADOPT_INTERVAL: std::time::Duration = std::time::Duration::from_secs(10);

impl Flock {
    /// Publishes what makes this rnode a member: what shows that it is enrolled, then its record.
    pub(super) fn publish_self(&mut self) {
        let credential = self.me.credential.clone();
        self.publish(CREDENTIAL_KEY, Some(&credential));
        self.publish_record();
    }

    pub(super) fn publish_record(&mut self) {
        self.publish_record_as(false);
    }

    pub(super) fn publish_record_as(&mut self, left: bool) {
        let addresses = self.me.addresses.clone();
        let record = Record {
            left,
            vote: self.me.vote,
            floor: self.swept,
            addresses: addresses.clone(),
        };
        self.publish(RECORD_KEY, Some(&record.encode()));
        let (incarnation, sequence, vote) = (self.me.incarnation, self.sequence, self.me.vote);
        if let Some(me) = self.members.get_mut(&self.me.id) {
            (me.incarnation, me.sequence, me.vote, me.addresses) =
                (incarnation, sequence, vote, addresses);
        }
    }

    /// Publishes or withdraws on behalf of the agent.
    pub(super) fn publish_checked(&mut self, key: &str, value: Option<&[u8]>) {
        let own = self.table.get(&self.me.id, key);
        if value.is_none() && own.is_none() {
            return;
        }
        if let Err(refusal) = check(key, value) {
            self.refuse(refusal);
        } else if own.is_some_and(|own| {
            Some(own.value()) == value && own.generation() == self.me.incarnation
        }) {
            // Saying the same again tells nobody anything.
        } else if self.publish(key, value) {
            self.sweep();
        }
    }

    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.counters.refusals += 1;
        self.out.push(Output::Refused(refusal));
    }

    fn publish(&mut self, key: &str, value: Option<&[u8]>) -> bool {
        let sequence = self.next_sequence();
        let draft = Draft {
            owner: self.me.id,
            generation: self.me.incarnation,
            sequence,
            key,
            value,
        };
        let authority = &mut self.authority;
        let Ok(entry) = draft.sign(&self.me.namespace, |bytes| authority.sign(bytes)) else {
            self.refuse(Refusal::Value);
            return false;
        };
        if self
            .table
            .offer(entry.clone(), self.now + self.config.remove_after)
            == Novelty::Full
        {
            self.refuse(Refusal::Full);
            return false;
        }
        self.tell_changed(&entry);
        self.broadcast(&Message::Entries(vec![entry]));
        true
    }

    /// A sequence that is durable before it is used.
    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        if self.sequence > self.floor.sequence {
            self.floor.sequence = self.sequence.saturating_add(SEQUENCE_RESERVE);
            self.floor.incarnation = self.me.incarnation;
            self.out.push(Output::Persist(self.floor));
        }
        self.sequence
    }

    /// Once many keys are withdrawn, signs the oldest others anew, so that everyone can forget what lies below.
    fn sweep(&mut self) {
        let Some(compaction) = self.table.compaction(&self.me.id) else {
            return;
        };
        for entry in compaction.renew {
            self.publish(entry.key(), Some(entry.value()));
        }
        self.swept = compaction.floor;
        self.publish_record();
        self.table.sweep(&self.me.id, compaction.floor);
    }

    fn tell_changed(&mut self, entry: &Entry) {
        if !entry.key().starts_with(RESERVED_PREFIX) {
            self.out.push(Output::EntryChanged {
                owner: entry.owner(),
                key: entry.key().into(),
            });
        }
    }

    /// Takes in entries that `from` sent, its own or passed on.
    pub(super) fn entries_came(&mut self, from: RnodeId, entries: Vec<Entry>) {
        let mut passed_on = false;
        for entry in entries {
            let owner = entry.owner();
            passed_on |= self.entry_came(from, &entry) && owner != from;
        }
        if passed_on && self.nudge.is_none() {
            self.nudge = Some(self.now + NUDGE_AFTER);
        }
        self.reconsider();
    }

    /// Checks one entry and takes it in; true if it was news.
    fn entry_came(&mut self, from: RnodeId, entry: &Entry) -> bool {
        let owner = entry.owner();
        if owner == self.me.id {
            self.own_entry_came(entry);
            return false;
        }
        if !self.is_welcome(from, entry) {
            return false;
        }
        if !self.table.is_news(entry) {
            // The owner lost its disk and said two things under one sequence: only it can mend that.
            if let Some(known) = self.table.conflicting(entry).cloned() {
                self.send(owner, &Message::Entries(vec![known]));
            }
            return false;
        }
        if entry.key() == CREDENTIAL_KEY && !self.authority.admit(&owner, entry.value()) {
            self.counters.refused += 1;
            return false;
        }
        let message = entry.signed_bytes(&self.me.namespace);
        if !self.authority.verify(&owner, &message, entry.signature()) {
            self.counters.forged += 1;
            return false;
        }
        match self
            .table
            .offer(entry.clone(), self.now + self.config.remove_after)
        {
            Novelty::Old => return false,
            Novelty::Full => {
                self.counters.full += 1;
                return false;
            }
            Novelty::New => self.counters.entries += 1,
        }
        if entry.key() == RECORD_KEY {
            self.recorded(entry);
        } else {
            self.tell_changed(entry);
        }
        true
    }

    /// Whether the entry's owner may have entries here, and this one may be its next.
    fn is_welcome(&mut self, from: RnodeId, entry: &Entry) -> bool {
        let owner = entry.owner();
        if self.denied.contains(&owner) {
            return false;
        }
        let record = entry.key() == RECORD_KEY;
        let known = self.table.mark(&owner).generation;
        let begins = entry.generation() > known;
        // A new generation begins with the flock's own keys, and an unknown owner with what shows that it is enrolled.
        let met = known > 0 || self.members.get(&owner).is_some();
        if begins && !(entry.key() == CREDENTIAL_KEY || (record && met)) {
            return false;
        }
        let Some(member) = self.members.get(&owner) else {
            let room = self.members.has_room() && self.members.up_count() < MEMBERS_MAX;
            let room = room && (known > 0 || self.table.owner_count() < REMEMBERED_MAX);
            self.counters.full += u64::from(!room);
            return room;
        };
        let subject = member.subject();
        match member.state {
            State::Up => true,
            State::Down if entry.generation() > member.incarnation => true,
            State::Down
                if entry.generation() == member.incarnation
                    && record
                    && entry.sequence() > member.sequence =>
            {
                true
            }
            // All of one that was denied is forgotten; accepted again, it must show who it is before its record can be checked.
            State::Down
                if entry.generation() == member.incarnation
                    && entry.key() == CREDENTIAL_KEY
                    && known == 0 =>
            {
                true
            }
            State::Down => {
                if record && from != owner {
                    self.accuse(from, subject);
                }
                false
            }
            State::Left if entry.generation() > member.incarnation => true,
            State::Left => {
                self.counters.stale += 1;
                if let Some(last) = self.records.get(&owner).cloned()
                    && from != owner
                    && record
                {
                    self.send(from, &Message::Entries(vec![last]));
                }
                false
            }
        }
    }

    /// Someone knows more of us than we do: a disk was set back or copied. We go on under a higher incarnation.
    fn own_entry_came(&mut self, entry: &Entry) {
        let strange = entry.generation() == self.me.incarnation && self.table.contradicts(entry);
        let newer = entry.generation() > self.me.incarnation || strange;
        let recently = self
            .adopted
            .is_some_and(|at| self.now < at + ADOPT_INTERVAL);
        if !newer || recently {
            return;
        }
        let message = entry.signed_bytes(&self.me.namespace);
        if !self
            .authority
            .verify(&self.me.id, &message, entry.signature())
        {
            self.counters.forged += 1;
            return;
        }
        self.counters.duplicate_identity += 1;
        self.adopted = Some(self.now);
        let kept = self.table.since(&self.me.id, 0);
        self.me.incarnation = entry.generation().saturating_add(1);
        self.sequence = 0;
        self.swept = 0;
        self.floor.sequence = 0;
        self.publish_self();
        let kept = kept
            .iter()
            .filter(|entry| !entry.is_withdrawn() && !entry.key().starts_with(RESERVED_PREFIX));
        for entry in kept {
            self.publish(entry.key(), Some(entry.value()));
        }
    }
}

/// Judges a key and value that an application wants to publish.
fn check(key: &str, value: Option<&[u8]>) -> Result<(), Refusal> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        Err(Refusal::Key)
    } else if key.starts_with(RESERVED_PREFIX) {
        Err(Refusal::Reserved)
    } else if value.is_some_and(|value| value.len() > VALUE_BYTES_MAX) {
        Err(Refusal::Value)
    } else {
        Ok(())
    }
}
