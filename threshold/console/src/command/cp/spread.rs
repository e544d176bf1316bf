//! One thing to many rnodes: every rnode gives on what it has while the rest comes.

use std::collections::BTreeMap;

use crux_net::files::{Reached, Thing, spread as copy_all};
use crux_wire::fileio::v1::CopyProgress;
use futures_util::StreamExt as _;
use futures_util::stream;

use super::end::{End, Remote};
use super::{Copied, Ways, copied, failed, into, offer};
use crate::failure::{Failure, Outcome};

/// Rnodes that are called at once. 32: sessions cost little, and not nothing.
const CALLS_AT_ONCE: usize = 32;

/// Copies to every rnode that `to` names; one outcome for each.
pub(super) async fn spread(ways: &Ways, from: &End, to: &Remote) -> Outcome<Vec<Outcome<Copied>>> {
    let mut sinks = to.labels.clone();
    if sinks.iter().any(|label| label == "ALL") {
        let namespace = ways.base.namespace(ways.namespace.as_deref()).await?;
        let rnodes = namespace.horde.rnodes.iter();
        sinks = rnodes.map(|rnode| rnode.label.clone()).collect();
    }
    let mut outcomes: BTreeMap<String, Outcome<Copied>> = BTreeMap::new();
    let single = match from {
        End::Local(local) => local.file_name(),
        End::Remote(_) => None,
    };
    let (source, mut path) = match from {
        End::Remote(remote) => (remote.one()?.to_owned(), remote.path.clone()),
        // The first that takes it is the others' source: this machine may take no connections.
        End::Local(local) => loop {
            let Some(first) = sinks.iter().find(|sink| !outcomes.contains_key(*sink)) else {
                return Ok(outcomes.into_values().collect());
            };
            let path = single.as_ref().map(|name| into(&to.path, name));
            let path = path.unwrap_or_else(|| to.path.clone());
            let done = ways.up(local, first, &path).await;
            let (first, taken) = (first.clone(), done.is_ok());
            outcomes.insert(first.clone(), done);
            if taken {
                break (first, path);
            }
        },
    };
    // The same rnode is no sink of its own, unless the path is another.
    let itself = sinks.contains(&source) && !outcomes.contains_key(&source);
    if itself && path != to.path {
        let done = ways.pull((&source, &path), (&source, &to.path)).await;
        outcomes.insert(source.clone(), done);
    }
    sinks.retain(|sink| *sink != source && !outcomes.contains_key(sink));
    if sinks.is_empty() {
        return Ok(outcomes.into_values().collect());
    }
    let rnode = ways.rnode(&source).await?;
    let mut offered = offer(&rnode, &path).await?;
    let destination = match (&single, offered.folder) {
        // It went into a folder that was there.
        (Some(name), true) => {
            path = into(&format!("{path}/"), name);
            offered = offer(&rnode, &path).await?;
            path.clone()
        }
        (Some(_), false) => path.clone(),
        (None, true) => to.path.clone(),
        (None, false) => into(&to.path, &offered.name),
    };
    let mut reaching = stream::iter(sinks)
        .map(|sink| async move { (reach(ways, &sink).await, sink) })
        .buffer_unordered(CALLS_AT_ONCE);
    let mut reached = BTreeMap::new();
    while let Some((outcome, sink)) = reaching.next().await {
        match outcome {
            Ok(rnode) => drop(reached.insert(sink, rnode)),
            Err(failure) => drop(outcomes.insert(sink, Err(failure))),
        }
    }
    let address = ways
        .base
        .address(ways.namespace.as_deref(), &source)
        .await?;
    let thing = Thing {
        source: &address,
        ticket: &offered.ticket,
        manifest: &offered.manifest,
        bytes: offered.bytes,
        path: &destination,
    };
    let told = |progress: &CopyProgress| ways.bar.show(progress);
    for (sink, outcome) in copy_all(&thing, &reached, &told).await {
        let outcome = outcome.map_err(|status| failed(&status));
        let (from, to) = (format!("{source}:{path}"), format!("{sink}:{destination}"));
        outcomes.insert(sink, outcome.map(|done| copied(from, to, &done)));
    }
    Ok(outcomes.into_values().collect())
}

async fn reach(ways: &Ways, label: &str) -> Result<Reached, Failure> {
    Ok(Reached {
        address: ways.base.address(ways.namespace.as_deref(), label).await?,
        files: ways.rnode(label).await?.files(),
    })
}
