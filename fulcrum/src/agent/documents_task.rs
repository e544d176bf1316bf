//! Spreads documents: with the flock of a nested namespace, and from the base to the rnodes it hosts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crux_net::identity::{Acceptance, Expect};
use crux_wire::document::v1::SignedDocument;
use crux_wire::fulcrum::v1::PutDocumentRequest;
use crux_wire::fulcrum::v1::fulcrum_client::FulcrumClient;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use prost::Message;
use tokio::time::Instant;

use super::accept;
use super::class_watch::host_credentials;
use super::context::{Agent, BASE, fields};
use super::documents::Accepted;
use super::hordes::{DISSOLVED, NestedRnode};
use super::limits::{CALL_TIMEOUT, PUSH_RETRY};

/// Runs until the agent ends.
pub(crate) async fn run(agent: Arc<Agent>) {
    if agent.is_base() {
        push(agent).await;
    } else {
        flock(agent).await;
    }
}

/// Takes what the flock brings and gives it what we hold.
async fn flock(agent: Arc<Agent>) {
    let mut brought = agent.shared.document();
    let mut documents = agent.documents.changes();
    loop {
        documents.mark_unchanged();
        if let Some(held) = agent.documents.acting(agent.me.namespace.as_str()) {
            agent.shared.put_document(&held);
        }
        let bytes = brought
            .borrow_and_update()
            .as_ref()
            .map(|known| Arc::clone(&known.bytes));
        if let Some(bytes) = bytes {
            take(&agent, &bytes).await;
        }
        tokio::select! {
            _ = brought.changed() => {}
            _ = documents.changed() => {}
            () = agent.shutdown.cancelled() => return,
        }
    }
}

/// Takes a document from the flock, if it is a newer one for us.
async fn take(agent: &Agent, bytes: &[u8]) {
    let Ok(signed) = SignedDocument::decode(bytes) else {
        return;
    };
    let held = agent.documents.newest(agent.me.namespace.as_str());
    if held.is_some_and(|held| held.signed == signed) {
        return;
    }
    let taken = match accept::verify(agent, &signed, Acceptance::Kept) {
        Ok((document, signer)) => {
            accept::take(agent, signed, document, (&signer, "flock"), false).await
        }
        Err(status) => Err(status),
    };
    if let Err(status) = taken {
        tracing::debug!(%status, "a document from the flock was not taken");
    }
}

/// What is known of putting documents to one rnode.
#[derive(Debug, Default)]
struct Put {
    /// The generation it has acknowledged.
    acknowledged: u64,
    /// Whether an answer is awaited.
    waiting: bool,
    /// Not to be tried again before this.
    not_before: Option<Instant>,
    /// Pause before the next try; it doubles.
    pause: Duration,
}

/// Puts the newest document of each namespace to each of its rnodes until it is acknowledged.
async fn push(agent: Arc<Agent>) {
    let mut puts: BTreeMap<NestedRnode, Put> = BTreeMap::new();
    let mut answers = FuturesUnordered::new();
    let mut documents = agent.documents.changes();
    let mut hordes = agent.hordes.changes();
    loop {
        documents.mark_unchanged();
        hordes.mark_unchanged();
        forget_dissolved(&agent).await;
        let rnodes = agent.hordes.rnodes();
        puts.retain(|known, _| rnodes.contains(known));
        let now = Instant::now();
        let mut due: Option<Instant> = None;
        for target in rnodes {
            let Some(held) = agent.documents.acting(&target.namespace) else {
                continue;
            };
            let put = puts.entry(target.clone()).or_default();
            if put.waiting || put.acknowledged >= held.document.generation {
                continue;
            }
            match put.not_before.filter(|at| *at > now) {
                Some(at) => due = Some(due.map_or(at, |due| due.min(at))),
                None => {
                    put.waiting = true;
                    let agent = Arc::clone(&agent);
                    answers.push(async move {
                        let generation = held.document.generation;
                        (
                            push_one(&agent, &target, &held).await.map(|()| generation),
                            target,
                        )
                    });
                }
            }
        }
        tokio::select! {
            _ = documents.changed() => {}
            _ = hordes.changed() => {}
            Some((answer, target)) = answers.next() => answered(&mut puts, answer, &target),
            () = tokio::time::sleep_until(due.unwrap_or(now)), if due.is_some() => {}
            () = agent.shutdown.cancelled() => return,
        }
    }
}

fn answered(
    puts: &mut BTreeMap<NestedRnode, Put>,
    answer: Result<u64, String>,
    target: &NestedRnode,
) {
    // A rnode that has gone meanwhile is no longer in the map.
    let Some(put) = puts.get_mut(target) else {
        return;
    };
    put.waiting = false;
    match answer {
        Ok(generation) => {
            put.acknowledged = generation;
            put.pause = Duration::ZERO;
        }
        Err(reason) => {
            tracing::debug!(
                reason,
                address = target.address,
                "a document was not acknowledged"
            );
            put.pause = (put.pause * 2).clamp(PUSH_RETRY.0, PUSH_RETRY.1);
            put.not_before = Some(Instant::now() + put.pause);
        }
    }
}

async fn push_one(
    agent: &Agent,
    NestedRnode {
        namespace, address, ..
    }: &NestedRnode,
    held: &Accepted,
) -> Result<(), String> {
    let credentials = host_credentials(agent, namespace).ok_or("no grant is held")?;
    let connecting = crux_net::rpc::connect(address, &credentials, Expect::Owner);
    let channel = tokio::time::timeout(CALL_TIMEOUT, connecting)
        .await
        .map_err(|_| "it does not answer")?
        .map_err(|error| error.to_string())?;
    let request = PutDocumentRequest {
        document: Some(held.signed.clone()),
        take_over: false,
        invite_grant: Vec::new(),
    };
    let mut client = FulcrumClient::new(channel);
    let put = tokio::time::timeout(CALL_TIMEOUT, client.put_document(request)).await;
    match put.map_err(|_| "it does not answer")? {
        Ok(_) => Ok(()),
        // It holds a newer one: ours is as good as acknowledged.
        Err(status) if status.message().starts_with("stale:") => Ok(()),
        Err(status) => Err(status.message().to_owned()),
    }
}

/// Forgets namespaces whose end was asked for and whose horde is gone.
async fn forget_dissolved(agent: &Agent) {
    // Ordering: whoever is accepted after this begins anew, with files and a grant that are not taken away again.
    let _turn = agent.accepting.lock().await;
    for held in agent.documents.all() {
        let document = &held.document;
        let namespace = document.namespace.as_str();
        if !document.dissolved || namespace == BASE {
            continue;
        }
        let gone = agent
            .hordes
            .list(namespace)
            .iter()
            .all(|state| state.phase == DISSOLVED && state.generation >= document.generation);
        let known = !agent.hordes.list(namespace).is_empty();
        if !(gone && known) {
            continue;
        }
        agent
            .note("document.forget", fields! { "namespace": namespace })
            .await;
        let forgotten = agent
            .documents
            .forget(namespace)
            .and_then(|()| agent.hordes.forget(namespace));
        if let Err(error) = forgotten {
            tracing::warn!(%error, namespace, "a dissolved namespace left files");
        }
        if let Ok(label) = crux_core::names::Label::new(namespace)
            && let Err(error) = agent.identity.drop_host_grant(&label)
        {
            tracing::warn!(%error, namespace, "a dissolved namespace left its grant");
        }
        agent.tell_of(namespace, "horde", namespace, "is gone");
    }
}
