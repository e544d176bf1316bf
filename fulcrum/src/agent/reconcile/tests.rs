//! What is started, stopped and left alone, by table.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crux_core::digest::Digest;

use super::{
    Action, Decision, Ended, Execution, InstanceId, Note, Observation, Reconciler, Restart, State,
    Wanted,
};

fn instance(index: u32) -> InstanceId {
    InstanceId {
        class: "prog1".into(),
        index,
    }
}

fn spec(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn want(text: &str) -> Wanted {
    Wanted {
        spec: spec(text),
        held: None,
        replacement_held: None,
        restart: Restart::Always,
    }
}

fn wanted(of: Vec<(InstanceId, Wanted)>) -> Option<BTreeMap<InstanceId, Wanted>> {
    Some(of.into_iter().collect())
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A keeper and a clock that do what the reconciler says.
struct World {
    reconciler: Reconciler,
    now: Duration,
    observation: Observation,
    started: usize,
    published: BTreeMap<InstanceId, super::Report>,
}

impl World {
    fn new(of: Option<BTreeMap<InstanceId, Wanted>>) -> Self {
        Self {
            reconciler: Reconciler::default(),
            now: ms(0),
            observation: Observation {
                wanted: of,
                ..Observation::default()
            },
            started: 0,
            published: BTreeMap::new(),
        }
    }

    fn step(&mut self) -> Decision {
        self.observation.unix_ms = u64::try_from(self.now.as_millis()).unwrap();
        let decision = self.reconciler.step(self.now, &self.observation);
        for action in &decision.actions {
            match action {
                Action::Start { instance } => {
                    self.started += 1;
                    let execution = format!("x{}", self.started);
                    self.reconciler.started(self.now, instance, &execution);
                    let spec = self.observation.wanted.as_ref().unwrap()[instance].spec;
                    self.observation.executions.push(Execution {
                        execution: format!("x{}", self.started),
                        instance: instance.clone(),
                        spec,
                        pid: 100,
                        started_unix_ms: self.observation.unix_ms,
                        ended: None,
                    });
                }
                Action::Terminate { execution } | Action::Kill { execution } => {
                    self.end(&execution.clone(), "signal 15");
                }
                Action::Forget { execution } => {
                    self.observation
                        .executions
                        .retain(|known| known.execution != *execution);
                }
                Action::Publish { instance, report } => {
                    self.published.insert(instance.clone(), report.clone());
                }
                Action::Withdraw { instance } => {
                    self.published.remove(instance);
                }
                Action::Note { .. } => {}
            }
        }
        decision
    }

    fn end(&mut self, execution: &str, how: &str) {
        for known in &mut self.observation.executions {
            if known.execution == execution {
                known.ended = Some(Ended {
                    well: how == "exit code 0",
                    text: how.into(),
                });
            }
        }
    }

    fn running(&self) -> Vec<&str> {
        self.observation
            .executions
            .iter()
            .filter(|execution| execution.ended.is_none())
            .map(|execution| execution.execution.as_str())
            .collect()
    }

    fn state(&self, index: u32) -> State {
        self.published[&instance(index)].state
    }
}

#[test]
fn nothing_is_started_or_stopped_before_an_assignment_is_known() {
    let mut world = World::new(None);
    world.observation.executions.push(Execution {
        execution: "x9".into(),
        instance: instance(0),
        spec: spec("a"),
        pid: 1,
        started_unix_ms: 0,
        ended: None,
    });
    let actions = world.step().actions;
    assert!(
        actions
            .iter()
            .all(|action| matches!(action, Action::Publish { .. })),
        "{actions:?}"
    );
    assert_eq!(world.state(0), State::Starting);
}

#[test]
fn an_assigned_instance_is_started_once_and_becomes_ready() {
    let mut world = World::new(wanted(vec![(instance(0), want("a"))]));
    world.step();
    world.step();
    assert_eq!(world.running(), ["x1"]);
    assert_eq!(world.state(0), State::Starting);
    world.observation.ready.insert("x1".into());
    let decision = world.step();
    assert!(decision.actions.iter().any(|action| matches!(
        action,
        Action::Note {
            note: Note::Ready,
            ..
        }
    )));
    assert_eq!(world.state(0), State::Ready);
    assert!(world.published[&instance(0)].was_ready);
    assert_eq!(world.step().actions, vec![]);
}

#[test]
fn a_held_instance_waits_and_says_why() {
    let mut held = want("a");
    held.held = Some("after ready(prog1) >= 50%".into());
    let mut world = World::new(wanted(vec![(instance(0), held)]));
    world.step();
    assert!(world.running().is_empty());
    assert_eq!(world.state(0), State::Waiting);
    assert_eq!(
        world.published[&instance(0)].reason,
        "after ready(prog1) >= 50%"
    );
}

#[test]
fn a_condition_that_falls_later_stops_nothing() {
    let mut world = World::new(wanted(vec![(instance(0), want("a"))]));
    world.step();
    let mut held = want("a");
    held.held = Some("no longer".into());
    world.observation.wanted = wanted(vec![(instance(0), held)]);
    world.step();
    assert_eq!(world.running(), ["x1"]);
}

// Shows in part: KHN-10
#[test]
fn a_failing_instance_backs_off_and_is_given_up_after_eight_failures() {
    let mut world = World::new(wanted(vec![(instance(0), want("a"))]));
    let mut waits = Vec::new();
    world.step();
    for failure in 1..=8 {
        let running = world.running()[0].to_owned();
        world.end(&running, "exit code 1");
        let decision = world.step();
        if failure < 8 {
            assert_eq!(world.state(0), State::Backoff);
            let wake = decision.wake.unwrap();
            waits.push(u64::try_from((wake - world.now).as_millis()).unwrap());
            world.now = wake;
            world.step();
        }
    }
    assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400]);
    assert_eq!(world.state(0), State::GaveUp);
    assert_eq!(world.started, 8);
    world.now += Duration::from_secs(14);
    world.step();
    assert!(world.running().is_empty());
}

