//! Shared data: what one says, all know.

use std::sync::Arc;
use std::time::Duration;

use crux_core::digest::Digest;
use crux_core::flock::Input;
use crux_core::ken::{DocumentId, Entry};
use sim::World;

use super::{SECOND, agree, flock, leader};

/// Within which everyone agrees, at 10 % loss: docs/design/flock.md.
const CONVERGENCE_WINDOW: Duration = Duration::from_secs(5);

fn knows(world: &World, index: usize, key: &str, value: &[u8]) -> bool {
    let entries = world
        .flock(index)
        .into_iter()
        .flat_map(|flock| flock.entries(key));
    entries
        .into_iter()
        .any(|entry: &Entry| entry.key() == key && entry.value() == value)
}

/// Shows in part: KEN-01
#[test]
fn a_write_is_everywhere_within_the_window_at_one_message_in_ten_lost() {
    let mut world = flock(1, 50);
    world.run(20 * SECOND);
    world.network.loss = 100;
    let sent = |world: &World| world.rnodes.iter().map(|rnode| rnode.sent.0).sum::<u64>();
    for round in 0..20_u8 {
        let (start, before) = (world.now, sent(&world));
        let writer = usize::from(round) * 7 % 50;
        world.publish(writer, "key", &[round; 128]);
        let known = |world: &World| (0..50).all(|index| knows(world, index, "key", &[round; 128]));
        let taken = world.run_while_not(CONVERGENCE_WINDOW, known);
        assert!(taken.is_some(), "round {round} from {writer}");
        println!(
            "known to 50 after {:?}, {} bytes in all",
            world.now - start,
            sent(&world) - before
        );
        world.run(2 * SECOND);
    }
}

/// Shows: CLU-01
#[test]
fn every_member_answers_alike_after_the_window() {
    let mut world = flock(2, 12);
    for index in 0..12 {
        world.publish(index, &format!("service/s{index}/0"), &[1; 200]);
    }
    world.run(CONVERGENCE_WINDOW);
    assert_eq!((world.disagreement(), world.wrong_entries()), (None, None));
}

/// Shows in part: RND-05
#[test]
fn everyone_lists_what_a_newcomer_offers_within_the_window() {
    let mut world = super::chain(3, 10);
    world.rnodes[9]
        .wanted
        .insert("service/new/0".to_owned(), b"address".to_vec());
    for index in 0..9 {
        world.start(index);
    }
    agree(&mut world, 30 * SECOND);
    world.start(9);
    world.run(CONVERGENCE_WINDOW);
    assert!((0..10).all(|index| knows(&world, index, "service/new/0", b"address")));
}

#[test]
fn entries_go_with_their_owner_but_not_while_it_may_come_back() {
    let mut world = flock(4, 5);
    world.publish(3, "service/a", b"1");
    world.run(20 * SECOND);
    world.crash(3);
    world.run(8 * SECOND);
    assert!(
        knows(&world, 0, "service/a", b"1"),
        "its owner may come back"
    );
    // It comes back and says something else instead.
    world.rnodes[3].wanted.clear();
    world.rnodes[3]
        .wanted
        .insert("service/b".to_owned(), b"2".to_vec());
    world.start(3);
    agree(&mut world, 10 * SECOND);
    assert!(knows(&world, 0, "service/a", b"1") && knows(&world, 0, "service/b", b"2"));
    world.run(10 * SECOND);
    assert!(!knows(&world, 0, "service/a", b"1") && knows(&world, 0, "service/b", b"2"));
    world.crash(3);
    world.run(15 * SECOND);
    assert_eq!(world.wrong_entries(), None);
}

#[test]
fn a_document_survives_every_rnode_that_saw_it_put() {
    let mut world = flock(5, 6);
    world.network.loss = 100;
    let put = |world: &mut World, index: usize, generation: u64| {
        let mut bytes = format!("signed: {generation}").into_bytes();
        bytes.resize(300_000, 7);
        let id = DocumentId {
            generation,
            digest: Digest::of(&bytes),
        };
        world.input(
            index,
            Input::PutDocument {
                id,
                bytes: Arc::from(bytes),
            },
        );
    };
    let held = |world: &World, index: usize| {
        world
            .flock(index)?
            .document()
            .map(|document| document.id.generation)
    };
    put(&mut world, 0, 1);
    world.run(10 * SECOND);
    for index in [0, leader(&world)] {
        world.crash(index);
    }
    world.run(5 * SECOND);
    assert!(
        world
            .live()
            .into_iter()
            .all(|index| held(&world, index) == Some(1))
    );
    // The higher generation wins, wherever it is put, and an older one does not come back.
    let second = world.live()[1];
    put(&mut world, second, 2);
    put(&mut world, second, 1);
    world.start(0);
    world.run(10 * SECOND);
    assert!(
        world
            .live()
            .into_iter()
            .all(|index| held(&world, index) == Some(2))
    );
}

#[test]
fn many_entries_and_much_churn_end_alike() {
    let mut world = flock(6, 4);
    world.network.loss = 50;
    for round in 0..3000_usize {
        let key = format!("bb/{}", round % 700);
        if round % 3 == 2 {
            world.withdraw(round % 4, &key);
        } else {
            world.publish(round % 4, &key, &vec![3; round % 200]);
        }
        if round % 50 == 0 {
            world.run(SECOND / 5);
        }
    }
    let settled = |world: &World| world.disagreement().is_none() && world.wrong_entries().is_none();
    let taken = world.run_while_not(30 * SECOND, settled);
    assert!(
        taken.is_some(),
        "{:?} {:?}",
        world.disagreement(),
        world.wrong_entries()
    );
}
