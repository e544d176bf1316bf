//! What is told of hordes: running containers, the effective spec, the list.

use std::collections::BTreeSet;

use underverse::{Capability as C, Kind};

use crate::bed::{Bed, dissolved, fails, horde, ids, listed, realised, started};
use crate::case::{Case, Judged, case, ensure};

pub(super) const CASES: &[Case] = &[
    case("running.ids", &[], |bed| Box::pin(unique(bed))),
    case("running.never-again", &[], |bed| Box::pin(never_again(bed))),
    case("running.order", &[], |bed| Box::pin(order(bed))),
    case("running.generation", &[C::Resize], |bed| {
        Box::pin(generation(bed))
    }),
    case("running.unknown", &[], |bed| Box::pin(unknown(bed))),
    case("effective.counts", &[], |bed| Box::pin(counts(bed))),
    case("effective.generation", &[], |bed| {
        Box::pin(effective_generation(bed))
    }),
    case("effective.unknown", &[], |bed| {
        Box::pin(effective_unknown(bed))
    }),
    case("list.sorted", &[], |bed| Box::pin(list_sorted(bed))),
    case("list.from-below", &[], |bed| Box::pin(list_from_below(bed))),
];

async fn unique(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let (one, other) = (bed.spec(3)?, bed.spec_named("other", 2)?);
    let mut all = Vec::new();
    for spec in [&one, &other] {
        realised(&opened, 1, spec).await?;
        all.extend(ids(&started(
            &*opened.underverse,
            &spec.name,
            spec.count() as usize,
        )
        .await?));
    }
    let distinct: BTreeSet<&String> = all.iter().collect();
    ensure(distinct.len() == 5, || {
        format!("an id is told twice: {}", listed(&all))
    })
}

async fn never_again(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let mut seen = BTreeSet::new();
    for round in 0..3 {
        realised(&opened, round * 2 + 1, &bed.spec(2)?).await?;
        for id in ids(&started(&*opened.underverse, &horde()?, 2).await?) {
            ensure(seen.insert(id.clone()), || format!("{id} was used again"))?;
        }
        dissolved(&opened, round * 2 + 2, &horde()?).await?;
    }
    Ok(())
}

async fn order(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let mut spec = bed.spec(2)?;
    spec.execables.push(bed.execable("wizard", 2)?);
    realised(&opened, 1, &spec).await?;
    let running = started(&*opened.underverse, &horde()?, 4).await?;
    let ordinals: Vec<u32> = running.iter().map(|one| one.ordinal).collect();
    ensure(ordinals == [1, 2, 3, 4], || {
        format!("ordinals: {}", listed(&ordinals))
    })?;
    let labels: BTreeSet<&str> = running.iter().map(|one| one.label.as_str()).collect();
    ensure(labels.len() == 4, || format!("labels: {}", listed(&labels)))
}

async fn generation(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    realised(&opened, 3, &bed.spec(1)?).await?;
    realised(&opened, 8, &bed.spec(2)?).await?;
    let running = started(&*opened.underverse, &horde()?, 2).await?;
    let told: Vec<u64> = running.iter().map(|one| one.generation.document).collect();
    ensure(told == [3, 8], || {
        format!("generations {} and not 3, 8", listed(&told))
    })
}

async fn unknown(bed: &Bed<'_>) -> Judged {
    let running = bed.open().await?.underverse.running(&horde()?).await?;
    ensure(running.is_empty(), || {
        "a horde that is not there has containers".to_owned()
    })
}

async fn counts(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let mut spec = bed.spec(2)?;
    spec.execables.push(bed.execable("wizard", 1)?);
    realised(&opened, 1, &spec).await?;
    let first = started(&*opened.underverse, &horde()?, 3).await?;
    let effective = opened.underverse.effective(&horde()?).await?;
    let roles: Vec<(&str, u32, u32)> = effective
        .roles
        .iter()
        .map(|role| (role.role.as_str(), role.wanted, role.obtained))
        .collect();
    ensure(roles == [("hobbit", 2, 2), ("wizard", 1, 1)], || {
        format!("told: {roles:?}")
    })?;
    bed.ground.remove(&first[0]).await?;
    for _ in 0..200 {
        let effective = opened.underverse.effective(&horde()?).await?;
        if let Some(reason) = effective
            .roles
            .first()
            .and_then(|role| role.shortfall.as_ref())
        {
            return ensure(effective.missing() == 1 && !reason.is_empty(), || {
                "a shortfall without reason".to_owned()
            });
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    ensure(false, || {
        "one of two is gone, and no shortfall is told".to_owned()
    })
}

async fn effective_generation(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    for generation in [1, 4] {
        let ended = realised(&opened, generation, &bed.spec(1)?)
            .await?
            .generation
            .document;
        let told = opened
            .underverse
            .effective(&horde()?)
            .await?
            .generation
            .document;
        ensure((ended, told) == (generation, generation), || {
            format!("{generation} was carried out, {told} is told")
        })?;
    }
    Ok(())
}

async fn effective_unknown(bed: &Bed<'_>) -> Judged {
    fails(
        bed.open().await?.underverse.effective(&horde()?).await,
        Kind::NotFound,
    )
    .map(drop)
}

async fn list_sorted(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    for name in ["zorn", "amon", "moria"] {
        realised(&opened, 1, &bed.spec_named(name, 1)?).await?;
    }
    let names: Vec<String> = opened
        .underverse
        .list()
        .await?
        .iter()
        .map(ToString::to_string)
        .collect();
    ensure(names == ["amon", "moria", "zorn"], || {
        format!("listed: {}", listed(&names))
    })
}

async fn list_from_below(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let empty = opened.underverse.list().await?;
    ensure(empty.is_empty(), || {
        format!("on a fresh ground: {}", listed(&empty))
    })?;
    realised(&opened, 1, &bed.spec(1)?).await?;
    let opened = bed.restart(opened).await?;
    let names = opened.underverse.list().await?;
    ensure(names == [horde()?], || {
        format!("a new process lists: {}", listed(&names))
    })
}