#[test]
fn a_given_up_instance_is_tried_once_after_ever_longer_waits_until_it_lives() {
    let mut world = World::new(wanted(vec![(instance(0), want("a"))]));
    world.step();
    let mut waits = Vec::new();
    while waits.len() < 7 {
        let running = world.running()[0].to_owned();
        world.end(&running, "exit code 1");
        let wake = world.step().wake.unwrap();
        if world.state(0) == State::GaveUp {
            waits.push((wake - world.now).as_secs());
        }
        world.now = wake;
        world.step();
    }
    assert_eq!(waits, [15, 30, 60, 120, 240, 300, 300]);
    // One try each.
    assert_eq!(world.started, 8 + 7);
    // It lives now, so a later failure is the first again.
    world.now += Duration::from_secs(20);
    let running = world.running()[0].to_owned();
    world.end(&running, "exit code 1");
    let wake = world.step().wake.unwrap();
    assert_eq!(
        (world.state(0), wake - world.now),
        (State::Backoff, ms(100))
    );
}

#[test]
fn a_given_up_instance_that_lives_after_its_first_retry_begins_anew() {
    let mut world = World::new(wanted(vec![(instance(0), want("a"))]));
    world.step();
    let fail = |world: &mut World| {
        let running = world.running()[0].to_owned();
        world.end(&running, "exit code 1");
        world.step().wake.unwrap()
    };
    loop {
        let wake = fail(&mut world);
        let given_up = world.state(0) == State::GaveUp;
        world.now = wake;
        world.step();
        if given_up {
            break;
        }
    }
    // Well within the window of those that came before.
    world.now += Duration::from_secs(20);
    let wake = fail(&mut world);
    assert_eq!(
        (world.state(0), wake - world.now),
        (State::Backoff, ms(100))
    );
}

#[test]
fn a_given_up_instance_is_tried_again_when_its_spec_changes() {
    let mut world = World::new(wanted(vec![(instance(0), want("a"))]));
    world.step();
    for _ in 0..8 {
        let running = world.running()[0].to_owned();
        world.end(&running, "exit code 1");
        let wake = world.step().wake.unwrap();
        if world.state(0) != State::GaveUp {
            world.now = wake;
            world.step();
        }
    }
    assert_eq!(world.state(0), State::GaveUp);
    world.observation.wanted = wanted(vec![(instance(0), want("b"))]);
    world.step();
    assert_eq!(world.running().len(), 1);
}

