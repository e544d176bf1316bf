//! `radix down`: ends an application, or everything of this state directory.

use std::path::Path;
use std::time::{Duration, Instant};

use crux_net::boundary::{Kind, cross_file};
use crux_wire::document::v1::Document;
use crux_wire::fulcrum::v1::ExitRequest;
use tonic::{Code, Status};

use crate::args;
use crate::base_start::{Ourselves, START_LOCK, StartRight};
use crate::command::up;
use crate::connection::{Base, Contact};
use crate::failure::{Failure, Fault, Outcome};
use crate::home::Home;
use crate::output::{self, Progress};
use crate::{base_start, document, living, operator};

/// How often it is looked whether the end has come.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What stays after `--purge`.
const OWNER_DIRECTORIES: [&str; 2] = ["owner", "operator"];
/// Why a base that was idle is no more.
const MEANWHILE: &str = "an application was started meanwhile";
/// What goes with the last namespace, and before the lock.
const HORDES: &str = "hordes";

/// Runs the command.
pub(crate) async fn run(args: args::Down) -> Outcome<()> {
    let home = Home::locate()?;
    if !home.root().is_dir() {
        output::line("nothing runs here, nothing to do");
        return Ok(());
    }
    let home = Home::open()?;
    if args.purge {
        living::refuse(&home)?;
    }
    let running = find_or_revive(&home).await?;
    let mut ended = Vec::new();
    let mut right = None;
    if let Some(base) = &running {
        let names = chosen(base, &args).await?;
        if !names.is_empty() || args.purge {
            announce(&names, args.purge);
            output::ask("End this?", args.yes)?;
        }
        let mut others: Vec<String> = base
            .hordes()
            .await?
            .into_iter()
            .map(|horde| horde.namespace)
            .collect();
        others.retain(|other| !names.contains(other));
        for name in &names {
            dissolve(&home, base, name, args.timeout).await?;
            ended.push(name.clone());
        }
        let end = match idle(base).await? {
            true => end_base(&home, args.timeout).await?,
            false if others.is_empty() => End::Stays(MEANWHILE.to_owned()),
            false => End::Stays(format!("it runs {}", others.join(", "))),
        };
        match end {
            End::Ended(taken) => right = Some(taken),
            End::Stays(why) if args.purge => {
                let text = format!("{why}; what it lives in stays");
                let again = "run `radix down --purge` again to end it, too";
                return Err(Failure::new(Fault::Refused, text).hint(again));
            }
            End::Stays(why) => output::talk(&format!("the base goes on: {why}")),
        }
    } else if args.purge {
        announce(&[], true);
        output::ask("End this?", args.yes)?;
        right = Some(StartRight::take(&home).await?);
        if home.base().join(fulcrum::config::FILE).exists() {
            return Err(Failure::new(
                Fault::Refused,
                "a base was started meanwhile; what it lives in stays",
            )
            .hint("run `radix down --purge` again to end it, too"));
        }
    }
    if args.purge {
        // Much may have been started while the hordes ended.
        living::refuse(&home)?;
        purge(&home)?;
    }
    // Last of all: until then nobody begins anew in what is taken away.
    right.map_or(Ok(()), StartRight::remove)?;
    if ended.is_empty() && !args.purge {
        output::line("nothing runs here, nothing to do");
    } else if args.purge {
        output::line("ended; only the owner is left");
    } else {
        output::line(&format!(
            "ended {}; memoirs stay: radix memoir read",
            ended.join(", ")
        ));
    }
    Ok(())
}

/// The base, started again when it died and left hordes behind.
async fn find_or_revive(home: &Home) -> Outcome<Option<Base>> {
    if let Some(base) = Base::find(home).await? {
        return Ok(Some(base));
    }
    if !home.base().join(fulcrum::config::FILE).exists() {
        finish_removal(home).await?;
        return Ok(None);
    }
    let ourselves = Ourselves::stored(home)?;
    base_start::ensure(home, &ourselves).await.map(Some)
}

