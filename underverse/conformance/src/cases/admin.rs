//! The administrator's face: offers of storage, tags and changes of servers, and what owners answer to maintenance.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use underverse::{
    ByteCount, Capability as C, Error, EventId, EventKind, Kind, MaintenancePolicy, Reply, Running,
    ServerChange, StorageKind, Tag, UnderverseEvent,
};

use super::realise::server;
use super::storage::{admin, exposed, offer};
use crate::bed::{Bed, events, fails, horde, ids, listed, realise, realised, started, told};
use crate::case::{Case, Judged, Stop, case, ensure, skip};
use crate::fixture::Opened;
use crate::refusal::with_storage;

const MAINTAINED: &[C] = &[C::Tags, C::Maintenance];
/// Passes after which what an answer allows must have been done.
const PASSES_MAX: u32 = 1_200;
/// Time between two looks at what is awaited.
const LOOK: Duration = Duration::from_millis(25);

pub(super) const CASES: &[Case] = &[
    case("expose.probed", &[C::FileTrees], |bed| {
        Box::pin(expose_probed(bed))
    }),
    case("expose.unknown-scheme", &[C::FileTrees], |bed| {
        Box::pin(unknown_scheme(bed))
    }),
    case("expose.repeated", &[C::FileTrees], |bed| {
        Box::pin(expose_repeated(bed))
    }),
    case("unexpose.unknown", &[C::FileTrees], |bed| {
        Box::pin(unexpose_unknown(bed))
    }),
    case("unexpose.in-use", &[C::FileTrees], |bed| {
        Box::pin(unexpose_in_use(bed))
    }),
    case("exposures.exact", &[C::FileTrees], |bed| {
        Box::pin(exact(bed))
    }),
    case("tag.unknown", &[C::Tags], |bed| Box::pin(tag_unknown(bed))),
    case("tag.inherited", &[C::Tags], |bed| {
        Box::pin(tag_inherited(bed))
    }),
    case("server.rebooted", &[C::Tags], |bed| Box::pin(rebooted(bed))),
    case("server.gone", &[C::Tags], |bed| Box::pin(gone(bed))),
    case("server.degraded", &[C::Tags], |bed| Box::pin(degraded(bed))),
    case("server.maintained", MAINTAINED, |bed| {
        Box::pin(maintained(bed))
    }),
    case("server.restored", &[C::Tags], |bed| Box::pin(restored(bed))),
    case("answer.rolling", MAINTAINED, |bed| Box::pin(rolling(bed))),
    case("answer.staged", MAINTAINED, |bed| Box::pin(staged(bed))),
    case("answer.deny-until", MAINTAINED, |bed| {
        Box::pin(deny_until(bed))
    }),
];

async fn expose_probed(bed: &Bed<'_>) -> Judged {
    let (opened, exposure) = exposed(bed, &[]).await?;
    let held = admin(&opened)?.exposures().await?;
    let probed = held
        .iter()
        .any(|one| one.exposure == exposure && one.capacity > ByteCount::bytes(0));
    ensure(probed, || "its capacity is not told".to_owned())?;
    let mut nowhere = offer(bed, 1, &[])?;
    nowhere.source.push_str("-is-not-there");
    fails(admin(&opened)?.expose(nowhere).await, Kind::Invalid).map(drop)
}

async fn unknown_scheme(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let mut exposure = offer(bed, 0, &[])?;
    exposure.bind = "mithril".to_owned();
    let error = fails(admin(&opened)?.expose(exposure).await, Kind::Unsupported)?;
    ensure(told(&error).contains("mithril"), || {
        format!("it is not named: {}", told(&error))
    })
}

async fn expose_repeated(bed: &Bed<'_>) -> Judged {
    let (opened, mut exposure) = exposed(bed, &[]).await?;
    admin(&opened)?.expose(exposure.clone()).await?;
    let count = admin(&opened)?.exposures().await?.len();
    ensure(count == 1, || format!("one offer is told {count} times"))?;
    exposure.tags.insert("fast".to_owned());
    fails(admin(&opened)?.expose(exposure).await, Kind::Taken).map(drop)
}

async fn unexpose_unknown(bed: &Bed<'_>) -> Judged {
    let (opened, exposure) = exposed(bed, &[]).await?;
    fails(
        admin(&opened)?
            .unexpose(&exposure.server, "/no/such/source")
            .await,
        Kind::NotFound,
    )
    .map(drop)
}

