//! Starting the base rnode of this machine: from the store's copy of this executable, detached.

use std::fs::File;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crux_core::digest::Digest;
use crux_net::boundary::{self, cross_file};
use crux_net::order::Order;
use crux_net::store::Store;
use crux_wire::fulcrum::v1::ExitRequest;
use fulcrum::config::{Executable, Isolation, RnodeConfig};
use nix::fcntl::{Flock, FlockArg};

use crate::connection::{Base, Contact};
use crate::failure::{Failure, Outcome};
use crate::home::Home;
use crate::{living, operator};

/// How long another `radix` may hold the right to start the base.
const START_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long a started base may take until it answers.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(20);
/// How often the contact file is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Ports of a rnode's services, where they are free.
const RNODE_PORT: u16 = 7400;

/// This executable in the store.
#[derive(Debug, Clone)]
pub(crate) struct Ourselves {
    pub(crate) path: PathBuf,
    pub(crate) digest: Digest,
}

impl Ourselves {
    /// Copies the running executable into the store, so that the next build changes nothing that runs.
    pub(crate) fn stored(home: &Home) -> Outcome<Self> {
        let store = open_store(home)?;
        let source = std::env::current_exe()?;
        // Read before it is copied: all but the first time it is there, and room for a copy need not be.
        let known = crux_net::store::hash(&mut File::open(&source)?)?;
        if store.open_verified(&known).is_ok() {
            return Ok(Self {
                path: store.path(&known),
                digest: known,
            });
        }
        let stored = store.put_file(&source);
        let digest = stored.map(|info| info.digest).map_err(|error| {
            Failure::usage(format!(
                "cannot copy radix into the store {}",
                home.join("store").display()
            ))
            .because(&error)
            .hint("free some space, or set RADIX_HOME to a directory on another file system")
        })?;
        Ok(Self {
            path: store.path(&digest),
            digest,
        })
    }
}

/// The store of this state directory.
pub(crate) fn open_store(home: &Home) -> Outcome<Store> {
    Store::open(home.join("store")).map_err(|error| {
        Failure::usage(format!(
            "cannot open the store {}",
            home.join("store").display()
        ))
        .because(&error)
    })
}

/// The file that is locked by whoever has the right to start or end the base.
pub(crate) const START_LOCK: &str = "start.lock";

/// The right to start or end the base, and to hand it what would be lost with it; released when dropped.
#[derive(Debug)]
pub(crate) struct StartRight {
    _lock: Flock<File>,
    path: PathBuf,
}

