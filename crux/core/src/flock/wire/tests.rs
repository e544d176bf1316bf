//! Messages there and back, and bytes that are none.

use std::time::Duration;

use super::*;
use crate::digest::Digest;
use crate::flock::beacon::Claim;
use crate::flock::name::FlockId;
use crate::flock::random::Random;
use crate::ken::Draft;

const ROUNDS: usize = 60_000;

fn header() -> Header {
    Header {
        namespace: [1; 8],
        sender: [2; 8],
        incarnation: 3,
    }
}

fn rnode(id: u8) -> RnodeId {
    RnodeId::from_bytes([id; 32])
}

fn namespace() -> NamespaceId {
    NamespaceId::from_bytes([1; 32])
}

fn entry(id: u8, value: Option<&[u8]>) -> Entry {
    let draft = Draft {
        owner: rnode(id),
        generation: 4,
        sequence: 5,
        key: "service/a",
        value,
    };
    draft
        .sign(&namespace(), |_| vec![7; 72])
        .expect("within the limits")
}

fn beacon() -> Beacon {
    let claim = Claim {
        flock: FlockId::from_bytes([3; 16]),
        term: 9,
        sequence: 10,
        leader: rnode(5),
        incarnation: 2,
        tenure: Duration::from_millis(1234),
        latched: true,
        size: 17,
        fingerprint: 99,
        successors: vec![[1; 8]; 5],
        superseded: vec![(8, [2; 8]), (7, [3; 8])],
    };
    claim
        .sign(&namespace(), |_| vec![6; 70])
        .expect("within the limits")
}

fn messages() -> Vec<Message> {
    let summary = Summary {
        fingerprint: 1,
        term: 2,
        leader: [3; 8],
        heartbeat: 4,
    };
    let subject = Subject {
        rnode: rnode(4),
        incarnation: 5,
        sequence: 6,
    };
    let id = DocumentId {
        generation: 3,
        digest: Digest::of(b"document"),
    };
    let offer = Offer { id, total: 70_000 };
    let mark = OwnerMark {
        generation: 1,
        sequence_max: 2,
        fingerprint: 3,
    };
    let hello = Hello {
        version_min: 1,
        version_max: 4,
        answer_wanted: true,
        namespace: namespace(),
        sender: rnode(2),
        summary,
        entries: vec![entry(2, Some(b"x")), entry(2, None)],
        beacon: Some(beacon()),
    };
    vec![
        Message::Hello(Box::new(Hello {
            beacon: None,
            ..hello.clone()
        })),
        Message::Hello(Box::new(hello)),
        Message::Probe { nonce: 7, summary },
        Message::Ack {
            nonce: 7,
            summary,
            clock: 8,
        },
        Message::Suspect(subject),
        Message::Evidence {
            subject,
            millinats: 9,
        },
        Message::Clear(subject),
        Message::Declare(subject),
        Message::Accused(subject),
        Message::Heartbeat(beacon()),
        Message::Ask(summary),
        Message::Entries(vec![entry(2, Some(b"value")), entry(9, None)]),
        Message::Compare {
            extent: Extent::Whole,
            rows: vec![Row {
                owner: rnode(1),
                record: 2,
                mark,
            }],
            document: Some(offer),
        },
        Message::Compare {
            extent: Extent::Wanted,
            rows: Vec::new(),
            document: None,
        },
        Message::Offer(offer),
        Message::Want { id, offset: 11 },
        Message::Part {
            offer,
            offset: 12,
            bytes: vec![1; 500].into(),
        },
    ]
}

#[test]
fn every_message_reads_back_what_was_written() {
    for message in messages() {
        let bytes = encode(&header(), &message);
        assert_eq!(decode(&bytes), Ok((header(), Some(message))));
    }
}

#[test]
fn fields_of_later_versions_are_ignored_and_unknown_kinds_are_no_error() {
    for message in messages() {
        let mut bytes = encode(&header(), &message).to_vec();
        bytes[0] = VERSION + 1;
        bytes.extend_from_slice(b"later");
        assert_eq!(decode(&bytes), Ok((header(), Some(message))));
    }
    let mut bytes = encode(&header(), &messages()[2]).to_vec();
    bytes[1] = 200;
    assert_eq!(decode(&bytes), Ok((header(), None)));
    bytes[0] = 0;
    assert_eq!(decode(&bytes), Err(crate::ken::Malformed::Value));
}

#[test]
fn no_prefix_of_a_message_is_one() {
    for message in messages() {
        let bytes = encode(&header(), &message);
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).is_err(), "{message:?} cut at {end}");
        }
    }
}

#[test]
fn hostile_bytes_are_refused_without_harm() {
    let valid: Vec<_> = messages()
        .iter()
        .map(|message| encode(&header(), message).to_vec())
        .collect();
    let mut random = Random::new(20_261_121);
    for round in 0..ROUNDS {
        let mut bytes = valid[random.below(valid.len())].clone();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[at] = random.next().to_be_bytes()[0],
                1 => bytes.truncate(at),
                2 => bytes[at] = 0xff,
                _ => bytes.insert(at, 0xff),
            }
            if bytes.is_empty() {
                break;
            }
        }
        if round % 7 == 0 {
            bytes = (0..random.below(200))
                .map(|_| random.next().to_be_bytes()[7])
                .collect();
        }
        if let Ok((header, Some(message))) = decode(&bytes) {
            // Whatever was read can be written and read again.
            assert_eq!(
                decode(&encode(&header, &message)),
                Ok((header, Some(message)))
            );
        }
    }
}

#[test]
fn small_messages_fit_a_datagram() {
    for message in messages() {
        let small = !matches!(message, Message::Hello(_) | Message::Part { .. });
        assert!(!small || encode(&header(), &message).len() <= 1152);
    }
}
