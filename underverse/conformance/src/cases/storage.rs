//! Storage of a horde: what is allotted, where, for how long.

use std::sync::Arc;

use underverse::{
    ByteCount, Capability as C, Exposed, HordeSpec, Keep, Kind, StorageExposure, StorageKind,
    UnderverseAdmin,
};

use crate::bed::{
    Bed, dissolve, dissolved, done, healed, horde, realise, realised, refused, started, told,
};
use crate::case::{Case, Judged, Stop, case, ensure, skip};
use crate::fixture::Opened;
use crate::refusal::with_storage;

const TREES: &[C] = &[C::FileTrees];
/// A file that containers write.
const NOTE: &str = "/data/note";

pub(super) const CASES: &[Case] = &[
    case("storage.nothing-before", TREES, |bed| {
        Box::pin(nothing_before(bed))
    }),
    case("storage.properties", TREES, |bed| Box::pin(properties(bed))),
    case("storage.exhausted", TREES, |bed| Box::pin(exhausted(bed))),
    case("storage.mounted", TREES, |bed| Box::pin(mounted(bed))),
    case("storage.persists", &[C::FileTrees, C::Heal], |bed| {
        Box::pin(persists(bed))
    }),
    case("storage.shared", TREES, |bed| Box::pin(shared(bed))),
    case("storage.thin", TREES, |bed| Box::pin(thin(bed))),
    case("storage.resized", &[C::FileTrees, C::Resize], |bed| {
        Box::pin(resized(bed))
    }),
    case("storage.freed", TREES, |bed| Box::pin(freed(bed))),
    case("storage.kept", TREES, |bed| Box::pin(kept(bed))),
];

pub(super) fn admin(opened: &Opened) -> Result<Arc<dyn UnderverseAdmin>, Stop> {
    opened
        .admin
        .clone()
        .map_or_else(|| skip("this backend has no administrator's face"), Ok)
}

/// Offer number `number` of the ground, with tags as given.
pub(super) fn offer(bed: &Bed<'_>, number: u32, tags: &[&str]) -> Result<StorageExposure, Stop> {
    let Some(mut exposure) = bed.ground.exposure(number) else {
        return skip("this ground has no storage to expose");
    };
    exposure.tags = tags.iter().map(|&tag| tag.to_owned()).collect();
    Ok(exposure)
}

/// A backend to which one offer was made.
pub(super) async fn exposed(
    bed: &Bed<'_>,
    tags: &[&str],
) -> Result<(Opened, StorageExposure), Stop> {
    let opened = bed.open().await?;
    let exposure = offer(bed, 0, tags)?;
    admin(&opened)?.expose(exposure.clone()).await?;
    Ok((opened, exposure))
}

fn tree(bed: &Bed<'_>, count: u32, properties: &[&str]) -> Result<HordeSpec, Stop> {
    Ok(with_storage(
        bed.spec(count)?,
        StorageKind::FileTree,
        properties,
    ))
}

async fn allotted(opened: &Opened) -> Result<ByteCount, Stop> {
    let exposures: Vec<Exposed> = admin(opened)?.exposures().await?;
    Ok(ByteCount::bytes(
        exposures.iter().map(|one| one.allotted.get()).sum(),
    ))
}

fn same(found: ByteCount, wanted: ByteCount) -> Judged {
    ensure(found == wanted, || {
        format!("{found} is allotted, and not {wanted}")
    })
}

async fn nothing_before(bed: &Bed<'_>) -> Judged {
    let (opened, _) = exposed(bed, &[]).await?;
    let spec = tree(bed, 2, &[])?;
    opened
        .underverse
        .plan(underverse::Generation::of_document(1), &spec)
        .await?;
    same(allotted(&opened).await?, ByteCount::bytes(0))?;
    realised(&opened, 1, &spec).await?;
    same(allotted(&opened).await?, ByteCount::megabytes(16))
}

async fn properties(bed: &Bed<'_>) -> Judged {
    let (opened, plain) = exposed(bed, &[]).await?;
    let fast = offer(bed, 1, &["fast", "robust"])?;
    ensure(plain.source != fast.source, || {
        "the ground offers one source twice".to_owned()
    })?;
    admin(&opened)?.expose(fast.clone()).await?;
    let effective = realised(&opened, 1, &tree(bed, 2, &["fast"])?).await?;
    let wrong = effective
        .storage
        .iter()
        .find(|one| one.source != fast.source);
    ensure(effective.storage.len() == 2 && wrong.is_none(), || {
        format!("{:?}", effective.storage)
    })?;
    let running = started(&*opened.underverse, &horde()?, 2).await?;
    let elsewhere = running.iter().find(|one| one.server != fast.server);
    ensure(elsewhere.is_none(), || {
        "a container is not on the server of its storage".to_owned()
    })
}