#[test]
fn a_long_life_starts_the_back_off_anew() {
    let mut world = World::new(wanted(vec![(instance(0), want("a"))]));
    world.step();
    for _ in 0..3 {
        world.step();
        world.now += Duration::from_secs(50);
        let running = world.running()[0].to_owned();
        world.end(&running, "exit code 1");
        let wake = world.step().wake.unwrap();
        assert_eq!(wake - world.now, ms(100));
        world.now = wake;
        world.step();
    }
}

#[test]
fn a_changed_spec_is_replaced_when_its_turn_has_come() {
    let mut world = World::new(wanted(vec![(instance(0), want("a"))]));
    world.step();
    world.observation.ready.insert("x1".into());
    world.step();
    let mut next = want("b");
    next.replacement_held = Some("prog1/1 first".into());
    world.observation.wanted = wanted(vec![(instance(0), next)]);
    world.step();
    assert_eq!(world.running(), ["x1"]);
    assert_eq!(world.state(0), State::Ready);
    assert_eq!(world.published[&instance(0)].spec, spec("a"));
    world.observation.wanted = wanted(vec![(instance(0), want("b"))]);
    world.step();
    assert_eq!(world.state(0), State::Stopping);
    world.step();
    assert_eq!(world.running(), ["x2"]);
    assert_eq!(world.published[&instance(0)].spec, spec("b"));
    assert_eq!(world.published[&instance(0)].restarts, 0);
}

#[test]
fn an_unassigned_instance_is_stopped_and_its_record_withdrawn() {
    let mut world = World::new(wanted(vec![
        (instance(0), want("a")),
        (instance(1), want("a")),
    ]));
    world.step();
    world.observation.wanted = wanted(vec![(instance(1), want("a"))]);
    world.step();
    assert_eq!(world.running(), ["x2"]);
    world.step();
    assert_eq!(world.published.keys().collect::<Vec<_>>(), [&instance(1)]);
}

#[test]
fn an_execution_that_does_not_end_is_killed_after_the_grace() {
    let mut reconciler = Reconciler::default();
    let execution = Execution {
        execution: "x1".into(),
        instance: instance(0),
        spec: spec("a"),
        pid: 7,
        started_unix_ms: 0,
        ended: None,
    };
    let observation = Observation {
        wanted: wanted(vec![]),
        executions: vec![execution],
        ..Observation::default()
    };
    let first = reconciler.step(ms(0), &observation);
    assert!(first.actions.contains(&Action::Terminate {
        execution: "x1".into()
    }));
    assert_eq!(first.wake, Some(ms(10_000)));
    let early = reconciler.step(ms(9_999), &observation);
    assert_eq!(early.actions, vec![]);
    let late = reconciler.step(ms(10_000), &observation);
    assert_eq!(
        late.actions,
        vec![Action::Kill {
            execution: "x1".into()
        }]
    );
}

#[test]
fn a_new_agent_adopts_what_runs_without_starting_anything() {
    let mut world = World::new(wanted(vec![(instance(0), want("a"))]));
    world.step();
    world.observation.ready.insert("x1".into());
    world.step();
    let remembered = world.reconciler.remember();
    world.observation.ready = BTreeSet::new();
    world.reconciler = Reconciler::restore(world.now, &remembered);
    let decision = world.step();
    assert_eq!(world.running(), ["x1"]);
    assert!(
        decision
            .actions
            .iter()
            .all(|action| matches!(action, Action::Publish { .. }))
    );
    assert_eq!(world.state(0), State::Ready);
}

#[test]
fn an_exit_while_no_agent_lived_is_counted_once() {
    let mut world = World::new(wanted(vec![(instance(0), want("a"))]));
    world.step();
    world.step();
    let remembered = world.reconciler.remember();
    world.end("x1", "exit code 3");
    world.reconciler = Reconciler::restore(world.now, &remembered);
    let decision = world.step();
    assert_eq!(world.state(0), State::Backoff);
    assert_eq!(world.published[&instance(0)].reason, "exit code 3");
    world.now = decision.wake.unwrap();
    world.step();
    assert_eq!(world.published[&instance(0)].restarts, 1);
    let remembered = world.reconciler.remember();
    assert_eq!(remembered[0].failures, 1);
}

