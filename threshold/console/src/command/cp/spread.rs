//! One thing to many rnodes: every rnode that has it gives it on.

use std::collections::BTreeMap;

use crux_core::files::plan::{Copy, PER_SOURCE, Planner};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::end::{End, Remote};
use super::{Copied, Ways};
use crate::failure::{Failure, Fault, Outcome};

/// How this machine is called among the sources: no rnode has an empty label.
const HERE: &str = "";

/// Copies to every rnode that `to` names; one outcome for each.
pub(super) async fn spread(ways: &Ways, from: &End, to: &Remote) -> Outcome<Vec<Outcome<Copied>>> {
    let mut sinks = to.labels.clone();
    if sinks.iter().any(|label| label == "ALL") {
        let namespace = ways.base.namespace(ways.namespace.as_deref()).await?;
        let rnodes = namespace.horde.rnodes.iter();
        sinks = rnodes.map(|rnode| rnode.label.clone()).collect();
    }
    let (source, path) = match from {
        End::Local(_) => (HERE.to_owned(), String::new()),
        End::Remote(remote) => (remote.one()?.to_owned(), remote.path.clone()),
    };
    // The same rnode is no source of its own, unless the path is another.
    let itself = sinks.contains(&source);
    let mut outcomes: BTreeMap<String, Outcome<Copied>> = BTreeMap::new();
    if itself && path != to.path {
        let copied = ways.pull((&source, &path), (&source, &to.path)).await;
        outcomes.insert(source.clone(), copied);
    }
    let mut planner = Planner::new([source.clone()], sinks, PER_SOURCE);
    let mut running = FuturesUnordered::new();
    loop {
        for copy in planner.begin() {
            let at = if copy.source == source {
                path.clone()
            } else {
                to.path.clone()
            };
            running.push(one(ways, from, copy, at, &to.path));
        }
        let Some((copy, outcome)) = running.next().await else {
            break;
        };
        match &outcome {
            Ok(_) => planner.finished(&copy),
            Err(failure) if matches!(failure.fault, Fault::Usage | Fault::Refused) => {
                planner.refused(&copy);
            }
            Err(_) => planner.failed(&copy),
        }
        outcomes.insert(copy.sink, outcome);
    }
    for sink in planner.short() {
        let missing = || Err(Failure::failed(format!("{sink}: no source is left")));
        outcomes.entry(sink.to_owned()).or_insert_with(missing);
    }
    Ok(outcomes.into_values().collect())
}

async fn one(ways: &Ways, from: &End, copy: Copy, at: String, to: &str) -> (Copy, Outcome<Copied>) {
    let outcome = match from {
        End::Local(local) if copy.source == HERE => ways.up(local, &copy.sink, to).await,
        _ => ways.pull((&copy.source, &at), (&copy.sink, to)).await,
    };
    (copy, outcome)
}
