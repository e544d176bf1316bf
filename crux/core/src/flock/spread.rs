//! Making tables equal: whoever sees another fingerprint compares owner by owner; and the document, part by part.

use std::sync::Arc;

use super::io::Time;
use super::limits::{
    DATAGRAM_BYTES_MAX, DATAGRAM_OVERHEAD_BYTES, DOCUMENT_PART_BYTES, DOCUMENT_TIMEOUT,
    MESSAGE_BYTES_MAX, SYNC_BYTES_MAX, SYNC_INTERVAL, SYNC_PEER_INTERVAL, WATCHERS,
};
use super::members::State;
use super::wire::{Extent, HEADER_BYTES, Message, Offer, Row};
use super::{Flock, Output};
use crate::digest::Digest;
use crate::ken::{Assembly, DOCUMENT_BYTES_MAX, Document, DocumentId, Entry, OwnerMark, Refusal};
use crate::names::RnodeId;

/// Documents remembered as not acceptable, so that they are not fetched again and again.
const REFUSED_DOCUMENTS_MAX: usize = 16;

/// A document on its way.
#[derive(Debug, Clone)]
pub(super) struct Fetch {
    assembly: Assembly,
    from: RnodeId,
    heard: Time,
}

impl Fetch {
    pub(super) fn deadline(&self) -> Time {
        self.heard + DOCUMENT_TIMEOUT
    }
}

impl Flock {
    /// Begins to make our table and `peer`'s equal, unless that was done a moment ago.
    pub(super) fn compare_with(&mut self, peer: RnodeId) {
        let now = self.now;
        let lately = self
            .compared_last
            .is_some_and(|at| now < at + SYNC_INTERVAL);
        self.compared.retain(|_, at| now < *at + SYNC_PEER_INTERVAL);
        if lately || self.compared.contains_key(&peer) {
            return;
        }
        self.compared_last = Some(now);
        self.compared.insert(peer, now);
        self.counters.comparisons += 1;
        let rows = self
            .members
            .up()
            .map(|member| self.row(&member.id))
            .collect();
        let document = self.offer();
        self.send(
            peer,
            &Message::Compare {
                extent: Extent::Whole,
                rows,
                document,
            },
        );
    }

    fn row(&self, owner: &RnodeId) -> Row {
        let record = self.members.get(owner).map_or(0, |member| member.sequence);
        Row {
            owner: *owner,
            record,
            mark: self.table.mark(owner),
        }
    }

    /// A peer's table, owner by owner: sends what it lacks, and says what we lack.
    pub(super) fn compared(&mut self, from: RnodeId, extent: Extent, rows: &[Row]) {
        let mut entries = Vec::new();
        let mut wanted = Vec::new();
        for row in rows {
            if self.row_came(from, row, &mut entries) {
                wanted.push(self.row(&row.owner));
            }
        }
        if extent == Extent::Whole {
            let unnamed = self
                .members
                .up()
                .filter(|member| rows.iter().all(|row| row.owner != member.id));
            let unnamed: Vec<RnodeId> = unnamed.map(|member| member.id).collect();
            for owner in unnamed {
                entries.extend(self.table.since(&owner, 0));
            }
            if !wanted.is_empty() {
                self.send(
                    from,
                    &Message::Compare {
                        extent: Extent::Wanted,
                        rows: wanted,
                        document: None,
                    },
                );
            }
        }
        self.send_entries(from, &entries);
    }

    /// Gathers what the sender of `row` lacks of its owner; true if we may lack something ourselves.
    fn row_came(&mut self, from: RnodeId, row: &Row, entries: &mut Vec<Entry>) -> bool {
        let mine = self.table.mark(&row.owner);
        if self.denied.contains(&row.owner) {
            return false;
        }
        match self
            .members
            .get(&row.owner)
            .map(|member| (member.state, member.subject()))
        {
            Some((State::Down, subject)) => {
                if (row.mark.generation, row.record) <= (subject.incarnation, subject.sequence) {
                    self.accuse(from, subject);
                    return false;
                }
                return true;
            }
            Some((State::Left, subject)) if row.mark.generation <= subject.incarnation => {
                entries.extend(self.records.get(&row.owner).cloned());
                return false;
            }
            _ => {}
        }
        if mine == row.mark {
            return false;
        }
        let after = what_to_send(&mine, &row.mark);
        if let Some(after) = after {
            entries.extend(self.table.since(&row.owner, after));
        }
        (row.mark.generation, row.mark.sequence_max) >= (mine.generation, mine.sequence_max)
    }

    /// Sends entries in as few messages as their size allows, up to a limit; the next comparison brings the rest.
    fn send_entries(&mut self, to: RnodeId, entries: &[Entry]) {
        let total: usize = entries.iter().map(|entry| entry.raw().len()).sum();
        let datagram = DATAGRAM_BYTES_MAX - DATAGRAM_OVERHEAD_BYTES;
        let limit = if total <= 4 * datagram {
            datagram
        } else {
            MESSAGE_BYTES_MAX
        };
        let limit = limit - HEADER_BYTES - 2;
        let (mut batch, mut batched, mut sent) = (Vec::new(), 0, 0);
        for entry in entries {
            let bytes = entry.raw().len();
            if batched + bytes > limit && !batch.is_empty() {
                self.send(to, &Message::Entries(std::mem::take(&mut batch)));
                batched = 0;
            }
            batch.push(entry.clone());
            batched += bytes;
            sent += bytes;
            if sent >= SYNC_BYTES_MAX {
                break;
            }
        }
        if !batch.is_empty() {
            self.send(to, &Message::Entries(batch));
        }
    }

