//! Making a horde be as asked, and refusing what cannot be.

use std::time::Duration;

use underverse::{
    Capability as C, End, Generation, Kind, Mount, MountSource, Protocol, ServerSpec, StorageKind,
    Tag, TagRule, finish,
};

use crate::bed::{
    Bed, DEADLINE, dissolved, done, ends, horde, ids, listed, realise, realised, refused, started,
    told, word,
};
use crate::case::{Case, Judged, Stop, case, ensure, skip};
use crate::fixture::Disturbance;
use crate::refusal::{Asking, asking, door, with_storage};

pub(super) const CASES: &[Case] = &[
    case("realise.counts", &[], |bed| Box::pin(counts(bed))),
    case("realise.one-end", &[], |bed| Box::pin(one_end(bed))),
    case("realise.invalid", &[], |bed| Box::pin(invalid(bed))),
    case("realise.unchanged", &[], |bed| Box::pin(unchanged(bed))),
    case("realise.lower-generation", &[], |bed| Box::pin(lower(bed))),
    case("realise.lower-after-restart", &[], |bed| {
        Box::pin(lower_after_restart(bed))
    }),
    case("realise.lower-after-dissolve", &[], |bed| {
        Box::pin(lower_after_dissolve(bed))
    }),
    case("realise.concurrent", &[], |bed| Box::pin(concurrent(bed))),
    case("realise.changed", &[], |bed| Box::pin(changed(bed))),
    case("realise.shortfall", &[], |bed| Box::pin(shortfall(bed))),
    case("realise.storage", &[C::FileTrees], |bed| {
        Box::pin(storage(bed))
    }),
    case("realise.mount-missing", &[C::HostMounts], |bed| {
        Box::pin(mount_missing(bed))
    }),
    case("realise.weaker", &[], |bed| Box::pin(weaker(bed))),
    case("realise.tags", &[C::Tags], |bed| Box::pin(tags(bed))),
    case("realise.tags-unsatisfiable", &[], |bed| {
        Box::pin(tags_unsatisfiable(bed))
    }),
    case("realise.spread", &[C::Tags], |bed| Box::pin(spread(bed))),
    case("realise.deadline", &[], |bed| Box::pin(deadline(bed))),
];

async fn counts(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let mut spec = bed.spec(3)?;
    spec.execables.push(bed.execable("wizard", 2)?);
    realised(&opened, 1, &spec).await?;
    let running = started(&*opened.underverse, &horde()?, 5).await?;
    let wizards = running
        .iter()
        .filter(|one| one.role.as_str() == "wizard")
        .count();
    ensure(wizards == 2, || format!("{wizards} of 2 wizards"))?;
    let exist = bed.inventory().await?;
    ensure(exist.len() >= 5, || {
        format!("5 are told, and below there is: {}", listed(&exist))
    })
}

async fn one_end(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let spec = bed.spec(2)?;
    for generation in [1, 1, 0] {
        let stream =
            opened
                .underverse
                .realise(Generation::of_document(generation), &spec, DEADLINE);
        let (count, after) = ends(stream).await;
        ensure(count == 1 && !after, || {
            format!("{count} ends, and more after one: {after}")
        })?;
    }
    Ok(())
}

async fn invalid(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let before = bed.inventory().await?;
    let mut twice = bed.spec(1)?;
    twice.execables.push(twice.execables[0].clone());
    let mut relative = bed.spec(1)?;
    relative.execables[0].mounts.push(Mount {
        source: MountSource::Host("/etc".into()),
        target: "mnt".into(),
    });
    for spec in [twice, relative] {
        refused(realise(&opened, 1, &spec).await, Kind::Invalid)?;
        ensure(bed.inventory().await? == before, || {
            "refused, yet something was made".to_owned()
        })?;
    }
    Ok(())
}

async fn unchanged(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let spec = bed.spec(3)?;
    realised(&opened, 1, &spec).await?;
    started(&*opened.underverse, &horde()?, 3).await?;
    let made = bed.mutations().await?;
    for _ in 0..2 {
        realised(&opened, 1, &spec).await?;
        let again = bed.mutations().await?;
        ensure(again == made, || {
            format!("{} mutating calls for nothing", again - made)
        })?;
    }
    Ok(())
}

