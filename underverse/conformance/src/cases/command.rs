//! What a command finds, and when it is started anew.

use underverse::{Capability as C, Limits};

use crate::bed::{Bed, horde, listed, realised, started};
use crate::case::{Case, Judged, Stop, case, ensure};

pub(super) const CASES: &[Case] = &[
    case("command.environment", &[C::Commands], |bed| {
        Box::pin(environment(bed))
    }),
    case("command.changed", &[C::Commands], |bed| {
        Box::pin(changed(bed))
    }),
    case("command.limits", &[C::Commands, C::Limits], |bed| {
        Box::pin(limits(bed))
    }),
];

async fn environment(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let mut spec = bed.spec(2)?;
    spec.execables[0]
        .env
        .insert("SUITE".to_owned(), "yes".to_owned());
    realised(&opened, 1, &spec).await?;
    for one in started(&*opened.underverse, &horde()?, 2).await? {
        let found = bed.ground.environment(&one).await?;
        let tags: Vec<&str> = one.tags.iter().map(underverse::Tag::as_str).collect();
        let mut wanted = vec![
            ("RADIX_HORDE", horde()?.to_string()),
            ("RADIX_NAME", one.label.clone()),
            ("RADIX_ROLE", one.role.to_string()),
            ("RADIX_ORDINAL", one.ordinal.to_string()),
            ("RADIX_SERVER", one.server.clone()),
            ("SUITE", "yes".to_owned()),
        ];
        wanted.extend(one.address.map(|address| ("RADIX_IP", address.to_string())));
        for (name, value) in wanted {
            ensure(found.get(name) == Some(&value), || {
                format!("{name} is {:?} and not {value}", found.get(name))
            })?;
        }
        let told = found
            .get("RADIX_TAGS")
            .ok_or_else(|| Stop::Failed("RADIX_TAGS is missing".to_owned()))?;
        let missing: Vec<&&str> = tags.iter().filter(|tag| !told.contains(**tag)).collect();
        ensure(missing.is_empty(), || {
            format!("RADIX_TAGS lacks {}", listed(missing))
        })?;
    }
    Ok(())
}

async fn changed(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let mut spec = bed.spec(2)?;
    realised(&opened, 1, &spec).await?;
    let first = started(&*opened.underverse, &horde()?, 2).await?;
    spec.execables[0]
        .env
        .insert("SUITE".to_owned(), "changed".to_owned());
    realised(&opened, 2, &spec).await?;
    let after = started(&*opened.underverse, &horde()?, 2).await?;
    for (old, new) in first.iter().zip(&after) {
        ensure(old.id != new.id, || {
            format!("{} was not started anew", old.label)
        })?;
        let found = bed.ground.environment(new).await?;
        ensure(
            found.get("SUITE").is_some_and(|value| value == "changed"),
            || format!("{} has the old environment", new.label),
        )?;
    }
    Ok(())
}

/// What `enforced` means is tried by each backend's own tests; here, what is not enforced is told.
async fn limits(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let mut spec = bed.spec(1)?;
    spec.execables[0].limits = Limits {
        processes: Some(64),
        ..Limits::none()
    };
    let effective = realised(&opened, 1, &spec).await?;
    started(&*opened.underverse, &horde()?, 1).await?;
    let told = !effective.weaker.is_empty();
    ensure(bed.enforced(C::Limits) || told, || {
        "the limit is not enforced, and `weaker` is silent".to_owned()
    })?;
    ensure(!bed.enforced(C::Limits) || !told, || {
        format!(
            "enforced, yet told as weaker: {}",
            listed(&effective.weaker)
        )
    })
}
