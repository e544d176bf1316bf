//! Invitations that may still be claimed, as a base keeps them until each is settled: docs/design/identity.md, section 5.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crux_core::identity::{CLOSING_CLAIMS_MAX, ClaimTable, Closing, Enrols, Role, UnixTime, Who};
use crux_core::names::{InvitationId, RnodeId};
use crux_net::durable;
use crux_net::identity::{Error, Invitation, IssuedCertificate, Trust};
use crux_wire::document::v1::{Authority, DenyNotice, PendingInvitation};
use futures_util::future::join_all;
use prost::Message;
use tokio::sync::Notify;
use tonic::Status;

use super::authority_task;
use super::class_watch::host_credentials;
use super::context::{Agent, BASE, fields};
use super::limits::{PENDING_INVITATIONS_MAX, SETTLE_LOOK};

/// What is kept.
#[derive(Debug)]
pub(crate) struct Invitations {
    dir: PathBuf,
    held: Mutex<BTreeMap<InvitationId, Held>>,
    changed: Notify,
}

/// One invitation.
#[derive(Debug, Clone)]
struct Held {
    issued: IssuedCertificate,
    withdrawal: Option<DenyNotice>,
}

impl Held {
    fn id(&self) -> InvitationId {
        self.issued.key.invitation_id()
    }

    /// Into which namespace it lets rnodes.
    fn enters(&self) -> Option<&crux_core::names::Label> {
        match &self.issued.grant.role {
            Role::Invitation {
                enrols: Enrols::Rnode,
                ..
            } => self.issued.grant.prefix.one_namespace(),
            _ => None,
        }
    }
}

/// Who came in, by ordinal.
type Claims = BTreeMap<u32, RnodeId>;

impl Invitations {
    /// Reads what an earlier agent kept; what no longer counts is forgotten.
    pub(crate) fn open(agent_dir: &Path, trust: &Trust) -> io::Result<Self> {
        let dir = agent_dir.join("invitations");
        std::fs::create_dir_all(&dir)?;
        let mut held = BTreeMap::new();
        for entry in std::fs::read_dir(&dir)? {
            let path = entry?.path();
            let message = durable::read(&path)?;
            let message = message.and_then(|bytes| PendingInvitation::decode(&*bytes).ok());
            let known = message.and_then(|message| judge(trust, message).ok());
            match known {
                Some(known) => drop(held.insert(known.id(), known)),
                None => durable::remove(&path)?,
            }
        }
        Ok(Self {
            dir,
            held: Mutex::new(held),
            changed: Notify::new(),
        })
    }

    /// Keeps one that somebody handed over, unless it is kept already.
    fn keep(&self, held: Held, message: &PendingInvitation) -> Result<(), Refused> {
        let id = held.id();
        {
            let mut all = self.lock();
            if all.contains_key(&id) {
                return Ok(());
            }
            if all.len() >= PENDING_INVITATIONS_MAX {
                return Err(Refused::Full);
            }
            durable::replace_unsynced(&self.dir.join(id.to_string()), &message.encode_to_vec())?;
            all.insert(id, held);
        }
        self.changed.notify_one();
        Ok(())
    }

    fn list(&self) -> Vec<Held> {
        self.lock().values().cloned().collect()
    }

