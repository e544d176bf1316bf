//! Flock and shared data as the agent uses them: a thin face over [`crux_net::flock::Ref`].

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::Path;

use crux_core::identity::Weight;
use crux_core::names::RnodeId;
use crux_net::flock::{Config, Document, Entry, MemberView, Ref, State, Timings};
use crux_net::identity::RnodeIdentity;
use crux_wire::document::v1::{Assignment, RnodeRecord};
use crux_wire::fulcrum::v1::{Counter, FlockReply, Member, SharedEntry};
use khan::Standing;
use prost::Message;
use tokio::sync::watch;

use super::claim_judge;
use super::context::Agent;
use super::documents::Accepted;
use super::limits::CALL_TIMEOUT;
use super::status::{ALIVE, host_port};
use crate::config::RnodeConfig;

/// Every rnode's vote: the permanent name decides.
const VOTE: u32 = 0;

/// Who leads a flock, and in which term.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Followed {
    pub(crate) leader: String,
    pub(crate) term: u64,
}

impl Followed {
    /// Whether it assigned this, in this term.
    pub(crate) fn published(&self, assignment: &Assignment) -> bool {
        assignment.leader == self.leader && assignment.term == self.term
    }
}

/// This rnode's side of its flock.
#[derive(Debug)]
pub(crate) struct Shared {
    own: RnodeId,
    flock: Ref,
}

/// Binds the flock's port, or any where that is taken.
///
/// # Errors
/// What binding says.
pub(crate) fn bind(config: &RnodeConfig) -> std::io::Result<UdpSocket> {
    match UdpSocket::bind((config.host, config.flock_port)) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            UdpSocket::bind((config.host, 0))
        }
        bound => bound,
    }
}

/// What the rnode's flock is made from.
pub(crate) fn flock_config(
    config: &RnodeConfig,
    agent_dir: &Path,
    identity: &RnodeIdentity,
    (socket, incarnation): (UdpSocket, u64),
) -> Config {
    let own = socket.local_addr().ok();
    let hints = config.hints.iter().filter_map(|hint| {
        let mut found = (hint.host.as_str(), hint.port).to_socket_addrs().ok()?;
        found.next().filter(|hint| Some(*hint) != own)
    });
    Config {
        timings: Timings::default(),
        identity: identity.clone(),
        addresses: Vec::new(),
        hints: hints.collect(),
        vote: VOTE,
        incarnation,
        dir: agent_dir.join("flock"),
        judge: None,
        socket,
    }
}

impl Shared {
    /// Takes the handle of a flock whose actor runs.
    pub(crate) fn new(own: RnodeId, flock: Ref) -> Self {
        Self { own, flock }
    }

