//! Flock and shared data as the agent uses them: a thin face over [`crux_net::flock::Ref`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use crux_core::flock::State;
use crux_core::identity::{DOCUMENT_CONTEXT, Signed, Verb, Who};
use crux_core::names::RnodeId;
use crux_net::flock::{self, JudgeDocument, MemberView, Ref};
use crux_net::identity::{Acceptance, RnodeIdentity};
use crux_wire::document::v1::{Document, RnodeRecord, SignedDocument};
use crux_wire::fulcrum::v1::{Counter, FlockReply, Member, SharedEntry};
use prost::Message;
use tokio::sync::watch;

use super::context::Agent;
use super::placement::standing;
use super::status::{ALIVE, host_port};
use crate::config::RnodeConfig;

/// This rnode's side of its flock.
#[derive(Debug)]
pub(crate) struct Shared {
    own: String,
    flock: Ref,
}

/// Binds the flock's port, or any where that is taken.
///
/// # Errors
/// What binding says.
pub(crate) fn bind(config: &RnodeConfig) -> std::io::Result<UdpSocket> {
    match UdpSocket::bind(SocketAddr::new(config.host, config.flock_port)) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            UdpSocket::bind(SocketAddr::new(config.host, 0))
        }
        bound => bound,
    }
}

/// What the rnode's flock is made from.
pub(crate) fn flock_config(
    config: &RnodeConfig,
    directory: &std::path::Path,
    identity: &Arc<RnodeIdentity>,
    incarnation: u64,
    flock_port: u16,
) -> flock::Config {
    let hint = |hint: &crate::config::HostPort| hint.to_string().parse().ok();
    flock::Config {
        protocol: crux_core::flock::Config::default(),
        directory: directory.to_owned(),
        identity: Arc::clone(identity),
        addresses: vec![SocketAddr::new(config.host, flock_port)],
        hints: config.hints.iter().filter_map(hint).collect(),
        vote: 0,
        incarnation,
        judge: judge(Arc::clone(identity)),
    }
}

/// Takes documents of our namespace that an operator or tool of our owner signed.
///
/// The rules of generations are the machine's; what else there is to judge is judged when the agent takes it.
fn judge(identity: Arc<RnodeIdentity>) -> JudgeDocument {
    Box::new(move |generation, bytes| {
        let Ok(signed) = SignedDocument::decode(bytes) else { return false };
        let Ok(document) = Document::decode(signed.payload.as_slice()) else { return false };
        let thing = Signed {
            context: DOCUMENT_CONTEXT,
            payload: &signed.payload,
            signature: &signed.signature,
            chain: &signed.chain,
        };
        // Another member accepted it when it was new, so the clock counts no more.
        let Ok(signer) = identity.trust().verify_signed(&thing, Acceptance::Kept) else {
            return false;
        };
        let verb = match signer.who {
            Who::Operator { .. } => Verb::Operator,
            Who::Tool { .. } => Verb::Tool,
            Who::Rnode { .. } | Who::App { .. } | Who::Host { .. } | Who::Backend { .. } => {
                return false;
            }
        };
        document.generation == generation
            && document.namespace == identity.namespace().as_str()
            && signer.may(verb, identity.namespace()).is_ok()
    })
}

impl Shared {
    /// Takes the handle of a flock whose actor runs.
    pub(crate) fn new(flock: Ref) -> Self {
        Self { own: flock.id().to_string(), flock }
    }