async fn lower(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    realised(&opened, 5, &bed.spec(1)?).await?;
    let made = bed.mutations().await?;
    refused(realise(&opened, 4, &bed.spec(2)?).await, Kind::Stale)?;
    ensure(bed.mutations().await? == made, || {
        "refused, yet something was changed".to_owned()
    })?;
    started(&*opened.underverse, &horde()?, 1).await.map(drop)
}

async fn lower_after_restart(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    realised(&opened, 5, &bed.spec(1)?).await?;
    let opened = bed.restart(opened).await?;
    refused(realise(&opened, 4, &bed.spec(2)?).await, Kind::Stale)?;
    started(&*opened.underverse, &horde()?, 1).await.map(drop)
}

async fn lower_after_dissolve(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    realised(&opened, 5, &bed.spec(1)?).await?;
    dissolved(&opened, 6, &horde()?).await?;
    let opened = bed.restart(opened).await?;
    refused(realise(&opened, 4, &bed.spec(1)?).await, Kind::Stale)?;
    realised(&opened, 7, &bed.spec(1)?).await.map(drop)
}

async fn concurrent(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let spec = bed.spec(3)?;
    let (one, other) =
        futures_util::future::join(realise(&opened, 1, &spec), realise(&opened, 1, &spec)).await;
    for end in [&one, &other] {
        ensure(!matches!(end, End::Refused(_)), || {
            format!("one of two ended {}", word(end))
        })?;
    }
    realised(&opened, 1, &spec).await?;
    let alone = bed.another().await?;
    let opened_alone = alone.open().await?;
    realised(&opened_alone, 1, &spec).await?;
    for opened in [&opened, &opened_alone] {
        started(&*opened.underverse, &horde()?, 3).await?;
    }
    let (twice, once) = (bed.settled().await?, alone.settled().await?);
    ensure(twice == once, || {
        format!("{twice} objects where {once} would do")
    })
}

async fn changed(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let mut spec = bed.spec(1)?;
    spec.execables.push(bed.execable("wizard", 1)?);
    realised(&opened, 1, &spec).await?;
    let first = started(&*opened.underverse, &horde()?, 2).await?;
    spec.execables[1]
        .env
        .insert("STAFF".to_owned(), "oak".to_owned());
    match realise(&opened, 2, &spec).await {
        End::Refused(error) if error.kind() == Kind::Unsupported => return skip(told(&error)),
        end => done("realise", end)?,
    };
    let after = started(&*opened.underverse, &horde()?, 2).await?;
    ensure(after[0].id == first[0].id, || {
        format!("{} was replaced without need", first[0].label)
    })?;
    ensure(after[1].id != first[1].id, || {
        format!("{} still runs as before", first[1].label)
    })
}

async fn shortfall(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let before = bed.inventory().await?;
    let error = refused(realise(&opened, 1, &bed.spec(u32::MAX)?).await, Kind::Limit)?;
    ensure(!error.message().is_empty(), || {
        "no reason is given".to_owned()
    })?;
    ensure(bed.inventory().await? == before, || {
        "refused, yet something was made".to_owned()
    })
}

async fn storage(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let before = bed.inventory().await?;
    let spec = with_storage(bed.spec(1)?, StorageKind::FileTree, &["no-such-property"]);
    let End::Refused(error) = realise(&opened, 1, &spec).await else {
        return Err(Stop::Failed(
            "storage that is not there is not refused".to_owned(),
        ));
    };
    let text = told(&error);
    for part in ["/data", spec.storage[0].id.as_str()] {
        ensure(text.contains(part), || {
            format!("{part} is not named: {text}")
        })?;
    }
    ensure(bed.inventory().await? == before, || {
        "refused, yet something was made".to_owned()
    })
}

async fn mount_missing(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let mut spec = bed.spec(1)?;
    let mount = Mount {
        source: MountSource::Host("/no/such/directory".into()),
        target: "/mnt/x".into(),
    };
    spec.execables[0].mounts.push(mount);
    let error = refused(realise(&opened, 1, &spec).await, Kind::Invalid)
        .or(refused(realise(&opened, 1, &spec).await, Kind::NotFound))?;
    ensure(told(&error).contains("/no/such/directory"), || {
        format!("the path is not named: {}", told(&error))
    })
}

