//! Spreads documents: with the flock of a nested namespace, and from the base to the rnodes it hosts.

use std::collections::BTreeMap;
use std::sync::Arc;

use crux_net::identity::Expect;
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
use super::hordes::DISSOLVED;
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
    let mut shared = agent.shared.changes();
    let mut documents = agent.documents.changes();
    let mut refused: Option<Vec<u8>> = None;
    loop {
        shared.mark_unchanged();
        documents.mark_unchanged();
        if let Some(held) = agent.documents.newest(agent.me.namespace.as_str()) {
            let bytes = held.signed.encode_to_vec();
            agent.shared.put_document(held.document.generation, bytes);
        }
        if let Some(bytes) = agent.shared.document()
            && refused.as_ref() != Some(&bytes)
            && !take(&agent, &bytes).await
        {
            refused = Some(bytes);
        }
        tokio::select! {
            _ = shared.changed() => {}
            _ = documents.changed() => {}
            () = agent.shutdown.cancelled() => return,
        }
    }
}

/// Takes a document from the flock; false if it is not one for us.
async fn take(agent: &Agent, bytes: &[u8]) -> bool {
    let Ok(signed) = SignedDocument::decode(bytes) else {
        return false;
    };
    let held = agent.documents.newest(agent.me.namespace.as_str());
    if held.is_some_and(|held| held.signed == signed) {
        return true;
    }
    let Ok((document, signer)) = accept::verify(agent, &signed) else {
        return false;
    };
    match accept::take(agent, signed, document, (&signer, "flock"), false).await {
        Ok(_) => true,
        Err(status) => {
            tracing::debug!(%status, "a document from the flock was not taken");
            false
        }
    }
}

/// Puts the newest document of each namespace to each of its rnodes until it is acknowledged.
async fn push(agent: Arc<Agent>) {
    let mut acknowledged: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut retry_at: BTreeMap<(String, String), Instant> = BTreeMap::new();
    let mut documents = agent.documents.changes();
    let mut hordes = agent.hordes.changes();
    loop {
        documents.mark_unchanged();
        hordes.mark_unchanged();
        forget_dissolved(&agent).await;
        let rnodes = agent.hordes.rnodes();
        acknowledged.retain(|known, _| rnodes.contains(known));
        retry_at.retain(|known, _| rnodes.contains(known));
        let now = Instant::now();
        let mut pushes = FuturesUnordered::new();
        let mut waiting = false;
        for target in rnodes {
            let Some(held) = agent.documents.newest(&target.0) else {
                continue;
            };
            if acknowledged.get(&target) >= Some(&held.document.generation) {
                continue;
            }
            waiting = true;
            if retry_at.get(&target).is_none_or(|at| *at <= now) {
                let agent = Arc::clone(&agent);
                pushes.push(async move { (push_one(&agent, &target, &held).await, target, held) });
            }
        }
        while let Some((pushed, target, held)) = pushes.next().await {
            match pushed {
                Ok(()) => {
                    acknowledged.insert(target, held.document.generation);
                }
                Err(reason) => {
                    tracing::debug!(
                        reason,
                        address = target.1,
                        "a document was not acknowledged"
                    );
                    retry_at.insert(target, Instant::now() + PUSH_RETRY);
                }
            }
        }
        tokio::select! {
            _ = documents.changed() => {}
            _ = hordes.changed() => {}
            () = tokio::time::sleep(PUSH_RETRY), if waiting => {}
            () = agent.shutdown.cancelled() => return,
        }
    }
}

async fn push_one(
    agent: &Agent,
    (namespace, address): &(String, String),
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
