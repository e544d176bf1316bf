//! Spreads what the owner says of itself, its charter and deny list, and acts on what changes.
//!
//! Every rnode publishes a mark of what it holds. Whoever sees another mark asks for the whole and takes the union, so that
//! all who meet hold the same; a base also puts it to the rnodes it hosts. Nothing is taken on trust: each part is signed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crux_core::identity::{
    Charter, ClaimTable, DOCUMENT_CONTEXT, Denied, Principal, Refusal, Signed, Who,
};
use crux_core::names::RnodeId;
use crux_net::identity::{AUTHORITY_BYTES_MAX, Acceptance, Credentials, Expect, enrolled_chain};
use crux_wire::document::v1::{Authority, AuthorityMark, RnodeRecord};
use crux_wire::fulcrum::v1::fulcrum_client::FulcrumClient;
use crux_wire::fulcrum::v1::{
    GetAuthorityReply, GetAuthorityRequest, PutAuthorityReply, PutAuthorityRequest,
};
use futures_util::future::join_all;
use prost::Message;
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::Channel;

use super::claim_judge::{ClaimJudge, Standing};
use super::class_watch::host_credentials;
use super::context::{Agent, fields};
use super::documents::Accepting;
use super::hordes::NestedRnode;
use super::limits::{AUTHORITY_RETRY, CALL_TIMEOUT, RETIRE_GRACE, STANDING_LOOK, VERDICT_GRACE};
use super::status::service_address;

/// Key of the entry that holds the mark.
const ENTRY: &str = "authority";

/// Runs until the agent ends.
pub(crate) async fn run(agent: Arc<Agent>) {
    let mut beliefs = agent.identity.trust().changes();
    let mut shared = agent.shared.changes();
    let mut hordes = agent.hordes.changes();
    let mut documents = agent.documents.changes();
    let mut exchange = Exchange::default();
    let mut claims = ClaimJudge::default();
    let mut pause = AUTHORITY_RETRY.0;
    loop {
        beliefs.mark_unchanged();
        shared.mark_unchanged();
        hordes.mark_unchanged();
        judge_documents(&agent).await;
        documents.mark_unchanged();
        claims.look(&agent);
        if let Standing::Ended(why) = claims.judge_self(&agent) {
            return end(&agent, &why).await;
        }
        claims.judge_claims(&agent);
        agent.trouble.set("charter", rivals(&agent));
        let mark = agent.identity.trust().authority_mark();
        agent
            .shared
            .publish_if_changed(ENTRY, &mark.encode_to_vec());
        let settled = exchange.ask(&agent, &mark).await
            & exchange.tell(&agent, &mark).await
            & exchange.tell_base(&agent, &mark).await;
        claims.part(&agent).await;
        pause = if settled {
            AUTHORITY_RETRY.0
        } else {
            (pause * 2).min(AUTHORITY_RETRY.1)
        };
        tokio::select! {
            _ = beliefs.changed() => {}
            _ = hordes.changed() => {}
            _ = documents.changed() => {}
            () = another_mark(&agent, &mut shared, &exchange, &mut claims) => {}
            () = tokio::time::sleep(pause), if !settled => {}
            () = agent.shutdown.cancelled() => return,
        }
    }
}

/// Waits until a member publishes a mark that was not dealt with yet, or time alone makes something due.
async fn another_mark(
    agent: &Agent,
    shared: &mut tokio::sync::watch::Receiver<u64>,
    exchange: &Exchange,
    claims: &mut ClaimJudge,
) {
    loop {
        tokio::select! {
            // The sender lives in the agent, which outlives this task.
            _ = shared.changed() => {}
            () = tokio::time::sleep(STANDING_LOOK) => {}
        }
        claims.look(agent);
        if claims.is_due(agent) {
            return;
        }
        let mark = agent.identity.trust().authority_mark();
        if !exchange.due(agent, &mark).is_empty() {
            return;
        }
    }
}