#[test]
fn a_second_execution_of_one_instance_is_stopped() {
    let mut world = World::new(wanted(vec![(instance(0), want("a"))]));
    for (execution, started_unix_ms) in [("x8", 5), ("x9", 9)] {
        world.observation.executions.push(Execution {
            execution: execution.into(),
            instance: instance(0),
            spec: spec("a"),
            pid: 1,
            started_unix_ms,
            ended: None,
        });
    }
    world.step();
    assert_eq!(world.running(), ["x8"]);
}

#[test]
fn a_start_that_cannot_be_made_backs_off() {
    let mut reconciler = Reconciler::default();
    let observation = Observation {
        wanted: wanted(vec![(instance(0), want("a"))]),
        ..Observation::default()
    };
    reconciler.step(ms(0), &observation);
    reconciler.start_failed(ms(0), &instance(0), "the digest differs");
    let decision = reconciler.step(ms(0), &observation);
    assert_eq!(decision.wake, Some(ms(100)));
    let Action::Publish { report, .. } = &decision.actions[0] else {
        panic!("no report")
    };
    assert_eq!(report.state, State::Backoff);
    assert_eq!(report.reason, "could not be started: the digest differs");
}

#[test]
fn old_output_of_an_instance_is_forgotten() {
    let mut world = World::new(wanted(vec![(instance(0), want("a"))]));
    for round in 0..6 {
        world.observation.executions.push(Execution {
            execution: format!("old{round}"),
            instance: instance(0),
            spec: spec("a"),
            pid: 1,
            started_unix_ms: round,
            ended: Some(Ended {
                well: true,
                text: "exit code 0".into(),
            }),
        });
    }
    world.step();
    let left = world
        .observation
        .executions
        .iter()
        .filter(|known| known.ended.is_some())
        .count();
    assert_eq!(left, 3);
}

#[test]
fn a_restart_policy_leaves_what_ended_well() {
    let mut once = want("a");
    once.restart = Restart::OnFailure;
    let mut world = World::new(wanted(vec![(instance(0), once)]));
    world.step();
    world.step();
    world.end("x1", "exit code 1");
    world.now = world.step().wake.unwrap();
    world.step();
    assert_eq!(world.running(), ["x2"]);
    world.step();
    world.end("x2", "exit code 0");
    world.step();
    assert_eq!(world.state(0), State::Stopped);
    world.now += Duration::from_secs(100);
    world.step();
    assert!(world.running().is_empty());
}

/// A small generator: the same seed gives the same run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Assignments, specs and processes change at random; what a keeper would do is done, sometimes late.
struct Storm {
    chance: Chance,
    reconciler: Reconciler,
    observation: Observation,
    now: Duration,
    started: usize,
    asked_to_end: BTreeSet<String>,
    reports: BTreeMap<InstanceId, super::Report>,
}

impl Storm {
    fn new(seed: u64) -> Self {
        Self {
            chance: Chance(seed),
            reconciler: Reconciler::default(),
            observation: Observation::default(),
            now: ms(0),
            started: 0,
            asked_to_end: BTreeSet::new(),
            reports: BTreeMap::new(),
        }
    }

    fn rage(&mut self) {
        self.now += ms(self.chance.below(2000));
        match self.chance.below(8) {
            0 => {
                let text = ["a", "b", "c"][usize::try_from(self.chance.below(3)).unwrap()];
                let count = u32::try_from(self.chance.below(4)).unwrap();
                self.observation.wanted = wanted(
                    (0..count)
                        .map(|index| (instance(index), want(text)))
                        .collect(),
                );
            }
            1 => {
                let remembered = self.reconciler.remember();
                self.reconciler = Reconciler::restore(self.now, &remembered);
                self.asked_to_end.clear();
                self.observation.ready.clear();
            }
            2 | 3 => {
                let live = self.live();
                if let Some(id) = live.get(usize::try_from(self.chance.below(4)).unwrap()) {
                    self.end(id);
                }
            }
            4 => {
                let live = self.live();
                self.observation.ready.extend(live);
            }
            5 => {
                if let Some(wanted) = &mut self.observation.wanted {
                    let held = (self.chance.below(2) == 0).then(|| "held".to_owned());
                    wanted
                        .values_mut()
                        .for_each(|want| want.held.clone_from(&held));
                }
            }
            _ => {}
        }
        self.step(true);
    }

