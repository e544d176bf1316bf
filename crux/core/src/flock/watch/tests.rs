//! What lost probes say, by table.

use super::*;

fn subject(id: u8) -> Subject {
    Subject {
        rnode: RnodeId::from_bytes([id; 32]),
        incarnation: 1,
        sequence: 2,
    }
}

fn watch(config: &Config) -> Watch {
    let mut watch = Watch::new(Duration::ZERO, config);
    watch.set_subjects(
        Duration::ZERO,
        &[(subject(1), (0, 1))],
        Duration::from_millis(1),
        &mut Random::new(1),
    );
    watch
}

/// Runs until `end`, answering probes in `answers`; returns when the subject was declared.
fn run(
    watch: &mut Watch,
    config: &Config,
    end: Duration,
    answers: impl Fn(Duration) -> bool,
) -> Option<Duration> {
    let mut now = Duration::ZERO;
    while now < end {
        for act in watch.due(now, config) {
            match act {
                Act::Probe { to, nonce } if answers(now) => {
                    watch.answered(now, (&to, nonce), 0, config.probe_interval);
                    watch.heard(&to);
                }
                Act::Declare(_) => return Some(now),
                _ => {}
            }
        }
        now += Duration::from_millis(10);
    }
    None
}

#[test]
fn a_rnode_that_answers_is_never_declared() {
    let config = Config::default();
    assert_eq!(
        run(
            &mut watch(&config),
            &config,
            Duration::from_secs(3600),
            |_| true
        ),
        None
    );
}

#[test]
fn a_lone_watcher_declares_a_silent_rnode_only_after_long_silence() {
    let config = Config::default();
    let dies = Duration::from_secs(300);
    let declared = run(
        &mut watch(&config),
        &config,
        Duration::from_secs(400),
        |now| now < dies,
    );
    let silence = declared.expect("it is declared in the end") - dies;
    assert!(
        silence >= DECLARE_UNIT * 4 && silence < Duration::from_secs(10),
        "{silence:?}"
    );
}

#[test]
fn three_watchers_together_need_a_quarter_of_the_silence() {
    let config = Config::default();
    let mut watch = watch(&config);
    run(&mut watch, &config, Duration::from_secs(300), |_| true);
    let start = Duration::from_secs(300);
    for other in [7, 8] {
        watch.evidence(
            start,
            (RnodeId::from_bytes([other; 32]), &subject(1)),
            12_000,
        );
    }
    let mut now = start;
    let declared = loop {
        if watch.due(now, &config).contains(&Act::Declare(subject(1))) {
            break now;
        }
        now += Duration::from_millis(10);
    };
    assert!(
        declared - start < Duration::from_secs(2),
        "{:?}",
        declared - start
    );
}

#[test]
fn any_sign_of_life_wipes_what_was_gathered() {
    let config = Config::default();
    let mut watch = watch(&config);
    watch.evidence(
        Duration::ZERO,
        (RnodeId::from_bytes([7; 32]), &subject(1)),
        90_000,
    );
    assert_eq!(watch.heard(&subject(1).rnode), Some(Act::Clear(subject(1))));
    assert_eq!(watch.heard(&subject(1).rnode), None);
    assert_eq!(watch.suspects().count(), 0);
}

#[test]
fn fast_probes_stay_within_their_budget() {
    let config = Config::default();
    let mut watch = Watch::new(Duration::ZERO, &config);
    let subjects: Vec<_> = (0..60).map(|id| (subject(id), (0, 4))).collect();
    watch.set_subjects(
        Duration::ZERO,
        &subjects,
        Duration::from_millis(1),
        &mut Random::new(1),
    );
    let mut probes = 0;
    for tick in 0..1000 {
        let acts = watch.due(Duration::from_millis(tick * 10), &config);
        probes += acts
            .iter()
            .filter(|act| matches!(act, Act::Probe { .. }))
            .count();
    }
    assert!(probes < 60 + 20 * 11, "{probes}");
}

#[test]
fn evidence_is_worth_less_where_misses_are_common() {
    assert_eq!(millinats(512), 693);
    assert!(millinats(MISS_MIN) > 3_800 && millinats(MISS_MIN) < 4_000);
    assert!((MISS_MIN..MISS_MAX).all(|miss| millinats(miss) >= millinats(miss + 1)));
}

#[test]
fn watchers_take_turns_by_the_clock_of_whom_they_watch() {
    let config = Config::default();
    let interval = config.probe_interval;
    for index in 0..4 {
        let mut watch = Watch::new(Duration::ZERO, &config);
        watch.set_subjects(
            Duration::ZERO,
            &[(subject(1), (index, 4))],
            Duration::from_secs(3),
            &mut Random::new(9),
        );
        let mut probes = Vec::new();
        for tick in 0..6000_u32 {
            let now = Duration::from_millis(u64::from(tick) * 10);
            for act in watch.due(now, &config) {
                if let Act::Probe { to, nonce } = act {
                    probes.push(now);
                    // The subject's clock is a second and a half ahead of ours.
                    watch.answered(now, (&to, nonce), tick * 10 + 1500, interval);
                }
            }
        }
        let turns = probes[1..]
            .iter()
            .map(|at| (*at + Duration::from_millis(1500)).as_millis() % 4000);
        assert!(
            turns.clone().all(|turn| turn == u128::from(index) * 1000),
            "{index}: {:?}",
            turns.collect::<Vec<_>>()
        );
        assert!((14..=16).contains(&probes.len()), "{}", probes.len());
    }
}
