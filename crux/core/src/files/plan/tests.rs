//! Plans carried out on simulated links, with and without deaths.

use super::*;

fn sinks(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("sink{at:03}")).collect()
}

fn planner(count: usize, bytes: u64) -> Planner {
    let mut planner = Planner::new("source".to_owned(), count, bytes);
    sinks(count).iter().for_each(|sink| planner.answers(sink));
    planner
}

/// The next copy, whose sink says at once that it begins.
fn begin(planner: &mut Planner) -> Option<Copy> {
    let copy = planner.begin()?;
    planner.begun(&copy.sink);
    Some(copy)
}

/// A sink failed and is asked again, if that is worth it.
fn fail(planner: &mut Planner, sink: &str) {
    if planner.failed(sink) {
        planner.answers(sink);
    }
}

/// One rnode as the simulation sees it.
struct Link {
    sources: Vec<String>,
    /// Which of them it asks.
    asks: usize,
    /// Groups that it has, from the first on.
    has: usize,
    dead: bool,
}

/// What became of a simulated spreading.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    ticks: usize,
    /// Groups that the source sent.
    sent: usize,
    /// Most sinks that one rnode gave to at once.
    most: usize,
    switches: usize,
    short: usize,
}

/// Every link carries one group a tick, up and down; what came in one tick is given on in the next.
/// `dies` says whether a sink dies in a tick.
fn simulate(
    mut planner: Planner,
    groups: usize,
    mut dies: impl FnMut(usize, &str) -> bool,
) -> Outcome {
    let origin = Link {
        sources: Vec::new(),
        asks: 0,
        has: groups,
        dead: false,
    };
    let mut links = BTreeMap::from([("source".to_owned(), origin)]);
    let mut outcome = Outcome::default();
    loop {
        while let Some(copy) = begin(&mut planner) {
            assert!(!copy.sources.is_empty() && copy.sources.len() <= SOURCES_MAX);
            assert!(!copy.sources.contains(&copy.sink));
            let known = |source: &String| links.contains_key(source);
            assert!(
                copy.sources.iter().all(known),
                "asks who has not begun: {copy:?}"
            );
            if links.get(&copy.sink).is_some_and(|link| link.dead) {
                fail(&mut planner, &copy.sink);
                continue;
            }
            let link = Link {
                sources: copy.sources,
                asks: 0,
                has: 0,
                dead: false,
            };
            links.insert(copy.sink, link);
        }
        if planner.is_done() {
            outcome.short = planner.short().len();
            let living = links.values().filter(|link| !link.dead);
            assert!(living.clone().all(|link| link.has == groups));
            return outcome;
        }
        outcome.ticks += 1;
        assert!(
            outcome.ticks < 100 * (groups + links.len()),
            "it never ends"
        );
        tick(&mut links, groups, &mut outcome);
        let names: Vec<String> = links.keys().cloned().collect();
        for name in names {
            let Some(link) = links.get_mut(&name) else {
                continue;
            };
            if link.has == groups {
                planner.finished(&name);
            } else if !link.dead && dies(outcome.ticks, &name) {
                link.dead = true;
                fail(&mut planner, &name);
            }
        }
    }
}

fn tick(links: &mut BTreeMap<String, Link>, groups: usize, outcome: &mut Outcome) {
    let dead: BTreeSet<String> = names(links, |link| link.dead);
    let mut readers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, link) in links.iter_mut() {
        if link.dead || link.has == groups {
            continue;
        }
        while dead.contains(&link.sources[link.asks]) {
            link.asks = (link.asks + 1) % link.sources.len();
            outcome.switches += 1;
        }
        let source = link.sources[link.asks].clone();
        readers.entry(source).or_default().push(name.clone());
    }
    let had: BTreeMap<String, usize> = links
        .iter()
        .map(|(name, link)| (name.clone(), link.has))
        .collect();
    for (source, readers) in readers {
        outcome.most = outcome.most.max(readers.len());
        let turn = outcome.ticks % readers.len();
        let mut order = readers[turn..].iter().chain(&readers[..turn]);
        if let Some(served) = order.find(|reader| had[*reader] < had[&source]) {
            links.get_mut(served).unwrap().has += 1;
            outcome.sent += usize::from(source == "source");
        }
    }
}

fn names(links: &BTreeMap<String, Link>, of: impl Fn(&Link) -> bool) -> BTreeSet<String> {
    let links = links.iter().filter(|(_, link)| of(link));
    links.map(|(name, _)| name.clone()).collect()
}

const GROUP: u64 = 16 * 1024;

// Shows: FIO-07
#[test]
fn one_to_sixty_four_stays_within_half_of_the_doubling_bound() {
    for count in [1usize, 2, 3, 15, 16, 63, 64, 65, 200] {
        for groups in [8usize, 64, 1024, 4096] {
            let planner = planner(count, groups as u64 * GROUP);
            let cap = planner.per_source;
            let outcome = simulate(planner, groups, |_, _| false);
            let doublings = usize::BITS - count.leading_zeros();
            let bound = groups * doublings as usize;
            let ratio = outcome.ticks as f64 / bound as f64;
            assert!(
                outcome.most <= cap,
                "{count} sinks: {} at once",
                outcome.most
            );
            assert!(outcome.sent <= cap * groups);
            assert!(ratio <= 1.5 || count < 4, "{count}, {groups}: {ratio}");
        }
    }
}