    /// Wakes at each change of entries or members.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.flock.changes()
    }

    /// Publishes an entry of ours.
    ///
    /// # Errors
    /// For people, when it is too large or there are too many.
    pub(crate) fn publish(&self, key: &str, value: Vec<u8>) -> Result<(), String> {
        self.flock.publish(key, value).map_err(|error| error.to_string())
    }

    /// Publishes an entry unless it is there with this value, and says whether it did; a refusal is logged.
    pub(crate) fn publish_if_changed(&self, key: &str, value: Vec<u8>) -> bool {
        let own = self.flock.own(key);
        if own.iter().any(|(known, held)| known == key && *held == value) {
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
        self.flock.withdraw(key);
    }

    /// Keys of our own entries below a prefix.
    pub(crate) fn own_keys(&self, prefix: &str) -> BTreeSet<String> {
        self.flock.own(prefix).into_iter().map(|(key, _)| key).collect()
    }

    /// Everyone's entries below a prefix.
    pub(crate) fn entries(&self, prefix: &str) -> Vec<SharedEntry> {
        let entries = self.flock.entries(prefix).into_iter();
        entries
            .map(|entry| SharedEntry {
                owner: entry.owner.to_string(),
                key: entry.key,
                value: entry.value,
                generation: entry.generation,
                sequence: entry.sequence,
            })
            .collect()
    }

    /// Everyone's entries below a prefix that can be read as `M`, with their owners.
    pub(crate) fn messages<M: Message + Default>(&self, prefix: &str) -> Vec<(String, M)> {
        let entries = self.flock.entries(prefix).into_iter();
        entries
            .filter_map(|entry| {
                Some((entry.owner.to_string(), M::decode(entry.value.as_slice()).ok()?))
            })
            .collect()
    }

    /// Ids of the members that take part, ourselves among them.
    pub(crate) fn alive(&self) -> BTreeSet<String> {
        let view = self.flock.view();
        let view = view.borrow();
        let up = view.up().map(|member| member.id.to_string());
        up.chain([self.own.clone()]).collect()
    }

    /// Whether the records of all members have arrived, so that what they hold is known.
    pub(crate) fn settled(&self) -> bool {
        let told: BTreeMap<RnodeId, u64> =
            self.flock.entries("rnode").iter().map(|entry| (entry.owner, entry.generation)).collect();
        let view = self.flock.view();
        let view = view.borrow();
        let all = view.up().all(|member| told.get(&member.id) == Some(&member.incarnation));
        all && view.up().count() > 1
    }

    /// The document that the flock spreads, as signed bytes.
    pub(crate) fn document(&self) -> Option<Vec<u8>> {
        let document = self.flock.document();
        let document = document.borrow();
        document.as_ref().map(|document| document.bytes.to_vec())
    }

    /// Gives the flock a document to spread, unless it has it.
    pub(crate) fn put_document(&self, generation: u64, bytes: Vec<u8>) {
        let held = self.flock.document().borrow().as_ref().map(|held| held.id.generation);
        if held.is_some_and(|held| held >= generation) {
            return;
        }
        if let Err(error) = self.flock.put_document(generation, bytes) {
            tracing::warn!(%error, "the document is not spread yet");
        }
    }

    /// Members that may hold instances, and whether they may be given more.
    ///
    /// One that was declared lost stays as silent for as long as its entries do (`remove_after`):
    /// that is the time it has to come back before what it held is replaced.
    pub(crate) fn members(&self) -> Vec<(String, khan::Standing)> {
        let known: BTreeSet<RnodeId> =
            self.flock.entries("rnode").iter().map(|entry| entry.owner).collect();
        let view = self.flock.view();
        let view = view.borrow();
        view.members
            .iter()
            .filter(|member| known.contains(&member.id))
            .filter(|member| member.state != State::Left)
            .map(|member| {
                let suspect = view.suspects.contains(&member.id);
                (member.id.to_string(), standing(member.state == State::Up && !suspect))
            })
            .collect()
    }

    /// Our term if we lead.
    pub(crate) fn leads(&self) -> Option<u64> {
        let view = self.flock.view();
        let view = view.borrow();
        (view.leader == Some(self.flock.id())).then_some(view.term)
    }

    /// The flock, for status.
    pub(crate) fn flock(&self, agent: &Agent) -> FlockReply {
        let labels: BTreeMap<String, String> = self
            .messages::<RnodeRecord>("rnode")
            .into_iter()
            .map(|(owner, record)| (owner, record.label))
            .collect();
        let label = |id: &str| labels.get(id).cloned().unwrap_or_default();
        let view = self.flock.view();
        let view = view.borrow().clone();
        let leader = view.leader.map(|leader| leader.to_string()).unwrap_or_default();
        let members = view.members.iter().filter(|member| member.state != State::Left);
        FlockReply {
            namespace: agent.me.namespace.to_string(),
            flock: view.name.clone(),
            leader_label: label(&leader),
            leader,
            term: view.term,
            tenure_ms: milliseconds(view.tenure),
            grade: "acting".to_owned(),
            members: members
                .map(|member| self.member(member, label(&member.id.to_string())))
                .collect(),
            fingerprint: view.fingerprint,
            counters: view
                .counters
                .iter()
                .map(|(name, value)| Counter { name: (*name).to_owned(), value: *value })
                .collect(),
        }
    }

    fn member(&self, member: &MemberView, label: String) -> Member {
        let address = member.addresses.first();
        Member {
            id: member.id.to_string(),
            label,
            state: match member.state {
                State::Up => ALIVE,
                State::Down => "lost",
                State::Left => "left",
            }
            .to_owned(),
            incarnation: member.incarnation,
            address: address
                .map(|address| host_port(&address.ip().to_string(), address.port().into()))
                .unwrap_or_default(),
            silent_ms: member.silence.map_or(0, milliseconds),
        }
    }

    /// Takes a hint of where members may be.
    pub(crate) async fn hint(&self, hint: SocketAddr) {
        self.flock.hint(hint).await;
    }

    /// Says good-bye.
    pub(crate) async fn leave(&self) {
        self.flock.quit().await;
    }
}

fn milliseconds(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
