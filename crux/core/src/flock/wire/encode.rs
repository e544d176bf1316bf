//! From messages to bytes.

use std::sync::Arc;

use super::{Extent, Header, Hello, Message, Offer, Row, Subject, Summary, VERSION};
use crate::ken::codec::Put;
use crate::ken::{DocumentId, Entry};

/// Encodes `message` behind `header`.
pub(crate) fn encode(header: &Header, message: &Message) -> Arc<[u8]> {
    let mut body = Vec::new();
    let kind = put_message(&mut body, message);
    let mut bytes = Vec::with_capacity(body.len() + super::HEADER_BYTES);
    bytes.put_u8(VERSION).put_u8(kind).put_u16(0);
    bytes
        .put(&header.namespace)
        .put(&header.sender)
        .put_u64(header.incarnation)
        .put(&body);
    bytes.into()
}

fn put_message(body: &mut Vec<u8>, message: &Message) -> u8 {
    match message {
        Message::Hello(hello) => put_hello(body, hello),
        Message::Probe { nonce, summary } => put_probe(body, 2, *nonce, summary),
        Message::Ack {
            nonce,
            summary,
            clock,
        } => {
            put_probe(body, 3, *nonce, summary);
            body.put_u32(*clock);
            3
        }
        Message::Suspect(subject) => put_subject(body, 4, subject),
        Message::Evidence { subject, millinats } => {
            put_subject(body, 5, subject);
            body.put_u32(*millinats);
            5
        }
        Message::Clear(subject) => put_subject(body, 6, subject),
        Message::Declare(subject) => put_subject(body, 7, subject),
        Message::Accused(subject) => put_subject(body, 8, subject),
        Message::Heartbeat(beacon) => {
            body.put(beacon.raw());
            9
        }
        Message::Ask(summary) => {
            put_summary(body, summary);
            10
        }
        Message::Entries(entries) => {
            put_entries(body, entries);
            11
        }
        Message::Compare {
            extent,
            rows,
            document,
        } => put_compare(body, *extent, rows, document.as_ref()),
        Message::Offer(offer) => {
            put_offer(body, offer);
            13
        }
        Message::Want { id, offset } => {
            put_id(body, id);
            body.put_u32(*offset);
            14
        }
        Message::Part {
            offer,
            offset,
            bytes,
        } => {
            put_offer(body, offer);
            body.put_u32(*offset).put_bytes32(bytes);
            15
        }
    }
}

fn put_hello(body: &mut Vec<u8>, hello: &Hello) -> u8 {
    body.put_u8(hello.version_min)
        .put_u8(hello.version_max)
        .put_u8(u8::from(hello.answer_wanted));
    body.put(hello.namespace.as_bytes())
        .put(hello.sender.as_bytes());
    put_summary(body, &hello.summary);
    put_entries(body, &hello.entries);
    let beacon = hello
        .beacon
        .as_ref()
        .map(super::Beacon::raw)
        .unwrap_or_default();
    body.put_bytes16(beacon);
    1
}

fn put_probe(body: &mut Vec<u8>, kind: u8, nonce: u32, summary: &Summary) -> u8 {
    body.put_u32(nonce);
    put_summary(body, summary);
    kind
}

fn put_summary(body: &mut Vec<u8>, summary: &Summary) {
    body.put_u64(summary.fingerprint)
        .put_u64(summary.term)
        .put(&summary.leader)
        .put_u64(summary.heartbeat);
}

fn put_subject(body: &mut Vec<u8>, kind: u8, subject: &Subject) -> u8 {
    body.put(subject.rnode.as_bytes())
        .put_u64(subject.incarnation)
        .put_u64(subject.sequence);
    kind
}

fn put_entries(body: &mut Vec<u8>, entries: &[Entry]) {
    body.put_u16(u16::try_from(entries.len()).unwrap_or(u16::MAX));
    for entry in entries.iter().take(usize::from(u16::MAX)) {
        body.put(entry.raw());
    }
}

fn put_compare(body: &mut Vec<u8>, extent: Extent, rows: &[Row], document: Option<&Offer>) -> u8 {
    body.put_u8(match extent {
        Extent::Whole => 0,
        Extent::Wanted => 1,
    });
    body.put_u16(u16::try_from(rows.len()).unwrap_or(u16::MAX));
    for row in rows.iter().take(usize::from(u16::MAX)) {
        body.put(row.owner.as_bytes()).put_u64(row.record);
        body.put_u64(row.mark.generation)
            .put_u64(row.mark.sequence_max)
            .put_u64(row.mark.fingerprint);
    }
    body.put_u8(u8::from(document.is_some()));
    if let Some(offer) = document {
        put_offer(body, offer);
    }
    12
}

fn put_id(body: &mut Vec<u8>, id: &DocumentId) {
    body.put_u64(id.generation).put(id.digest.as_bytes());
}

fn put_offer(body: &mut Vec<u8>, offer: &Offer) {
    put_id(body, &offer.id);
    body.put_u32(offer.total);
}