#[test]
fn a_large_thing_takes_little_longer_to_many_than_to_one_and_leaves_its_source_once() {
    for count in [16, 64] {
        let groups = 4096;
        let outcome = simulate(planner(count, groups as u64 * GROUP), groups, |_, _| false);
        assert_eq!((outcome.ticks, outcome.sent), (groups + count - 1, groups));
    }
}

#[test]
fn whoever_dies_the_others_get_it_and_the_source_sends_little_more() {
    for seed in 0..300u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut roll = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let (count, groups) = (2 + roll(30) as usize, 1 + roll(200) as usize);
        let bytes = if roll(2) == 0 { 1 << 40 } else { 0 };
        let deaths = roll(5);
        let (mut left, odds) = (deaths, 1 + groups as u64 * count as u64 / 4);
        let dies = |_: usize, _: &str| {
            let dies = left > 0 && roll(odds) == 0;
            left -= u64::from(dies);
            dies
        };
        let outcome = simulate(planner(count, bytes), groups, dies);
        let died = outcome.short;
        assert!(died as u64 <= deaths, "seed {seed}");
        let cap = if bytes > 0 { 1 } else { PER_SOURCE };
        assert!(
            outcome.sent <= groups * (cap + died),
            "seed {seed}: {outcome:?}"
        );
        let slowest = groups * (cap + died) + PER_SOURCE * count;
        assert!(
            outcome.ticks <= slowest,
            "seed {seed}: {outcome:?}, {slowest}"
        );
    }
}

#[test]
fn a_chain_closes_over_who_fails_and_the_failed_one_is_served_by_who_has_all_of_it() {
    let mut planner = planner(4, 1 << 30);
    let begun: Vec<Copy> = std::iter::from_fn(|| begin(&mut planner)).collect();
    let sources: Vec<&[String]> = begun.iter().map(|copy| &copy.sources[..]).collect();
    assert_eq!(sources[0], ["source"]);
    assert_eq!(sources[1], ["sink000", "source"]);
    assert_eq!(sources[3], ["sink002", "sink001", "sink000", "source"]);
    fail(&mut planner, "sink001");
    assert_eq!(planner.begin(), None, "nobody else has all of it");
    planner.finished("sink000");
    let again = planner.begin().unwrap();
    assert_eq!(again.sink, "sink001");
    assert_eq!(again.sources, ["source"]);
    planner.finished("sink002");
    planner.finished("sink003");
    for _ in 1..FAILURES_MAX {
        assert!(!planner.is_done());
        fail(&mut planner, "sink001");
        planner.begin();
    }
    assert!(planner.is_done());
    assert_eq!(planner.short(), ["sink001"]);
}

#[test]
fn a_sink_that_refuses_is_asked_once_and_repeats_are_passed_over() {
    let mut planner = Planner::new("source".to_owned(), 2, 1 << 30);
    for name in ["a", "b", "a", "source"] {
        planner.answers(name);
    }
    assert_eq!(planner.begin().unwrap().sink, "a");
    planner.refused("a");
    planner.answers("a");
    let other = planner.begin().unwrap();
    assert_eq!(
        (other.sink.as_str(), other.sources),
        ("b", vec!["source".to_owned()])
    );
    assert_eq!(planner.begin(), None);
    planner.finished("b");
    assert!(planner.is_done());
    assert_eq!(planner.short(), ["a"]);
}

#[test]
fn a_sink_that_does_not_begin_is_nobodys_source_and_holds_nobody_up() {
    let mut planner = planner(3, 1 << 30);
    assert_eq!(planner.begin().unwrap().sink, "sink000");
    assert_eq!(planner.begin(), None, "it has the one place there is");
    planner.slow("sink000");
    planner.slow("sink000");
    let next = begin(&mut planner).unwrap();
    assert_eq!(
        (next.sink.as_str(), next.sources),
        ("sink001", vec!["source".to_owned()])
    );
    // It begins after all: it takes from the source, which gives to two, and no third.
    planner.begun("sink000");
    planner.slow("sink000");
    let last = begin(&mut planner).unwrap();
    assert_eq!(last.sources.len(), 2);
    planner.finished("sink000");
    planner.finished("sink001");
    planner.finished("sink002");
    assert!(planner.is_done() && planner.rnodes.values().all(|rnode| rnode.giving == 0));
}

#[test]
fn one_that_failed_and_waits_for_somebody_who_has_all_holds_nobody_up() {
    let mut planner = planner(2, 1 << 30);
    assert_eq!(begin(&mut planner).unwrap().sink, "sink000");
    assert_eq!(begin(&mut planner).unwrap().sink, "sink001");
    fail(&mut planner, "sink001");
    planner.answers("late");
    let next = begin(&mut planner).unwrap();
    assert_eq!((next.sink.as_str(), next.sources.len()), ("late", 2));
}

#[test]
fn no_more_than_the_limit_run_at_once() {
    let mut planner = planner(RUNNING_MAX + 1, 0);
    let begun = std::iter::from_fn(|| begin(&mut planner)).count();
    assert_eq!(begun, RUNNING_MAX);
    planner.finished("sink000");
    assert!(planner.begin().is_some());
}
