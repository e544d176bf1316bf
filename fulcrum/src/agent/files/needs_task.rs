//! Looks after needs: what is not here is copied from whoever has it; what cannot be had is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::needs::{Need, Standing};
use crate::agent::context::{Agent, fields};
use crate::agent::fetch;
use crate::agent::files::{at_path, held, mounted, service};
use crate::agent::limits::{NEED_PAUSE_MAX, NEEDS_INTERVAL};
use crate::agent::paths::digest;

/// Runs until the agent ends. First it settles what the rnode's restart means for what is held.
pub(crate) async fn run(agent: Arc<Agent>) {
    held::settle(&agent).await;
    let mut changes = agent.files.needs.changes();
    let mut pauses = Pauses::default();
    loop {
        mounted::keep(&agent).await;
        let needs = agent.files.needs.all();
        pauses.0.retain(|id, _| needs.contains_key(id));
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
            pauses.tried(id, here, &sources, Instant::now());
        }
        tokio::select! {
            // Whoever states or switches one, or finds a blob corrupt, wants it looked after now; also if that was
            // during this pass.
            _ = changes.changed() => pauses = Pauses::default(),
            () = tokio::time::sleep(NEEDS_INTERVAL) => {}
            () = agent.shutdown.cancelled() => return,
        }
    }
}

/// Needs whose blobs could not be had, by id.
#[derive(Debug, Default)]
struct Pauses(BTreeMap<String, Paused>);

#[derive(Debug)]
struct Paused {
    /// Who was asked.
    sources: Vec<String>,
    pause: Duration,
    until: Instant,
}

impl Pauses {
    /// Whether it is to be tried: first, after its pause, or when somebody is there who was not asked.
    fn is_due(&self, id: &str, sources: &[String], now: Instant) -> bool {
        let new = |paused: &Paused| sources.iter().any(|it| !paused.sources.contains(it));
        let paused = self.0.get(id);
        paused.is_none_or(|paused| now >= paused.until || new(paused))
    }

    /// Notes a try; each in a row that brought nothing doubles the pause, from [`NEEDS_INTERVAL`] to [`NEED_PAUSE_MAX`].
    fn tried(&mut self, id: String, here: bool, sources: &[String], now: Instant) {
        let before = self.0.remove(&id);
        if here {
            return;
        }
        let same = before.filter(|before| sources.iter().all(|it| before.sources.contains(it)));
        let pause = same.map_or(NEEDS_INTERVAL, |before| before.pause * 2);
        let pause = pause.min(NEED_PAUSE_MAX);
        let paused = Paused {
            sources: sources.to_owned(),
            pause,
            until: now + pause,
        };
        self.0.insert(id, paused);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_need_that_cannot_be_had_is_tried_ever_more_rarely_until_a_source_appears() {
        let sources = |names: &[&str]| -> Vec<String> {
            names.iter().map(|name| (*name).to_owned()).collect()
        };
        let (mut pauses, mut now) = (Pauses::default(), Instant::now());
        let mut waited = Vec::new();
        for _ in 0..9 {
            assert!(pauses.is_due("n", &sources(&["a"]), now));
            pauses.tried("n".to_owned(), false, &sources(&["a"]), now);
            let until = pauses.0["n"].until;
            let just_before = until - Duration::from_millis(1);
            assert!(!pauses.is_due("n", &sources(&["a"]), just_before));
            waited.push((until - now).as_secs());
            now = until;
        }
        assert_eq!(waited, [2, 4, 8, 16, 32, 64, 128, 256, 300]);
        pauses.tried("n".to_owned(), false, &sources(&["a"]), now);
        assert!(pauses.is_due("n", &sources(&["a", "b"]), now));
        // One that left is no reason.
        assert!(!pauses.is_due("n", &sources(&[]), now));
        pauses.tried("n".to_owned(), false, &sources(&["a", "b"]), now);
        assert_eq!(pauses.0["n"].pause, NEEDS_INTERVAL);
        pauses.tried("n".to_owned(), true, &sources(&["a", "b"]), now);
        assert!(pauses.is_due("n", &sources(&["a"]), now));
    }
}