/// Takes what a caller put.
///
/// # Errors
/// `InvalidArgument` for too much; `Internal` if it cannot be kept.
pub(crate) async fn put(
    agent: &Agent,
    caller: &Principal,
    offered: &Authority,
) -> Result<PutAuthorityReply, Status> {
    if offered.encoded_len() > AUTHORITY_BYTES_MAX {
        return Err(Status::invalid_argument(format!(
            "take an authority of more than {AUTHORITY_BYTES_MAX} bytes"
        )));
    }
    let trust = agent.identity.trust();
    let before = trust.authority_mark();
    let record = fields! {
        "caller": caller.to_string(), "charters": offered.charters.len(),
        "notices": offered.notices.len(),
    };
    // What a rnode passes on is written down if it changes anything, each part of it; else it could fill the memoir.
    if !matches!(caller.who, Who::Rnode { .. }) {
        let recorded = agent.record("authority.put", record).await;
        recorded.map_err(|error| Status::internal(format!("write the memoir: {error}")))?;
    }
    let taken = trust
        .take_authority(offered)
        .map_err(|error| Status::internal(format!("keep the authority: {error}")))?;
    let mark = trust.authority_mark();
    Ok(PutAuthorityReply {
        changed: mark != before,
        mark: Some(mark),
        refused: taken.refused,
    })
}

/// Judges the held documents again: by one whose signer is denied, nothing more is done here.
pub(crate) async fn judge_documents(agent: &Agent) {
    let trust = agent.identity.trust();
    let fresh = agent.documents.judge_again(|accepted| {
        let signed = &accepted.signed;
        let thing = Signed {
            context: DOCUMENT_CONTEXT,
            payload: &signed.payload,
            signature: &signed.signature,
            chain: &signed.chain,
        };
        trust.verify_signed(&thing, Acceptance::Kept).is_ok()
    });
    for document in fresh {
        let text = "its signer is denied; nothing more is done by it until another operator signs";
        agent.tell("document.held_back", &document, text);
        agent
            .note("document.held_back", fields! { "document": document })
            .await;
    }
    let trouble = agent.documents.held_back().into_iter().map(|namespace| {
        format!("the document of {namespace} is held back: its signer is denied; run `radix up`")
    });
    agent.trouble.set("authority", trouble.collect());
}

/// Which charters stand against ours, a line each, with the members that hold it.
fn rivals(agent: &Agent) -> Vec<String> {
    let trust = agent.identity.trust();
    let rivals = trust.rivals();
    if rivals.is_empty() {
        return Vec::new();
    }
    let records: BTreeMap<String, RnodeRecord> =
        agent.shared.messages("rnode").into_iter().collect();
    let marks: Vec<(String, AuthorityMark)> = agent.shared.messages(ENTRY);
    let holders = |charter: &Charter| {
        let holding = marks
            .iter()
            .filter(|(_, mark)| mark.charter_id == charter.id().as_bytes());
        let names = holding.map(|(owner, _)| {
            let record = records.get(owner);
            record.map_or(owner.as_str(), |record| record.label.as_str())
        });
        let names: BTreeSet<&str> = names.collect();
        if names.is_empty() {
            return "no member".to_owned();
        }
        names.into_iter().collect::<Vec<_>>().join(", ")
    };
    let held = trust.charter();
    let texts = rivals.iter().map(|rival| {
        format!(
            "charters {} (generation {}, held by {}) and {} (generation {}, held by {}) stand against each other; \
             `radix ca recover` ends it",
            held.id().short(),
            held.generation(),
            holders(&held),
            rival.id().short(),
            rival.generation(),
            holders(rival),
        )
    });
    texts.collect()
}

/// The nested rnodes whose identity no longer counts, as NAMESPACE/LABEL.
///
/// Their directories are judged, not their connections: one that does not answer is denied all the same.
pub(crate) fn denied_rnodes(agent: &Agent) -> Vec<String> {
    let trust = agent.identity.trust();
    let hordes = agent.hordes.list("");
    let all = hordes
        .iter()
        .flat_map(|horde| horde.rnodes.iter().map(move |rnode| (horde, rnode)));
    let denied = all.filter(|(_, rnode)| {
        let chain = enrolled_chain(&Path::new(&rnode.directory).join("identity"));
        chain.is_some_and(|chain| {
            let judged = trust.recheck(&chain);
            matches!(judged, Err(Refusal::Denied(_) | Refusal::LostClaim { .. }))
        })
    });
    denied
        .map(|(horde, rnode)| format!("{}/{}", horde.namespace, rnode.label))
        .collect()
}

