//! Containers that are processes: started with a lock that they hold while anything of them runs.
//!
//! ```text
//! DIR/lock    locked by descriptors that they inherit; free once all ended that did not close theirs
//! DIR/pid     the first process, which leads their process group
//! DIR/exit    its exit code, once it ended by itself
//! DIR/output  what it writes
//! ```
//!
//! The kernel frees the lock with the last descriptor, so nothing depends on who started them, or on a pid used again.
//! What closed its descriptors, as daemons do, still carries the container's name in its environment, and is ended by that.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use crux_net::process::Environment;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, getpgid, kill_process_group};
use underverse::{
    ContainerId, Effect, Error, Generation, HordeSpec, Kind, Role, Running, RunningState,
};
use underverse_conformance::Tap;

use super::kept::{directories, kept};

/// Names a container's directory in its environment, by which its processes are found.
pub const VARIABLE: &str = "RADIX_KIT_CONTAINER";
/// Time between two looks at what is ending.
const LOOK: Duration = Duration::from_millis(5);
/// Looks after which what was killed counts as unkillable.
const LOOKS_MAX: u32 = 4_000;
/// How long ending what gave up its lock may take.
const END_MAX: Duration = Duration::from_secs(5);
/// Says who it is, runs the words, and keeps how they ended. A shell gives what it starts in the background another
/// standard input, so the lock is held by a second descriptor, too.
const SCRIPT: &str =
    r#"exec 9<&0; echo $$ > pid.new; mv pid.new pid; "$@"; echo $? > exit.new; mv exit.new exit"#;

fn failed(operation: &'static str, error: impl Into<io::Error>) -> Error {
    let error: io::Error = error.into();
    Error::new(Kind::Io, operation, error.to_string()).effect(Effect::Unknown)
}

/// Starts `words` in `directory`, which becomes where they are; `env` is added to ours.
///
/// # Errors
/// `Io`.
///
/// # Panics
/// Outside a tokio runtime, which takes the ends of processes.
pub fn start(
    directory: &Path,
    words: &[String],
    env: &BTreeMap<String, String>,
) -> Result<(), Error> {
    let start = || -> io::Result<()> {
        let lock = File::create(directory.join("lock"))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        let output = File::options()
            .create(true)
            .append(true)
            .open(directory.join("output"))?;
        let mut command = tokio::process::Command::new("sh");
        command
            .arg("-c")
            .arg(SCRIPT)
            .arg("container")
            .args(words)
            .current_dir(directory)
            .envs(env)
            .env(VARIABLE, directory);
        command
            .stdin(lock)
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0);
        command.spawn().map(drop)
    };
    start().map_err(|error| failed("start a process", error))
}

/// Whether anything that was started in `directory` runs.
#[must_use]
pub fn is_alive(directory: &Path) -> bool {
    let lock = File::open(directory.join("lock"));
    // Shared: a process that is being forked elsewhere has this descriptor too, and keeps what it locks until it executes.
    // Nobody who looks may take that for a life.
    lock.is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockShared).is_err())
}

/// How what was started in `directory` ended, for people.
#[must_use]
pub fn how_ended(directory: &Path) -> String {
    match std::fs::read_to_string(directory.join("exit")) {
        Ok(code) => format!("exited with code {}", code.trim()),
        Err(_) => "was ended by a signal".to_owned(),
    }
}