    /// After news that came through a third rnode: lets the neighbours see our new fingerprint at once.
    pub(super) fn nudge_neighbours(&mut self) {
        if self.nudge.is_none_or(|at| at > self.now) {
            return;
        }
        self.nudge = None;
        let mut neighbours: Vec<RnodeId> = self.rings.subjects(&self.me.id, WATCHERS).collect();
        neighbours.extend(self.rings.watchers(&self.me.id).iter().take(WATCHERS));
        neighbours.sort();
        neighbours.dedup();
        let probe = Message::Probe {
            nonce: 0,
            summary: self.summary(),
        };
        for neighbour in neighbours {
            self.send(neighbour, &probe);
        }
    }

    fn offer(&self) -> Option<Offer> {
        let document = self.document.as_ref()?;
        Some(Offer {
            id: document.id,
            total: u32::try_from(document.bytes.len()).unwrap_or(u32::MAX),
        })
    }

    pub(super) fn put_document(&mut self, id: DocumentId, bytes: Arc<[u8]>) {
        let current = self.document.as_ref().map(|document| document.id);
        if current == Some(id) {
            return;
        }
        if bytes.is_empty() || bytes.len() > DOCUMENT_BYTES_MAX || Digest::of(&bytes) != id.digest {
            self.refuse(Refusal::Document);
        } else if current > Some(id) {
            self.refuse(Refusal::Stale);
        } else if !self.authority.accept_document(id.generation, &bytes) {
            self.refuse(Refusal::Signature);
        } else {
            self.install(Document { id, bytes });
        }
    }

    fn install(&mut self, document: Document) {
        self.fetch = None;
        self.document = Some(document.clone());
        self.out.push(Output::DocumentChanged(document));
        if let Some(offer) = self.offer() {
            self.broadcast(&Message::Offer(offer));
        }
    }

    /// `from` has a document: we have a newer one to offer, or want it.
    pub(super) fn offered(&mut self, from: RnodeId, theirs: Option<Offer>) {
        let ours = self.offer();
        let newer = ours.map(|offer| offer.id) > theirs.map(|offer| offer.id);
        if let Some(offer) = ours.filter(|_| newer) {
            self.send_surely(from, &Message::Offer(offer));
            return;
        }
        let Some(offer) = theirs.filter(|theirs| ours.is_none_or(|ours| theirs.id > ours.id))
        else {
            return;
        };
        let fetching = self
            .fetch
            .as_ref()
            .is_some_and(|fetch| fetch.assembly.id >= offer.id);
        if fetching || self.refused_documents.contains(&offer.id) {
            return;
        }
        if let Some(assembly) = Assembly::new(offer.id, offer.total) {
            self.fetch = Some(Fetch {
                assembly,
                from,
                heard: self.now,
            });
            self.send_surely(
                from,
                &Message::Want {
                    id: offer.id,
                    offset: 0,
                },
            );
        }
    }

    pub(super) fn wanted(&mut self, from: RnodeId, id: DocumentId, offset: u32) {
        let (Some(offer), Some(document)) = (self.offer(), self.document.as_ref()) else {
            return;
        };
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        if document.id != id || start >= document.bytes.len() {
            return;
        }
        let end = document.bytes.len().min(start + DOCUMENT_PART_BYTES);
        let part = Message::Part {
            offer,
            offset,
            bytes: document.bytes[start..end].into(),
        };
        self.send(from, &part);
    }

    pub(super) fn part_came(&mut self, from: RnodeId, offer: Offer, (offset, bytes): (u32, &[u8])) {
        let expected = |fetch: &&mut Fetch| fetch.from == from && fetch.assembly.id == offer.id;
        let Some(fetch) = self.fetch.as_mut().filter(expected) else {
            return;
        };
        if !fetch.assembly.push(offset, bytes) {
            return;
        }
        fetch.heard = self.now;
        if !fetch.assembly.is_whole() {
            let want = Message::Want {
                id: offer.id,
                offset: fetch.assembly.offset(),
            };
            self.send_surely(from, &want);
            return;
        }
        let document = self.fetch.take().and_then(|fetch| fetch.assembly.finish());
        match document {
            Some(document)
                if self
                    .authority
                    .accept_document(document.id.generation, &document.bytes) =>
            {
                if self
                    .document
                    .as_ref()
                    .is_none_or(|known| document.id > known.id)
                {
                    self.document = Some(document.clone());
                    self.out.push(Output::DocumentChanged(document));
                }
            }
            _ => self.refuse_document(offer.id),
        }
    }

    fn refuse_document(&mut self, id: DocumentId) {
        self.counters.bad_documents += 1;
        if self.refused_documents.len() >= REFUSED_DOCUMENTS_MAX {
            self.refused_documents.pop_first();
        }
        self.refused_documents.insert(id);
    }

    /// Gives up a document whose source fell silent; the next comparison finds another.
    pub(super) fn watch_fetch(&mut self) {
        if self
            .fetch
            .as_ref()
            .is_some_and(|fetch| fetch.deadline() <= self.now)
        {
            self.fetch = None;
        }
    }
}

/// From which sequence on the other side needs our entries of one owner; none when it lacks nothing.
fn what_to_send(mine: &OwnerMark, theirs: &OwnerMark) -> Option<u64> {
    if mine.generation != theirs.generation {
        return (mine.generation > theirs.generation).then_some(0);
    }
    match mine.sequence_max.cmp(&theirs.sequence_max) {
        std::cmp::Ordering::Greater => Some(theirs.sequence_max),
        std::cmp::Ordering::Equal => Some(0),
        std::cmp::Ordering::Less => None,
    }
}
