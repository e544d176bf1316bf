//! Death of the backend at every mutating call, one after the other, and what the next process makes of it.

use underverse::{Capability as C, Generation, HordeSpec, Keep, finish};

use crate::bed::{Bed, DEADLINE, dissolved, horde, ids, listed, realised, started};
use crate::case::{Case, Judged, Stop, case, ensure};
use crate::fixture::{Disturbance, Opened};

/// Most mutating calls of one pass here; more means that it does not end.
const CALLS_MAX: u64 = 200;

pub(super) const CASES: &[Case] = &[
    case("realise.interrupted", &[C::Adopt], |bed| {
        Box::pin(realise_interrupted(bed))
    }),
    case("realise.adopts", &[C::Adopt], |bed| Box::pin(adopts(bed))),
    case("dissolve.interrupted", &[C::Adopt], |bed| {
        Box::pin(dissolve_interrupted(bed))
    }),
    case("list.leftover", &[], |bed| Box::pin(leftover(bed))),
];

/// Which pass is killed.
#[derive(Clone, Copy)]
enum Pass<'a> {
    Realise(&'a HordeSpec),
    Dissolve,
}

/// Runs a pass until it ends or hangs at its call number `call`, then kills the backend there. Says whether it hung.
async fn killed_at(bed: &Bed<'_>, opened: Opened, pass: Pass<'_>, call: u64) -> Result<bool, Stop> {
    bed.ground.disturb(Disturbance::HangAt(call)).await?;
    let name = horde()?;
    let hung = {
        let generation = Generation::of_document(2);
        let stream = match pass {
            Pass::Realise(spec) => opened.underverse.realise(generation, spec, DEADLINE),
            Pass::Dissolve => opened.underverse.dissolve(generation, &name, Keep::Nothing),
        };
        tokio::select! {
            _ = finish(stream) => false,
            () = bed.ground.hung() => {
                // Killed while its pass still stands there; what is linked in ends when the stream is dropped.
                bed.ground.kill(&opened).await?;
                true
            }
        }
    };
    if !hung {
        bed.ground.kill(&opened).await?;
    }
    drop(opened);
    bed.ground.disturb(Disturbance::None).await?;
    Ok(hung)
}

/// How many objects there are after an undisturbed realise.
async fn objects_of(bed: &Bed<'_>, spec: &HordeSpec) -> Result<usize, Stop> {
    let bed = bed.another().await?;
    let opened = bed.open().await?;
    realised(&opened, 2, spec).await?;
    started(&*opened.underverse, &spec.name, spec.count() as usize).await?;
    Ok(bed.inventory().await?.len())
}

async fn realise_interrupted(bed: &Bed<'_>) -> Judged {
    let spec = bed.spec(2)?;
    let wanted = objects_of(bed, &spec).await?;
    for call in 1..CALLS_MAX {
        let bed = bed.another().await?;
        let before = bed.inventory().await?;
        if !killed_at(&bed, bed.open().await?, Pass::Realise(&spec), call).await? {
            return ensure(call > 2, || {
                format!("only {} calls to be killed at", call - 1)
            });
        }
        let opened = bed.open().await?;
        realised(&opened, 2, &spec)
            .await
            .map_err(|stop| at(call, stop))?;
        started(&*opened.underverse, &spec.name, 2)
            .await
            .map_err(|stop| at(call, stop))?;
        let there = bed.inventory().await?;
        ensure(there.len() == wanted, || {
            format!(
                "killed at call {call}: {wanted} objects would do: {}",
                listed(&there)
            )
        })?;
        let made = bed.mutations().await?;
        realised(&opened, 2, &spec).await?;
        ensure(bed.mutations().await? == made, || {
            format!("killed at call {call}: it does not come to rest")
        })?;
        bed.leaves_nothing(&opened, 3, &before)
            .await
            .map_err(|stop| at(call, stop))?;
    }
    Err(Stop::Failed(format!("more than {CALLS_MAX} calls")))
}

async fn dissolve_interrupted(bed: &Bed<'_>) -> Judged {
    for call in 1..CALLS_MAX {
        let bed = bed.another().await?;
        let (before, opened) = (bed.inventory().await?, bed.open().await?);
        realised(&opened, 1, &bed.spec(2)?).await?;
        if !killed_at(&bed, opened, Pass::Dissolve, call).await? {
            return ensure(call > 1, || "no call to be killed at".to_owned());
        }
        let opened = bed.open().await?;
        bed.leaves_nothing(&opened, 2, &before)
            .await
            .map_err(|stop| at(call, stop))?;
        let left = opened.underverse.list().await?;
        ensure(left.is_empty(), || {
            format!("killed at call {call}: still listed: {}", listed(&left))
        })?;
    }
    Err(Stop::Failed(format!("more than {CALLS_MAX} calls")))
}

async fn leftover(bed: &Bed<'_>) -> Judged {
    let spec = bed.spec(2)?;
    for dissolving in [false, true] {
        for call in 1..CALLS_MAX {
            let bed = bed.another().await?;
            let (before, opened) = (bed.inventory().await?, bed.open().await?);
            let pass = if dissolving {
                Pass::Dissolve
            } else {
                Pass::Realise(&spec)
            };
            if dissolving {
                realised(&opened, 1, &spec).await?;
            }
            let hung = killed_at(&bed, opened, pass, call).await?;
            let opened = bed.open().await?;
            let (left, listed_now) = (bed.inventory().await?, opened.underverse.list().await?);
            ensure(left == before || listed_now == [horde()?], || {
                format!(
                    "killed at call {call}, {} is left, and not listed",
                    listed(left.difference(&before))
                )
            })?;
            dissolved(&opened, 3, &horde()?).await?;
            if !hung {
                break;
            }
        }
    }
    Ok(())
}

async fn adopts(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let spec = bed.spec(3)?;
    realised(&opened, 1, &spec).await?;
    let first = started(&*opened.underverse, &spec.name, 3).await?;
    let made = bed.mutations().await?;
    let opened = bed.restart(opened).await?;
    realised(&opened, 1, &spec).await?;
    let after = started(&*opened.underverse, &spec.name, 3).await?;
    ensure(ids(&after) == ids(&first), || {
        format!("{} became {}", listed(ids(&first)), listed(ids(&after)))
    })?;
    ensure(bed.mutations().await? == made, || {
        "adopting made mutating calls".to_owned()
    })
}

fn at(call: u64, stop: Stop) -> Stop {
    match stop {
        Stop::Failed(reason) => Stop::Failed(format!("killed at call {call}: {reason}")),
        Stop::Skipped(reason) => Stop::Skipped(reason),
    }
}