/// The rnodes that are denied by name, or with the invitation they came by, or that lost their claim to another.
pub(crate) fn denied_members(agent: &Agent) -> BTreeSet<RnodeId> {
    let trust = agent.identity.trust();
    let denies = trust.denies();
    let claims = if denies.is_empty() {
        ClaimTable::default()
    } else {
        trust.claims()
    };
    let came_by = |invitation| {
        let holders = claims.iter();
        holders.filter_map(move |(claim, id)| (claim.invitation == invitation).then_some(*id))
    };
    let closed = claims
        .iter()
        .filter(|(claim, id)| denies.closes(claim, **id));
    let mut members: BTreeSet<RnodeId> = closed.map(|(_, id)| *id).collect();
    members.extend(trust.verdicts().iter().map(|judged| judged.rival));
    for denied in denies.iter() {
        match denied {
            Denied::Rnode(id) => members.extend([*id]),
            Denied::Invitation(invitation) => members.extend(came_by(*invitation)),
            Denied::Key(_) => {}
        }
    }
    members
}

/// Ends a rnode that no longer counts, with all that runs on it: nobody will talk to it any more.
async fn end(agent: &Agent, why: &Refusal) {
    // What it took now would end with it.
    *agent.accepting.lock().await = Accepting::Nothing;
    let (kind, what) = match why {
        Refusal::LostClaim { holder, .. } => (
            "identity.lost_claim",
            format!("this rnode lost its invitation to rnode {holder}, which claimed it too"),
        ),
        _ => ("identity.denied", "this rnode was denied".to_owned()),
    };
    let text = format!("{what}; it ends");
    agent.tell(kind, &agent.id(), &text);
    let record = fields! { "rnode": agent.id(), "text": text.clone(), "reason": why.to_string() };
    agent.note("identity.ended", record).await;
    tracing::error!(%why, "{text}");
    if !agent.is_base()
        && let Err(error) = agent.keeper.retire(RETIRE_GRACE).await
    {
        tracing::error!(%error, "the keeper did not retire");
    }
    agent.shutdown.cancel();
}

/// What was exchanged with whom.
#[derive(Debug, Default)]
struct Exchange {
    /// Members asked: at which mark of theirs, and what ours was afterwards.
    asked: BTreeMap<String, (AuthorityMark, AuthorityMark)>,
    /// Nested rnodes that were told, and of which mark.
    told: BTreeMap<NestedRnode, AuthorityMark>,
    /// The mark held, since when, and whether our base was told.
    base: Option<(AuthorityMark, Instant, bool)>,
}

impl Exchange {
    /// Members that hold something else than we, and were not asked about it: their ids, addresses and marks.
    fn due(&self, agent: &Agent, own: &AuthorityMark) -> Vec<(String, String, AuthorityMark)> {
        // Nearly always all marks are ours, to the byte: nothing is decoded then.
        let ours = own.encode_to_vec();
        let mut marks = agent.shared.shown(ENTRY);
        marks.retain(|entry| entry.owner() != agent.me.id && entry.value() != ours);
        let marks = marks.iter().filter_map(|entry| {
            let mark = AuthorityMark::decode(entry.value()).ok()?;
            Some((entry.owner().to_string(), mark))
        });
        let due: Vec<(String, AuthorityMark)> = marks
            .filter(|(owner, mark)| {
                let asked = self.asked.get(owner);
                mark != own && asked.is_none_or(|(theirs, ours)| theirs != mark || ours != own)
            })
            .collect();
        if due.is_empty() {
            return Vec::new();
        }
        let records: BTreeMap<String, RnodeRecord> =
            agent.shared.messages("rnode").into_iter().collect();
        due.into_iter()
            .filter_map(|(owner, mark)| {
                let address = service_address(records.get(&owner)?);
                (!address.is_empty()).then_some((owner, address, mark))
            })
            .collect()
    }

    /// Asks each of these for what it holds; answers whether all answered.
    async fn ask(&mut self, agent: &Agent, own: &AuthorityMark) -> bool {
        let due = self.due(agent, own);
        let asked = due.into_iter().map(|(owner, address, mark)| async move {
            let request = GetAuthorityRequest::default();
            (
                get(&agent.credentials, &address, request).await,
                owner,
                mark,
            )
        });
        let mut all = true;
        for (answer, owner, mark) in join_all(asked).await {
            match answer {
                Ok(reply) => {
                    let authority = reply.authority.unwrap_or_default();
                    if let Err(error) = agent.identity.trust().take_authority(&authority) {
                        tracing::error!(%error, "what the owner says cannot be kept");
                    }
                    let ours = agent.identity.trust().authority_mark();
                    self.asked.insert(owner, (mark, ours));
                }
                Err(reason) => {
                    tracing::debug!(reason, owner, "a member did not say what it holds");
                    all = false;
                }
            }
        }
        all
    }

