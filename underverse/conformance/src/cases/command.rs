//! What a command finds, and when it is started anew.

use std::net::SocketAddr;
use std::time::Duration;

use underverse::{ByteCount, Capability as C, Limits, Running};

use crate::bed::{Bed, horde, listed, realised, started};
use crate::case::{Case, Judged, Stop, case, ensure, skip};
use crate::fixture::{Take, Vantage};
use crate::refusal::INNER_PORT;

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

/// What a container of the case below tries to take, and its role.
const TAKEN: [(&str, Take); 3] = [
    ("memory", Take::Memory(256 << 20)),
    ("processes", Take::Processes(100)),
    ("processor", Take::Cpu(Duration::from_secs(2))),
];
/// The limits that it takes against.
const LIMITS: Limits = Limits {
    memory: Some(ByteCount::megabytes(64)),
    cpu_thousandths: Some(250),
    processes: Some(30),
};
/// Thousandths of a processor that are more than a limit of 250 can give, also when it is measured roughly.
const CPU_TOO_MUCH: u64 = 500;
/// Looks for what a program got, at least a minute.
const LOOKS_MAX: u32 = 2_400;
/// Time between two.
const LOOK: Duration = Duration::from_millis(25);

async fn limits(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let mut spec = bed.spec(0)?;
    let enforced = bed.enforced(C::Limits);
    let mut judged = enforced;
    for (role, what) in TAKEN {
        let mut execable = bed.execable(role, 1)?;
        let taker = bed.fixture().taker(INNER_PORT, what).filter(|_| enforced);
        judged &= taker.is_some();
        execable.program = taker.unwrap_or(execable.program);
        execable.limits = LIMITS;
        spec.execables.push(execable);
    }
    spec.execables.remove(0);
    let effective = realised(&opened, 1, &spec).await?;
    let running = started(&*opened.underverse, &horde()?, TAKEN.len()).await?;
    let told = !effective.weaker.is_empty();
    ensure(enforced || told, || {
        "the limit is not enforced, and `weaker` is silent".to_owned()
    })?;
    ensure(!enforced || !told, || {
        format!(
            "enforced, yet told as weaker: {}",
            listed(&effective.weaker)
        )
    })?;
    for one in running.iter().filter(|_| judged) {
        held_against(bed, one).await?;
    }
    Ok(())
}

/// Asks a container what it got, and compares that with its limits.
async fn held_against(bed: &Bed<'_>, one: &Running) -> Judged {
    let Some(address) = one.address else {
        return skip("containers have no address of their own");
    };
    let address = SocketAddr::new(address, INNER_PORT);
    for _ in 0..LOOKS_MAX {
        let Some(answer) = bed.ground.reach(Vantage::Outside, address).await? else {
            tokio::time::sleep(LOOK).await;
            continue;
        };
        let got: u64 = answer
            .trim()
            .parse()
            .map_err(|_| Stop::Failed(format!("{} answers {answer:?}", one.label)))?;
        let most = match one.role.as_str() {
            "memory" => 0,
            "processes" => u64::from(LIMITS.processes.unwrap_or_default()),
            _ => CPU_TOO_MUCH,
        };
        return ensure(got <= most, || {
            format!(
                "{} took {got} of {}, against its limit",
                one.label, one.role
            )
        });
    }
    Err(Stop::Failed(format!(
        "{} does not tell what it got",
        one.label
    )))
}
