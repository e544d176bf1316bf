//! The two channels: events from below, answers from the owner.

use std::time::Duration;

use futures_util::StreamExt as _;
use underverse::{
    Capability as C, EventId, EventKind, Kind, MaintenancePolicy, Reply, Running, UnderverseEvent,
};

use crate::bed::{Bed, events, fails, healed, horde, realised, started};
use crate::case::{Case, Judged, Stop, case, ensure};
use crate::fixture::Opened;

/// Time in which what happens arrives on a held stream.
const ARRIVAL_MAX: Duration = Duration::from_secs(30);

pub(super) const CASES: &[Case] = &[
    case("events.first", &[], |bed| Box::pin(first(bed))),
    case("events.live", &[], |bed| Box::pin(live(bed))),
    case("events.order", &[C::Heal], |bed| Box::pin(order(bed))),
    case("events.resume", &[C::Heal], |bed| Box::pin(resume(bed))),
    case("events.lasting", &[], |bed| Box::pin(lasting(bed))),
    case("events.exit", &[C::Heal], |bed| Box::pin(exit(bed))),
    case("events.failed-started", &[C::Heal], |bed| {
        Box::pin(failed_started(bed))
    }),
    case("answer.unknown", &[], |bed| Box::pin(answer_unknown(bed))),
    case("answer.repeated", &[], |bed| Box::pin(answer_repeated(bed))),
];

/// Realises two, ends the first and lets it heal.
async fn one_healed(bed: &Bed<'_>) -> Result<(Opened, Vec<Running>, Vec<Running>), Stop> {
    let opened = bed.open().await?;
    let spec = bed.spec(2)?;
    realised(&opened, 1, &spec).await?;
    let before = started(&*opened.underverse, &horde()?, 2).await?;
    bed.ground.remove(&before[0]).await?;
    let after = healed(&opened, 1, &spec, &before[0]).await?;
    Ok((opened, before, after))
}

async fn first(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    realised(&opened, 1, &bed.spec(2)?).await?;
    let running = started(&*opened.underverse, &horde()?, 2).await?;
    let told = events(&*opened.underverse, None).await?;
    for one in running {
        let id = one.id.to_string();
        let shown = told.iter().any(|event| {
            event.subject == one.label
                && event.kind
                    == EventKind::ContainerStarted {
                        container: id.clone(),
                        replaces: None,
                    }
        });
        ensure(shown, || format!("no event tells that {id} was started"))?;
    }
    Ok(())
}

async fn live(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let mut stream = opened.underverse.events(&horde()?, None);
    let wait = async {
        while let Some(event) = stream.next().await {
            if matches!(event.kind, EventKind::ContainerStarted { .. }) {
                return true;
            }
        }
        false
    };
    let spec = bed.spec(1)?;
    let (arrived, made) = futures_util::future::join(
        tokio::time::timeout(ARRIVAL_MAX, wait),
        realised(&opened, 1, &spec),
    )
    .await;
    made?;
    ensure(arrived == Ok(true), || {
        "a stream held from before told nothing of the start".to_owned()
    })
}

async fn order(bed: &Bed<'_>) -> Judged {
    let (opened, ..) = one_healed(bed).await?;
    let told = events(&*opened.underverse, None).await?;
    ensure(told.len() >= 4, || format!("only {} events", told.len()))?;
    ensure(told.is_sorted_by_key(|event| event.id), || {
        "ids are out of order".to_owned()
    })?;
    let horde = horde()?;
    ensure(told.iter().all(|event| event.horde == horde), || {
        "an event of another horde".to_owned()
    })?;
    let again = events(&*opened.underverse, None).await?;
    let same = told.iter().all(|event| again.contains(event));
    ensure(same, || {
        "told again, an event has another id or text".to_owned()
    })
}

async fn resume(bed: &Bed<'_>) -> Judged {
    let (opened, ..) = one_healed(bed).await?;
    let all = events(&*opened.underverse, None).await?;
    for (at, event) in all.iter().enumerate() {
        let rest = events(&*opened.underverse, Some(event.id)).await?;
        ensure(rest == all[at + 1..], || {
            format!(
                "after {} come {} events and not {}",
                event.id,
                rest.len(),
                all.len() - at - 1
            )
        })?;
    }
    Ok(())
}

async fn lasting(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    realised(&opened, 1, &bed.spec(2)?).await?;
    started(&*opened.underverse, &horde()?, 2).await?;
    let told = events(&*opened.underverse, None).await?;
    let opened = bed.restart(opened).await?;
    let later = events(&*opened.underverse, None).await?;
    ensure(!told.is_empty() && later.starts_with(&told), || {
        format!(
            "{} events, of which a new process tells {}",
            told.len(),
            later.len()
        )
    })?;
    let since = told.first().map(|event| event.id);
    let rest = events(&*opened.underverse, since).await?;
    ensure(rest.len() + 1 == later.len(), || {
        "a consumer that comes back misses some".to_owned()
    })
}

fn failure_of<'a>(told: &'a [UnderverseEvent], id: &str) -> Option<(usize, &'a str)> {
    told.iter()
        .enumerate()
        .find_map(|(at, event)| match &event.kind {
            EventKind::ContainerFailed { container, reason } if container == id => {
                Some((at, reason.as_str()))
            }
            _ => None,
        })
}

async fn exit(bed: &Bed<'_>) -> Judged {
    let (opened, before, _) = one_healed(bed).await?;
    let told = events(&*opened.underverse, None).await?;
    let (_, reason) = failure_of(&told, before[0].id.as_str())
        .ok_or_else(|| Stop::Failed("no event tells of it".to_owned()))?;
    let says = reason.contains("signal") || reason.contains("code");
    ensure(says, || format!("neither exit code nor signal: {reason:?}"))
}

async fn failed_started(bed: &Bed<'_>) -> Judged {
    let (opened, before, after) = one_healed(bed).await?;
    let told = events(&*opened.underverse, None).await?;
    let (failed, _) = failure_of(&told, before[0].id.as_str())
        .ok_or_else(|| Stop::Failed("no ContainerFailed".to_owned()))?;
    let replaced = told.iter().position(|event| {
        event.kind
            == EventKind::ContainerStarted {
                container: after[0].id.to_string(),
                replaces: Some(before[0].id.to_string()),
            }
    });
    ensure(replaced.is_some_and(|at| at > failed), || {
        "no ContainerStarted with both ids after it".to_owned()
    })
}

async fn answer_unknown(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    realised(&opened, 1, &bed.spec(1)?).await?;
    fails(
        opened
            .underverse
            .answer(&horde()?, EventId(u64::MAX), Reply::Ack)
            .await,
        Kind::NotFound,
    )
    .map(drop)
}

/// Answering again is accepted, by another process too; where maintenance is answered, `answer.rolling` shows which counts.
async fn answer_repeated(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    realised(&opened, 1, &bed.spec(1)?).await?;
    started(&*opened.underverse, &horde()?, 1).await?;
    let told = events(&*opened.underverse, None).await?;
    let event = told
        .first()
        .ok_or_else(|| Stop::Failed("there is no event to answer".to_owned()))?
        .id;
    let policy = Reply::Maintenance(MaintenancePolicy::Staged);
    opened.underverse.answer(&horde()?, event, policy).await?;
    opened
        .underverse
        .answer(&horde()?, event, Reply::Ack)
        .await?;
    let opened = bed.restart(opened).await?;
    Ok(opened
        .underverse
        .answer(&horde()?, event, Reply::Ack)
        .await?)
}
