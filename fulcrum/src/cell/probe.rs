//! Finds out what this machine lets this user do, by trying it in a process that ends at once.

use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::error::CellError;
use super::layers;
use super::mounts::{escape, mount_tmpfs};
use super::namespaces::{Namespaces, Privilege};
use crate::config::Isolation;
use crate::keeper::raw::{self, Status};

/// The strongest isolation that was obtained, and why not more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What a cell may be configured with.
    pub isolation: Isolation,
    /// Why it is not the strongest; `None` if it is.
    pub reason: Option<String>,
}

/// Tries what a cell in `dir` needs by running `executable cell --probe --dir DIR`, which must call [`trial`].
///
/// `dir` is made if need be, and left empty of what was tried. Blocks for some milliseconds.
#[must_use]
pub fn probe(executable: &Path, dir: &Path) -> Probe {
    let weaker = |reason| Probe {
        isolation: Isolation::None,
        reason: Some(reason),
    };
    let mut command = Command::new(executable);
    command
        .args(["cell", "--probe", "--dir"])
        .arg(dir)
        .stdin(Stdio::null());
    match command.output() {
        Ok(output) if output.status.success() => Probe {
            isolation: Isolation::PidMount,
            reason: None,
        },
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            let last = text.lines().rev().find(|line| !line.trim().is_empty());
            weaker(last.map_or_else(
                || format!("the trial ended with {}", output.status),
                ToOwned::to_owned,
            ))
        }
        Err(error) => weaker(format!("the trial cannot be started: {error}")),
    }
}

/// Does once, in this process, what a cell in `dir` needs: namespaces, a tmpfs, an overlay whose layers lie in `dir`, `/proc`.
///
/// The process is good for nothing else afterwards and should exit: 0 if this succeeds, else not, with the error on stderr.
///
/// # Errors
/// [`CellError`], naming what is not allowed here.
pub fn trial(dir: &Path) -> Result<(), CellError> {
    let dir =
        std::path::absolute(dir).map_err(|error| CellError::io("find the directory", error))?;
    let own = dir.join(format!("trial-{}", std::process::id()));
    let place = own.join("cell");
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&place)
        .map_err(|error| CellError::at("make", &place, error))?;
    let tried =
        Namespaces::enter(Privilege::Needed).and_then(|namespaces| try_all(&place, namespaces));
    let cleared = layers::clear(&own).and_then(|()| fs::remove_dir(&own));
    tried?;
    cleared.map_err(|error| CellError::at("remove", &own, error))
}

fn try_all(place: &Path, namespaces: Namespaces) -> Result<(), CellError> {
    let [lower, upper, work, merged] =
        ["lower", "upper", "work", "merged"].map(|name| place.join(name));
    for path in [&lower, &upper, &work, &merged] {
        fs::create_dir(path).map_err(|error| CellError::at("make", path, error))?;
    }
    mount_tmpfs(&lower, "size=1m")?;
    let mut options = std::ffi::OsString::new();
    for (name, path) in [
        ("lowerdir=", &lower),
        (",upperdir=", &upper),
        (",workdir=", &work),
    ] {
        options.push(name);
        options.push(escape(path));
    }
    if namespaces.user {
        options.push(",userxattr");
    }
    let (kind, flags) = (Some("overlay"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV);
    mount(kind, &merged, kind, flags, Some(options.as_os_str()))
        .map_err(|error| CellError::at("mount an overlay in", place, error))?;
    fs::write(merged.join("written"), b"")
        .map_err(|error| CellError::at("write in", &merged, error))?;
    for path in [&merged, &lower] {
        umount2(path, MntFlags::MNT_DETACH)
            .map_err(|error| CellError::at("unmount", path, error))?;
    }
    try_proc(namespaces)
}

/// Mounts `/proc` in the first process of the new process namespace.
fn try_proc(namespaces: Namespaces) -> Result<(), CellError> {
    let failed = |error| CellError::io("start a first process", error);
    let child = raw::fork(|| -> Infallible {
        let code = match namespaces.mount_proc() {
            Ok(()) => 0,
            Err(CellError::Io { source, .. }) => source.raw_os_error().unwrap_or(1),
            Err(_) => 1,
        };
        raw::exit_now(code)
    });
    match raw::reap(child.map_err(failed)?.as_raw())
        .map_err(failed)?
        .status
    {
        Status::Exited(0) => Ok(()),
        Status::Exited(code) => Err(CellError::io(
            "mount /proc",
            std::io::Error::from_raw_os_error(code),
        )),
        Status::Signalled(signal) => Err(CellError::io(
            "mount /proc",
            std::io::Error::other(format!("signal {signal}")),
        )),
    }
}
