//! A horde's whole life, and two hordes beside each other.

use underverse::Capability as C;

use crate::bed::{Bed, dissolved, healed, horde, ids, listed, realised, started};
use crate::case::{Case, Judged, case, ensure};

pub(super) const CASES: &[Case] = &[
    case("life.cycle", &[], |bed| Box::pin(cycle(bed))),
    case("life.beside", &[], |bed| Box::pin(beside(bed))),
];

async fn cycle(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let (before, spec, name) = (bed.inventory().await?, bed.spec(3)?, horde()?);
    let effective = realised(&opened, 1, &spec).await?;
    let first = started(&*opened.underverse, &name, 3).await?;
    let made = bed.mutations().await?;
    realised(&opened, 1, &spec).await?;
    let again = bed.mutations().await?;
    ensure(again == made, || {
        format!("the second realise made {} mutating calls", again - made)
    })?;
    let mut opened = bed.restart(opened).await?;
    if bed.has(C::Adopt) {
        let adopted = realised(&opened, 1, &spec).await?;
        let running = started(&*opened.underverse, &name, 3).await?;
        ensure(adopted == effective, || {
            "adopting it tells another result than realising it".to_owned()
        })?;
        ensure(ids(&running) == ids(&first), || {
            format!(
                "adopted {} for {}",
                listed(ids(&running)),
                listed(ids(&first))
            )
        })?;
        ensure(bed.mutations().await? == made, || {
            "adopting made mutating calls".to_owned()
        })?;
    }
    if bed.has(C::Heal) {
        bed.ground.remove(&first[1]).await?;
        let mended = healed(&opened, 1, &spec, &first[1]).await?;
        ensure(mended.len() == 3, || "it did not mend".to_owned())?;
        opened = bed.restart(opened).await?;
    }
    bed.leaves_nothing(&opened, 2, &before).await
}

async fn beside(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let (one, mut other) = (bed.spec(2)?, bed.spec_named("beside", 2)?);
    realised(&opened, 1, &one).await?;
    let first = started(&*opened.underverse, &one.name, 2).await?;
    realised(&opened, 1, &other).await?;
    started(&*opened.underverse, &other.name, 2).await?;
    other.execables[0].count = 1;
    realised(&opened, 2, &other).await?;
    dissolved(&opened, 3, &other.name).await?;
    let after = started(&*opened.underverse, &one.name, 2).await?;
    ensure(ids(&after) == ids(&first), || {
        format!("{} became {}", listed(ids(&first)), listed(ids(&after)))
    })?;
    let left = opened.underverse.list().await?;
    ensure(left == [one.name.clone()], || {
        format!("listed: {}", listed(&left))
    })
}
