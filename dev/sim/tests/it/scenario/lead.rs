//! Who leads.

use std::collections::BTreeSet;
use std::time::Duration;

use crux_core::flock::{Admin, Input};
use sim::{Options, World};

use super::{SECOND, agree, chain, flock, leader, led_by, up};

fn voting(seed: u64, votes: &[u32]) -> World {
    let count = votes.len();
    World::new(seed, count, |index| Options {
        hints: vec![World::address((index + 1) % count)],
        vote: votes[index],
        ..Options::default()
    })
}

/// Runs until all agree and then for a while, so that whoever takes over has done so.
fn settle(world: &mut World) -> usize {
    agree(world, 30 * SECOND);
    world.run(5 * SECOND);
    agree(world, 30 * SECOND);
    leader(world)
}

/// Shows: FLK-07
#[test]
fn the_highest_vote_leads_and_equal_votes_give_one_choice() {
    for seed in 0..10 {
        let mut world = voting(seed, &[3, 9, 27, 1, 8]);
        world.start_all();
        assert_eq!(settle(&mut world), 2);
    }
    let chosen: BTreeSet<usize> = (0..10)
        .map(|seed| {
            let mut world = voting(seed, &[5; 5]);
            world.start_all();
            settle(&mut world)
        })
        .collect();
    let world = voting(0, &[5; 5]);
    let highest = (0..5).max_by_key(|index| world.rnodes[*index].id);
    assert_eq!(
        chosen.into_iter().collect::<Vec<_>>(),
        Vec::from_iter(highest)
    );
}

/// Shows: FLK-08
#[test]
fn tenure_puts_a_leader_above_every_newcomer() {
    for (age, expected) in [(5 * SECOND, 5), (40 * SECOND, 2)] {
        let mut world = voting(7, &[3, 4, 50, 5, 6, 9_999]);
        for index in 0..5 {
            world.start(index);
        }
        assert_eq!(settle(&mut world), 2);
        world.run(age);
        world.start(5);
        assert_eq!(settle(&mut world), expected, "after {age:?} in office");
        world.run(60 * SECOND);
        assert_eq!(leader(&world), expected);
    }
}

/// Shows: FLK-09
#[test]
fn a_leader_that_lowers_its_vote_is_followed_by_another_and_stays() {
    let mut world = flock(8, 5);
    world.run(60 * SECOND);
    let old = leader(&world);
    world.input(old, Input::Admin(Admin::SetVote(1)));
    world.run(10 * SECOND);
    agree(&mut world, Duration::ZERO);
    assert_ne!(leader(&world), old);
    assert_eq!(up(&world, old), 5);
}

/// Shows: FLK-14
#[test]
fn a_new_leader_knows_everything_without_being_told() {
    let mut world = chain(9, 8);
    for index in 0..8 {
        world.rnodes[index]
            .wanted
            .insert(format!("service/s{index}"), vec![7; 300]);
    }
    world.start_all();
    agree(&mut world, 30 * SECOND);
    let old = leader(&world);
    world.crash(old);
    world.run(4 * SECOND);
    agree(&mut world, Duration::ZERO);
    assert_ne!(leader(&world), old);
    assert_eq!(up(&world, leader(&world)), 7);
    // What the dead leader had published stays for ten seconds, for it to come back, and then goes.
    world.run(10 * SECOND);
    assert_eq!(world.wrong_entries(), None);
}

/// Shows in part: CLU-02, FLK-12
#[test]
fn both_sides_of_a_split_work_on_and_become_one_again() {
    let mut world = flock(10, 50);
    world.run(40 * SECOND);
    world.network.side = (0..50).map(|index| u8::from(index >= 40)).collect();
    world.run(600 * SECOND);
    let (ours, theirs) = (led_by(&world, 0).0, led_by(&world, 40).0);
    for index in 0..50 {
        let (count, lead) = if index < 40 { (40, ours) } else { (10, theirs) };
        assert_eq!((up(&world, index), led_by(&world, index).0), (count, lead));
    }
    assert_ne!(ours, theirs);
    world.network.side = vec![0; 50];
    let healed = agree(&mut world, 20 * SECOND);
    assert!(healed <= 8 * SECOND, "{healed:?}");
    // The larger side's leader stays; nobody took a new incarnation.
    assert_eq!(Some(leader(&world)), ours);
    for rnode in &world.rnodes {
        assert_eq!(
            rnode.flock.as_ref().map(|flock| flock.incarnation()),
            Some(1)
        );
    }
}

/// Shows in part: FLK-13
#[test]
fn a_quarter_restarting_leaves_the_others_their_leader() {
    let mut world = flock(11, 48);
    world.run(40 * SECOND);
    let leading = leader(&world);
    let cycled: Vec<usize> = (0..48)
        .filter(|index| *index != leading)
        .step_by(4)
        .collect();
    for index in &cycled {
        world.crash(*index);
    }
    world.run(6 * SECOND);
    for index in &cycled {
        world.start(*index);
    }
    agree(&mut world, 10 * SECOND);
    assert_eq!(leader(&world), leading);
}