    /// Wakes at each change of entries, members, leader or document.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.flock.changes()
    }

    /// A mark of all that placement and reconciling depend on: who is here, who leads, what is assigned and held.
    ///
    /// Blackboards and services change all the time; whoever compares marks need not look at them.
    pub(crate) fn mark(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for prefix in ["assign/", "instance/", "rnode"] {
            for entry in self.flock.entries(prefix) {
                (
                    entry.owner(),
                    entry.key(),
                    entry.generation(),
                    entry.sequence(),
                )
                    .hash(&mut hasher);
                entry.is_withdrawn().hash(&mut hasher);
            }
        }
        let view = self.flock.view();
        let view = view.borrow();
        (view.leader, view.term).hash(&mut hasher);
        for member in &view.members {
            (
                member.id,
                member.state,
                member.incarnation,
                member.suspected,
            )
                .hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Publishes an entry of ours.
    ///
    /// # Errors
    /// For people, when it is too large, there are too many, or the flock is busy.
    pub(crate) fn publish(&self, key: &str, value: &[u8]) -> Result<(), String> {
        self.flock
            .publish(key, value)
            .map_err(|error| error.to_string())
    }

    /// Publishes an entry unless it is there with this value, and says whether it did; a refusal is logged.
    pub(crate) fn publish_if_changed(&self, key: &str, value: &[u8]) -> bool {
        if self
            .own(key)
            .iter()
            .any(|entry| entry.key() == key && entry.value() == value)
        {
            return false;
        }
        let published = self.publish(key, value);
        if let Err(error) = &published {
            tracing::error!(error, key, "an entry was not published");
        }
        published.is_ok()
    }

    /// Withdraws an entry of ours, if it is there.
    pub(crate) fn withdraw(&self, key: &str) {
        if let Err(error) = self.flock.withdraw(key) {
            tracing::error!(%error, key, "an entry was not withdrawn");
        }
    }

    /// Keys of our own entries below a prefix.
    pub(crate) fn own_keys(&self, prefix: &str) -> BTreeSet<String> {
        self.own(prefix)
            .iter()
            .map(|entry| entry.key().to_owned())
            .collect()
    }

    fn own(&self, prefix: &str) -> Vec<Entry> {
        let mut entries = self.shown(prefix);
        entries.retain(|entry| entry.owner() == self.own);
        entries
    }

    /// Everyone's entries below a prefix, as they were signed.
    pub(crate) fn shown(&self, prefix: &str) -> Vec<Entry> {
        let mut entries = self.flock.entries(prefix);
        entries.retain(|entry| !entry.is_withdrawn());
        entries
    }

    /// Everyone's entries below a prefix.
    pub(crate) fn entries(&self, prefix: &str) -> Vec<SharedEntry> {
        let entries = self.shown(prefix);
        entries
            .iter()
            .map(|entry| SharedEntry {
                owner: entry.owner().to_string(),
                key: entry.key().to_owned(),
                value: entry.value().to_vec(),
                generation: entry.generation(),
                sequence: entry.sequence(),
            })
            .collect()
    }

    /// Everyone's entries below a prefix that can be read as `M`, with their owners.
    pub(crate) fn messages<M: Message + Default>(&self, prefix: &str) -> Vec<(String, M)> {
        let entries = self.shown(prefix);
        entries
            .iter()
            .filter_map(|entry| Some((entry.owner().to_string(), M::decode(entry.value()).ok()?)))
            .collect()
    }

    /// Ids of the members that take part, ourselves among them.
    pub(crate) fn alive(&self) -> BTreeSet<String> {
        let view = self.flock.view();
        let view = view.borrow();
        let up = view.up().map(|member| member.id.to_string());
        up.chain([self.own.to_string()]).collect()
    }

    /// Whether at least `wanted` members take part, and each has told what it is, and so what it holds.
    pub(crate) fn is_told(&self, wanted: usize) -> bool {
        let told: BTreeMap<RnodeId, u64> = self
            .shown("rnode")
            .iter()
            .map(|entry| (entry.owner(), entry.generation()))
            .collect();
        let view = self.flock.view();
        let view = view.borrow();
        let all = view
            .up()
            .all(|member| told.get(&member.id) == Some(&member.incarnation));
        all && view.up().count() >= wanted
    }

    /// The document that the flock spreads, and a way to wait for a newer one.
    pub(crate) fn document(&self) -> watch::Receiver<Option<Document>> {
        self.flock.document()
    }

    /// Gives the flock a document to spread, unless it has one as new.
    pub(crate) fn put_document(&self, accepted: &Accepted) {
        let generation = accepted.document.generation;
        let held = self
            .flock
            .document()
            .borrow()
            .as_ref()
            .map(|held| held.id.generation);
        if held.is_some_and(|held| held >= generation) {
            return;
        }
        let put = self
            .flock
            .put_document(generation, &accepted.signed.encode_to_vec());
        if let Err(error) = put {
            tracing::warn!(%error, generation, "a document is not spread");
        }
    }

    /// Members that may hold instances, and whether they may be given more.
    ///
    /// One that was declared lost stays as silent for as long as its entries do (`remove_after`):
    /// that is the time it has to come back before what it held is replaced.
    pub(crate) fn members(&self) -> Vec<(String, Standing)> {
        let known: BTreeSet<RnodeId> = self
            .shown("rnode")
            .iter()
            .map(|entry| entry.owner())
            .collect();
        let view = self.flock.view();
        let view = view.borrow();
        let members = view
            .members
            .iter()
            .filter(|member| known.contains(&member.id));
        members
            .filter_map(|member| Some((member.id.to_string(), standing(member)?)))
            .collect()
    }

    /// How much our flock weighs against another.
    pub(crate) fn weight(&self) -> Weight {
        let view = self.flock.view();
        let view = view.borrow();
        claim_judge::weight(view.up().count(), view.latched, *view.flock.as_bytes())
    }

    /// Whether this rnode is, or was lately, a member.
    pub(crate) fn knows(&self, rnode: &RnodeId) -> bool {
        let view = self.flock.view();
        let view = view.borrow();
        view.members.iter().any(|member| member.id == *rnode)
    }

    /// Our term if we lead.
    pub(crate) fn leads(&self) -> Option<u64> {
        let view = self.flock.view();
        let view = view.borrow();
        view.leads().then_some(view.term)
    }

    /// Who leads us now, ourselves included; `None` while nobody does.
    pub(crate) fn followed(&self) -> Option<Followed> {
        let view = self.flock.view();
        let view = view.borrow();
        let leader = view.leader?.to_string();
        let term = view.term;
        Some(Followed { leader, term })
    }

    /// The flock, for status.
    pub(crate) fn flock(&self, agent: &Agent) -> FlockReply {
        let labels: BTreeMap<String, String> = self
            .messages::<RnodeRecord>("rnode")
            .into_iter()
            .map(|(owner, record)| (owner, record.label))
            .collect();
        let label = |id: &str| labels.get(id).cloned().unwrap_or_default();
        // It is silent for ever, and nobody need wait for it.
        let denied = super::authority_task::denied_members(agent);
        let view = self.flock.view();
        let view = view.borrow().clone();
        let leader = view
            .leader
            .map(|leader| leader.to_string())
            .unwrap_or_default();
        let members = view
            .members
            .iter()
            .filter(|member| member.state != State::Left && !denied.contains(&member.id));
        let counters = view.counters.iter();
        FlockReply {
            namespace: agent.me.namespace.to_string(),
            flock: view.flock.to_string(),
            leader_label: label(&leader),
            leader,
            term: view.term,
            tenure_ms: milliseconds(view.tenure()),
            grade: "acting".to_owned(),
            members: members
                .map(|member| wire_member(member, label(&member.id.to_string())))
                .collect(),
            fingerprint: view.fingerprint,
            counters: counters
                .map(|(name, value)| Counter {
                    name: (*name).to_owned(),
                    value: *value,
                })
                .collect(),
        }
    }

    /// Takes a hint of where members may be.
    pub(crate) fn hint(&self, hint: SocketAddr) {
        self.flock.hint(hint);
    }

    /// Says good-bye, for as long as a call may take.
    pub(crate) async fn leave(&self) {
        if tokio::time::timeout(CALL_TIMEOUT, self.flock.quit())
            .await
            .is_err()
        {
            tracing::warn!("the flock was not told that we leave");
        }
    }
}

/// How a member counts for placement; `None` once it has left.
fn standing(member: &MemberView) -> Option<Standing> {
    match member.state {
        State::Up if member.suspected => Some(Standing::Silent),
        State::Up => Some(Standing::Live),
        State::Down => Some(Standing::Silent),
        State::Left => None,
    }
}

fn wire_member(member: &MemberView, label: String) -> Member {
    let address = member.addresses.first();
    let state = match member.state {
        State::Up => ALIVE,
        State::Down => "lost",
        State::Left => "left",
    };
    Member {
        id: member.id.to_string(),
        label,
        state: state.to_owned(),
        incarnation: member.incarnation,
        address: address
            .map(|address| host_port(&address.ip().to_string(), address.port().into()))
            .unwrap_or_default(),
        silent_ms: member.silence().map_or(0, milliseconds),
    }
}

fn milliseconds(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
