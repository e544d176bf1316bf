//! One thing to many rnodes: every rnode gives on what it has while the rest comes.

use std::collections::BTreeMap;

use crux_net::files::{Reached, Thing, spread as copy_all};
use crux_wire::fileio::v1::{CopyProgress, OfferReply};
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
    // The digest of what came from this machine.
    let mut brought = String::new();
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
            let (first, taken) = (
                first.clone(),
                done.as_ref().ok().map(|done| done.manifest.clone()),
            );
            outcomes.insert(first.clone(), done);
            if let Some(manifest) = taken {
                brought = manifest;
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
    let offered = offered(ways, (&source, &mut path), single.as_deref(), to).await;
    let (offered, destination) = match (offered, from) {
        (Ok(found), End::Remote(_)) => found,
        // What was there before it came, or comes besides, is not for the others.
        (Ok((offered, destination)), End::Local(_)) if offered.manifest == brought => {
            (offered, destination)
        }
        (Err(failure), End::Remote(_)) => return Err(failure),
        (_, End::Local(local)) => {
            for sink in sinks {
                let done = ways.up(local, &sink, &path).await;
                outcomes.insert(sink, done);
            }
            return Ok(outcomes.into_values().collect());
        }
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

/// What the source offers at `path`, which becomes the thing's own where it went into a folder; and where it is to go.
async fn offered(
    ways: &Ways,
    (source, path): (&str, &mut String),
    single: Option<&str>,
    to: &Remote,
) -> Outcome<(OfferReply, String)> {
    let rnode = ways.rnode(source).await?;
    if let Some(name) = single {
        // Into a folder that was there, if there is one.
        let inside = into(&format!("{}/", path.trim_end_matches('/')), name);
        if let Ok(offered) = offer(&rnode, &inside).await {
            path.clone_from(&inside);
            return Ok((offered, inside));
        }
    }
    let offered = offer(&rnode, path).await?;
    let destination = match (single, offered.folder) {
        (Some(_), _) => path.clone(),
        (None, true) => to.path.clone(),
        (None, false) => into(&to.path, &offered.name),
    };
    Ok((offered, destination))
}

async fn reach(ways: &Ways, label: &str) -> Result<Reached, Failure> {
    Ok(Reached {
        address: ways.base.address(ways.namespace.as_deref(), label).await?,
        files: ways.rnode(label).await?.files(),
    })
}