async fn unexpose_in_use(bed: &Bed<'_>) -> Judged {
    let (opened, exposure) = exposed(bed, &[]).await?;
    realised(
        &opened,
        1,
        &with_storage(bed.spec(1)?, StorageKind::FileTree, &[]),
    )
    .await?;
    fails(
        admin(&opened)?
            .unexpose(&exposure.server, &exposure.source)
            .await,
        Kind::Taken,
    )?;
    crate::bed::dissolved(&opened, 2, &horde()?).await?;
    Ok(admin(&opened)?
        .unexpose(&exposure.server, &exposure.source)
        .await?)
}

async fn exact(bed: &Bed<'_>) -> Judged {
    let (opened, _) = exposed(bed, &[]).await?;
    realised(
        &opened,
        1,
        &with_storage(bed.spec(3)?, StorageKind::FileTree, &[]),
    )
    .await?;
    let allotted: u64 = admin(&opened)?
        .exposures()
        .await?
        .iter()
        .map(|one| one.allotted.get())
        .sum();
    ensure(allotted == 24_000_000, || {
        format!("{allotted} bytes are allotted, and not three times 8 MB")
    })
}

async fn tag_unknown(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    fails(
        admin(&opened)?
            .tag("no-such-server", &[Tag::new("x")?], &[])
            .await,
        Kind::NotFound,
    )
    .map(drop)
}

async fn tag_inherited(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    realised(&opened, 1, &bed.spec(1)?).await?;
    let first = started(&*opened.underverse, &horde()?, 1).await?;
    let fresh = Tag::new("tagged")?;
    match admin(&opened)?
        .tag(&first[0].server, std::slice::from_ref(&fresh), &[])
        .await
    {
        Err(error) if error.kind() == Kind::Unsupported => return skip(told(&error)),
        tagged => tagged?,
    }
    realised(&opened, 2, &bed.spec(2)?).await?;
    let running = started(&*opened.underverse, &horde()?, 2).await?;
    ensure(
        ids(&running)[0] == ids(&first)[0] && !running[0].tags.contains(&fresh),
        || "one that runs was tagged or replaced".to_owned(),
    )?;
    let later = running[1].server != first[0].server || running[1].tags.contains(&fresh);
    ensure(later, || "one started later does not inherit it".to_owned())
}

/// A horde of two on two virtual servers, "east" and "west", and the one of the two that was chosen.
struct Pair {
    opened: Opened,
    spec: underverse::HordeSpec,
    running: Vec<Running>,
    chosen: String,
    on_it: Vec<String>,
}

async fn pair(bed: &Bed<'_>, count: u32) -> Result<Pair, Stop> {
    let opened = bed.open().await?;
    admin(&opened)?;
    let mut spec = bed.spec(count)?;
    // The backend's own where it has two: an administrator knows those.
    if opened.underverse.servers().await?.len() < 2 {
        spec.servers = vec![server("east", &[])?, server("west", &[])?];
    }
    realised(&opened, 1, &spec).await?;
    let running = started(&*opened.underverse, &horde()?, count as usize).await?;
    let chosen = running[0].server.clone();
    let on_it = running
        .iter()
        .filter(|one| one.server == chosen)
        .map(|one| one.id.to_string())
        .collect();
    Ok(Pair {
        opened,
        spec,
        running,
        chosen,
        on_it,
    })
}

impl Pair {
    async fn change(&self, change: ServerChange) -> Judged {
        match admin(&self.opened)?
            .change_server(&self.chosen, change)
            .await
        {
            Err(error) if error.kind() == Kind::Unsupported => skip(told(&error)),
            other => Ok(other?),
        }
    }

    /// Passes until `enough` of what runs; returns it.
    async fn until(&self, enough: impl Fn(&[Running]) -> bool) -> Result<Vec<Running>, Stop> {
        for _ in 0..PASSES_MAX {
            pass(self).await?;
            let running = self.opened.underverse.running(&horde()?).await?;
            if enough(&running) {
                return Ok(running);
            }
            tokio::time::sleep(LOOK).await;
        }
        let running = self.opened.underverse.running(&horde()?).await?;
        let states: Vec<String> = running
            .iter()
            .map(|one| format!("{} on {} {:?}", one.label, one.server, one.state))
            .collect();
        Err(Stop::Failed(format!(
            "it does not come to that: {}",
            listed(states)
        )))
    }

