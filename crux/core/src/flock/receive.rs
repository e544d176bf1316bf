//! Where a message from a peer is checked, and to what part of the machine it goes.

use std::collections::btree_map::Entry;
use std::net::SocketAddr;

use super::limits::HELLO_INTERVAL;
use super::members::State;
use super::record::{CREDENTIAL_KEY, RECORD_KEY};
use super::wire::{self, Hello, Message, Subject, VERSION, VERSION_MIN, short};
use super::{Flock, Output};
use crate::names::RnodeId;

impl Flock {
    /// Checks a message and acts on it; what does not pass is counted and changes nothing.
    pub(super) fn receive(&mut self, from: RnodeId, bytes: &[u8]) {
        let Ok((header, message)) = wire::decode(bytes) else {
            self.counters.malformed += 1;
            return;
        };
        if header.namespace != short(self.me.namespace.as_bytes()) {
            self.counters.foreign += 1;
            return;
        }
        if from == self.me.id {
            self.counters.duplicate_identity += 1;
            return;
        }
        if header.sender != short(from.as_bytes()) {
            self.counters.forged += 1;
            return;
        }
        let Some(message) = message else { return };
        if self.is_current(from, header.incarnation) {
            self.dispatch(from, message);
        }
    }

    /// Notes that `from` lives, and whether what it sends under `incarnation` counts.
    fn is_current(&mut self, from: RnodeId, incarnation: u64) -> bool {
        let Some(member) = self.members.get_mut(&from) else {
            self.greet(from, true);
            return true;
        };
        if self.denied.contains(&from) {
            self.counters.refused += 1;
            return false;
        }
        if incarnation < member.incarnation
            || (incarnation == member.incarnation && member.state == State::Left)
        {
            self.counters.stale += 1;
            self.remind(from);
            return false;
        }
        if incarnation > member.incarnation {
            self.greet(from, true);
            return true;
        }
        member.heard = Some(self.now);
        let (state, subject) = (member.state, member.subject());
        if state == State::Down {
            self.accuse(from, subject);
        }
        true
    }

    /// Shows `to` the newest that is known of it: it may have started from an old disk and not know it.
    fn remind(&mut self, to: RnodeId) {
        let recently = self
            .greeted
            .get(&to)
            .is_some_and(|at| self.now < *at + HELLO_INTERVAL);
        if let Some(record) = self.records.get(&to).cloned()
            && !recently
        {
            self.greeted.insert(to, self.now);
            self.send(to, &Message::Entries(vec![record]));
        }
    }

    fn dispatch(&mut self, from: RnodeId, message: Message) {
        if let Message::Ack { nonce, clock, .. } = &message {
            self.watch.answered(
                self.now,
                (&from, *nonce),
                *clock,
                self.config.probe_interval,
            );
        }
        if let Some(act) = self.watch.heard(&from) {
            self.act(act);
        }
        match message {
            Message::Hello(hello) => self.hello(from, *hello),
            Message::Probe { nonce, summary } => {
                let clock = u32::try_from(self.now.as_millis() % u128::from(u32::MAX)).unwrap_or(0);
                let answer = Message::Ack {
                    nonce,
                    summary: self.summary(),
                    clock,
                };
                self.send(from, &answer);
                self.compare_summary(from, &summary);
            }
            Message::Ack { summary, .. } => self.compare_summary(from, &summary),
            Message::Suspect(subject) => self.suspected(from, subject),
            Message::Evidence { subject, millinats } => self.evidence(from, subject, millinats),
            Message::Clear(subject) => self.cleared(from, subject),
            Message::Declare(subject) => self.declared(from, subject),
            Message::Accused(subject) => self.accused(from, subject),
            Message::Heartbeat(beacon) => self.heartbeat_came(from, beacon),
            Message::Ask(summary) => self.asked(from, &summary),
            Message::Entries(entries) => self.entries_came(from, entries),
            Message::Compare {
                extent,
                rows,
                document,
            } => {
                self.compared(from, extent, &rows);
                self.offered(from, document);
            }
            Message::Offer(offer) => self.offered(from, Some(offer)),
            Message::Want { id, offset } => self.wanted(from, id, offset),
            Message::Part {
                offer,
                offset,
                bytes,
            } => self.part_came(from, offer, (offset, &bytes)),
        }
    }

    pub(super) fn connected(&mut self, peer: RnodeId, address: Option<SocketAddr>) {
        if peer == self.me.id {
            self.counters.duplicate_identity += 1;
            self.out.push(Output::Close { peer });
            return;
        }
        if let Some(address) = address {
            self.contacts.found(address, peer);
        }
        if !self.members.is_up(&peer) {
            self.greet(peer, true);
        }
    }

    /// Says who we are, seldom enough that two who greet each other do not go on for ever.
    pub(super) fn greet(&mut self, peer: RnodeId, answer_wanted: bool) {
        let recently = self
            .greeted
            .get(&peer)
            .is_some_and(|at| self.now < *at + HELLO_INTERVAL);
        if peer == self.me.id || (recently && answer_wanted) {
            return;
        }
        let now = self.now;
        self.greeted.retain(|_, at| now < *at + HELLO_INTERVAL);
        self.greeted.insert(peer, now);
        let entries =
            [CREDENTIAL_KEY, RECORD_KEY].map(|key| self.table.get(&self.me.id, key).cloned());
        let hello = Hello {
            version_min: VERSION_MIN,
            version_max: VERSION,
            answer_wanted,
            namespace: self.me.namespace,
            sender: self.me.id,
            summary: self.summary(),
            entries: entries.into_iter().flatten().collect(),
            beacon: self.lead.beacon().cloned(),
        };
        self.send(peer, &Message::Hello(Box::new(hello)));
    }

    fn hello(&mut self, from: RnodeId, hello: Hello) {
        if hello.namespace != self.me.namespace {
            self.counters.foreign += 1;
            return;
        }
        if hello.sender != from {
            self.counters.forged += 1;
            return;
        }
        if hello.version_min > VERSION || hello.version_max < VERSION_MIN {
            self.counters.refused += 1;
            self.out.push(Output::Close { peer: from });
            return;
        }
        let own: Vec<_> = hello
            .entries
            .into_iter()
            .filter(|entry| entry.owner() == from)
            .collect();
        self.entries_came(from, own);
        if hello.answer_wanted {
            self.greet(from, false);
        }
        if let Some(member) = self.members.get_mut(&from) {
            member.heard = Some(self.now);
            let (state, subject) = (member.state, member.subject());
            if state == State::Down {
                self.accuse(from, subject);
            }
            self.compare_summary(from, &hello.summary);
        }
        if let Some(beacon) = hello.beacon {
            self.heartbeat_came(from, beacon);
        }
    }

    /// Tells `to` that we hold `subject` for lost; seldom enough that two who hold each other for lost do not go on.
    pub(super) fn accuse(&mut self, to: RnodeId, subject: Subject) {
        let now = self.now;
        self.accused.retain(|_, at| now < *at + HELLO_INTERVAL);
        if let Entry::Vacant(first) = self.accused.entry((to, subject.rnode)) {
            first.insert(now);
            self.send(to, &Message::Accused(subject));
        }
    }
}
