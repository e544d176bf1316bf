//! The world: rnodes, the network between them, and one queue of what happens next.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crux_core::flock::{Admin, Flock, Input, Inspection, Output, inspect};
use crux_core::ken::Entry;
use crux_core::names::RnodeId;

use crate::invariant::{Invariants, Step};
use crate::network::{Fate, FaultKind, Fired, Network};
use crate::random::Random;
use crate::rnode::{Options, Rnode, address};

/// A message that a [`Filter`] judges.
#[derive(Debug)]
pub struct Parcel<'a> {
    /// The time it is sent at.
    pub now: Duration,
    /// The sender's index.
    pub from: usize,
    /// The receiver's index.
    pub to: usize,
    /// What it is.
    pub inspection: &'a Inspection,
}

/// Says whether a message may pass.
pub type Filter = Box<dyn FnMut(&Parcel<'_>) -> bool + Send>;

/// How often a stream sends lost bytes again before it gives up.
const RESENDS: u32 = 8;
const RESEND_AFTER: Duration = Duration::from_millis(250);

#[derive(Debug)]
enum Event {
    Message {
        from: usize,
        to: usize,
        life: u64,
        bytes: Arc<[u8]>,
    },
    Resend {
        from: usize,
        to: usize,
        bytes: Arc<[u8]>,
        tries: u32,
    },
    Arrive {
        dialler: usize,
        peer: usize,
        address: SocketAddr,
    },
    Connected {
        rnode: usize,
        peer: usize,
        address: Option<SocketAddr>,
        life: u64,
    },
    Wake {
        rnode: usize,
        life: u64,
    },
    Resume {
        rnode: usize,
    },
}

/// The simulated world.
pub struct World {
    /// What time it is.
    pub now: Duration,
    /// The rnodes, by index.
    pub rnodes: Vec<Rnode>,
    /// The network.
    pub network: Network,
    /// Which faults did something.
    pub fired: Fired,
    /// What must hold after each step.
    pub invariants: Invariants,
    /// Judges each message, if a test wants to.
    pub filter: Option<Filter>,
    /// Chance of the network and of whoever makes faults.
    pub random: Random,
    queue: BTreeMap<(Duration, u64), Event>,
    sequence: u64,
    lives: Vec<u64>,
    wakes: Vec<Option<(Duration, u64)>>,
    links: BTreeSet<(usize, usize)>,
    waiting: BTreeMap<usize, Vec<Event>>,
    trace: blake3::Hasher,
}

impl World {
    /// A calm world of `count` rnodes, none of which is started.
    pub fn new(seed: u64, count: usize, mut options: impl FnMut(usize) -> Options) -> Self {
        Self {
            now: Duration::ZERO,
            rnodes: (0..count)
                .map(|index| Rnode::new(index, options(index)))
                .collect(),
            network: Network::calm(count),
            fired: Fired::new(),
            invariants: Invariants::new(seed, count),
            filter: None,
            random: Random::new(seed),
            queue: BTreeMap::new(),
            sequence: 0,
            lives: vec![0; count],
            wakes: vec![None; count],
            links: BTreeSet::new(),
            waiting: BTreeMap::new(),
            trace: blake3::Hasher::new(),
        }
    }

    /// The address of the rnode with this index, whether it exists or not.
    #[must_use]
    pub fn address(index: usize) -> SocketAddr {
        address(index)
    }

    /// A hash of everything that happened so far.
    #[must_use]
    pub fn trace(&self) -> String {
        self.trace.finalize().to_hex()[..16].to_owned()
    }

    /// The machine of a rnode that is not down.
    #[must_use]
    pub fn flock(&self, index: usize) -> Option<&Flock> {
        self.rnodes[index].flock.as_ref()
    }

    /// The indices of rnodes that are not down.
    #[must_use]
    pub fn live(&self) -> Vec<usize> {
        (0..self.rnodes.len())
            .filter(|index| self.rnodes[*index].flock.is_some())
            .collect()
    }

    /// The index of the rnode with this permanent name.
    #[must_use]
    pub fn index_of(&self, id: &RnodeId) -> Option<usize> {
        self.rnodes.iter().position(|rnode| rnode.id == *id)
    }

    /// Starts a rnode under its next incarnation, with its hints and what its agent publishes.
    pub fn start(&mut self, index: usize) {
        let seed = self.random.next();
        self.lives[index] += 1;
        self.rnodes[index].start(seed);
        self.invariants.started(index, &self.rnodes[index]);
        for hint in self.rnodes[index].options.hints.clone() {
            self.input(index, Input::Admin(Admin::Hint(hint)));
        }
        for (key, value) in self.rnodes[index].wanted.clone() {
            self.input(index, Input::Publish { key, value });
        }
        self.input(index, Input::Tick);
    }

    /// Starts all rnodes at once.
    pub fn start_all(&mut self) {
        for index in 0..self.rnodes.len() {
            self.start(index);
        }
    }

    /// Kills a rnode; its disk stays.
    pub fn crash(&mut self, index: usize) {
        if self.rnodes[index].flock.take().is_some() {
            *self.fired.entry(FaultKind::Crash).or_insert(0) += 1;
        }
        self.lives[index] += 1;
        self.rnodes[index].stalled_until = None;
        self.waiting.remove(&index);
        self.links
            .retain(|(one, other)| *one != index && *other != index);
    }

    /// Kills a rnode and sets its disk back to nothing; its identity stays.
    pub fn crash_losing_disk(&mut self, index: usize) {
        self.crash(index);
        *self.fired.entry(FaultKind::LostDisk).or_insert(0) += 1;
        self.rnodes[index].disk = crux_core::flock::Floor::default();
        self.rnodes[index].starts = 0;
        self.invariants.disk_lost(index, &self.rnodes[index]);
    }

    /// Kills a rnode; another will stand in its place, under a new name.
    pub fn crash_losing_identity(&mut self, index: usize) {
        self.crash(index);
        *self.fired.entry(FaultKind::NewIdentity).or_insert(0) += 1;
        self.rnodes[index].replace(index);
        self.invariants.disk_lost(index, &self.rnodes[index]);
    }

    /// Keeps a rnode from doing anything for a while; what comes in waits.
    pub fn stall(&mut self, index: usize, length: Duration) {
        if self.rnodes[index].flock.is_some() && self.rnodes[index].stalled_until.is_none() {
            *self.fired.entry(FaultKind::Stall).or_insert(0) += 1;
            self.rnodes[index].stalled_until = Some(self.now + length);
            self.push(length, Event::Resume { rnode: index });
        }
    }

    /// Lets a rnode publish.
    pub fn publish(&mut self, index: usize, key: &str, value: &[u8]) {
        self.rnodes[index]
            .wanted
            .insert(key.to_owned(), value.to_vec());
        self.input(
            index,
            Input::Publish {
                key: key.to_owned(),
                value: value.to_vec(),
            },
        );
    }

    /// Lets a rnode take a key back.
    pub fn withdraw(&mut self, index: usize, key: &str) {
        self.rnodes[index].wanted.remove(key);
        self.input(
            index,
            Input::Withdraw {
                key: key.to_owned(),
            },
        );
    }

    /// Runs until `end`.
    pub fn run_until(&mut self, end: Duration) {
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > end {
                break;
            }
            let ((at, _), event) = entry.remove_entry();
            self.now = self.now.max(at);
            self.happen(event);
        }
        self.now = self.now.max(end);
    }

    /// Runs for `length`.
    pub fn run(&mut self, length: Duration) {
        self.run_until(self.now + length);
    }

    /// Runs until `holds`, looking every 50 ms, for at most `limit`; returns how long it took.
    pub fn run_while_not(
        &mut self,
        limit: Duration,
        mut holds: impl FnMut(&Self) -> bool,
    ) -> Option<Duration> {
        let start = self.now;
        while !holds(self) {
            if self.now >= start + limit {
                return None;
            }
            self.run(Duration::from_millis(50));
        }
        Some(self.now - start)
    }

    /// Gives a rnode an input now; nothing happens if it is down.
    pub fn input(&mut self, index: usize, input: Input) -> Vec<Output> {
        let (now, life) = (self.now, self.lives[index]);
        self.trace
            .update(&now.as_nanos().to_be_bytes())
            .update(&index.to_be_bytes());
        match &input {
            Input::Message { from, bytes } => self.trace.update(from.as_bytes()).update(bytes),
            other => self.trace.update(format!("{other:?}").as_bytes()),
        };
        let rnode = &mut self.rnodes[index];
        let Some(flock) = &mut rnode.flock else {
            return Vec::new();
        };
        let outputs = flock.step(now, input);
        for output in &outputs {
            self.perform(index, life, output);
        }
        let rnode = &self.rnodes[index];
        if let Some(flock) = &rnode.flock {
            self.invariants.check(&Step {
                now,
                index,
                rnode,
                flock,
                outputs: &outputs,
            });
        }
        outputs
    }

    fn perform(&mut self, index: usize, life: u64, output: &Output) {
        match output {
            Output::Persist(floor) => self.rnodes[index].disk = *floor,
            Output::Send {
                peer,
                bytes,
                reliable,
            } => self.send(index, *peer, bytes, *reliable),
            Output::Dial { address } => self.dial(index, *address),
            Output::Wake(at) => {
                if let Some(old) = self.wakes[index].take() {
                    self.queue.remove(&old);
                }
                let key = self.push(
                    at.saturating_sub(self.now),
                    Event::Wake { rnode: index, life },
                );
                self.wakes[index] = Some(key);
            }
            other => {
                self.trace.update(format!("{other:?}").as_bytes());
            }
        }
    }

    fn push(&mut self, after: Duration, event: Event) -> (Duration, u64) {
        self.sequence += 1;
        let key = (self.now + after, self.sequence);
        self.queue.insert(key, event);
        key
    }

    fn send(&mut self, from: usize, peer: RnodeId, bytes: &Arc<[u8]>, reliable: bool) {
        self.trace.update(peer.as_bytes()).update(bytes);
        let rnode = &mut self.rnodes[from];
        rnode.sent = (rnode.sent.0 + bytes.len() as u64, rnode.sent.1 + 1);
        let Some(inspection) = inspect(bytes) else {
            panic!("a rnode sent what it cannot read itself")
        };
        self.invariants.sent(
            (from, &self.rnodes[from]),
            (bytes, reliable),
            &inspection,
            self.now,
        );
        let Some(to) = self.index_of(&peer) else {
            return;
        };
        let flock = self.rnodes[from].flock.as_ref();
        let known =
            flock.is_some_and(|flock| flock.addresses(&peer).contains(&self.rnodes[to].address));
        if !known && !self.links.contains(&(from.min(to), from.max(to))) {
            return;
        }
        let parcel = Parcel {
            now: self.now,
            from,
            to,
            inspection: &inspection,
        };
        if self.filter.as_mut().is_some_and(|filter| !filter(&parcel)) {
            return;
        }
        self.carry((from, to), bytes, if reliable { RESENDS } else { 0 });
    }

    fn carry(&mut self, (from, to): (usize, usize), bytes: &Arc<[u8]>, tries: u32) {
        match self
            .network
            .fate(self.now, (from, to), &mut self.random, &mut self.fired)
        {
            Fate::Arrives(delays) => {
                let life = self.lives[to];
                // A stream gives each byte once.
                let count = if tries > 0 { 1 } else { delays.len() };
                for delay in delays.into_iter().take(count) {
                    self.push(
                        delay,
                        Event::Message {
                            from,
                            to,
                            life,
                            bytes: Arc::clone(bytes),
                        },
                    );
                }
            }
            Fate::Lost if tries > 0 => {
                self.push(
                    RESEND_AFTER,
                    Event::Resend {
                        from,
                        to,
                        bytes: Arc::clone(bytes),
                        tries: tries - 1,
                    },
                );
            }
            Fate::Lost => {}
        }
    }

    fn dial(&mut self, dialler: usize, address: SocketAddr) {
        self.trace.update(address.to_string().as_bytes());
        let Some(peer) = self
            .rnodes
            .iter()
            .position(|rnode| rnode.address == address)
        else {
            *self.fired.entry(FaultKind::DeadHint).or_insert(0) += 1;
            return;
        };
        if peer != dialler
            && self.network.passes(dialler, peer)
            && self.network.passes(peer, dialler)
        {
            let delay = self
                .random
                .between(self.network.delay_min, self.network.delay_max)
                * 2;
            self.push(
                delay,
                Event::Arrive {
                    dialler,
                    peer,
                    address,
                },
            );
        }
    }

    fn happen(&mut self, event: Event) {
        let rnode = match &event {
            Event::Message { to, .. } => *to,
            Event::Connected { rnode, .. } | Event::Wake { rnode, .. } => *rnode,
            Event::Resume { .. } | Event::Resend { .. } | Event::Arrive { .. } => usize::MAX,
        };
        if self
            .rnodes
            .get(rnode)
            .is_some_and(|rnode| rnode.stalled_until.is_some())
        {
            self.waiting.entry(rnode).or_default().push(event);
            return;
        }
        match event {
            Event::Message {
                from,
                to,
                life,
                bytes,
            } if life == self.lives[to] => {
                let from = self.rnodes[from].id;
                self.input(
                    to,
                    Input::Message {
                        from,
                        bytes: bytes.to_vec(),
                    },
                );
            }
            Event::Connected {
                rnode,
                peer,
                address,
                life,
            } if life == self.lives[rnode] => {
                let peer = self.rnodes[peer].id;
                self.input(rnode, Input::PeerConnected { peer, address });
            }
            Event::Wake { rnode, life } if life == self.lives[rnode] => {
                self.wakes[rnode] = None;
                self.input(rnode, Input::Tick);
            }
            Event::Message { .. } | Event::Connected { .. } | Event::Wake { .. } => {}
            Event::Resend {
                from,
                to,
                bytes,
                tries,
            } => {
                if self.rnodes[from].flock.is_some() {
                    self.carry((from, to), &bytes, tries);
                }
            }
            Event::Arrive {
                dialler,
                peer,
                address,
            } => self.arrive(dialler, peer, address),
            Event::Resume { rnode } => self.resume(rnode),
        }
    }

    fn arrive(&mut self, dialler: usize, peer: usize, address: SocketAddr) {
        if self.rnodes[peer].flock.is_some() && self.rnodes[dialler].flock.is_some() {
            self.links.insert((dialler.min(peer), dialler.max(peer)));
            let (ours, theirs) = (self.lives[dialler], self.lives[peer]);
            self.happen(Event::Connected {
                rnode: peer,
                peer: dialler,
                address: None,
                life: theirs,
            });
            self.happen(Event::Connected {
                rnode: dialler,
                peer,
                address: Some(address),
                life: ours,
            });
        }
    }

    fn resume(&mut self, rnode: usize) {
        if self.rnodes[rnode]
            .stalled_until
            .is_some_and(|until| until <= self.now)
        {
            self.rnodes[rnode].stalled_until = None;
            for event in self.waiting.remove(&rnode).unwrap_or_default() {
                self.happen(event);
            }
        }
    }

    /// Why the live rnodes are not one flock that knows everything; none when they are.
    #[must_use]
    pub fn disagreement(&self) -> Option<String> {
        let live = self.live();
        let first = self.flock(*live.first()?)?;
        let mut expected: Vec<RnodeId> = live.iter().map(|index| self.rnodes[*index].id).collect();
        expected.sort();
        for index in &live {
            let flock = self.flock(*index)?;
            let up = flock
                .members()
                .filter(|member| member.state == crux_core::flock::State::Up);
            let up: Vec<RnodeId> = up.map(|member| member.id).collect();
            let problem = if flock.leader().who.is_none() {
                "has no leader"
            } else if up != expected {
                let missing = expected
                    .iter()
                    .filter(|id| !up.contains(id))
                    .map(|id| format!("{id:?}={:?}", self.index_of(id)));
                let surplus = up
                    .iter()
                    .filter(|id| !expected.contains(id))
                    .map(|id| format!("{id:?}={:?}", self.index_of(id)));
                let (missing, surplus): (Vec<_>, Vec<_>) = (missing.collect(), surplus.collect());
                return Some(format!(
                    "rnode {index} misses {missing:?} and has {surplus:?} too many: {:?}",
                    flock.counters()
                ));
            } else if (flock.leader().who, flock.leader().term)
                != (first.leader().who, first.leader().term)
            {
                "has another leader"
            } else if flock.flock() != first.flock() {
                "has another flock"
            } else if flock.fingerprint() != first.fingerprint() {
                let differs = |(one, other): &(&Entry, &Entry)| one.raw() != other.raw();
                let (ours, theirs) = (flock.entries("flock/"), first.entries("flock/"));
                let pair = ours.zip(theirs).find(differs);
                let (ours, theirs) = (flock.entries(""), first.entries(""));
                let other = ours.zip(theirs).find(differs);
                return Some(format!(
                    "rnode {index} has another table: {pair:?} {other:?}"
                ));
            } else {
                continue;
            };
            return Some(format!(
                "rnode {index} {problem}: {flock:?}, first {first:?}"
            ));
        }
        None
    }

    /// Why the tables do not hold exactly what the live rnodes' agents want shared; none when they do.
    #[must_use]
    pub fn wrong_entries(&self) -> Option<String> {
        let mut expected = BTreeMap::new();
        for index in self.live() {
            let rnode = &self.rnodes[index];
            expected.extend(
                rnode
                    .wanted
                    .iter()
                    .map(|(key, value)| ((rnode.id, key.clone()), value.clone())),
            );
        }
        for index in self.live() {
            let entries = self.flock(index)?.entries("");
            let seen: BTreeMap<_, _> = entries
                .map(|entry| {
                    (
                        (entry.owner(), entry.key().to_owned()),
                        entry.value().to_vec(),
                    )
                })
                .collect();
            if seen != expected {
                let missing = expected
                    .iter()
                    .find(|(key, value)| seen.get(key) != Some(value));
                let surplus = seen.keys().find(|key| !expected.contains_key(key));
                return Some(format!(
                    "rnode {index} lacks {missing:?}, has {surplus:?} too many"
                ));
            }
        }
        None
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "World({:?}, {} rnodes, trace {})",
            self.now,
            self.rnodes.len(),
            self.trace()
        )
    }
}
