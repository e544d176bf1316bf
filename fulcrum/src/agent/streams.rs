//! Streams that replay and then follow: documents, events, the memoir.

use std::collections::BTreeMap;
use std::sync::Arc;

use crux_core::identity::Principal;
use crux_wire::fulcrum::v1::{Event, EventsRequest, GetDocumentReply, MemoirLine, MemoirRequest};
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::context::{Agent, background};
use super::events::GAP;
use super::guard::covers;
use super::limits::{OUTPUT_POLL, STREAM_CHUNKS};
use super::rexec_service::Replies;
use crate::memoir::Reader;

/// All documents that are held and the caller's grant covers, then each change; one that was forgotten is told as not found, with its namespace
/// in an empty document.
pub(crate) fn documents(agent: &Arc<Agent>, caller: Principal) -> Replies<GetDocumentReply> {
    let (tx, rx) = mpsc::channel(STREAM_CHUNKS);
    let agent = Arc::clone(agent);
    background("watch-documents", async move {
        let mut told: BTreeMap<String, u64> = BTreeMap::new();
        let mut changes = agent.documents.changes();
        let mut beliefs = agent.identity.trust().changes();
        loop {
            changes.mark_unchanged();
            for accepted in agent.documents.all() {
                let document = &accepted.document;
                if !covers(&caller, &document.namespace)
                    || agent.documents.acting(&document.namespace).is_none()
                {
                    continue;
                }
                if told.get(&document.namespace) == Some(&document.generation) {
                    continue;
                }
                told.insert(document.namespace.clone(), document.generation);
                let reply = GetDocumentReply {
                    document: Some(accepted.signed.clone()),
                    found: true,
                    held_back: false,
                    hosts: false,
                };
                if tx.send(Ok(reply)).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                _ = beliefs.changed() => told_again(&agent, &mut told),
                () = tx.closed() => return,
                () = agent.shutdown.cancelled() => return,
            }
        }
    });
    ReceiverStream::new(rx).boxed()
}

/// The documents of those whose rnodes were denied are told again, so that their backend looks at once.
fn told_again(agent: &Agent, told: &mut BTreeMap<String, u64>) {
    for name in super::authority_task::denied_rnodes(agent) {
        if let Some((namespace, _)) = name.split_once('/') {
            told.remove(namespace);
        }
    }
}

/// The events after a token of what the caller's grant covers, then, if asked, each new one.
pub(crate) fn events(
    agent: &Arc<Agent>,
    caller: Principal,
    wanted: EventsRequest,
) -> Replies<Event> {
    let (tx, rx) = mpsc::channel(STREAM_CHUNKS);
    let agent = Arc::clone(agent);
    background("events", async move {
        let mut after = wanted.after;
        let mut changes = agent.events.changes();
        loop {
            changes.mark_unchanged();
            for event in agent.events.after(&after) {
                after.clone_from(&event.token);
                // That some are gone is of no namespace.
                if event.kind != GAP && !covers(&caller, &event.namespace) {
                    continue;
                }
                if tx.send(Ok(event)).await.is_err() {
                    return;
                }
            }
            if !wanted.follow {
                return;
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = tx.closed() => return,
                () = agent.shutdown.cancelled() => return,
            }
        }
    });
    ReceiverStream::new(rx).boxed()
}

/// The memoir from a record on, then, if asked, each new one.
///
/// # Errors
/// `Internal` if it cannot be opened.
pub(crate) fn memoir(
    agent: &Arc<Agent>,
    wanted: MemoirRequest,
) -> Result<Replies<MemoirLine>, Status> {
    let reader = Reader::open(&agent.config.memoir_dir, wanted.from);
    let mut reader = reader.map_err(|error| Status::internal(error.to_string()))?;
    let (tx, rx) = mpsc::channel(STREAM_CHUNKS);
    let agent = Arc::clone(agent);
    background("memoir", async move {
        // The first may lie behind a whole segment of others.
        let seeking = move || {
            let first = reader.next();
            (reader, first)
        };
        let Ok((mut reader, first)) = tokio::task::spawn_blocking(seeking).await else {
            return;
        };
        let mut first = Some(first);
        loop {
            let read = first.take().unwrap_or_else(|| reader.next());
            let line = match read {
                Ok(Some(record)) => Ok(MemoirLine {
                    json: record.to_line(),
                }),
                Ok(None) if wanted.follow => {
                    tokio::select! {
                        () = tokio::time::sleep(10 * OUTPUT_POLL) => continue,
                        () = tx.closed() => return,
                        () = agent.shutdown.cancelled() => return,
                    }
                }
                Ok(None) => return,
                Err(error) => Err(Status::data_loss(error.to_string())),
            };
            if tx.send(line).await.is_err() {
                return;
            }
        }
    });
    Ok(ReceiverStream::new(rx).boxed())
}