    fn forget(&self, id: InvitationId) {
        self.lock().remove(&id);
        if let Err(error) = durable::remove(&self.dir.join(id.to_string())) {
            tracing::warn!(%error, "a settled invitation is still on disk");
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<InvitationId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why one is not kept.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("keep an invitation: {0}")]
    Identity(#[from] Error),
    #[error("keep an invitation: {PENDING_INVITATIONS_MAX} wait already")]
    Full,
    #[error("keep an invitation: the disk refuses")]
    Io(#[from] io::Error),
}

fn judge(trust: &Trust, message: PendingInvitation) -> Result<Held, Error> {
    Ok(Held {
        issued: trust.judge_invitation(&message.chain)?,
        withdrawal: message.withdrawal,
    })
}

/// Takes what a caller hands over; answers why some are not kept.
///
/// # Errors
/// `InvalidArgument` for too many at once.
pub(crate) fn take(agent: &Agent, offered: &[PendingInvitation]) -> Result<Vec<String>, Status> {
    if offered.len() > PENDING_INVITATIONS_MAX {
        return Err(Status::invalid_argument(format!(
            "keep more than {PENDING_INVITATIONS_MAX} invitations"
        )));
    }
    if !agent.is_base() {
        return Ok(Vec::new());
    }
    let kept = offered.iter().map(|message| keep(agent, message));
    let refused = kept.filter_map(Result::err);
    Ok(refused.map(|error| error.to_string()).collect())
}

fn keep(agent: &Agent, message: &PendingInvitation) -> Result<(), Refused> {
    let held = judge(agent.identity.trust(), message.clone())?;
    agent.invitations.keep(held, message)
}

/// Keeps one that this base made itself.
///
/// # Errors
/// `ResourceExhausted` when too many wait to be claimed.
pub(crate) fn keep_own(agent: &Agent, invitation: &Invitation) -> Result<(), Status> {
    let message = PendingInvitation {
        chain: invitation.certificates().to_vec(),
        withdrawal: None,
    };
    keep(agent, &message).map_err(|error| match error {
        Refused::Full => Status::resource_exhausted(error.to_string()),
        _ => Status::internal(error.to_string()),
    })
}

/// Settles what is due, until the agent ends; at once on a nested rnode.
pub(crate) async fn run(agent: Arc<Agent>) {
    if !agent.is_base() {
        return;
    }
    let present = agent.identity.trust().clock().now();
    loop {
        let next = look(&agent, present).await;
        tokio::select! {
            () = tokio::time::sleep(next) => {}
            () = agent.invitations.changed.notified() => tokio::time::sleep(SETTLE_LOOK.0).await,
            () = agent.shutdown.cancelled() => return,
        }
    }
}

/// Looks at each once; answers how long nothing is due.
async fn look(agent: &Agent, present: UnixTime) -> Duration {
    let all = agent.invitations.list();
    if all.is_empty() {
        return SETTLE_LOOK.1;
    }
    // Whoever lies in the directory of a hosted rnode came in, connected or not.
    authority_task::denied_rnodes(agent);
    let trust = agent.identity.trust();
    let (claims, denies, now) = (trust.claims(), trust.denies(), trust.clock().now());
    let (mut pause, mut trouble) = (SETTLE_LOOK.1, BTreeSet::new());
    for held in all {
        let uses = usize::try_from(held.issued.grant.uses).unwrap_or(usize::MAX);
        let known = of(&claims, held.id());
        if known.len() >= uses || denies.find(&held.issued.key).is_some() {
            agent.invitations.forget(held.id());
            continue;
        }
        let due = held.issued.settled_from(present);
        if due >= now {
            let left = due.seconds() - now.seconds() + 1;
            pause = pause.min(Duration::from_secs(left));
            continue;
        }
        match settle(agent, &held, known).await {
            Ok(()) => agent.invitations.forget(held.id()),
            Err(reason) => {
                trouble.insert(format!("invitation {} stays open: {reason}", held.id()));
            }
        }
    }
    agent
        .trouble
        .set("invitations", trouble.into_iter().collect());
    pause.max(SETTLE_LOOK.0)
}

fn of(claims: &ClaimTable, invitation: InvitationId) -> Claims {
    let all = claims.iter();
    let of = all.filter(|(claim, _)| claim.invitation == invitation);
    of.map(|(claim, rnode)| (claim.ordinal, *rnode)).collect()
}

/// Denies what nobody claimed in time.
async fn settle(agent: &Agent, held: &Held, mut known: Claims) -> Result<(), String> {
    if let Some(namespace) = held.enters().filter(|namespace| **namespace != BASE) {
        for (ordinal, rnode) in claims_of_hosted(agent, namespace.as_str(), held.id()).await? {
            known.entry(ordinal).or_insert(rnode);
        }
    }
    let uses = usize::try_from(held.issued.grant.uses).unwrap_or(usize::MAX);
    if known.len() >= uses {
        return Ok(());
    }
    let kept = known.len();
    let withdrawal = held.withdrawal.clone().filter(|_| known.is_empty());
    let denied = withdrawal.is_some_and(|notice| take_notice(agent, notice).is_ok());
    if !denied {
        take_notice(agent, closing(agent, held, known)?)?;
    }
    let record = fields! { "invitation": held.id().to_string(), "kept": kept, "uses": uses };
    agent.note("invitation.settled", record).await;
    Ok(())
}

fn closing(agent: &Agent, held: &Held, claims: Claims) -> Result<DenyNotice, String> {
    if claims.len() > CLOSING_CLAIMS_MAX {
        return Err(format!(
            "more than {CLOSING_CLAIMS_MAX} came in by it; `radix ca deny` denies it with all of them"
        ));
    }
    let namespace = held.enters().ok_or("its withdrawal does not count")?;
    let closing = Closing {
        invitation: held.id(),
        claims,
    };
    let signed = agent.identity.close_invitation(namespace, closing);
    let signed = signed.map_err(|error| error.to_string())?;
    signed.ok_or_else(|| format!("this base may not host {namespace}"))
}

fn take_notice(agent: &Agent, notice: DenyNotice) -> Result<(), String> {
    let authority = Authority {
        notices: vec![notice],
        ..Authority::default()
    };
    let taken = agent.identity.trust().take_authority(&authority);
    let taken = taken.map_err(|error| error.to_string())?;
    match taken.refused.into_iter().next() {
        Some(reason) => Err(reason),
        None => Ok(()),
    }
}

/// The claims of `invitation` that the rnodes hosted in `namespace` know; refused while there are some and none answers.
async fn claims_of_hosted(
    agent: &Agent,
    namespace: &str,
    invitation: InvitationId,
) -> Result<Claims, String> {
    let rnodes = agent.hordes.rnodes().into_iter();
    let rnodes: Vec<_> = rnodes
        .filter(|rnode| rnode.namespace == namespace)
        .collect();
    if rnodes.is_empty() {
        return Ok(Claims::new());
    }
    let credentials = host_credentials(agent, namespace).ok_or("no grant is held")?;
    let asked = rnodes
        .iter()
        .map(|rnode| authority_task::claims(&credentials, &rnode.address));
    let mut claims = ClaimTable::default();
    let mut answered = false;
    for theirs in join_all(asked).await.into_iter().flatten() {
        claims.learn(&theirs);
        answered = true;
    }
    if answered {
        Ok(of(&claims, invitation))
    } else {
        Err(format!("no rnode of {namespace} says who came in by it"))
    }
}

/// The claims to tell this caller: those who act on rnodes, and rnodes of the same namespace.
pub(crate) fn claims_for(agent: &Agent, who: &Who) -> Vec<u8> {
    let may = match who {
        Who::Operator { .. } | Who::Host { .. } => true,
        Who::Rnode { namespace, .. } => *namespace == agent.me.namespace || *namespace == BASE,
        _ => false,
    };
    if may {
        agent.identity.trust().claims().encode()
    } else {
        Vec::new()
    }
}