    fn live(&self) -> Vec<String> {
        let live = self
            .observation
            .executions
            .iter()
            .filter(|known| known.ended.is_none());
        live.map(|known| known.execution.clone()).collect()
    }

    fn end(&mut self, id: &str) {
        for known in &mut self.observation.executions {
            if known.execution == id {
                known.ended = Some(Ended {
                    well: false,
                    text: "exit code 1".into(),
                });
            }
        }
    }

    fn step(&mut self, stormy: bool) {
        let decision = self.reconciler.step(self.now, &self.observation);
        for action in decision.actions {
            match action {
                Action::Start { instance } => self.start(&instance, stormy),
                Action::Terminate { execution } => {
                    if !stormy || self.chance.below(3) > 0 {
                        self.end(&execution);
                    }
                    self.asked_to_end.insert(execution);
                }
                Action::Kill { execution } => self.end(&execution),
                Action::Forget { execution } => {
                    let known = self.observation.executions.iter();
                    let mut ended = known.filter(|known| known.ended.is_some());
                    assert!(
                        ended.any(|known| known.execution == execution),
                        "it still runs"
                    );
                    self.observation
                        .executions
                        .retain(|known| known.execution != execution);
                }
                Action::Publish { instance, report } => {
                    self.reports.insert(instance, report);
                }
                Action::Withdraw { instance } => {
                    self.reports.remove(&instance);
                }
                Action::Note { .. } => {}
            }
        }
    }

    fn start(&mut self, instance: &InstanceId, stormy: bool) {
        let wanted = self
            .observation
            .wanted
            .as_ref()
            .expect("started without an assignment");
        assert_eq!(wanted[instance].held, None, "started although it is held");
        let twin = self
            .observation
            .executions
            .iter()
            .find(|known| known.instance == *instance && known.ended.is_none());
        assert_eq!(twin, None, "started beside a running one");
        if stormy && self.chance.below(5) == 0 {
            self.reconciler.start_failed(self.now, instance, "no luck");
            return;
        }
        self.started += 1;
        let execution = format!("x{}", self.started);
        self.reconciler.started(self.now, instance, &execution);
        self.observation.executions.push(Execution {
            execution,
            instance: instance.clone(),
            spec: wanted[instance].spec,
            pid: 1,
            started_unix_ms: u64::try_from(self.started).unwrap(),
            ended: None,
        });
    }
}

#[test]
fn whatever_happens_nothing_is_doubled_and_calm_brings_what_is_wanted() {
    for seed in 0..300 {
        let mut storm = Storm::new(seed);
        for _ in 0..200 {
            storm.rage();
        }
        if storm.observation.wanted.is_none() {
            continue;
        }
        for want in storm
            .observation
            .wanted
            .iter_mut()
            .flat_map(|wanted| wanted.values_mut())
        {
            want.held = None;
        }
        // Long enough for what was given up to be tried again.
        for _ in 0..40 {
            storm.now += Duration::from_secs(20);
            storm.observation.ready = storm.live().into_iter().collect();
            storm.step(false);
        }
        let wanted = storm.observation.wanted.clone().unwrap();
        let running: BTreeMap<InstanceId, Digest> = storm
            .observation
            .executions
            .iter()
            .filter(|known| known.ended.is_none())
            .map(|known| (known.instance.clone(), known.spec))
            .collect();
        let expected: BTreeMap<InstanceId, Digest> = wanted
            .iter()
            .map(|(instance, want)| (instance.clone(), want.spec))
            .collect();
        assert_eq!(running, expected, "seed {seed}");
        assert_eq!(storm.live().len(), expected.len(), "seed {seed}");
        let ready: Vec<_> = storm.reports.values().map(|report| report.state).collect();
        assert_eq!(ready, vec![State::Ready; expected.len()], "seed {seed}");
    }
}
