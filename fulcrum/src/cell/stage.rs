//! Makes mount points that the host does not have, without writing to the host.
//!
//! The deepest directory that exists is built anew on a tmpfs, and takes its own place:
//! ```text
//! /a/b exists, /a/b/c/d is wanted:    stage (tmpfs)   x  y  c/d      1. made empty, O_EXCL, before anything is bound
//!                                                     │  │
//!                                     host's /a/b ──  x  y           2. each child bound back to its name
//!                                     stage moved over /a/b          3. only in this mount namespace
//! ```
//! For children of `/` the stage becomes the root. Names made later directly in that directory, on either side,
//! are not seen on the other.
//!
//! Invariant: a name is only ever made on a tmpfs of our own and before the first bind on it, for making one through a
//! bound host directory would write to the host.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, chroot, pivot_root};

use super::error::CellError;
use super::mounts::{Place, mount_tmpfs, reason};
use super::namespaces::NONE;
use crate::config::Mount;

/// The most children of a directory that is built anew.
const CHILDREN_MAX: usize = 10_000;

/// What a mount point is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaf {
    Directory,
    File,
}

/// Why there is no mount point.
#[derive(Debug)]
pub(super) enum StageError {
    Cell(CellError),
    Reason(String),
}

impl StageError {
    pub(super) fn of(self, one: &Mount) -> CellError {
        match self {
            Self::Cell(error) => error,
            Self::Reason(text) => reason(one, text),
        }
    }
}

impl From<CellError> for StageError {
    fn from(error: CellError) -> Self {
        Self::Cell(error)
    }
}

/// Finds or makes the mount point `target`; returns its path with symbolic links resolved.
pub(super) fn mount_point(target: &Path, leaf: Leaf, place: &Place) -> Result<PathBuf, StageError> {
    let (ancestor, missing) = deepest(target)?;
    let is_dir = ancestor.is_dir();
    if missing.is_empty() {
        return match (is_dir, leaf) {
            (true, Leaf::Directory) | (false, Leaf::File) => Ok(ancestor),
            (true, Leaf::File) => Err(StageError::Reason("the target is a directory".to_owned())),
            (false, Leaf::Directory) => Err(StageError::Reason(
                "the target is not a directory".to_owned(),
            )),
        };
    }
    if !is_dir {
        return Err(StageError::Reason(format!(
            "{} is not a directory",
            ancestor.display()
        )));
    }
    let relative: PathBuf = missing.iter().collect();
    let stage = Stage::build(&ancestor, &relative, leaf, place.stage())?;
    stage.take_place_of(&ancestor)?;
    Ok(ancestor.join(relative))
}

/// The deepest part of a path that exists, resolved, and the names that are missing below it.
fn deepest(target: &Path) -> Result<(PathBuf, Vec<OsString>), StageError> {
    let mut missing = Vec::new();
    for ancestor in target.ancestors() {
        match ancestor.canonicalize() {
            Ok(found) => {
                missing.reverse();
                return Ok((found, missing));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if ancestor.symlink_metadata().is_ok() {
                    let text = format!("{} is a link to nothing", ancestor.display());
                    return Err(StageError::Reason(text));
                }
                missing.extend(ancestor.file_name().map(ToOwned::to_owned));
            }
            Err(error) => {
                return Err(StageError::Reason(format!(
                    "{}: {error}",
                    ancestor.display()
                )));
            }
        }
    }
    Err(StageError::Reason("no part of it exists".to_owned()))
}

/// A directory built anew.
struct Stage {
    root: PathBuf,
}

impl Stage {
    fn build(
        ancestor: &Path,
        missing: &Path,
        leaf: Leaf,
        root: PathBuf,
    ) -> Result<Self, StageError> {
        let failed = |error: io::Error| CellError::at("build anew", ancestor, error);
        let metadata = fs::metadata(ancestor).map_err(failed)?;
        mount_tmpfs(
            &root,
            &format!("mode={:o},size=64m", metadata.mode() & 0o7777),
        )?;
        // Unbindable, so that a child which holds the stage is bound without it.
        let flags = MsFlags::MS_UNBINDABLE;
        mount(NONE, &root, NONE, flags, NONE)
            .map_err(|error| CellError::at("seclude", &root, error))?;
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&root, Some(metadata.uid()), Some(metadata.gid()))
                .map_err(failed)?;
        }
        let children = make_names(ancestor, &root).map_err(failed)?;
        make_missing(&root.join(missing), leaf).map_err(failed)?;
        for child in children {
            let (from, to) = (ancestor.join(&child), root.join(&child));
            let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
            match mount(Some(&from), &to, NONE, flags, NONE) {
                // It went away on the host meanwhile; an empty name of ours stays.
                Ok(()) | Err(nix::Error::ENOENT) => {}
                Err(error) => return Err(CellError::at("bind back", &from, error).into()),
            }
        }
        Ok(Self { root })
    }

    fn take_place_of(self, ancestor: &Path) -> Result<(), CellError> {
        let failed = |error: nix::Error| CellError::at("take the place of", ancestor, error);
        if ancestor == Path::new("/") {
            become_root(&self.root).map_err(failed)?;
        } else {
            mount(Some(&self.root), ancestor, NONE, MsFlags::MS_MOVE, NONE).map_err(failed)?;
        }
        // From here on it is bound like any other, by the next stage above it.
        mount(NONE, ancestor, NONE, MsFlags::MS_PRIVATE, NONE).map_err(failed)
    }
}

/// Makes an empty name for each child of `ancestor`, links as they are; returns those to be bound.
fn make_names(ancestor: &Path, root: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for child in fs::read_dir(ancestor)? {
        let child = child?;
        let name = child.file_name();
        let made = root.join(&name);
        let kind = child.file_type()?;
        if kind.is_symlink() {
            symlink(fs::read_link(child.path())?, &made)?;
            continue;
        }
        if kind.is_dir() {
            fs::create_dir(&made)?;
        } else {
            fs::File::create_new(&made)?;
        }
        names.push(name);
        if names.len() > CHILDREN_MAX {
            return Err(io::Error::other(format!(
                "it has more than {CHILDREN_MAX} children"
            )));
        }
    }
    Ok(names)
}

fn make_missing(path: &Path, leaf: Leaf) -> io::Result<()> {
    let mut directories = fs::DirBuilder::new();
    directories.recursive(true).mode(0o755);
    match leaf {
        Leaf::Directory => directories.create(path),
        Leaf::File => {
            path.parent()
                .map_or(Ok(()), |parent| directories.create(parent))?;
            fs::File::create_new(path).map(drop)
        }
    }
}

/// Makes `root` the root of this mount namespace and lets go of the old one.
fn become_root(root: &Path) -> nix::Result<()> {
    chdir(root)?;
    match pivot_root(".", ".") {
        Ok(()) => umount2(".", MntFlags::MNT_DETACH)?,
        // The first root of a system that never left its initial one cannot be exchanged, only covered.
        Err(nix::Error::EINVAL) => {
            mount(Some("."), "/", NONE, MsFlags::MS_MOVE, NONE)?;
            chroot(".")?;
        }
        Err(error) => return Err(error),
    }
    chdir("/")
}
