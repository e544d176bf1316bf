//! What a backend says of itself: capabilities, servers, plans.

use std::collections::BTreeSet;

use underverse::{Capability, End, Generation, Kind, Mount, MountSource, Tag};

use crate::bed::{Bed, fails, horde, listed, realise, realised, refused, started};
use crate::case::{Case, Judged, Stop, case, ensure};
use crate::refusal::{Asking, asking, shown};

pub(super) const CASES: &[Case] = &[
    case("capabilities.probed", &[], |bed| Box::pin(probed(bed))),
    case("capabilities.stable", &[], |bed| Box::pin(stable(bed))),
    case("capabilities.reasons", &[], |bed| Box::pin(reasons(bed))),
    case("capabilities.absent-refuses", &[], |bed| {
        Box::pin(absent_refuses(bed))
    }),
    case("servers.sorted", &[], |bed| Box::pin(servers_sorted(bed))),
    case("servers.tags-inherited", &[], |bed| {
        Box::pin(tags_inherited(bed))
    }),
    case("servers.tags-added", &[Capability::Tags], |bed| {
        Box::pin(tags_added(bed))
    }),
    case("plan.makes-nothing", &[], |bed| {
        Box::pin(plan_makes_nothing(bed))
    }),
    case("plan.names-changes", &[], |bed| {
        Box::pin(plan_names_changes(bed))
    }),
    case("plan.empty-when-realised", &[], |bed| {
        Box::pin(plan_empty(bed))
    }),
    case("plan.same-refusals", &[], |bed| Box::pin(plan_refuses(bed))),
];

/// What is stated as present is not refused for want of it when it is asked for.
async fn probed(bed: &Bed<'_>) -> Judged {
    for (capability, strength) in bed
        .capabilities
        .iter()
        .filter(|(_, strength)| strength.is_present())
    {
        let (Asking::Refused(spec) | Asking::Weaker(spec)) = asking(bed, capability)? else {
            continue;
        };
        let bed = bed.another().await?;
        let opened = bed.open().await?;
        match realise(&opened, 1, &spec).await {
            End::Refused(error) if error.kind() == Kind::Unsupported => {
                return Err(Stop::Failed(format!(
                    "{capability} is stated ({strength}), yet refused: {}",
                    error.chain()
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

async fn stable(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    realised(&opened, 1, &bed.spec(1)?).await?;
    let first = opened.underverse.capabilities();
    let opened = bed.restart(opened).await?;
    ensure(opened.underverse.capabilities() == first, || {
        "a new process tells another record".to_owned()
    })
}

async fn reasons(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let record = opened.underverse.capabilities();
    let mute = record.iter().find(|(_, strength)| {
        strength
            .reason()
            .is_some_and(|reason| reason.trim().is_empty())
    });
    ensure(mute.is_none(), || {
        format!(
            "no reason is given for {}",
            mute.map_or("it", |(capability, _)| capability.word())
        )
    })
}

/// Everything absent that can be asked for, at once; a case that needs one of them shows its own.
async fn absent_refuses(bed: &Bed<'_>) -> Judged {
    let mut asked = 0;
    for (capability, strength) in bed.capabilities.iter() {
        if strength.is_present() || !matches!(asking(bed, capability)?, Asking::Refused(_)) {
            continue;
        }
        shown(&bed.another().await?, capability).await?;
        asked += 1;
    }
    if asked > 0 {
        return Ok(());
    }
    crate::case::skip("nothing is absent that a spec could ask for")
}

async fn servers_sorted(bed: &Bed<'_>) -> Judged {
    let names: Vec<String> = bed
        .open()
        .await?
        .underverse
        .servers()
        .await?
        .into_iter()
        .map(|one| one.name)
        .collect();
    ensure(!names.is_empty(), || "there is none".to_owned())?;
    ensure(names.is_sorted_by(|a, b| a < b), || {
        format!("not sorted, or told twice: {}", listed(&names))
    })
}

async fn tags_inherited(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    realised(&opened, 1, &bed.spec(2)?).await?;
    let servers = opened.underverse.servers().await?;
    for one in started(&*opened.underverse, &horde()?, 2).await? {
        let server = servers.iter().find(|server| server.name == one.server);
        let server = server.ok_or_else(|| {
            Stop::Failed(format!(
                "{} is on {}, which is no server",
                one.label, one.server
            ))
        })?;
        ensure(server.tags.is_subset(&one.tags), || {
            format!("{} lacks tags of {}", one.label, server.name)
        })?;
    }
    Ok(())
}

async fn tags_added(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let mut spec = bed.spec(2)?;
    let added: BTreeSet<Tag> = [Tag::new("brave")?].into();
    spec.execables[0].added = added.clone();
    realised(&opened, 1, &spec).await?;
    let running = started(&*opened.underverse, &horde()?, 2).await?;
    ensure(running.iter().all(|one| added.is_subset(&one.tags)), || {
        "an added tag is not told".to_owned()
    })
}

async fn plan_makes_nothing(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let before = (bed.inventory().await?, bed.mutations().await?);
    opened
        .underverse
        .plan(Generation::of_document(1), &bed.spec(3)?)
        .await?;
    ensure(
        (bed.inventory().await?, bed.mutations().await?) == before,
        || "planning changed something".to_owned(),
    )?;
    let listed_now = opened.underverse.list().await?;
    ensure(listed_now.is_empty(), || "planning made a horde".to_owned())
}

async fn plan_names_changes(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    realised(&opened, 1, &bed.spec(1)?).await?;
    started(&*opened.underverse, &horde()?, 1).await?;
    let plan = opened
        .underverse
        .plan(Generation::of_document(2), &bed.spec(3)?)
        .await?;
    let subjects: BTreeSet<&str> = plan
        .steps
        .iter()
        .map(|step| step.subject.as_str())
        .collect();
    realised(&opened, 2, &bed.spec(3)?).await?;
    for one in &started(&*opened.underverse, &horde()?, 3).await?[1..] {
        ensure(subjects.contains(one.label.as_str()), || {
            format!(
                "{} was made and not named: {}",
                one.label,
                listed(&subjects)
            )
        })?;
    }
    Ok(())
}

async fn plan_empty(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let spec = bed.spec(2)?;
    realised(&opened, 1, &spec).await?;
    let plan = opened
        .underverse
        .plan(Generation::of_document(1), &spec)
        .await?;
    ensure(plan.steps.is_empty(), || {
        format!("still planned: {}", plan.to_string().trim())
    })
}

async fn plan_refuses(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let generation = Generation::of_document(5);
    realised(&opened, 5, &bed.spec(1)?).await?;
    let mut twice = bed.spec(1)?;
    twice.execables.push(twice.execables[0].clone());
    let mut nowhere = bed.spec(1)?;
    nowhere.execables[0].mounts.push(Mount {
        source: MountSource::Host("/no/such/directory".into()),
        target: "/mnt/x".into(),
    });
    for spec in [twice, nowhere] {
        let End::Refused(error) = realise(&opened, 5, &spec).await else {
            return Err(Stop::Failed("realise does not refuse it".to_owned()));
        };
        fails(
            opened.underverse.plan(generation, &spec).await,
            error.kind(),
        )?;
    }
    refused(realise(&opened, 4, &bed.spec(1)?).await, Kind::Stale)?;
    fails(
        opened
            .underverse
            .plan(Generation::of_document(4), &bed.spec(1)?)
            .await,
        Kind::Stale,
    )
    .map(drop)
}
