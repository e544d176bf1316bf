//! Ending a horde.

use underverse::{End, Keep, Kind, Protocol};

use crate::bed::{Bed, dissolve, dissolved, done, horde, listed, realised, refused, started, word};
use crate::case::{Case, Judged, case, ensure};
use crate::refusal::door;

pub(super) const CASES: &[Case] = &[
    case("dissolve.nothing-left", &[], |bed| {
        Box::pin(nothing_left(bed))
    }),
    case("dissolve.adopted", &[], |bed| Box::pin(adopted(bed))),
    case("dissolve.unknown", &[], |bed| Box::pin(unknown(bed))),
    case("dissolve.lower-generation", &[], |bed| Box::pin(lower(bed))),
];

async fn nothing_left(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let before = bed.inventory().await?;
    let mut spec = bed.spec(3)?;
    if bed.has(underverse::Capability::ExposeTcp) {
        spec.network.ports.push(door(Protocol::Tcp)?);
    }
    realised(&opened, 1, &spec).await?;
    started(&*opened.underverse, &horde()?, 3).await?;
    bed.leaves_nothing(&opened, 2, &before).await?;
    let names = opened.underverse.list().await?;
    ensure(names.is_empty(), || {
        format!("still listed: {}", listed(&names))
    })?;
    started(&*opened.underverse, &horde()?, 0).await.map(drop)
}

async fn adopted(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let before = bed.inventory().await?;
    realised(&opened, 1, &bed.spec(2)?).await?;
    let opened = bed.restart(opened).await?;
    bed.leaves_nothing(&opened, 1, &before).await
}

async fn unknown(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let made = bed.mutations().await?;
    done(
        "dissolve",
        dissolve(&opened, 1, &horde()?, Keep::Nothing).await,
    )?;
    realised(&opened, 2, &bed.spec(1)?).await?;
    for generation in [3, 3] {
        dissolved(&opened, generation, &horde()?).await?;
    }
    ensure(bed.mutations().await? >= made, || {
        "calls went backwards".to_owned()
    })
}

async fn lower(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    realised(&opened, 5, &bed.spec(1)?).await?;
    let end = dissolve(&opened, 4, &horde()?, Keep::Nothing).await;
    ensure(matches!(end, End::Refused(_)), || {
        format!("ended {}", word(&end))
    })?;
    refused(end, Kind::Stale)?;
    started(&*opened.underverse, &horde()?, 1).await.map(drop)
}
