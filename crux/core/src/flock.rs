//! The flock: rnodes that find each other, tell each other what they know, and agree on one leader.
//!
//! A pure machine: [`Flock::step`] takes the time and one [`Input`] and gives [`Output`]s; drivers do the rest
//! (`crux_net::flock` with sockets, `sim` without). In this version up to 64 rnodes, each sending directly to all.
//! Not for what is shared: that is [`crate::ken`]. The reasons stand in `docs/design/flock.md`, the messages in
//! `docs/formats/flock-wire.md`; read `flock/receive.rs` for where a message is checked, then `flock/lead.rs`.

mod beacon;
mod config;
mod contacts;
mod counters;
mod inspect;
mod io;
mod lead;
mod limits;
mod members;
mod name;
mod observe;
mod random;
mod receive;
mod record;
mod rival;
mod share;
mod spread;
mod watch;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use contacts::{Contact, Contacts, Situation};
use lead::Lead;
use limits::{DATAGRAM_OVERHEAD_BYTES, WATCHERS};
use members::{Members, Rings};
use random::Random;
use spread::Fetch;
use watch::Watch;
use wire::{Header, Message, short};

use crate::ken::{Document, DocumentId, Entry, Refusal, Table};
use crate::names::RnodeId;

pub use config::{Authority, Config, Floor, Me};
pub use counters::Counters;
pub use inspect::{Inspection, inspect};
pub use io::{Admin, Input, Output, Seated, Time};
pub use limits::{
    ADDRESSES_MAX, CREDENTIAL_BYTES_MAX, DATAGRAM_BYTES_MAX, HINTS_MAX, MEMBERS_MAX,
    MESSAGE_BYTES_MAX, REMEMBERED_MAX,
};
pub use members::{Member, State};
pub use name::FlockId;

/// Least time between a step and the next wake-up, so that no mistake becomes a busy loop.
const WAKE_MIN: Duration = Duration::from_millis(1);

/// Whom a rnode acknowledges as its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leader {
    /// The leader, if any.
    pub who: Option<RnodeId>,
    /// The term of the leader, or of the last one.
    pub term: u64,
    /// Since when it leads.
    pub since: Time,
    /// Whether it has been in office for long enough to be above every newcomer.
    pub latched: bool,
}

/// One rnode's part of a flock.
pub struct Flock {
    config: Config,
    me: Me,
    authority: Box<dyn Authority>,
    random: Random,
    now: Time,
    wake: Option<Time>,
    floor: Floor,
    ended: bool,
    members: Members,
    /// The last record of each, kept longer than their entries.
    records: BTreeMap<RnodeId, Entry>,
    rings: Rings,
    rings_stale: bool,
    table: Table,
    /// The last sequence used.
    sequence: u64,
    /// The sequence of our own record.
    swept: u64,
    adopted: Option<Time>,
    document: Option<Document>,
    fetch: Option<Fetch>,
    refused_documents: BTreeSet<DocumentId>,
    /// Whose credential is no longer accepted.
    denied: BTreeSet<RnodeId>,
    watch: Watch,
    lead: Lead,
    contacts: Contacts,
    greeted: BTreeMap<RnodeId, Time>,
    accused: BTreeMap<(RnodeId, RnodeId), Time>,
    compared: BTreeMap<RnodeId, Time>,
    compared_last: Option<Time>,
    nudge: Option<Time>,
    counters: Counters,
    out: Vec<Output>,
}

impl Flock {
    /// A rnode that has just started, knowing nobody. `floor` is what was last persisted, or the default.
    ///
    /// An incarnation that is not above the floor's is raised above it. Nothing is sent before the first step.
    #[must_use]
    pub fn new(
        config: Config,
        mut me: Me,
        floor: Floor,
        authority: Box<dyn Authority>,
        seed: u64,
    ) -> Self {
        me.incarnation = me.incarnation.max(floor.incarnation.saturating_add(1));
        me.addresses.truncate(ADDRESSES_MAX);
        let mut random = Random::new(seed);
        let lead = Lead::new(FlockId::from_bytes(random.bytes16()));
        Self {
            watch: Watch::new(Duration::ZERO, &config),
            floor: Floor {
                incarnation: me.incarnation,
                sequence: 0,
                term: floor.term,
            },
            config,
            me,
            authority,
            random,
            now: Duration::ZERO,
            wake: None,
            ended: false,
            members: Members::default(),
            records: BTreeMap::new(),
            rings: Rings::default(),
            rings_stale: true,
            table: Table::default(),
            sequence: 0,
            swept: 0,
            adopted: None,
            document: None,
            fetch: None,
            refused_documents: BTreeSet::new(),
            denied: BTreeSet::new(),
            lead,
            contacts: Contacts::default(),
            greeted: BTreeMap::new(),
            accused: BTreeMap::new(),
            compared: BTreeMap::new(),
            compared_last: None,
            nudge: None,
            counters: Counters::default(),
            out: Vec::new(),
        }
    }

