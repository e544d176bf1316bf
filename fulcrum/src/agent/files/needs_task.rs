//! Looks after needs: what is not here is copied from whoever has it; what cannot be had is told.

use std::sync::Arc;

use super::needs::{Need, Standing};
use crate::agent::context::{Agent, fields};
use crate::agent::fetch;
use crate::agent::files::{held, mounted};
use crate::agent::limits::NEEDS_INTERVAL;
use crate::agent::paths::digest;

/// Runs until the agent ends. First it settles what the rnode's restart means for what is held.
pub(crate) async fn run(agent: Arc<Agent>) {
    held::settle(&agent).await;
    let mut changes = agent.files.needs.changes();
    loop {
        changes.mark_unchanged();
        mounted::keep(&agent).await;
        for (id, need) in agent.files.needs.all() {
            tokio::select! {
                () = meet(&agent, &id, &need) => {}
                () = agent.shutdown.cancelled() => return,
            }
        }
        tokio::select! {
            _ = changes.changed() => {}
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
    if agent.store.has(&wanted) {
        let standing = Standing {
            met: true,
            reason: String::new(),
            source: was.source.clone(),
        };
        settle(agent, id, need, (&was, standing)).await;
        return;
    }
    let fetched = fetch::fetch(agent, &wanted, need.executable, &fetch::sources(agent)).await;
    let standing = match fetched {
        Ok(source) => {
            let source = source.unwrap_or_default();
            let record = fields! {
                "need": id, "digest": need.digest.clone(), "name": need.name.clone(),
                "source": source.clone(),
            };
            agent.note("file.copied", record).await;
            agent.files.held.restored(&need.digest);
            Standing {
                met: true,
                reason: String::new(),
                source,
            }
        }
        Err(reason) => Standing {
            met: false,
            reason,
            source: String::new(),
        },
    };
    settle(agent, id, need, (&was, standing)).await;
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
