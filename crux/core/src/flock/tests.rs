//! The machine by itself: single steps, and small flocks without a simulator.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::wire::{Subject, Summary};
use super::*;
use crate::digest::Digest;
use crate::ken::{Draft, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::names::NamespaceId;

const SECOND: Duration = Duration::from_secs(1);

/// Signs with a keyed hash; admits whoever shows its own name, but for the one that is denied, and checks the word of those only.
struct Keys(RnodeId, Option<RnodeId>, BTreeSet<RnodeId>);

impl Keys {
    fn new(own: RnodeId, denied: Option<RnodeId>) -> Self {
        Self(own, denied, BTreeSet::from([own]))
    }
}

fn signature(id: &RnodeId, message: &[u8]) -> Vec<u8> {
    blake3::keyed_hash(id.as_bytes(), message)
        .as_bytes()
        .to_vec()
}

impl Authority for Keys {
    fn sign(&mut self, message: &[u8]) -> Vec<u8> {
        signature(&self.0, message)
    }

    fn admit(&mut self, rnode: &RnodeId, credential: &[u8]) -> bool {
        let admitted = credential == rnode.as_bytes() && self.1 != Some(*rnode);
        match admitted {
            true => self.2.insert(*rnode),
            false => self.2.remove(rnode),
        };
        admitted
    }

    fn verify(&mut self, rnode: &RnodeId, message: &[u8], given: &[u8]) -> bool {
        self.2.contains(rnode) && signature(rnode, message) == given
    }

    fn accept_document(&mut self, _: u64, bytes: &[u8]) -> bool {
        bytes.starts_with(b"good")
    }
}

fn rnode(id: u8) -> RnodeId {
    RnodeId::from_bytes([id; 32])
}

fn address(id: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, id], 7400))
}

fn namespace(id: u8) -> NamespaceId {
    NamespaceId::from_bytes([id; 32])
}

fn make(id: u8, in_namespace: u8, floor: Floor) -> Flock {
    let me = Me {
        id: rnode(id),
        namespace: namespace(in_namespace),
        incarnation: 1,
        vote: 100,
        addresses: vec![address(id)],
        credential: rnode(id).as_bytes().to_vec(),
    };
    Flock::new(
        Config::default(),
        me,
        floor,
        Box::new(Keys::new(rnode(id), None)),
        u64::from(id),
    )
}

/// Carries messages among `flocks` until there are none left, at one time.
fn carry(flocks: &mut [Flock], now: Time, mut waiting: Vec<(RnodeId, Output)>) {
    while let Some((from, output)) = waiting.pop() {
        let Output::Send { peer, bytes, .. } = output else {
            continue;
        };
        if let Some(flock) = flocks.iter_mut().find(|flock| flock.id() == peer) {
            let outputs = flock.step(
                now,
                Input::Message {
                    from,
                    bytes: bytes.to_vec(),
                },
            );
            waiting.extend(outputs.into_iter().map(|output| (peer, output)));
        }
    }
}

fn give(flocks: &mut [Flock], at: usize, now: Time, input: Input) -> Vec<Output> {
    let outputs = flocks[at].step(now, input);
    let from = flocks[at].id();
    carry(
        flocks,
        now,
        outputs
            .iter()
            .map(|output| (from, output.clone()))
            .collect(),
    );
    outputs
}

/// Two rnodes of one flock, at the returned time.
fn pair() -> (Vec<Flock>, Time) {
    let mut flocks = vec![make(1, 1, Floor::default()), make(2, 1, Floor::default())];
    let peer = rnode(2);
    give(&mut flocks, 0, Duration::ZERO, Input::Tick);
    give(&mut flocks, 1, Duration::ZERO, Input::Tick);
    give(
        &mut flocks,
        0,
        Duration::ZERO,
        Input::PeerConnected {
            peer,
            address: None,
        },
    );
    let mut now = Duration::ZERO;
    while now < 10 * SECOND {
        now += SECOND / 20;
        for at in 0..2 {
            give(&mut flocks, at, now, Input::Tick);
        }
    }
    assert_eq!(flocks[0].leader().who, flocks[1].leader().who);
    assert_eq!(flocks[0].fingerprint(), flocks[1].fingerprint());
    (flocks, now)
}