    /// Takes one input at `now` and says what to do, in order.
    pub fn step(&mut self, now: Time, input: Input) -> Vec<Output> {
        if self.members.get(&self.me.id).is_none() {
            self.begin(now);
        }
        self.now = self.now.max(now);
        if self
            .wake
            .is_some_and(|wake| self.now > wake + self.config.late_tick)
        {
            self.counters.stalls += 1;
            self.watch.forget_open(self.now);
        }
        self.take(input);
        if !self.ended {
            self.run();
            let wake = self.next_wake();
            self.wake = Some(wake);
            self.out.push(Output::Wake(wake));
        }
        std::mem::take(&mut self.out)
    }

    fn begin(&mut self, now: Time) {
        self.now = now;
        self.watch = Watch::new(now, &self.config);
        let me = Member {
            id: self.me.id,
            state: State::Up,
            incarnation: self.me.incarnation,
            sequence: 0,
            vote: self.me.vote,
            addresses: self.me.addresses.clone(),
            heard: None,
            since: now,
        };
        self.members.insert(me);
        self.publish_self();
        self.seek(Duration::ZERO);
    }

    fn take(&mut self, input: Input) {
        if self.ended {
            let silent = matches!(
                input,
                Input::Message { .. } | Input::Tick | Input::PeerGone { .. }
            );
            if !silent {
                self.out.push(Output::Refused(Refusal::Ended));
            }
            return;
        }
        match input {
            Input::Tick => {}
            Input::Message { from, bytes } => self.receive(from, &bytes),
            Input::Admin(admin) => self.administer(admin),
            Input::OwnAddresses(addresses) => self.set_addresses(addresses),
            Input::Publish { key, value } => self.publish_checked(&key, Some(&value)),
            Input::Withdraw { key } => self.publish_checked(&key, None),
            Input::Seated(_) => self.out.push(Output::Refused(Refusal::Unsupported)),
            Input::PutDocument { id, bytes } => self.put_document(id, bytes),
            Input::PeerConnected { peer, address } => self.connected(peer, address),
            Input::PeerGone { peer } => self.watch.hurry(self.now, &peer),
            Input::Recheck => self.recheck(),
        }
    }

    fn administer(&mut self, admin: Admin) {
        match admin {
            Admin::Quit => self.quit(),
            Admin::Restart => self.flock_over(),
            Admin::Hint(address) => self.hint(address),
            Admin::SetVote(vote) => self.set_vote(vote),
        }
    }

    fn hint(&mut self, address: SocketAddr) {
        if !self.me.addresses.contains(&address) {
            self.contacts.hint(self.now, address);
            self.expect_company();
        }
    }

    fn set_addresses(&mut self, mut addresses: Vec<SocketAddr>) {
        addresses.truncate(ADDRESSES_MAX);
        if self.me.addresses != addresses {
            self.me.addresses = addresses;
            self.publish_record();
        }
    }

    fn run(&mut self) {
        for (owner, key) in self.table.expire(self.now) {
            self.out.push(Output::EntryChanged { owner, key });
        }
        self.refresh_rings();
        self.observe();
        self.guide();
        self.make_contact();
        self.nudge_neighbours();
        self.watch_fetch();
        self.refresh_rings();
    }

    fn next_wake(&self) -> Time {
        let contact = self
            .contacts
            .next(self.situation(), |peer| self.members.is_up(peer));
        let times = [
            self.table.next_expiry(),
            self.watch.next(),
            Some(self.next_guide()),
            contact,
            self.nudge,
            self.fetch.as_ref().map(Fetch::deadline),
        ];
        let next = times
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(self.now + self.config.heartbeat_window);
        next.max(self.now + WAKE_MIN)
    }

