//! Changing the count, losing a container, obtaining a part.

use underverse::{Capability as C, End};

use crate::bed::{Bed, healed, horde, ids, listed, realise, realised, started, word};
use crate::case::{Case, Judged, Stop, case, ensure};
use crate::fixture::Disturbance;

/// Mutating calls among which one is sought whose failure leaves a part.
const CALLS_MAX: u64 = 100;

pub(super) const CASES: &[Case] = &[
    case("realise.resize", &[C::Resize], |bed| Box::pin(grow(bed))),
    case("realise.shrink", &[C::Resize], |bed| Box::pin(shrink(bed))),
    case("realise.none", &[C::Resize], |bed| Box::pin(none(bed))),
    case("realise.partial", &[], |bed| Box::pin(partial(bed))),
    case("realise.partial-completed", &[], |bed| {
        Box::pin(partial_completed(bed))
    }),
    case("realise.heals", &[C::Heal], |bed| Box::pin(heals(bed))),
    case("realise.heals-id", &[C::Heal], |bed| {
        Box::pin(heals_id(bed))
    }),
    case("realise.heals-only", &[C::Heal], |bed| {
        Box::pin(heals_only(bed))
    }),
];

async fn grow(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    realised(&opened, 1, &bed.spec(2)?).await?;
    let first = started(&*opened.underverse, &horde()?, 2).await?;
    realised(&opened, 2, &bed.spec(4)?).await?;
    let after = started(&*opened.underverse, &horde()?, 4).await?;
    ensure(ids(&after)[..2] == ids(&first), || {
        format!("{} became {}", listed(ids(&first)), listed(ids(&after)))
    })
}

async fn shrink(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    realised(&opened, 1, &bed.spec(4)?).await?;
    let first = started(&*opened.underverse, &horde()?, 4).await?;
    realised(&opened, 2, &bed.spec(2)?).await?;
    let after = started(&*opened.underverse, &horde()?, 2).await?;
    ensure(ids(&after) == ids(&first)[..2], || {
        format!("{} became {}", listed(ids(&first)), listed(ids(&after)))
    })?;
    let below = bed.inventory().await?.len();
    let fresh = bed.another().await?;
    realised(&fresh.open().await?, 1, &bed.spec(2)?).await?;
    let wanted = fresh.inventory().await?.len();
    ensure(below == wanted, || {
        format!("{below} objects below where {wanted} would do")
    })
}

async fn none(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    realised(&opened, 1, &bed.spec(2)?).await?;
    realised(&opened, 2, &bed.spec(0)?).await?;
    started(&*opened.underverse, &horde()?, 0).await?;
    realised(&opened, 3, &bed.spec(1)?).await?;
    started(&*opened.underverse, &horde()?, 1).await.map(drop)
}

/// Finds a call whose failure leaves a part; returns the ground with it, its end checked.
async fn parted<'f>(bed: &Bed<'f>) -> Result<Bed<'f>, Stop> {
    for call in 2..CALLS_MAX {
        let bed = bed.another().await?;
        let opened = bed.open().await?;
        bed.ground.disturb(Disturbance::FailAt(call)).await?;
        let end = realise(&opened, 1, &bed.spec(3)?).await;
        bed.ground.disturb(Disturbance::None).await?;
        match end {
            End::Partial(effective, failures) => {
                let names: Vec<&str> = failures
                    .iter()
                    .map(|failure| failure.subject.as_str())
                    .collect();
                ensure(
                    !names.is_empty() && names.iter().all(|name| !name.is_empty()),
                    || "no part is named".to_owned(),
                )?;
                let running = opened.underverse.running(&horde()?).await?;
                let gone = running.iter().find(|one| {
                    one.state == underverse::RunningState::Started
                        && names.contains(&one.label.as_str())
                });
                ensure(gone.is_none(), || {
                    "a part is named as missing that runs".to_owned()
                })?;
                if effective.missing() < 3 {
                    return Ok(bed);
                }
            }
            End::Done(_) => {
                return Err(Stop::Failed(
                    "no failed call leaves a part that is told as one".to_owned(),
                ));
            }
            End::Refused(_) | End::Unknown(_) => {}
        }
    }
    Err(Stop::Failed(format!(
        "none of {CALLS_MAX} calls failed so that a part was obtained"
    )))
}

async fn partial(bed: &Bed<'_>) -> Judged {
    let parted = parted(bed).await?;
    let opened = parted.open().await?;
    let running = opened.underverse.running(&horde()?).await?;
    let stays = running
        .iter()
        .filter(|one| one.state == underverse::RunningState::Started)
        .count();
    ensure(stays > 0, || "nothing of what succeeded stayed".to_owned())
}

async fn partial_completed(bed: &Bed<'_>) -> Judged {
    let parted = parted(bed).await?;
    let opened = parted.open().await?;
    let before = opened.underverse.running(&horde()?).await?;
    let end = realise(&opened, 1, &parted.spec(3)?).await;
    ensure(end.is_done(), || {
        format!("the next call ended {}", word(&end))
    })?;
    let after = ids(&started(&*opened.underverse, &horde()?, 3).await?);
    let stays = before
        .iter()
        .filter(|one| one.state == underverse::RunningState::Started);
    let lost = stays
        .map(|one| one.id.to_string())
        .find(|id| !after.contains(id));
    ensure(lost.is_none(), || {
        format!("{} was replaced", lost.unwrap_or_default())
    })
}

async fn heals(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let spec = bed.spec(2)?;
    realised(&opened, 1, &spec).await?;
    let first = started(&*opened.underverse, &horde()?, 2).await?;
    let whole = bed.settled().await?;
    bed.ground.remove(&first[0]).await?;
    healed(&opened, 1, &spec, &first[0]).await?;
    let after = bed.settled().await?;
    ensure(after == whole, || {
        format!("{after} objects where there were {whole}")
    })
}

async fn heals_id(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let spec = bed.spec(2)?;
    realised(&opened, 1, &spec).await?;
    let first = started(&*opened.underverse, &horde()?, 2).await?;
    bed.ground.remove(&first[1]).await?;
    let after = healed(&opened, 1, &spec, &first[1]).await?;
    ensure(after[1].id != first[1].id, || {
        "the id was used again".to_owned()
    })?;
    let same = (after[1].ordinal, &after[1].label) == (first[1].ordinal, &first[1].label);
    ensure(same, || {
        format!("{} became {}", first[1].label, after[1].label)
    })
}

async fn heals_only(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let spec = bed.spec(3)?;
    realised(&opened, 1, &spec).await?;
    let first = started(&*opened.underverse, &horde()?, 3).await?;
    bed.ground.remove(&first[1]).await?;
    let after = healed(&opened, 1, &spec, &first[1]).await?;
    for at in [0, 2] {
        ensure(after[at].id == first[at].id, || {
            format!("{} was replaced too", first[at].label)
        })?;
    }
    Ok(())
}
