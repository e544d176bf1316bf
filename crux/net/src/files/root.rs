//! A folder that nobody leaves: every path is walked part by part on descriptors.
//!
//! Links are never followed on the way, so a link put in a folder's place while we walk is refused
//! like one that was there before; what was opened stays what it was, whatever happens to its name.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crux_core::files::path::RelPath;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Stat, StatxAttributes, StatxFlags, mkdirat, openat,
    statat, statx,
};
use rustix::io::Errno;

use super::error::{Error, Kind};
use crate::store::StatKey;

const NOT_A_FOLDER: &str = "a link or a file stands where a folder should";
const FOLDER: OFlags = OFlags::DIRECTORY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::RDONLY);

/// A declared root, open.
#[derive(Debug)]
pub struct Root {
    folder: OwnedFd,
    path: PathBuf,
}

impl Root {
    /// Opens the folder at `path`; the path itself is trusted.
    ///
    /// # Errors
    /// [`Kind::NotFound`], [`Kind::Denied`], [`Kind::Io`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let folder = openat(CWD, path, flags, Mode::empty()).map_err(|errno| {
            let error = io::Error::from(errno);
            let kind = match error.kind() {
                io::ErrorKind::NotFound => Kind::NotFound,
                io::ErrorKind::PermissionDenied => Kind::Denied,
                _ => Kind::Io,
            };
            Error::new(kind, format!("open {}: {error}", path.display()))
        })?;
        Ok(Self {
            folder,
            path: path.to_owned(),
        })
    }

    /// Where it was opened, for people.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A folder below it as a root of its own.
    ///
    /// # Errors
    /// As [`Root::folder`].
    pub fn below(&self, path: &RelPath) -> Result<Self, Error> {
        Ok(Self {
            folder: self.folder(path)?,
            path: self.path.join(path.as_str()),
        })
    }

    /// Opens a folder below it, for looking at.
    ///
    /// # Errors
    /// [`Kind::Refused`] where a link or a file stands on the way, [`Kind::NotFound`], [`Kind::Denied`], [`Kind::Io`].
    pub fn folder(&self, path: &RelPath) -> Result<OwnedFd, Error> {
        let failed = |errno| not_a_folder(path, errno);
        let mut folder = openat(&self.folder, ".", FOLDER, Mode::empty()).map_err(failed)?;
        for part in path.parts() {
            folder = openat(&folder, part, FOLDER, Mode::empty()).map_err(failed)?;
        }
        Ok(folder)
    }

    /// Opens a folder below it, making what is missing on the way.
    pub(crate) fn make_folder(&self, path: &RelPath) -> Result<OwnedFd, Error> {
        let failed = |errno| not_a_folder(path, errno);
        let mut folder = openat(&self.folder, ".", FOLDER, Mode::empty()).map_err(failed)?;
        for part in path.parts() {
            folder = match openat(&folder, part, FOLDER, Mode::empty()) {
                Err(Errno::NOENT) => {
                    match mkdirat(&folder, part, Mode::from_raw_mode(0o755)) {
                        Ok(()) => sync_folder(&folder)
                            .map_err(|error| Error::io("sync the folder of", path, error))?,
                        Err(Errno::EXIST) => {}
                        Err(errno) => return Err(failed(errno)),
                    }
                    openat(&folder, part, FOLDER, Mode::empty()).map_err(failed)?
                }
                opened => opened.map_err(failed)?,
            };
        }
        Ok(folder)
    }

    /// What stands at a path, links not followed; `None` if nothing does.
    pub(crate) fn stat(&self, path: &RelPath) -> Result<Option<Stat>, Error> {
        let Some((folder, name)) = path.split() else {
            let stat = rustix::fs::fstat(&self.folder);
            return stat
                .map(Some)
                .map_err(|errno| Error::io("look at", path, errno));
        };
        match self.folder(&folder) {
            Ok(folder) => stat_in(&folder, name, path),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens the regular file at a path, for reading.
    ///
    /// # Errors
    /// As [`Root::folder`].
    pub fn file(&self, path: &RelPath) -> Result<File, Error> {
        let (folder, name) = path
            .split()
            .ok_or_else(|| Error::refused(path, "a folder stands where a file should"))?;
        open_file(&self.folder(&folder)?, name, path)
    }

    /// Opens the empty folder at a path, made if nothing stands there; says whether it was made.
    /// The folder it lies in must exist.
    ///
    /// # Errors
    /// [`Kind::Refused`] if something is in it or it is no folder, [`Kind::NotFound`], [`Kind::Denied`], [`Kind::Io`].
    pub fn empty_folder(&self, path: &RelPath) -> Result<(OwnedFd, bool), Error> {
        let (parent, name) = path
            .split()
            .ok_or_else(|| Error::refused(path, "it is a whole root"))?;
        let parent = self.folder(&parent)?;
        let made = match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                sync_folder(&parent)
                    .map_err(|error| Error::io("sync the folder of", path, error))?;
                true
            }
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(Error::io("make the folder", path, errno)),
        };
        let failed = |errno| not_a_folder(path, errno);
        let folder = openat(&parent, name, FOLDER, Mode::empty()).map_err(failed)?;
        let mut listing = rustix::fs::Dir::read_from(&folder).map_err(failed)?;
        let full = listing.any(|found| {
            found.is_ok_and(|found| !matches!(found.file_name().to_bytes(), b"." | b".."))
        });
        if full {
            return Err(Error::refused(path, "something is in the folder"));
        }
        Ok((folder, made))
    }

    /// Removes the empty folder at a path; its folder is synced. Says whether there was one.
    ///
    /// # Errors
    /// [`Kind::Refused`] if it is no folder, [`Kind::Denied`], [`Kind::Io`], also if something is in it.
    pub fn remove_folder(&self, path: &RelPath) -> Result<bool, Error> {
        let (parent, name) = path
            .split()
            .ok_or_else(|| Error::refused(path, "it is a whole root"))?;
        let parent = match self.folder(&parent) {
            Err(error) if error.kind() == Kind::NotFound => return Ok(false),
            folder => folder?,
        };
        match rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR) {
            Ok(()) => {
                sync_folder(&parent)
                    .map_err(|error| Error::io("sync the folder of", path, error))?;
                Ok(true)
            }
            Err(Errno::NOENT) => Ok(false),
            Err(Errno::NOTDIR) => Err(Error::refused(path, NOT_A_FOLDER)),
            Err(errno) => Err(Error::io("remove", path, errno)),
        }
    }

    /// The folder a path lies in, open, and its name there, if a file system is mounted at the path; links are not followed.
    ///
    /// # Errors
    /// As [`Root::folder`]; what does not exist is not mounted.
    pub fn mounted<'p>(&self, path: &'p RelPath) -> Result<Option<(OwnedFd, &'p str)>, Error> {
        let Some((parent, name)) = path.split() else {
            return Ok(None);
        };
        let parent = match self.folder(&parent) {
            Err(error) if error.kind() == Kind::NotFound => return Ok(None),
            folder => folder?,
        };
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        match statx(&parent, name, flags, StatxFlags::BASIC_STATS) {
            Ok(found)
                if !found
                    .stx_attributes_mask
                    .contains(StatxAttributes::MOUNT_ROOT) =>
            {
                let text = format!("look at {path}: this kernel does not tell what is mounted");
                Err(Error::new(Kind::Io, text))
            }
            Ok(found) if found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) => {
                Ok(Some((parent, name)))
            }
            Ok(_) | Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Error::io("look at", path, errno)),
        }
    }

    /// Opens the block device or regular file at a path, for reading.
    ///
    /// # Errors
    /// As [`Root::folder`].
    pub(crate) fn block(&self, path: &RelPath) -> Result<File, Error> {
        let (folder, name) = path
            .split()
            .ok_or_else(|| Error::refused(path, "a folder stands where a file should"))?;
        let folder = self.folder(&folder)?;
        match stat_in(&folder, name, path)? {
            Some(stat) if file_type(&stat) == FileType::BlockDevice => {
                // Whatever takes its place meanwhile is opened as well, and only read.
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let opened = openat(&folder, name, flags, Mode::empty());
                opened
                    .map(File::from)
                    .map_err(|errno| Error::io("open", path, errno))
            }
            _ => open_file(&folder, name, path),
        }
    }

    /// Removes the file or link at a path; its folder is synced. Says whether there was one.
    ///
    /// # Errors
    /// [`Kind::Refused`] for a folder, [`Kind::Denied`], [`Kind::Io`].
    pub fn remove_file(&self, path: &RelPath) -> Result<bool, Error> {
        let (folder, name) = path
            .split()
            .ok_or_else(|| Error::refused(path, "a folder stands where a file should"))?;
        let folder = match self.folder(&folder) {
            Err(error) if error.kind() == Kind::NotFound => return Ok(false),
            folder => folder?,
        };
        match rustix::fs::unlinkat(&folder, name, AtFlags::empty()) {
            Ok(()) => {
                sync_folder(&folder)
                    .map_err(|error| Error::io("sync the folder of", path, error))?;
                Ok(true)
            }
            Err(Errno::NOENT) => Ok(false),
            Err(Errno::ISDIR) => Err(Error::refused(path, "a folder stands where a file should")),
            Err(errno) => Err(Error::io("remove", path, errno)),
        }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

/// Opens the regular file `name`; never follows a link and never waits on a pipe.
pub(crate) fn open_file(folder: &OwnedFd, name: &str, path: &RelPath) -> Result<File, Error> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(folder, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::LOOP) => return Err(Error::refused(path, "a link stands where a file should")),
        Err(Errno::NXIO) => {
            return Err(Error::refused(path, "it is a device, pipe or socket"));
        }
        Err(errno) => return Err(Error::io("open", path, errno)),
    };
    let metadata = file
        .metadata()
        .map_err(|error| Error::io("look at", path, error))?;
    if metadata.is_dir() {
        return Err(Error::refused(path, "a folder stands where a file should"));
    }
    if !metadata.is_file() {
        return Err(Error::refused(path, "it is a device, pipe or socket"));
    }
    Ok(file)
}

/// What stands at `name`, links not followed.
pub(crate) fn stat_in(folder: &OwnedFd, name: &str, path: &RelPath) -> Result<Option<Stat>, Error> {
    match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(Error::io("look at", path, errno)),
    }
}

pub(crate) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// The key of a file by its status.
pub(crate) fn stat_key(stat: &Stat) -> StatKey {
    let ns = |seconds: i64, nanoseconds: i128| i128::from(seconds) * 1_000_000_000 + nanoseconds;
    StatKey {
        dev: stat.st_dev,
        ino: stat.st_ino,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime_ns: ns(stat.st_mtime, i128::from(stat.st_mtime_nsec)),
        ctime_ns: ns(stat.st_ctime, i128::from(stat.st_ctime_nsec)),
    }
}

pub(crate) fn sync_folder(folder: &OwnedFd) -> io::Result<()> {
    rustix::fs::fsync(folder).map_err(io::Error::from)
}

fn not_a_folder(path: &RelPath, errno: Errno) -> Error {
    match errno {
        Errno::LOOP | Errno::NOTDIR => Error::refused(path, NOT_A_FOLDER),
        errno => Error::io("open", path, errno),
    }
}