    fn situation(&self) -> Situation<'_> {
        Situation {
            now: self.now,
            alone: self.members.up_count() == 1,
            config: &self.config,
        }
    }

    fn make_contact(&mut self) {
        loop {
            let situation = Situation {
                now: self.now,
                alone: self.members.up_count() == 1,
                config: &self.config,
            };
            let members = &self.members;
            match self.contacts.due(situation, |peer| members.is_up(peer)) {
                Some(Contact::Address(address)) => self.out.push(Output::Dial { address }),
                Some(Contact::Lost(peer)) => self.greet(peer, true),
                None => return,
            }
        }
    }

    fn refresh_rings(&mut self) {
        if !std::mem::take(&mut self.rings_stale) {
            return;
        }
        let up: Vec<RnodeId> = self.members.up().map(|member| member.id).collect();
        self.rings = Rings::new(&up, 2 * WATCHERS);
        let subjects = self.rings.subjects(&self.me.id, WATCHERS);
        let turn = |subject: &RnodeId| {
            let watchers = self.rings.watchers(subject);
            let count = watchers.len().min(WATCHERS);
            let index = watchers
                .iter()
                .position(|id| *id == self.me.id)
                .unwrap_or(0);
            (
                u32::try_from(index).unwrap_or(0),
                u32::try_from(count).unwrap_or(1),
            )
        };
        let members = subjects.filter_map(|id| self.members.get(&id));
        let subjects: Vec<_> = members
            .map(|member| (member.subject(), turn(&member.id)))
            .collect();
        let within = self.config.probe_interval / 4;
        self.watch
            .set_subjects(self.now, &subjects, within, &mut self.random);
    }

    fn header(&self) -> Header {
        Header {
            namespace: short(self.me.namespace.as_bytes()),
            sender: short(self.me.id.as_bytes()),
            incarnation: self.me.incarnation,
        }
    }

    fn send(&mut self, peer: RnodeId, message: &Message) {
        let bytes = wire::encode(&self.header(), message);
        self.send_bytes(peer, bytes);
    }

    /// Sends over a stream, however short it is: its loss would cost a time-out.
    fn send_surely(&mut self, peer: RnodeId, message: &Message) {
        let bytes = wire::encode(&self.header(), message);
        self.out.push(Output::Send {
            peer,
            bytes,
            reliable: true,
        });
    }

    fn send_bytes(&mut self, peer: RnodeId, bytes: Arc<[u8]>) {
        let reliable = bytes.len() > DATAGRAM_BYTES_MAX - DATAGRAM_OVERHEAD_BYTES;
        self.out.push(Output::Send {
            peer,
            bytes,
            reliable,
        });
    }

    /// Sends to every other member.
    fn broadcast(&mut self, message: &Message) {
        let bytes = wire::encode(&self.header(), message);
        let peers: Vec<RnodeId> = self.others().collect();
        for peer in peers {
            self.send_bytes(peer, Arc::clone(&bytes));
        }
    }

    fn others(&self) -> impl Iterator<Item = RnodeId> {
        self.members
            .up()
            .map(|member| member.id)
            .filter(|id| *id != self.me.id)
    }

    /// This rnode's permanent name.
    #[must_use]
    pub const fn id(&self) -> RnodeId {
        self.me.id
    }

    /// This rnode's incarnation, which may be above the one it was made with.
    #[must_use]
    pub const fn incarnation(&self) -> u64 {
        self.me.incarnation
    }

    /// The flock this rnode is in; changes when flocks merge.
    #[must_use]
    pub const fn flock(&self) -> FlockId {
        self.lead.flock
    }

    /// Whom this rnode acknowledges as its leader.
    #[must_use]
    pub fn leader(&self) -> Leader {
        self.lead.view(self.floor.term, self.is_latched())
    }

    /// Everyone known, lost and left rnodes included, this one too once it has taken its first step.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.all()
    }

    /// Where `rnode` said it can be reached; empty when it is not known.
    #[must_use]
    pub fn addresses(&self, rnode: &RnodeId) -> &[SocketAddr] {
        self.members
            .get(rnode)
            .map(|member| member.addresses.as_slice())
            .unwrap_or_default()
    }

    /// What is shown of the shared map below `prefix`; the flock's own keys are not shown without it.
    pub fn entries<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Entry> {
        let own = crate::ken::RESERVED_PREFIX;
        self.table
            .entries(prefix)
            .filter(move |entry| prefix.starts_with(own) || !entry.key().starts_with(own))
    }

    /// The newest document.
    #[must_use]
    pub const fn document(&self) -> Option<&Document> {
        self.document.as_ref()
    }

    /// A hash of all that is shared; equal on two rnodes when they know the same.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let owners = self
            .members
            .up()
            .map(|member| self.table.mark(&member.id).fingerprint);
        let document = self.document.as_ref().map(|document| document.id.mark());
        owners.chain(document).fold(0, u64::wrapping_add)
    }

    /// Whom this rnode misses at the moment.
    pub fn suspects(&self) -> impl Iterator<Item = RnodeId> {
        self.watch.suspects()
    }

    /// What was counted since the start.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What is durable, or was asked to be.
    #[must_use]
    pub const fn floor(&self) -> Floor {
        self.floor
    }
}

impl fmt::Debug for Flock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Leader { who, term, .. } = self.leader();
        let leader = who.map_or_else(|| "nobody".to_owned(), |who| who.short());
        let up = self.members.up_count();
        write!(
            formatter,
            "Flock({} of {up} in {}, led by {leader} in term {term})",
            self.me.id.short(),
            self.lead.flock
        )
    }
}
