//! One thing to many rnodes: every rnode gives on what it has while the rest comes.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crux_net::files::{Reached, Thing, spread as copy_all};
use crux_wire::fileio::v1::{CopyProgress, HaveRequest, OfferReply};
use futures_util::stream;
use futures_util::{Stream, StreamExt as _};
use tonic::Status;

use super::end::{End, Local, Remote};
use super::{Copied, Ways, copied, failed, folder, into, offer};
use crate::failure::{Failure, Outcome};

/// Rnodes that are called at once. 32: sessions cost little, and not nothing.
const CALLS_AT_ONCE: usize = 32;

/// Copies from this machine at once, where rnodes cannot take it from each other. 4: they share one way out.
const UPS_AT_ONCE: usize = 4;
/// Longest wait for a rnode to be reached. 10 s: as for any question.
const REACH_TIME_MAX: Duration = Duration::from_secs(10);

type Outcomes = BTreeMap<String, Outcome<Copied>>;

/// Copies to every rnode that `to` names; one outcome for each, in the order of their labels.
pub(super) async fn spread(ways: &Ways, from: &End, to: &Remote) -> Outcome<Vec<Outcome<Copied>>> {
    let mut sinks: BTreeSet<String> = to.labels.iter().cloned().collect();
    if sinks.contains("ALL") {
        let namespace = ways.base.namespace(ways.namespace.as_deref()).await?;
        let rnodes = namespace.horde.rnodes.iter();
        sinks = rnodes.map(|rnode| rnode.label.clone()).collect();
    }
    let outcomes = match from {
        End::Remote(remote) => across(ways, (remote.one()?, &remote.path), sinks, to).await?,
        End::Local(local) => out(ways, local, sinks, to).await?,
    };
    let named = |(label, outcome): (String, Outcome<Copied>)| {
        outcome.map_err(|failure: Failure| failure.about(&label))
    };
    Ok(outcomes.into_iter().map(named).collect())
}

/// From one rnode to the others.
async fn across(
    ways: &Ways,
    (source, path): (&str, &str),
    mut sinks: BTreeSet<String>,
    to: &Remote,
) -> Outcome<Outcomes> {
    let mut outcomes = Outcomes::new();
    // The same rnode is no sink of its own, unless the path is another.
    if sinks.remove(source) && path != to.path {
        let done = ways.pull((source, path), (source, &to.path)).await;
        outcomes.insert(source.to_owned(), done);
    }
    if sinks.is_empty() {
        return Ok(outcomes);
    }
    let mut path = path.to_owned();
    let (offered, destination) = offered(ways, (source, &mut path), None, to).await?;
    let thing = (offered, path, destination);
    let reaching = reaching(ways, sinks.clone());
    outcomes.extend(among(ways, source, thing, (sinks.len(), reaching)).await?);
    Ok(outcomes)
}

/// From this machine: the first that takes it is the others' source, for this machine may take no connections.
async fn out(
    ways: &Ways,
    local: &Local,
    sinks: BTreeSet<String>,
    to: &Remote,
) -> Outcome<Outcomes> {
    let single = local.file_name();
    let path = single.as_ref().map(|name| into(&to.path, name));
    let mut path = path.unwrap_or_else(|| folder(&to.path).to_owned());
    let mut outcomes = Outcomes::new();
    // Who answers first, so that a rnode that is gone holds up nobody.
    let mut reaching = pin!(reaching(ways, sinks.clone()));
    let (source, brought) = loop {
        let Some((label, reached)) = reaching.next().await else {
            return Ok(outcomes);
        };
        let done = match reached {
            Ok(_) => ways.up(local, &label, &path).await,
            Err(failure) => Err(failure),
        };
        let taken = done.as_ref().ok().map(|done| done.manifest.clone());
        outcomes.insert(label.clone(), done);
        if let Some(manifest) = taken {
            break (label, manifest);
        }
    };
    let left: BTreeSet<String> = sinks
        .into_iter()
        .filter(|sink| !outcomes.contains_key(sink))
        .collect();
    if left.is_empty() {
        return Ok(outcomes);
    }
    match offered(ways, (&source, &mut path), single.as_deref(), to).await {
        // What was there before it came, or comes besides, is not for the others.
        Ok((offered, destination)) if offered.manifest == brought => {
            let thing = (offered, path, destination);
            outcomes.extend(among(ways, &source, thing, (left.len(), reaching)).await?);
        }
        _ => {
            let path = &path;
            let mut copying = stream::iter(left)
                .map(|sink| async move { (ways.up(local, &sink, path).await, sink) })
                .buffer_unordered(UPS_AT_ONCE);
            while let Some((done, sink)) = copying.next().await {
                outcomes.insert(sink, done);
            }
        }
    }
    Ok(outcomes)
}

/// What a source offers, where it lies there and where it goes, to the rnodes that are being reached, `count` of them.
async fn among(
    ways: &Ways,
    source: &str,
    (offered, path, destination): (OfferReply, String, String),
    (count, reaching): (usize, impl Stream<Item = (String, Outcome<Reached>)>),
) -> Outcome<Outcomes> {
    let address = ways.base.address(ways.namespace.as_deref(), source).await?;
    let thing = Thing {
        source: &address,
        ticket: &offered.ticket,
        manifest: &offered.manifest,
        bytes: offered.bytes,
        path: &destination,
    };
    let unreached = Mutex::new(Outcomes::new());
    let noted = |(label, reached): (String, Outcome<Reached>)| {
        let reached = match reached {
            Ok(reached) => Some((label, reached)),
            Err(failure) => {
                let mut unreached = unreached.lock().unwrap_or_else(PoisonError::into_inner);
                unreached.insert(label, Err(failure));
                None
            }
        };
        std::future::ready(reached)
    };
    let reached = reaching.filter_map(noted);
    let told = |progress: &CopyProgress| ways.bar.show(progress);
    let spread = copy_all(&thing, count, reached, &told).await;
    let mut outcomes = unreached
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    for (sink, outcome) in spread {
        let outcome = outcome.map_err(|status| failed(&status));
        let (from, to) = (format!("{source}:{path}"), format!("{sink}:{destination}"));
        outcomes.insert(sink, outcome.map(|done| copied(from, to, &done)));
    }
    Ok(outcomes)
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
        (None, true) => folder(&to.path).to_owned(),
        (None, false) => into(&to.path, &offered.name),
    };
    Ok((offered, destination))
}

/// Reaches rnodes side by side; whoever answers first comes first.
fn reaching(
    ways: &Ways,
    sinks: BTreeSet<String>,
) -> impl Stream<Item = (String, Outcome<Reached>)> {
    stream::iter(sinks)
        .map(move |sink| async move {
            let reached = tokio::time::timeout(REACH_TIME_MAX, reach(ways, &sink)).await;
            let silent = || Err(failed(&Status::unavailable("the rnode does not answer")));
            (sink, reached.unwrap_or_else(|_| silent()))
        })
        .buffer_unordered(CALLS_AT_ONCE)
}

async fn reach(ways: &Ways, label: &str) -> Outcome<Reached> {
    let address = ways.base.address(ways.namespace.as_deref(), label).await?;
    let files = ways.rnode(label).await?.files();
    // What stands in between may take a connection for a rnode that is silent.
    let answered = files.clone().have(HaveRequest::default()).await;
    answered.map_err(|status| failed(&status))?;
    Ok(Reached { address, files })
}