    /// The event of the chosen server that `is` says it is, with the ids it tells.
    async fn told(
        &self,
        is: impl Fn(&EventKind) -> Option<Vec<String>>,
    ) -> Result<(EventId, Vec<String>), Stop> {
        let all: Vec<UnderverseEvent> = events(&*self.opened.underverse, None).await?;
        let found = all.iter().find_map(|event| {
            let mine = event.subject == self.chosen;
            is(&event.kind)
                .filter(|_| mine)
                .map(|affected| (event.id, affected))
        });
        found.ok_or_else(|| Stop::Failed(format!("no event tells of {}", self.chosen)))
    }

    fn same_affected(&self, affected: &[String]) -> Judged {
        let (told, wanted): (BTreeSet<_>, BTreeSet<_>) =
            (affected.iter().collect(), self.on_it.iter().collect());
        ensure(told == wanted, || {
            format!(
                "told as affected: {}, and not {}",
                listed(told),
                listed(wanted)
            )
        })
    }

    fn well(&self, running: &[Running]) -> bool {
        running.len() == self.running.len()
            && running
                .iter()
                .all(|one| one.state == underverse::RunningState::Started)
    }

    fn moved(&self, running: &[Running]) -> usize {
        running
            .iter()
            .filter(|one| self.on_it.contains(&one.id.to_string()))
            .count()
            .abs_diff(self.on_it.len())
    }
}

async fn pass(pair: &Pair) -> Result<(), Stop> {
    match realise(&pair.opened, 1, &pair.spec).await {
        underverse::End::Refused(error) | underverse::End::Unknown(error) => {
            Err(Error::into(error))
        }
        _ => Ok(()),
    }
}

async fn rebooted(bed: &Bed<'_>) -> Judged {
    let pair = pair(bed, 2).await?;
    pair.change(ServerChange::Reboot).await?;
    pair.until(|running| pair.well(running) && pair.moved(running) == pair.on_it.len())
        .await?;
    let (_, affected) = pair
        .told(|kind| match kind {
            EventKind::ServerRebooted { affected } => Some(affected.clone()),
            _ => None,
        })
        .await?;
    pair.same_affected(&affected)
}

async fn gone(bed: &Bed<'_>) -> Judged {
    let pair = pair(bed, 2).await?;
    pair.change(ServerChange::Withdraw).await?;
    pair.until(|running| pair.well(running) && running.iter().all(|one| one.server != pair.chosen))
        .await?;
    let (_, affected) = pair
        .told(|kind| match kind {
            EventKind::ServerGone { affected } => Some(affected.clone()),
            _ => None,
        })
        .await?;
    pair.same_affected(&affected)
}

async fn degraded(bed: &Bed<'_>) -> Judged {
    let mut pair = pair(bed, 2).await?;
    pair.change(ServerChange::Degrade("a disk reports errors".to_owned()))
        .await?;
    pair.spec.execables[0].count = 4;
    realised(&pair.opened, 2, &pair.spec).await?;
    let running = started(&*pair.opened.underverse, &horde()?, 4).await?;
    ensure(ids(&running)[..2] == ids(&pair.running), || {
        "one that ran there was moved".to_owned()
    })?;
    let wrong = running[2..].iter().find(|one| one.server == pair.chosen);
    ensure(wrong.is_none(), || {
        "a new one went there although another fits".to_owned()
    })?;
    let (_, affected) = pair
        .told(|kind| match kind {
            EventKind::ServerDegraded { affected, .. } => Some(affected.clone()),
            _ => None,
        })
        .await?;
    pair.same_affected(&affected)
}

async fn restored(bed: &Bed<'_>) -> Judged {
    let pair = pair(bed, 2).await?;
    pair.change(ServerChange::Withdraw).await?;
    let away = pair
        .until(|running| pair.well(running) && running.iter().all(|one| one.server != pair.chosen))
        .await?;
    pair.change(ServerChange::Restore).await?;
    pass(&pair).await?;
    let after = started(&*pair.opened.underverse, &horde()?, 2).await?;
    ensure(ids(&after) == ids(&away), || {
        "one was moved back".to_owned()
    })?;
    pair.told(|kind| matches!(kind, EventKind::ServerRestored).then(Vec::new))
        .await?;
    let mut more = pair.spec.clone();
    more.execables[0].count = 4;
    realised(&pair.opened, 2, &more).await?;
    let running = started(&*pair.opened.underverse, &horde()?, 4).await?;
    ensure(running.iter().any(|one| one.server == pair.chosen), || {
        "it takes no container again".to_owned()
    })
}