    /// Puts what we hold to every hosted rnode that was not told; answers whether all took it.
    async fn tell(&mut self, agent: &Agent, own: &AuthorityMark) -> bool {
        if !agent.is_base() {
            return true;
        }
        let rnodes = agent.hordes.rnodes();
        self.told.retain(|known, _| rnodes.contains(known));
        let authority = agent.identity.trust().authority();
        let due = rnodes
            .into_iter()
            .filter(|target| self.told.get(target) != Some(own));
        let told = due.map(|target| {
            let authority = authority.clone();
            async move { (put_to(agent, &target, authority).await, target) }
        });
        let mut all = true;
        for (answer, target) in join_all(told).await {
            match answer {
                Ok(()) => {
                    self.told.insert(target, own.clone());
                }
                Err(reason) => {
                    tracing::debug!(reason, address = target.address, "a rnode was not told");
                    all = false;
                }
            }
        }
        all
    }
}

impl Exchange {
    /// Puts what we hold to the base that hosts us, once it has stood for a while; answers whether that is done.
    ///
    /// A base is no member: what its rnodes found out among themselves it hears from them.
    async fn tell_base(&mut self, agent: &Agent, own: &AuthorityMark) -> bool {
        let Some(base) = &agent.config.base else {
            return true;
        };
        let held = self.base.take().filter(|(mark, ..)| mark == own);
        let (_, since, told) = held.unwrap_or_else(|| (own.clone(), Instant::now(), false));
        let due = !told && since.elapsed() >= VERDICT_GRACE;
        let put = async {
            let authority = agent.identity.trust().authority();
            let address = base.to_string();
            put_at(&agent.credentials, &address, Expect::Owner, authority).await
        };
        let told = told || (due && put.await.is_ok());
        self.base = Some((own.clone(), since, told));
        told
    }
}

/// The claims that the rnode at `address` has seen.
pub(crate) async fn claims(credentials: &Credentials, address: &str) -> Result<ClaimTable, String> {
    let request = GetAuthorityRequest { with_claims: true };
    let reply = get(credentials, address, request).await?;
    ClaimTable::decode(&reply.claims).map_err(|error| error.to_string())
}

async fn get(
    credentials: &Credentials,
    address: &str,
    request: GetAuthorityRequest,
) -> Result<GetAuthorityReply, String> {
    let mut client = client(credentials, address, Expect::Owner).await?;
    let asked = tokio::time::timeout(CALL_TIMEOUT, client.get_authority(request));
    let reply = asked.await.map_err(|_| "it does not answer".to_owned())?;
    let reply = reply.map_err(|status| status.message().to_owned())?;
    Ok(reply.into_inner())
}

async fn put_to(agent: &Agent, target: &NestedRnode, authority: Authority) -> Result<(), String> {
    let credentials = host_credentials(agent, &target.namespace).ok_or("no grant is held")?;
    put_at(&credentials, &target.address, Expect::Owner, authority).await
}

/// Puts what we hold to the rnode at `address`.
pub(super) async fn put_at(
    credentials: &Credentials,
    address: &str,
    expect: Expect,
    authority: Authority,
) -> Result<(), String> {
    let mut client = client(credentials, address, expect).await?;
    let request = PutAuthorityRequest {
        authority: Some(authority),
        ..PutAuthorityRequest::default()
    };
    let put = tokio::time::timeout(CALL_TIMEOUT, client.put_authority(request));
    let reply = put.await.map_err(|_| "it does not answer".to_owned())?;
    reply
        .map(drop)
        .map_err(|status| status.message().to_owned())
}

async fn client(
    credentials: &Credentials,
    address: &str,
    expect: Expect,
) -> Result<FulcrumClient<Channel>, String> {
    let connecting = crux_net::rpc::connect(address, credentials, expect);
    let channel = tokio::time::timeout(CALL_TIMEOUT, connecting)
        .await
        .map_err(|_| "it does not answer".to_owned())?
        .map_err(|error| error.to_string())?;
    Ok(FulcrumClient::new(channel).max_decoding_message_size(3 * AUTHORITY_BYTES_MAX))
}