/// The first process that was started in `directory`.
#[must_use]
pub fn pid(directory: &Path) -> Option<i32> {
    std::fs::read_to_string(directory.join("pid"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Ends everything that was started in `directory`, at once, and returns when all of it ended.
///
/// # Errors
/// `Unavailable` if it does not end.
///
/// # Cancel safety
/// Safe: repeating it goes on.
pub async fn end(directory: &Path) -> Result<(), Error> {
    for _ in 0..LOOKS_MAX {
        if !is_alive(directory) {
            return end_unlocked(directory).await;
        }
        // While the lock is held the group is theirs: its number is not given to others.
        if let Some(pid) = pid(directory).and_then(Pid::from_raw) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(
        Error::new(Kind::Unavailable, "end a process", "it does not end")
            .with("directory", directory.display()),
    )
}

/// Ends what gave up its lock.
async fn end_unlocked(directory: &Path) -> Result<(), Error> {
    let value = directory.display().to_string();
    let end = move || {
        let carries = |environment: &Environment| environment.holds(VARIABLE, &value);
        crux_net::process::end_carrying(carries, END_MAX)
    };
    match tokio::task::spawn_blocking(end).await {
        Ok(ended) => ended
            .map(drop)
            .map_err(|error| failed("end a process", error)),
        Err(error) => Err(failed("end a process", io::Error::other(error))),
    }
}

/// A container below a folder: a directory `nORDINAL-SERIAL`, in which `made` says from what it was made.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its directory's name, which is its id.
    pub id: String,
    /// Its place in the horde, from 1.
    pub ordinal: u32,
    /// From what it was made, and under which generation; `None` if its maker died before that was written.
    pub made: Option<(Generation, HordeSpec)>,
    /// Whether it runs.
    pub alive: bool,
}

impl Found {
    /// Its name within the horde.
    #[must_use]
    pub fn label(&self) -> String {
        format!("n{}", self.ordinal)
    }

    /// As it is told, on `server`; `None` if its maker died before it was written down.
    #[must_use]
    pub fn running(&self, folder: &Path, server: &str) -> Option<Running> {
        let (generation, made) = self.made.as_ref()?;
        let at = folder.join(&self.id);
        let state = match (self.alive, at.join("lock").exists()) {
            (true, _) => RunningState::Started,
            (false, true) => RunningState::Failed(how_ended(&at)),
            (false, false) => RunningState::Waiting,
        };
        Some(Running {
            id: ContainerId::from_backend(self.id.clone()),
            ordinal: self.ordinal,
            label: self.label(),
            role: self.role()?.clone(),
            server: server.to_owned(),
            address: None,
            tags: made.execables.first()?.added.clone(),
            state,
            generation: *generation,
            pid: pid(&at),
            directory: Some(at),
        })
    }

    /// Its role, if that is known.
    #[must_use]
    pub fn role(&self) -> Option<&Role> {
        let (_, made) = self.made.as_ref()?;
        made.execables.first().map(|execable| &execable.role)
    }
}

/// The containers below `folder`, by ordinal.
#[must_use]
pub fn found(folder: &Path) -> Vec<Found> {
    let look = |id: String| {
        let ordinal = id
            .strip_prefix('n')?
            .split('-')
            .next()?
            .parse()
            .ok()
            .filter(|&ordinal| ordinal > 0)?;
        let at = folder.join(&id);
        Some(Found {
            ordinal,
            made: kept(&at.join("made")),
            alive: is_alive(&at),
            id,
        })
    };
    let mut found: Vec<Found> = directories(folder).into_iter().filter_map(look).collect();
    found.sort_by_key(|one| one.ordinal);
    found
}

/// Hides a container's directory, so that it counts as gone; [`sweep`] ends and removes it.
///
/// # Errors
/// `Io`, or whatever the suite wants.
pub async fn give_up(folder: &Path, id: &str, tap: &Tap) -> Result<(), Error> {
    tap.call("give a container up").await?;
    std::fs::rename(folder.join(id), folder.join(format!(".{id}")))
        .map_err(|error| failed("give a container up", error))
}

/// Ends and removes what was given up.
///
/// # Errors
/// `Io`, `Unavailable` if something does not end, or whatever the suite wants.
pub async fn sweep(folder: &Path, tap: &Tap) -> Result<(), Error> {
    for id in directories(folder)
        .into_iter()
        .filter(|id| id.starts_with('.'))
    {
        tap.call("end what was given up").await?;
        end(&folder.join(&id)).await?;
        tap.call("remove what was given up").await?;
        std::fs::remove_dir_all(folder.join(&id))
            .map_err(|error| failed("remove a container", error))?;
    }
    Ok(())
}

/// The process groups of containers below `folder`, found by what they carry in their environment; for suites and sweepers.
#[must_use]
pub fn below(folder: &Path) -> BTreeSet<i32> {
    let folder = format!("{}/", folder.display());
    let below = |environment: &Environment| {
        let value = environment.value(VARIABLE).unwrap_or_default();
        value.starts_with(folder.as_bytes())
    };
    let pids = crux_net::process::carrying(below).unwrap_or_default();
    let group = |pid| getpgid(Pid::from_raw(pid)).ok();
    let groups = pids.into_iter().filter_map(group);
    groups.map(|group| group.as_raw_nonzero().get()).collect()
}

/// The environment of the first process in `directory`.
///
/// # Errors
/// What the system says.
pub fn environment(directory: &Path) -> io::Result<BTreeMap<String, String>> {
    Environment::of(pid(directory).unwrap_or(0)).map(|found| found.to_text())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn root(name: &str) -> PathBuf {
        let root = std::env::temp_dir().join(format!("radix-kit-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        root
    }

    #[tokio::test]
    async fn what_a_command_leaves_in_the_background_lives_and_is_ended_with_it() {
        let root = root("background");
        let left = |directory: &Path| below(directory.parent().unwrap()).len();
        for (name, script, alive) in [
            ("job", "sleep 600 &", true),
            (
                "daemon",
                "setsid sleep 600 9<&- </dev/null >/dev/null 2>&1 &",
                false,
            ),
        ] {
            let directory = root.join(name).join("n1");
            std::fs::create_dir_all(&directory).unwrap();
            let words = ["sh", "-c", script].map(str::to_owned);
            start(&directory, &words, &BTreeMap::new()).unwrap();
            let settled = async {
                let ended = || directory.join("exit").exists() && is_alive(&directory) == alive;
                while !ended() || left(&directory) > 1 {
                    tokio::time::sleep(LOOK).await;
                }
            };
            tokio::time::timeout(6 * END_MAX, settled).await.unwrap();
            assert_eq!(left(&directory), 1, "{name}");
            assert_eq!(is_alive(&directory), alive, "{name}");
            end(&directory).await.unwrap();
            assert_eq!(left(&directory), 0, "{name}");
        }
        std::fs::remove_dir_all(&root).unwrap();
    }

    /// Containers that are started meanwhile: each fork has, for a moment, every descriptor that its parent had.
    const OTHERS: u32 = 200;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn what_ended_is_dead_at_every_look_while_others_are_started() {
        let root = root("forks");
        let directory = |name: &str| -> PathBuf {
            let directory = root.join(name);
            std::fs::create_dir_all(&directory).unwrap();
            directory
        };
        let dead = directory("dead");
        let words = |word: &str| vec![word.to_owned()];
        start(&dead, &words("true"), &BTreeMap::new()).unwrap();
        end(&dead).await.unwrap();
        let mut others = tokio::task::JoinSet::new();
        for number in 0..OTHERS {
            let (other, words) = (directory(&number.to_string()), words("true"));
            others.spawn(async move { start(&other, &words, &BTreeMap::new()).unwrap() });
        }
        let (mut looks, mut alive) = (0, 0);
        while !others.is_empty() {
            alive += u32::from(is_alive(&dead));
            looks += 1;
            let _ = others.try_join_next();
        }
        for number in 0..OTHERS {
            end(&root.join(number.to_string())).await.unwrap();
        }
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(alive, 0, "of {looks} looks");
    }
}