fn refusals(outputs: &[Output]) -> Vec<Refusal> {
    let refusal = |output: &Output| {
        if let Output::Refused(refusal) = output {
            Some(*refusal)
        } else {
            None
        }
    };
    outputs.iter().filter_map(refusal).collect()
}

fn message(id: u8, in_namespace: u8, incarnation: u64, message: &Message) -> Input {
    let header = Header {
        namespace: [in_namespace; 8],
        sender: [id; 8],
        incarnation,
    };
    Input::Message {
        from: rnode(id),
        bytes: wire::encode(&header, message).to_vec(),
    }
}

#[test]
fn what_needs_a_seated_leader_is_refused_as_unsupported() {
    let mut flock = make(1, 1, Floor::default());
    let requests = [
        Seated::Claim {
            key: "service/one".to_owned(),
        },
        Seated::CompareAndSet {
            key: "k".to_owned(),
            expected: None,
            value: Vec::new(),
        },
        Seated::Single {
            class: "worker".to_owned(),
        },
    ];
    for request in requests {
        let outputs = flock.step(SECOND, Input::Seated(request));
        assert_eq!(refusals(&outputs), [Refusal::Unsupported]);
    }
    assert_eq!(flock.entries("").count(), 0);
}

#[test]
fn keys_and_values_have_limits() {
    let mut flock = make(1, 1, Floor::default());
    let mut publish = |key: &str, size: usize| {
        let outputs = flock.step(
            SECOND,
            Input::Publish {
                key: key.to_owned(),
                value: vec![0; size],
            },
        );
        refusals(&outputs)
    };
    assert_eq!(publish("", 1), [Refusal::Key]);
    assert_eq!(publish(&"k".repeat(KEY_BYTES_MAX + 1), 1), [Refusal::Key]);
    assert_eq!(publish("flock/record", 1), [Refusal::Reserved]);
    assert_eq!(publish("k", VALUE_BYTES_MAX + 1), [Refusal::Value]);
    assert_eq!(publish(&"k".repeat(KEY_BYTES_MAX), VALUE_BYTES_MAX), []);
    for key in 0..crate::ken::OWNER_ENTRIES_MAX {
        publish(&key.to_string(), 1);
    }
    assert_eq!(publish("one more", 1), [Refusal::Full]);
}

#[test]
fn nothing_is_said_before_it_is_durable() {
    let mut flock = make(
        1,
        1,
        Floor {
            incarnation: 7,
            sequence: 100,
            term: 40,
        },
    );
    let outputs = flock.step(SECOND, Input::Tick);
    assert_eq!(flock.incarnation(), 8);
    let durable = outputs
        .iter()
        .position(|output| matches!(output, Output::Persist(floor) if floor.incarnation == 8));
    let leads = outputs
        .iter()
        .position(|output| matches!(output, Output::Leader { term: 41, .. }));
    assert!(durable < leads && durable.is_some(), "{outputs:?}");
    assert_eq!(flock.floor().term, 41);
}

/// Shows in part: FLK-01
#[test]
fn another_namespace_changes_nothing_and_is_counted() {
    let (mut flocks, now) = pair();
    let before = (flocks[0].fingerprint(), flocks[0].members().count());
    let foreign = make(3, 9, Floor::default()).step(
        now,
        Input::PeerConnected {
            peer: rnode(1),
            address: None,
        },
    );
    let sent = foreign.into_iter().filter_map(|output| match output {
        Output::Send { bytes, .. } => Some(bytes.to_vec()),
        _ => None,
    });
    for bytes in sent {
        assert_eq!(
            flocks[0]
                .step(
                    now,
                    Input::Message {
                        from: rnode(3),
                        bytes
                    }
                )
                .len(),
            1,
            "only the next wake-up"
        );
    }
    assert!(flocks[0].counters().foreign > 0);
    assert_eq!(
        (flocks[0].fingerprint(), flocks[0].members().count()),
        before
    );
}