async fn exhausted(bed: &Bed<'_>) -> Judged {
    let (opened, exposure) = exposed(bed, &[]).await?;
    if exposure.thin {
        return skip("the ground's storage is thin and has no limit");
    }
    let mut spec = tree(bed, 1, &[])?;
    spec.storage[0].capacity = ByteCount::bytes(u64::MAX / 4);
    let error = refused(realise(&opened, 1, &spec).await, Kind::Limit)?;
    let text = told(&error);
    let named = text.contains("/data") && text.contains(spec.storage[0].id.as_str());
    ensure(named, || format!("mount and request are not named: {text}"))?;
    same(allotted(&opened).await?, ByteCount::bytes(0))
}

async fn mounted(bed: &Bed<'_>) -> Judged {
    let (opened, _) = exposed(bed, &[]).await?;
    realised(&opened, 1, &tree(bed, 2, &[])?).await?;
    let running = started(&*opened.underverse, &horde()?, 2).await?;
    bed.ground.write_inside(&running[0], NOTE, "mine").await?;
    let mine = bed.ground.read_inside(&running[0], NOTE).await?;
    ensure(mine.as_deref() == Some("mine"), || {
        format!("written, and read as {mine:?}")
    })?;
    let other = bed.ground.read_inside(&running[1], NOTE).await?;
    ensure(other.is_none(), || {
        "what is not shared is seen by another".to_owned()
    })
}

async fn persists(bed: &Bed<'_>) -> Judged {
    let (opened, _) = exposed(bed, &[]).await?;
    let spec = tree(bed, 1, &[])?;
    realised(&opened, 1, &spec).await?;
    let running = started(&*opened.underverse, &horde()?, 1).await?;
    bed.ground.write_inside(&running[0], NOTE, "kept").await?;
    bed.ground.remove(&running[0]).await?;
    let after = healed(&opened, 1, &spec, &running[0]).await?;
    let found = bed.ground.read_inside(&after[0], NOTE).await?;
    ensure(found.as_deref() == Some("kept"), || {
        format!("started again, it reads {found:?}")
    })
}

async fn shared(bed: &Bed<'_>) -> Judged {
    let (opened, _) = exposed(bed, &["shared"]).await?;
    realised(&opened, 1, &tree(bed, 2, &["shared"])?).await?;
    same(allotted(&opened).await?, ByteCount::megabytes(8))?;
    let running = started(&*opened.underverse, &horde()?, 2).await?;
    bed.ground.write_inside(&running[0], NOTE, "ours").await?;
    let found = bed.ground.read_inside(&running[1], NOTE).await?;
    ensure(found.as_deref() == Some("ours"), || {
        format!("the other reads {found:?}")
    })
}

async fn thin(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let mut exposure = offer(bed, 0, &[])?;
    exposure.thin = true;
    admin(&opened)?.expose(exposure).await?;
    let effective = realised(&opened, 1, &tree(bed, 1, &[])?).await?;
    same(allotted(&opened).await?, ByteCount::megabytes(8))?;
    let weak = effective
        .storage
        .iter()
        .all(|one| one.size.reason().is_some());
    ensure(!effective.storage.is_empty() && weak, || {
        "sizes on a thin exposure are told as enforced".to_owned()
    })
}

async fn resized(bed: &Bed<'_>) -> Judged {
    let (opened, _) = exposed(bed, &[]).await?;
    realised(&opened, 1, &tree(bed, 3, &[])?).await?;
    same(allotted(&opened).await?, ByteCount::megabytes(24))?;
    realised(&opened, 2, &tree(bed, 1, &[])?).await?;
    same(allotted(&opened).await?, ByteCount::megabytes(8))
}

async fn freed(bed: &Bed<'_>) -> Judged {
    let (opened, _) = exposed(bed, &[]).await?;
    let before = bed.inventory().await?;
    realised(&opened, 1, &tree(bed, 2, &[])?).await?;
    bed.leaves_nothing(&opened, 2, &before).await?;
    same(allotted(&opened).await?, ByteCount::bytes(0))
}

async fn kept(bed: &Bed<'_>) -> Judged {
    let (opened, _) = exposed(bed, &[]).await?;
    let spec = tree(bed, 1, &[])?;
    realised(&opened, 1, &spec).await?;
    let running = started(&*opened.underverse, &horde()?, 1).await?;
    bed.ground.write_inside(&running[0], NOTE, "kept").await?;
    done(
        "dissolve",
        dissolve(&opened, 2, &horde()?, Keep::Storage).await,
    )?;
    same(allotted(&opened).await?, ByteCount::megabytes(8))?;
    realised(&opened, 3, &spec).await?;
    let running = started(&*opened.underverse, &horde()?, 1).await?;
    let found = bed.ground.read_inside(&running[0], NOTE).await?;
    ensure(found.as_deref() == Some("kept"), || {
        format!("realised again, it reads {found:?}")
    })?;
    dissolved(&opened, 4, &horde()?).await?;
    same(allotted(&opened).await?, ByteCount::bytes(0))
}
