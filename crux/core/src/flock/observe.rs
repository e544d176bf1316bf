//! Life and loss of members: what watching finds, what others say of it, and what this rnode answers for itself.

use super::limits::WATCHERS;
use super::members::{Member, State};
use super::record::{CREDENTIAL_KEY, RECORD_KEY, Record};
use super::watch::Act;
use super::wire::{Message, Subject};
use super::{Flock, Output};
use crate::ken::Entry;
use crate::names::RnodeId;

impl Flock {
    /// Does what watching finds due.
    pub(super) fn observe(&mut self) {
        for act in self.watch.due(self.now, &self.config) {
            self.act(act);
        }
    }

    pub(super) fn act(&mut self, act: Act) {
        match act {
            Act::Probe { to, nonce } => {
                self.counters.probes += 1;
                let probe = Message::Probe {
                    nonce,
                    summary: self.summary(),
                };
                self.send(to, &probe);
            }
            Act::Suspect(subject) => {
                self.counters.suspicions += 1;
                self.send(subject.rnode, &Message::Suspect(subject));
                self.tell_watchers(&subject.rnode, WATCHERS, &Message::Suspect(subject));
            }
            Act::Evidence(subject, millinats) => {
                self.tell_watchers(
                    &subject.rnode,
                    WATCHERS,
                    &Message::Evidence { subject, millinats },
                );
            }
            Act::Clear(subject) => {
                self.tell_watchers(&subject.rnode, WATCHERS, &Message::Clear(subject))
            }
            Act::Declare(subject) => {
                self.counters.declared += 1;
                self.broadcast(&Message::Declare(subject));
                self.lose(subject);
            }
        }
    }

    fn tell_watchers(&mut self, subject: &RnodeId, count: usize, message: &Message) {
        let me = self.me.id;
        let watchers: Vec<RnodeId> = self
            .rings
            .watchers(subject)
            .iter()
            .take(count)
            .copied()
            .collect();
        for watcher in watchers.into_iter().filter(|watcher| *watcher != me) {
            self.send(watcher, message);
        }
    }

    /// Whether `from` may watch `subject`, as far as we see: views differ while they change, so twice as many count.
    fn may_watch(&self, from: &RnodeId, subject: &Subject) -> bool {
        self.rings.watchers(&subject.rnode).contains(from)
    }

    fn is_current_subject(&self, subject: &Subject) -> bool {
        let member = self.members.get(&subject.rnode);
        member.is_some_and(|member| member.state == State::Up && member.subject() == *subject)
    }

    pub(super) fn suspected(&mut self, from: RnodeId, subject: Subject) {
        if subject.rnode == self.me.id {
            let alive = Message::Clear(self.own_subject());
            self.send(from, &alive);
            self.tell_watchers(&subject.rnode, 2 * WATCHERS, &alive);
        } else if self.may_watch(&from, &subject) {
            self.watch.suspected(self.now, &subject);
        }
    }

    pub(super) fn evidence(&mut self, from: RnodeId, subject: Subject, millinats: u32) {
        if self.may_watch(&from, &subject) {
            self.watch.evidence(self.now, (from, &subject), millinats);
        }
    }

    pub(super) fn cleared(&mut self, from: RnodeId, subject: Subject) {
        if from == subject.rnode || self.may_watch(&from, &subject) {
            self.watch.clear(&subject.rnode);
        }
    }

    pub(super) fn declared(&mut self, from: RnodeId, subject: Subject) {
        if self.may_watch(&from, &subject)
            && self.is_current_subject(&subject)
            && subject.rnode != self.me.id
        {
            self.counters.told_lost += 1;
            self.lose(subject);
        } else {
            self.accused(from, subject);
        }
    }

    /// `from` holds `subject` for lost. If that is us, we refute it; else the subject is told, and we look for ourselves.
    pub(super) fn accused(&mut self, from: RnodeId, subject: Subject) {
        if subject.rnode == self.me.id {
            if subject >= self.own_subject() {
                self.counters.refutations += 1;
                self.publish_record();
            }
            // The accuser may be lost to us as well, and so not among those who are told.
            if let Some(entry) = self.table.get(&self.me.id, RECORD_KEY).cloned() {
                self.send(from, &Message::Entries(vec![entry]));
            }
        } else if self.is_current_subject(&subject) {
            self.send(subject.rnode, &Message::Accused(subject));
            self.watch.accused(self.now, &subject);
        }
    }

