//! Looks after needs: what is not here is copied from whoever has it; what cannot be had is told.

use std::sync::Arc;

use tokio::time::Instant;

use super::needs::{Need, Standing};
use super::pauses::Pauses;
use crate::agent::context::{Agent, fields};
use crate::agent::fetch;
use crate::agent::files::{at_path, held, mounted, service};
use crate::agent::limits::{NEED_PAUSE_MAX, NEEDS_INTERVAL};
use crate::agent::paths::digest;

/// Runs until the agent ends. First it settles what the rnode's restart means for what is held.
pub(crate) async fn run(agent: Arc<Agent>) {
    held::settle(&agent).await;
    let mut changes = agent.files.needs.changes();
    let mut pauses = Pauses::new(NEEDS_INTERVAL, NEED_PAUSE_MAX);
    loop {
        mounted::keep(&agent).await;
        let needs = agent.files.needs.all();
        pauses.retain(|id| needs.contains_key(id));
        let sources = fetch::sources(&agent);
        for (id, need) in needs {
            let here = digest(&need.digest).is_some_and(|wanted| agent.store.has(&wanted));
            if !here && !pauses.is_due(&id, &sources, Instant::now()) {
                continue;
            }
            tokio::select! {
                () = meet(&agent, &id, &need) => {}
                () = agent.shutdown.cancelled() => return,
            }
            let here = digest(&need.digest).is_some_and(|wanted| agent.store.has(&wanted));
            pauses.tried(&id, here, &sources, Instant::now());
        }
        tokio::select! {
            // Whoever states or switches one, or finds a blob corrupt, wants it looked after now; also if that was
            // during this pass.
            _ = changes.changed() => pauses.retain(|_| false),
            () = tokio::time::sleep(NEEDS_INTERVAL) => {}
            () = agent.shutdown.cancelled() => return,
        }
    }
}

async fn meet(agent: &Arc<Agent>, id: &str, need: &Need) {
    let Some(wanted) = digest(&need.digest) else {
        return;
    };
    let was = agent.files.needs.standing(id).unwrap_or_default();
    let here = agent.store.has(&wanted);
    let fetched = if here {
        Ok(None)
    } else {
        service::fetch(agent, &need.service, &wanted, need.executable).await
    };
    let standing = match fetched {
        Ok(_) if here => placed(agent, id, need, was.source.clone()).await,
        Ok(source) => {
            let source = source.unwrap_or_default();
            let record = fields! {
                "need": id, "digest": need.digest.clone(), "name": need.name.clone(),
                "source": source.clone(),
            };
            agent.note("file.copied", record).await;
            agent.files.held.restored(&need.digest);
            placed(agent, id, need, source).await
        }
        Err(reason) => Standing {
            met: false,
            reason,
            source: String::new(),
        },
    };
    settle(agent, id, need, (&was, standing)).await;
}

/// How a need stands whose blob is in the store: it may have to stand at a path too.
async fn placed(agent: &Arc<Agent>, id: &str, need: &Need, source: String) -> Standing {
    let placed = match &need.path {
        Some(path) => at_path::put(agent, id, need, path).await,
        None => Ok(false),
    };
    if let (Ok(true), Some(path)) = (&placed, &need.path) {
        let record = fields! { "need": id, "digest": need.digest.clone(), "path": path.clone() };
        agent.note("file.placed", record).await;
    }
    Standing {
        met: placed.is_ok(),
        reason: placed.err().unwrap_or_default(),
        source,
    }
}

/// Keeps how a need stands, and tells when that has changed.
async fn settle(agent: &Arc<Agent>, id: &str, need: &Need, (was, now): (&Standing, Standing)) {
    let first = agent.files.needs.standing(id).is_none();
    let kind = match (was.met, now.met) {
        (false, true) => "need.met",
        (true, false) => "need.unmet",
        (false, false) if first => "need.unmet",
        _ => {
            agent.files.needs.stands(id, now);
            return;
        }
    };
    let text = if now.met {
        format!("{} is here", need.name)
    } else {
        format!("{} cannot be had: {}", need.name, now.reason)
    };
    agent.tell(kind, id, &text);
    let record =
        fields! { "need": id, "digest": need.digest.clone(), "reason": now.reason.clone() };
    agent.note(kind, record).await;
    agent.files.needs.stands(id, now);
}