/// Announces maintenance; returns its event, before any pass that may move.
async fn announced(pair: &Pair) -> Result<(EventId, Vec<String>), Stop> {
    pair.told(|kind| match kind {
        EventKind::MaintenancePlanned { affected, .. } => Some(affected.clone()),
        _ => None,
    })
    .await
}

/// Wall clock far away: nothing is moved before.
const FAR_MS: u64 = 32_503_680_000_000;
/// Time between the announcement of maintenance and its beginning, in which it is answered.
const SOON: Duration = Duration::from_secs(2);

async fn maintained(bed: &Bed<'_>) -> Judged {
    let pair = pair(bed, 2).await?;
    pair.change(ServerChange::Maintain { from_unix_ms: 0 })
        .await?;
    pair.until(|running| pair.well(running) && running.iter().all(|one| one.server != pair.chosen))
        .await?;
    let (_, affected) = announced(&pair).await?;
    pair.same_affected(&affected)
}

/// Announces maintenance that begins soon, and answers it before.
async fn answered(pair: &Pair, reply: Reply) -> Result<EventId, Stop> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let soon = u64::try_from((now + SOON).as_millis()).unwrap_or(u64::MAX);
    pair.change(ServerChange::Maintain { from_unix_ms: soon })
        .await?;
    pass(pair).await?;
    let (event, _) = announced(pair).await?;
    pair.opened
        .underverse
        .answer(&horde()?, event, reply)
        .await?;
    tokio::time::sleep(SOON).await;
    Ok(event)
}

async fn rolling(bed: &Bed<'_>) -> Judged {
    let pair = pair(bed, 6).await?;
    let apart = Duration::from_millis(400);
    let policy = MaintenancePolicy::Rolling { at_once: 1, apart };
    answered(&pair, Reply::Maintenance(policy)).await?;
    let (began, mut most_away) = (Instant::now(), 0);
    for _ in 0..PASSES_MAX {
        let running = pair.opened.underverse.running(&horde()?).await?;
        let started = running
            .iter()
            .filter(|one| one.state == underverse::RunningState::Started);
        most_away = most_away.max(pair.running.len() - started.count());
        if pair.well(&running) && running.iter().all(|one| one.server != pair.chosen) {
            ensure(most_away <= 1, || format!("{most_away} were away at once"))?;
            // The last of n begins n - 1 steps after the first, and none begins before that.
            let steps = u32::try_from(pair.on_it.len().saturating_sub(1)).unwrap_or(1);
            return ensure(began.elapsed() + LOOK * 2 >= apart * steps, || {
                format!(
                    "{} were moved within {:?}",
                    pair.on_it.len(),
                    began.elapsed()
                )
            });
        }
        pass(&pair).await?;
        tokio::time::sleep(LOOK).await;
    }
    Err(Stop::Failed("they were not all moved".to_owned()))
}

async fn staged(bed: &Bed<'_>) -> Judged {
    let pair = pair(bed, 4).await?;
    let event = answered(&pair, Reply::Maintenance(MaintenancePolicy::Staged)).await?;
    pair.until(|running| pair.well(running) && pair.moved(running) == 1)
        .await?;
    for _ in 0..8 {
        pass(&pair).await?;
        tokio::time::sleep(LOOK).await;
    }
    let running = pair.opened.underverse.running(&horde()?).await?;
    ensure(pair.moved(&running) == 1, || {
        format!(
            "{} were moved before the owner said so",
            pair.moved(&running)
        )
    })?;
    pair.opened
        .underverse
        .answer(&horde()?, event, Reply::Ack)
        .await?;
    pair.until(|running| pair.well(running) && pair.moved(running) == pair.on_it.len())
        .await
        .map(drop)
}

async fn deny_until(bed: &Bed<'_>) -> Judged {
    let pair = pair(bed, 2).await?;
    answered(
        &pair,
        Reply::Maintenance(MaintenancePolicy::DenyUntil { unix_ms: FAR_MS }),
    )
    .await?;
    for _ in 0..8 {
        pass(&pair).await?;
        tokio::time::sleep(LOOK).await;
    }
    let running = pair.opened.underverse.running(&horde()?).await?;
    ensure(pair.moved(&running) == 0, || {
        "one was moved although the owner denied it".to_owned()
    })
}