    pub(super) fn own_subject(&self) -> Subject {
        let sequence = self
            .table
            .get(&self.me.id, RECORD_KEY)
            .map_or(0, Entry::sequence);
        Subject {
            rnode: self.me.id,
            incarnation: self.me.incarnation,
            sequence,
        }
    }

    /// Holds `subject` for lost, until it says otherwise itself.
    fn lose(&mut self, subject: Subject) {
        self.watch.remove(&subject.rnode);
        let now = self.now;
        let Some(member) = self.members.get_mut(&subject.rnode) else {
            return;
        };
        if member.state != State::Up || member.subject() != subject {
            return;
        }
        member.state = State::Down;
        member.since = now;
        self.rings_stale = true;
        self.table
            .expire_at(&subject.rnode, now + self.config.remove_after);
        self.contacts.lost(now, subject.rnode, &self.config);
        self.tell_membership(subject.rnode);
        self.leader_may_be_gone();
    }

    /// Takes in a rnode's own record, whose signature was checked and which is newer than what was known.
    pub(super) fn recorded(&mut self, entry: &Entry) {
        let Ok(record) = Record::decode(entry.value()) else {
            self.counters.malformed += 1;
            return;
        };
        let before = self.members.get(&entry.owner()).cloned();
        let state = if record.left { State::Left } else { State::Up };
        let same = before.as_ref().filter(|before| before.state == state);
        let member = Member {
            id: entry.owner(),
            state,
            incarnation: entry.generation(),
            sequence: entry.sequence(),
            vote: record.vote,
            addresses: record.addresses,
            heard: before.as_ref().and_then(|before| before.heard),
            since: same.map_or(self.now, |same| same.since),
        };
        let (id, incarnation) = (member.id, member.incarnation);
        self.members.insert(member);
        self.records.insert(id, entry.clone());
        let members = &self.members;
        self.records.retain(|id, _| members.get(id).is_some());
        self.rings_stale = true;
        self.contacts.settled(&id);
        match state {
            State::Left => self.forget(id),
            State::Up | State::Down => {
                self.table.keep(&id);
                self.table.sweep(&id, record.floor);
            }
        }
        if before.is_none_or(|before| (before.state, before.incarnation) != (state, incarnation)) {
            self.tell_membership(id);
        }
        self.leader_may_be_gone();
    }

    /// Drops all of a rnode that has left, but its word that it has.
    fn forget(&mut self, rnode: RnodeId) {
        self.watch.remove(&rnode);
        for key in self.table.remove(&rnode) {
            self.out.push(Output::EntryChanged { owner: rnode, key });
        }
    }

    /// Judges every credential again and drops whoever is no longer accepted, with all it published.
    pub(super) fn recheck(&mut self) {
        let others: Vec<RnodeId> = self.others().chain(self.denied.iter().copied()).collect();
        for rnode in others {
            let credential = self.table.get(&rnode, CREDENTIAL_KEY).cloned();
            match credential {
                Some(credential) if !self.authority.admit(&rnode, credential.value()) => {
                    self.counters.refused += 1;
                    self.deny(rnode);
                }
                // Someone accepted again has to come and say so.
                None => drop(self.denied.remove(&rnode)),
                Some(_) => {}
            }
        }
    }

    fn deny(&mut self, rnode: RnodeId) {
        let Some(subject) = self.members.get(&rnode).map(Member::subject) else {
            return;
        };
        self.lose(subject);
        self.contacts.settled(&rnode);
        self.forget(rnode);
        self.denied.insert(rnode);
        self.out.push(Output::Close { peer: rnode });
    }

    fn tell_membership(&mut self, rnode: RnodeId) {
        if let Some(member) = self.members.get(&rnode) {
            let (state, incarnation) = (member.state, member.incarnation);
            self.out.push(Output::Membership {
                rnode,
                state,
                incarnation,
            });
        }
    }

    /// Leaves for good: says so to all, and does nothing more.
    pub(super) fn quit(&mut self) {
        self.publish_record_as(true);
        let me = self.me.id;
        if let Some(member) = self.members.get_mut(&me) {
            member.state = State::Left;
        }
        self.tell_membership(me);
        self.lose_lead();
        self.ended = true;
    }
}