/// Shows in part: FLK-19
#[test]
fn forged_and_replayed_messages_are_dropped_and_counted() {
    let (mut flocks, now) = pair();
    let flock = &mut flocks[0];
    let summary = Summary::default();
    // Rnode 2 poses as 7.
    let header = Header {
        namespace: [1; 8],
        sender: [7; 8],
        incarnation: 9,
    };
    let bytes = wire::encode(&header, &Message::Probe { nonce: 1, summary }).to_vec();
    flock.step(
        now,
        Input::Message {
            from: rnode(2),
            bytes,
        },
    );
    assert_eq!(flock.counters().forged, 1);
    // An entry of rnode 2 that rnode 2 did not sign.
    let draft = Draft {
        owner: rnode(2),
        generation: 1,
        sequence: 900,
        key: "service/a",
        value: Some(b"evil"),
    };
    let forged = draft
        .sign(&namespace(1), |_| vec![0; 32])
        .expect("within the limits");
    flock.step(now, message(7, 1, 1, &Message::Entries(vec![forged])));
    assert_eq!(
        (flock.counters().forged, flock.entries("service/").count()),
        (2, 0)
    );
    // One that it signed for another namespace.
    let elsewhere = draft
        .sign(&namespace(9), |bytes| signature(&rnode(2), bytes))
        .expect("within the limits");
    flock.step(now, message(7, 1, 1, &Message::Entries(vec![elsewhere])));
    assert_eq!(
        (flock.counters().forged, flock.entries("service/").count()),
        (3, 0)
    );
    // An earlier incarnation, as in a replay.
    flock.step(now, message(2, 1, 0, &Message::Probe { nonce: 1, summary }));
    assert_eq!(flock.counters().stale, 1);
    flock.step(
        now,
        Input::Message {
            from: rnode(2),
            bytes: vec![1, 2, 3],
        },
    );
    assert_eq!(flock.counters().malformed, 1);
}

#[test]
fn who_is_not_enrolled_is_no_member() {
    let (mut flocks, now) = pair();
    let mut stranger = make(3, 1, Floor::default());
    stranger.me.credential = b"made up".to_vec();
    flocks.push(stranger);
    give(
        &mut flocks,
        2,
        now,
        Input::PeerConnected {
            peer: rnode(1),
            address: None,
        },
    );
    assert_eq!(flocks[0].members().count(), 2);
    assert!(flocks[0].counters().refused > 0);
}

#[test]
fn an_old_heartbeat_does_not_bring_a_leader_back() {
    let (mut flocks, now) = pair();
    let leader = flocks[0].leader();
    let at = usize::from(leader.who == Some(rnode(1)));
    let old = flocks[at].lead.beacon().cloned().expect("it follows");
    let outputs = flocks[at].step(
        now,
        message(if at == 0 { 2 } else { 1 }, 1, 1, &Message::Heartbeat(old)),
    );
    assert!(
        outputs
            .iter()
            .all(|output| matches!(output, Output::Wake(_))),
        "{outputs:?}"
    );
}

#[test]
fn a_rnode_refutes_that_it_is_lost() {
    let (mut flocks, now) = pair();
    let subject = flocks[0].own_subject();
    let outputs = give(
        &mut flocks,
        0,
        now,
        message(2, 1, 2, &Message::Declare(subject)),
    );
    assert_eq!(flocks[0].counters().refutations, 1, "{outputs:?}");
    assert!(flocks[0].own_subject() > subject);
    assert_eq!(
        flocks[1].members.get(&rnode(1)).map(Member::subject),
        Some(flocks[0].own_subject())
    );
    // The same again is an old story.
    give(
        &mut flocks,
        0,
        now,
        message(2, 1, 2, &Message::Declare(subject)),
    );
    assert_eq!(flocks[0].counters().refutations, 1);
}