fn announce(names: &[String], purge: bool) {
    for name in names {
        output::talk(&format!(
            "- {name}: every instance, rnode, address and directory of it"
        ));
    }
    if purge {
        output::talk("- memoirs, store, builds and generations of this state directory");
    }
}

/// Which namespaces to end.
async fn chosen(base: &Base, args: &args::Down) -> Outcome<Vec<String>> {
    let known: Vec<String> = base
        .hordes()
        .await?
        .into_iter()
        .filter(|horde| horde.phase != "dissolved")
        .map(|horde| horde.namespace)
        .collect();
    if args.purge {
        return Ok(known);
    }
    let name = match (&args.running.namespace, &args.dir) {
        (Some(name), _) => name.clone(),
        (None, Some(directory)) => crate::application::name_of(directory)?,
        (None, None) => match known.as_slice() {
            [one] => one.clone(),
            [] => return Ok(Vec::new()),
            several => {
                return Err(Failure::usage("several namespaces run here").hint(format!(
                    "give a directory or --namespace; here: {}",
                    several.join(", ")
                )));
            }
        },
    };
    Ok(known.into_iter().filter(|known| *known == name).collect())
}

/// Signs the end of a namespace and waits until nothing of it is left.
async fn dissolve(home: &Home, base: &Base, namespace: &str, limit: Duration) -> Outcome<()> {
    let present = base.itself().document(namespace).await?;
    let present = present.as_ref().map(up::decode).transpose()?;
    let present = present.unwrap_or_else(|| Document {
        namespace: namespace.to_owned(),
        application: namespace.to_owned(),
        ..Document::default()
    });
    if !present.dissolved {
        let generation = home.generation(namespace).max(present.generation) + 1;
        let end = Document {
            generation,
            base: present.generation,
            signed_unix_ms: crate::clock::unix_ms(),
            owner: crate::operator::owner_id(home)?,
            ..document::dissolution(&present)
        };
        up::put(home, base, &end, true).await?;
        home.note_generation(namespace, generation)?;
    }
    let begin = Instant::now();
    let mut progress = Progress::default();
    loop {
        let horde = base
            .hordes()
            .await?
            .into_iter()
            .find(|horde| horde.namespace == namespace);
        let Some(horde) = horde.filter(|horde| horde.phase != "dissolved") else {
            return Ok(());
        };
        progress.show(&format!(
            "ending {namespace}: {} {}",
            horde.phase, horde.message
        ));
        if begin.elapsed() > limit {
            progress.clear();
            return Err(Failure::new(
                Fault::Partial,
                format!(
                    "{namespace} has not ended in time: {} {}",
                    horde.phase, horde.message
                ),
            )
            .hint("it goes on without us; run `radix down` again to wait for it"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether nothing runs, and nothing is asked for.
async fn idle(base: &Base) -> Outcome<bool> {
    let hordes = base.hordes().await?;
    Ok(hordes.iter().all(|horde| horde.phase == "dissolved"))
}

/// Whether a horde lies on disk.
fn is_inhabited(home: &Home) -> bool {
    let hordes = std::fs::read_dir(home.join(HORDES));
    hordes.is_ok_and(|mut hordes| hordes.next().is_some())
}

/// What became of the base.
#[derive(Debug)]
enum End {
    /// It has ended, and its directory is gone.
    Ended(StartRight),
    /// It goes on, and why.
    Stays(String),
}

/// Ends the base and removes its directory, unless it holds what has not ended: it says so itself, since whoever shares it
/// from another state directory does not wait for our right.
async fn end_base(home: &Home, limit: Duration) -> Outcome<End> {
    let right = StartRight::take(home).await?;
    let begin = Instant::now();
    let mut asked = None;
    // Whoever had the right before us may have handed over a document, or ended the base and begun another.
    match Base::find(home).await? {
        Some(base) if !idle(&base).await? => return Ok(End::Stays(MEANWHILE.to_owned())),
        Some(base) => match ask_to_end(&base, asked).await {
            Ok(pid) => asked = pid,
            Err(why) => return Ok(End::Stays(why)),
        },
        None if is_inhabited(home) => return Ok(End::Stays(MEANWHILE.to_owned())),
        None => {}
    }
    loop {
        let found = match Contact::of_base(home) {
            Some(_) => Base::find(home).await?,
            None => None,
        };
        if found.is_none() && !base_start::is_kept(home) {
            break;
        }
        if let Some(base) = &found {
            asked = match ask_to_end(base, asked).await {
                Ok(asked) => asked,
                Err(why) => return Ok(End::Stays(why)),
            };
        }
        if begin.elapsed() > limit {
            return Err(
                Failure::new(Fault::Partial, "the base rnode has not ended in time")
                    .hint("run `radix down` again"),
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    remove_base(home)?;
    remove(&home.join(HORDES))?;
    Ok(End::Ended(right))
}

/// Takes away what a `down` that was killed after the base had ended left of it.
async fn finish_removal(home: &Home) -> Outcome<()> {
    let left = [home.base(), home.join(HORDES), home.join(START_LOCK)];
    // The base ends after its hordes: where one is left, this was not `down`.
    if !left.iter().any(|path| path.exists()) || is_inhabited(home) {
        return Ok(());
    }
    let right = StartRight::take(home).await?;
    // Whoever had the right before us may have begun anew.
    if home.base().join(fulcrum::config::FILE).exists() {
        return Ok(());
    }
    remove_base(home)?;
    remove(&home.join(HORDES))?;
    right.remove()
}

/// Asks the base to end, unless its present agent, by its pid, was asked already; returns who has been asked.
///
/// An agent that died after it was asked has a successor that knows nothing of it.
///
/// # Errors
/// Why it will not end.
async fn ask_to_end(base: &Base, asked: Option<i32>) -> Result<Option<i32>, String> {
    let Ok(described) = base.itself().describe().await else {
        return Ok(asked);
    };
    if asked != Some(described.agent_pid) {
        let request = ExitRequest {
            end_rnode: true,
            only_idle: true,
        };
        if let Err(status) = base.itself().fulcrum().exit(request).await {
            refusal(&status).map_or(Ok(()), Err)?;
        }
    }
    Ok(Some(described.agent_pid))
}

/// Why the base will not end; `None` of any other failure: it may end before its answer arrives, and that it is gone is
/// what counts.
fn refusal(status: &Status) -> Option<String> {
    let message = status.message();
    match status.code() {
        Code::FailedPrecondition => {
            let why = message.strip_prefix(fulcrum::agent::OCCUPIED);
            why.map(|why| why.trim_start().to_owned())
        }
        Code::PermissionDenied => Some("only an operator of the whole base may end it".to_owned()),
        _ => None,
    }
}

/// Removes the base's directory, last of all the file by which the next `down` knows that there is one.
fn remove_base(home: &Home) -> Outcome<()> {
    let directory = home.base();
    let entries = match std::fs::read_dir(&directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    forget_base(home)?;
    for entry in entries {
        let entry = entry?;
        if entry.file_name() != fulcrum::config::FILE {
            remove(&entry.path())?;
        }
    }
    remove(&directory.join(fulcrum::config::FILE))?;
    remove(&directory)
}

/// Forgets what was certified to the base: its key goes with its directory. An owner that cannot be opened keeps it.
fn forget_base(home: &Home) -> Outcome<()> {
    let Ok(owner) = operator::owner(home) else {
        return Ok(());
    };
    let failed = |error| Failure::failed("cannot forget what the base was granted").because(&error);
    owner.forget_base().map_err(failed)
}

/// Removes everything but the owner, and the lock that is held meanwhile.
fn purge(home: &Home) -> Outcome<()> {
    for entry in std::fs::read_dir(home.root())? {
        let entry = entry?;
        let name = entry.file_name();
        if name != START_LOCK && !OWNER_DIRECTORIES.iter().any(|kept| name == *kept) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a file or a directory with all in it; that it is not there is fine.
fn remove(path: &Path) -> Outcome<()> {
    cross_file(Kind::Remove, path);
    let result = match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(_) => Ok(()),
    };
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::failed(
            format!("cannot remove {}: {error}", path.display()),
        )),
        _ => Ok(()),
    }
}
