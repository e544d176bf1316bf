//! `radix backend local`: follows the base's documents and makes each horde be as the newest one says.
//!
//! Nothing lives in its memory only: a new process reads documents, disk and the base's list again.
//! One task serves all hordes; each has its own loop in `backend/tend.rs`.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crux_wire::document::v1::Document;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, FuturesUnordered, Stream, StreamExt as _};
use tokio::sync::watch;
use underverse::Underverse as _;

use crate::base::Base;
use crate::local::Local;

mod state;
mod tend;

/// First pause before the base is asked for documents again.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// Longest pause before the base is asked for documents again.
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Namespace of base rnodes, which no backend realises.
const BASE: &str = "base";

/// Serves `local`'s base until `cancel` ends.
///
/// # Cancel safety
/// Dropping the future stops every pass where it is; the next run finishes it.
pub async fn run(local: Local, cancel: impl Future<Output = ()>) {
    let mut cancel = std::pin::pin!(cancel);
    let local = Arc::new(local);
    let mut documents = std::pin::pin!(documents(local.base_arc()));
    let mut hordes: BTreeMap<String, watch::Sender<Arc<Document>>> = BTreeMap::new();
    let mut loops: FuturesUnordered<BoxFuture<'_, String>> = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = &mut cancel => return,
            Some(document) = documents.next() => {
                if !is_ours(&document, local.name()) {
                    continue;
                }
                let document = Arc::new(document);
                let namespace = document.namespace.clone();
                if let Some(sender) = hordes.get(&namespace) {
                    sender.send_if_modified(|held| replace(held, &document));
                } else {
                    let (sender, receiver) = watch::channel(document);
                    hordes.insert(namespace.clone(), sender);
                    loops.push(Box::pin(tend::run(Arc::clone(&local), namespace, receiver)));
                }
            }
            Some(namespace) = loops.next() => drop(hordes.remove(&namespace)),
        }
    }
}

fn is_ours(document: &Document, backend: &str) -> bool {
    document.namespace != BASE && (document.backend == backend || document.backend.is_empty())
}

/// Takes the newer document; an older one changes nothing, and the same one again asks for another look.
fn replace(held: &mut Arc<Document>, offered: &Arc<Document>) -> bool {
    if offered.generation > held.generation {
        *held = Arc::clone(offered);
    }
    offered.generation >= held.generation
}

/// The base's documents; asks again, with pauses, whenever the base is away.
fn documents(base: Arc<dyn Base>) -> impl Stream<Item = Document> {
    type Open = Option<BoxStream<'static, Result<Document, underverse::Error>>>;
    let state: (Arc<dyn Base>, Open, Duration) = (base, None, RETRY_MIN);
    stream::unfold(state, |(base, mut open, mut pause)| async move {
        loop {
            if open.is_none() {
                match base.documents().await {
                    Ok(stream) => open = Some(stream),
                    Err(error) => tracing::debug!(error = error.chain(), "the base is away"),
                }
            }
            if let Some(stream) = open.as_mut() {
                match stream.next().await {
                    Some(Ok(document)) => return Some((document, (base, open, RETRY_MIN))),
                    Some(Err(error)) => tracing::debug!(error = error.chain(), "documents stopped"),
                    None => {}
                }
                open = None;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    })
}