#[test]
fn nobody_is_lost_because_a_stranger_says_so() {
    let (mut flocks, now) = pair();
    let subject = flocks[0]
        .members
        .get(&rnode(2))
        .expect("a member")
        .subject();
    flocks[0].step(now, message(9, 1, 1, &Message::Declare(subject)));
    flocks[0].step(
        now,
        message(
            9,
            1,
            1,
            &Message::Accused(Subject {
                sequence: 99,
                ..subject
            }),
        ),
    );
    assert!(flocks[0].members.is_up(&rnode(2)));
}

#[test]
fn a_disk_set_back_costs_an_incarnation_and_nothing_else() {
    let (mut flocks, now) = pair();
    give(
        &mut flocks,
        0,
        now,
        Input::Publish {
            key: "k".to_owned(),
            value: b"old life".to_vec(),
        },
    );
    flocks[0] = make(1, 1, Floor::default());
    let mut now = now;
    give(
        &mut flocks,
        0,
        now,
        Input::Publish {
            key: "k".to_owned(),
            value: b"new life".to_vec(),
        },
    );
    give(&mut flocks, 0, now, Input::Admin(Admin::Hint(address(2))));
    give(
        &mut flocks,
        0,
        now,
        Input::PeerConnected {
            peer: rnode(2),
            address: Some(address(2)),
        },
    );
    for _ in 0..400 {
        now += SECOND / 20;
        for at in 0..2 {
            give(&mut flocks, at, now, Input::Tick);
        }
    }
    assert!(flocks[0].counters().duplicate_identity > 0 && flocks[0].incarnation() > 1);
    for flock in &flocks {
        let values: Vec<&[u8]> = flock.entries("k").map(Entry::value).collect();
        assert_eq!(values, [&b"new life"[..]]);
    }
}

#[test]
fn documents_are_judged_before_they_are_kept() {
    let (mut flocks, now) = pair();
    let put = |bytes: &[u8], generation: u64| Input::PutDocument {
        id: DocumentId {
            generation,
            digest: Digest::of(bytes),
        },
        bytes: Arc::from(bytes),
    };
    assert_eq!(
        refusals(&give(&mut flocks, 0, now, put(b"bad", 1))),
        [Refusal::Signature]
    );
    assert_eq!(
        refusals(&give(&mut flocks, 0, now, put(b"", 1))),
        [Refusal::Document]
    );
    let lie = Input::PutDocument {
        id: DocumentId {
            generation: 5,
            digest: Digest::of(b"other"),
        },
        bytes: Arc::from(&b"good"[..]),
    };
    assert_eq!(
        refusals(&give(&mut flocks, 0, now, lie)),
        [Refusal::Document]
    );
    assert_eq!(refusals(&give(&mut flocks, 0, now, put(b"good 2", 2))), []);
    assert_eq!(
        refusals(&give(&mut flocks, 1, now, put(b"good 1", 1))),
        [Refusal::Stale]
    );
    assert_eq!(refusals(&give(&mut flocks, 1, now, put(b"good 2", 2))), []);
    let held = flocks[1].document().map(|document| document.bytes.to_vec());
    assert_eq!(held.as_deref(), Some(&b"good 2"[..]));
}

/// Shows in part: FLK-02
#[test]
fn a_recorded_log_of_inputs_gives_the_same_outputs() {
    let inputs = |flock: &mut Flock| -> Vec<Vec<Output>> {
        let mut peer = make(2, 1, Floor::default());
        let mut log = Vec::new();
        for round in 0..200_u64 {
            let now = Duration::from_millis(round * 100);
            for output in peer.step(
                now,
                Input::PeerConnected {
                    peer: rnode(1),
                    address: None,
                },
            ) {
                if let Output::Send { bytes, .. } = output {
                    log.push(flock.step(
                        now,
                        Input::Message {
                            from: rnode(2),
                            bytes: bytes.to_vec(),
                        },
                    ));
                }
            }
            log.push(flock.step(
                now,
                Input::Publish {
                    key: format!("k{}", round % 9),
                    value: round.to_be_bytes().to_vec(),
                },
            ));
        }
        log
    };
    let (mut one, mut other) = (make(1, 1, Floor::default()), make(1, 1, Floor::default()));
    assert_eq!(inputs(&mut one), inputs(&mut other));
}