impl StartRight {
    /// Waits for the right.
    pub(crate) async fn take(home: &Home) -> Outcome<Self> {
        let path = home.join(START_LOCK);
        let begin = Instant::now();
        let open = || {
            cross_file(boundary::Kind::Write, &path);
            File::create(&path)
        };
        let mut file = open()?;
        loop {
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) if is_at(&lock, &path) => return Ok(Self { _lock: lock, path }),
                // Whoever had the right took the file away: ours is another one, or none.
                Ok(_) => open()?,
                Err((back, nix::errno::Errno::EWOULDBLOCK)) => back,
                Err((_, error)) => {
                    return Err(Failure::failed(format!(
                        "cannot lock {}: {error}",
                        path.display()
                    )));
                }
            };
            if begin.elapsed() > START_WAIT_MAX {
                return Err(Failure::failed(
                    "another radix has been starting or ending the base for too long",
                )
                .hint("end it, then try again"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Removes the file and gives the right up; who waits for it makes another.
    pub(crate) fn remove(self) -> Outcome<()> {
        cross_file(boundary::Kind::Remove, &self.path);
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Whether `file` is the one at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(held), Ok(there)) = (file.metadata(), std::fs::metadata(path)) else {
        return false;
    };
    (held.dev(), held.ino()) == (there.dev(), there.ino())
}

/// Finds the base, or starts it.
pub(crate) async fn ensure(home: &Home, ourselves: &Ourselves) -> Outcome<Base> {
    let right = StartRight::take(home).await?;
    ensure_under(home, ourselves, &right).await
}

/// The same for who has the right already.
pub(crate) async fn ensure_under(
    home: &Home,
    ourselves: &Ourselves,
    _right: &StartRight,
) -> Outcome<Base> {
    let base = match Base::find(home).await? {
        Some(base) => base,
        None => {
            operator::renew_base(home)?;
            start(home, ourselves).await?
        }
    };
    let mut base = base;
    if let Some(note) = difference(&base, ourselves).await? {
        crate::output::talk(&format!("note: {note}; its agent is replaced"));
        replace_agent(home, ourselves)?;
        restart_agent(home, &base, ourselves).await?;
        base = Base::require(home).await?;
    }
    let owner = operator::owner(home)?;
    operator::exchange_authority(&owner, &base).await?;
    operator::hand_over_invitations(&owner, &base).await?;
    operator::apply_base_document(home, &base, ourselves).await?;
    Ok(base)
}

/// Says so if the base runs another radix than this one.
pub(crate) async fn difference(base: &Base, ourselves: &Ourselves) -> Outcome<Option<String>> {
    let runs = base.itself().describe().await?.executable_digest;
    if runs == ourselves.digest.to_string() {
        return Ok(None);
    }
    let short: String = runs.chars().take(12).collect();
    let ours = ourselves.digest.short();
    Ok(Some(format!("the base runs radix {short}, this is {ours}")))
}

/// Ends the base's agent and waits until its keeper has started another from this executable.
async fn restart_agent(home: &Home, base: &Base, ourselves: &Ourselves) -> Outcome<()> {
    let request = ExitRequest {
        end_rnode: false,
        only_idle: false,
    };
    // It may end before its answer arrives; what counts is who answers afterwards.
    let _ = base.itself().fulcrum().exit(request).await;
    let begin = Instant::now();
    loop {
        if let Some(base) = Base::find(home).await?
            && let Ok(described) = base.itself().describe().await
            && described.executable_digest == ourselves.digest.to_string()
        {
            return Ok(());
        }
        if begin.elapsed() > ANSWER_WAIT_MAX {
            return Err(Failure::failed("the base's agent was not replaced in time")
                .hint("run `radix up` again"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Makes the base's keeper run its next agent from this executable, and ends the present agent.
fn replace_agent(home: &Home, ourselves: &Ourselves) -> Outcome<()> {
    let directory = home.base();
    let mut config = RnodeConfig::load(&directory)
        .map_err(|error| Failure::failed("cannot read the base's configuration").because(&error))?;
    config.executable = Executable {
        path: ourselves.path.clone(),
        digest: ourselves.digest,
    };
    config
        .save(&directory)
        .map_err(|error| Failure::failed("cannot write the base's configuration").because(&error))
}

/// Waits for the agent of a keeper that runs; `None` when there is no keeper, or it ends.
///
/// A second keeper would lie in wait for the pen, and begin when the first has been told to end.
async fn kept(home: &Home) -> Outcome<Option<Base>> {
    let begin = Instant::now();
    while is_kept(home) {
        if let Some(base) = Base::find(home).await? {
            return Ok(Some(base));
        }
        if begin.elapsed() > ANSWER_WAIT_MAX {
            return Err(
                Failure::failed("the base's keeper runs, and its agent does not answer")
                    .hint("`radix memoir read base/base` shows what happened to it"),
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(None)
}

async fn start(home: &Home, ourselves: &Ourselves) -> Outcome<Base> {
    if let Some(base) = kept(home).await? {
        return Ok(base);
    }
    let directory = home.base();
    let builder = |path: &Path| {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
    };
    cross_file(boundary::Kind::Write, &directory);
    builder(&directory)?;
    builder(&home.join("memoirs/base/base"))?;
    let host = underverse_local::base_host(nix::unistd::geteuid().as_raw()).map_err(|error| {
        Failure::failed("cannot find a free loopback address for the base").because(&error)
    })?;
    let config = RnodeConfig {
        label: "base".to_owned(),
        namespace: "base".to_owned(),
        host,
        tcp_port: RNODE_PORT,
        flock_port: RNODE_PORT,
        hints: Vec::new(),
        base: None,
        memoir_dir: home.join("memoirs/base/base"),
        store_dir: home.join("store"),
        executable: Executable {
            path: ourselves.path.clone(),
            digest: ourselves.digest,
        },
        mounts: Vec::new(),
        isolation: Isolation::None,
        user_range_start: None,
        tags: Vec::new(),
        network: None,
        quota_bytes: None,
    };
    if Contact::of_base(home).is_none() || RnodeConfig::load(&directory).is_err() {
        config.save(&directory).map_err(|error| {
            Failure::failed("cannot write the base's configuration").because(&error)
        })?;
    }
    operator::invite_base(home)?;
    operator::leave_authority(home)?;
    operator::renew_base(home)?;
    cross_file(boundary::Kind::Write, &directory.join("keeper.log"));
    let log = File::create(directory.join("keeper.log"))?;
    boundary::cross(boundary::Kind::Start, "keep");
    Command::new(&ourselves.path)
        .args(["keep", "--detach", "--dir"])
        .arg(&directory)
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("HOME", std::env::var_os("HOME").unwrap_or_default())
        .env("RADIX_HOME", home.root())
        .envs(boundary::directory().map(|directory| (boundary::VARIABLE, directory)))
        .envs(Order::from_environment().variable())
        .env("RADIX_RNODE", operator::mark(home, "base", "base")?)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::from(log.try_clone()?))
        .stderr(Stdio::from(log))
        .spawn()
        .map_err(|error| {
            Failure::failed(format!("cannot start {}", ourselves.path.display())).because(&error)
        })?;
    wait(home).await
}

/// Waits until the base answers.
async fn wait(home: &Home) -> Outcome<Base> {
    let begin = Instant::now();
    loop {
        if let Some(base) = Base::find(home).await? {
            return Ok(base);
        }
        if begin.elapsed() > ANSWER_WAIT_MAX {
            let log = std::fs::read_to_string(home.base().join("keeper.log")).unwrap_or_default();
            let tail: Vec<_> = log.lines().rev().take(5).collect();
            let tail: Vec<_> = tail.into_iter().rev().collect();
            return Err(
                Failure::failed("the base rnode was started and does not answer").hint(format!(
                    "its last words ({}): {}",
                    home.base().join("keeper.log").display(),
                    tail.join(" | ")
                )),
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether a keeper runs on the base's directory.
pub(crate) fn is_kept(home: &Home) -> bool {
    living::is_kept(&home.base())
}
