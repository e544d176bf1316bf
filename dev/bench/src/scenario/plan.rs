//! `plan`: what would change in a thousand hordes, before and after they are there (U5).
//!
//! The peer cannot be had from a registry, so its figures are quoted from goals.md, which measured them on
//! another machine; a ratio would compare machines.

use std::path::Path;
use std::time::{Duration, Instant};

use underverse::{End, ExecableBuilder, Generation, Horde, Keep, NetworkSpec, Underverse};
use underverse_local::{Local, on_this_machine};

use crate::radix::scratch;
use crate::row::{Row, show};
use crate::session::block_on;

const HORDES: usize = 1_000;
/// How many of them are made: a user has 956 loopback addresses to give to containers.
const MADE: usize = 900;
const PEER: &str = "Terraform, 1 000 resources, quoted from goals.md";

pub(super) fn run() -> Result<Vec<Row>, String> {
    let radix = std::env::var_os("RADIX_BIN").ok_or("RADIX_BIN names no radix")?;
    let home = scratch().join("plan-home");
    drop(std::fs::remove_dir_all(&home));
    std::fs::create_dir_all(&home).map_err(|error| format!("{}: {error}", home.display()))?;
    let rows = block_on(measured(&home, Path::new(&radix)));
    drop(std::fs::remove_dir_all(&home));
    rows
}

async fn measured(home: &Path, radix: &Path) -> Result<Vec<Row>, String> {
    let local = on_this_machine(home, radix)
        .await
        .map_err(|error| error.chain())?;
    let hordes: Result<Vec<Horde>, String> = (0..HORDES).map(horde).collect();
    let hordes = hordes?;
    let create = plan(&local, &hordes, false).await?;
    let began = Instant::now();
    let made = realise(&local, &hordes[..MADE]).await;
    let took = began.elapsed();
    let unchanged = match made {
        Ok(()) => plan(&local, &hordes[..MADE], true).await,
        Err(message) => Err(message),
    };
    release(&local, &hordes[..MADE]).await?;
    let unchanged = unchanged?;
    let row = |count: usize, what: &str, ours: Duration, theirs: &str| Row {
        what: format!("plan of {count} hordes of one container, no network of their own: {what}"),
        ours: show(ours),
        peer: format!("{PEER}: {theirs}"),
        ratio: None,
    };
    let making = format!("{MADE} hordes realised, one after the other");
    Ok(vec![
        row(HORDES, "all to be made", create, "2.6 s"),
        row(MADE, "nothing to change", unchanged, "4.0 s"),
        Row::alone(&making, show(took)),
    ])
}

fn horde(index: usize) -> Result<Horde, String> {
    let sleeper = ExecableBuilder::command("sleeper", ["/bin/sleep", "86424"]);
    let horde = Horde::new(&format!("h{index}")).map_err(|error| error.chain())?;
    // On this machine's own network: there are switches for a quarter of them.
    let network = NetworkSpec {
        flock_private: false,
        ..NetworkSpec::default()
    };
    let execables = [sleeper.map_err(|error| error.chain())?.build()];
    Ok(horde.network(network).execables(execables))
}

/// Plans each of them; an error if one has other work to do than expected.
async fn plan(local: &Local, hordes: &[Horde], there: bool) -> Result<Duration, String> {
    let began = Instant::now();
    for horde in hordes {
        let spec = horde.spec().map_err(|error| error.chain())?;
        let plan = local.plan(Generation::of_document(1), spec).await;
        let plan = plan.map_err(|error| error.chain())?;
        if plan.steps.is_empty() != there {
            return Err(format!("{}: {:?}", horde.name(), plan.steps));
        }
    }
    Ok(began.elapsed())
}

async fn realise(local: &Local, hordes: &[Horde]) -> Result<(), String> {
    for horde in hordes {
        let end = horde.realise(local).await;
        if !matches!(end, End::Done(_)) {
            return Err(format!("{}: {end:?}", horde.name()));
        }
    }
    Ok(())
}

/// Ends them all, also after a failure; the first that does not end is told.
async fn release(local: &Local, hordes: &[Horde]) -> Result<(), String> {
    let mut left = None;
    for horde in hordes {
        let end = horde.release(local, Keep::Nothing).await;
        if !matches!(end, End::Done(_)) {
            left.get_or_insert_with(|| format!("{}: {end:?}", horde.name()));
        }
    }
    left.map_or(Ok(()), Err)
}