#[test]
fn a_machine_survives_any_bytes_from_a_member() {
    let (mut flocks, mut now) = pair();
    let mut random = Random::new(7);
    let mut valid = Vec::new();
    for output in flocks[1].step(
        now,
        Input::Publish {
            key: "a".to_owned(),
            value: vec![1; 30],
        },
    ) {
        if let Output::Send { bytes, .. } = output {
            valid.push(bytes.to_vec());
        }
    }
    let subject = Subject {
        rnode: rnode(1),
        incarnation: 1,
        sequence: 2,
    };
    for message in [
        Message::Accused(subject),
        Message::Suspect(subject),
        Message::Ask(Summary::default()),
    ] {
        valid.push(wire::encode(&flocks[1].header(), &message).to_vec());
    }
    for _ in 0..20_000 {
        let mut bytes = valid[random.below(valid.len())].clone();
        for _ in 0..=random.below(3) {
            let at = wire::HEADER_BYTES - 8 + random.below(bytes.len() - wire::HEADER_BYTES + 8);
            bytes[at] = random.next().to_be_bytes()[0];
        }
        now += Duration::from_millis(1);
        flocks[0].step(
            now,
            Input::Message {
                from: rnode(2),
                bytes,
            },
        );
        assert!(flocks[0].members().count() <= REMEMBERED_MAX);
    }
}

#[test]
fn who_is_denied_is_dropped_with_all_it_said() {
    let (mut flocks, now) = pair();
    give(
        &mut flocks,
        1,
        now,
        Input::Publish {
            key: "k".to_owned(),
            value: vec![1],
        },
    );
    assert_eq!(flocks[0].entries("").count(), 1);
    flocks[0].step(now, Input::Recheck);
    assert_eq!(flocks[0].members.up_count(), 2, "nothing changed");
    flocks[0].authority = Box::new(Keys::new(rnode(1), Some(rnode(2))));
    let outputs = flocks[0].step(now, Input::Recheck);
    assert!(outputs.contains(&Output::Close { peer: rnode(2) }));
    assert_eq!(
        (flocks[0].entries("").count(), flocks[0].members.up_count()),
        (0, 1)
    );
    give(
        &mut flocks,
        1,
        now,
        Input::PeerConnected {
            peer: rnode(1),
            address: None,
        },
    );
    give(
        &mut flocks,
        1,
        now,
        Input::Publish {
            key: "k".to_owned(),
            value: vec![2],
        },
    );
    assert_eq!(
        (flocks[0].entries("").count(), flocks[0].members.up_count()),
        (0, 1)
    );
}

#[test]
fn who_is_accepted_again_is_back_with_all_it_says() {
    let (mut flocks, mut now) = pair();
    let key = "k".to_owned();
    let publish = Input::Publish {
        key,
        value: vec![1],
    };
    give(&mut flocks, 1, now, publish);
    for denied in [Some(rnode(2)), None] {
        flocks[0].authority = Box::new(Keys::new(rnode(1), denied));
        give(&mut flocks, 0, now, Input::Recheck);
    }
    assert_eq!(flocks[0].members.up_count(), 1, "it has to come and say so");
    let until = now + 20 * SECOND;
    while now < until {
        now += SECOND / 20;
        for at in 0..2 {
            give(&mut flocks, at, now, Input::Tick);
        }
    }
    for flock in &flocks {
        assert_eq!(
            (flock.members.up_count(), flock.entries("").count()),
            (2, 1)
        );
    }
    assert_eq!(flocks[0].fingerprint(), flocks[1].fingerprint());
}