/// Whatever is weak and can be asked for is told as weaker when it is.
async fn weaker(bed: &Bed<'_>) -> Judged {
    let mut asked = 0;
    for (capability, strength) in bed.capabilities.iter() {
        let Asking::Weaker(spec) = asking(bed, capability)? else {
            continue;
        };
        if strength.reason().is_none() {
            continue;
        }
        let bed = bed.another().await?;
        let effective = realised(&bed.open().await?, 1, &spec).await?;
        ensure(!effective.weaker.is_empty(), || {
            format!("{capability} is not enforced, and `weaker` is silent")
        })?;
        asked += 1;
    }
    if asked == 0 {
        skip("everything that can be asked of the network is enforced")
    } else {
        Ok(())
    }
}

/// Two virtual servers, of which one has what is required.
async fn tags(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let mut spec = bed.spec(2)?;
    spec.servers = vec![server("old", &["old"])?, server("new", &["GPU"])?];
    spec.execables[0].required = vec![
        TagRule::Has(Tag::new("GPU")?),
        TagRule::Lacks(Tag::new("old")?),
    ];
    realised(&opened, 1, &spec).await?;
    let running = started(&*opened.underverse, &horde()?, 2).await?;
    let wrong = running.iter().find(|one| one.server != "new");
    ensure(wrong.is_none(), || {
        format!("one is on {}", wrong.map_or("?", |one| one.server.as_str()))
    })
}

pub(super) fn server(name: &str, tags: &[&str]) -> Result<ServerSpec, Stop> {
    let tags = tags
        .iter()
        .map(|tag| Tag::new(*tag))
        .collect::<Result<_, _>>()?;
    Ok(ServerSpec {
        name: name.to_owned(),
        tags,
    })
}

async fn tags_unsatisfiable(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let before = bed.inventory().await?;
    let mut spec = bed.spec(1)?;
    spec.execables[0].required = vec![TagRule::Has(Tag::new("palantir")?)];
    let kind = if bed.has(C::Tags) {
        Kind::Unsatisfiable
    } else {
        Kind::Unsupported
    };
    let error = refused(realise(&opened, 1, &spec).await, kind)?;
    ensure(
        kind == Kind::Unsupported || told(&error).contains("palantir"),
        || format!("the tag is not named: {}", told(&error)),
    )?;
    ensure(bed.inventory().await? == before, || {
        "refused, yet something was made".to_owned()
    })
}

async fn spread(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let mut spec = bed.spec(6)?;
    spec.servers = vec![server("a", &[])?, server("b", &[])?, server("c", &[])?];
    realised(&opened, 1, &spec).await?;
    let running = started(&*opened.underverse, &horde()?, 6).await?;
    let servers: std::collections::BTreeSet<&str> =
        running.iter().map(|one| one.server.as_str()).collect();
    ensure(servers.len() > 1, || {
        format!("all {} are on {}", ids(&running).len(), listed(&servers))
    })
}

async fn deadline(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let mut spec = bed.spec(2)?;
    if bed.has(C::ExposeTcp) {
        spec.network.ports.push(door(Protocol::Tcp)?);
    }
    bed.ground.disturb(Disturbance::HangAt(2)).await?;
    let short = Duration::from_secs(1);
    let end = finish(
        opened
            .underverse
            .realise(Generation::of_document(1), &spec, short),
    )
    .await;
    bed.ground.disturb(Disturbance::None).await?;
    let End::Partial(_, failures) = end else {
        return Err(Stop::Failed(format!(
            "ended {} where time had run out",
            word(&end)
        )));
    };
    let late = failures
        .iter()
        .any(|failure| failure.error.kind() == Kind::DeadlineExceeded);
    ensure(late, || "no failure says that time ran out".to_owned())?;
    let opened = bed.restart(opened).await?;
    realised(&opened, 1, &spec).await.map(drop)
}
