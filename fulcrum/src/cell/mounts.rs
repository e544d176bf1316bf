//! Shows the host directories of the configuration inside: each a read-only lower layer with an upper one in `DIR/cell`.
//!
//! All host sides are bound first, to places below one tmpfs of our own, since a later mount may hide a host path.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::error::CellError;
use super::layers::Layers;
use super::namespaces::{NONE, Namespaces};
use super::stage::{self, Leaf};
use crate::config::Mount;

/// The longest text of options that the kernel takes.
const OPTIONS_BYTES_MAX: usize = 4095;

/// Makes all mounts; `own` is what none of them may hide.
pub(super) fn make(
    mounts: &[Mount],
    own: &[&Path],
    dir: &Path,
    namespaces: Namespaces,
) -> Result<(), CellError> {
    if mounts.is_empty() {
        return Ok(());
    }
    let mut mounts: Vec<_> = mounts.iter().collect();
    // A target inside another comes after it, else it would be hidden.
    mounts.sort_by_key(|mount| mount.target.components().count());
    for mount in &mounts {
        refuse_own(mount, own, dir)?;
    }
    let place = Place::make(dir)?;
    let mut shown = Vec::new();
    for (index, mount) in mounts.into_iter().enumerate() {
        let metadata = fs::metadata(&mount.host).map_err(|error| refused(mount, &error))?;
        let bound = place.bind(index, mount, &metadata)?;
        shown.push((mount, metadata, bound));
    }
    for (mount, metadata, bound) in shown {
        if mount.writable {
            show_storage(mount, &metadata, &bound, &place)?;
        } else if metadata.is_dir() {
            show_directory(mount, &metadata, &bound, &place, namespaces)?;
        } else {
            show_file(mount, &bound, &place)?;
        }
    }
    // The mounts hold what they show; this way to the host's directories is no longer needed.
    umount2(&place.root, MntFlags::MNT_DETACH)
        .map_err(|error| CellError::at("unmount", &place.root, error))
}

/// Refuses a mount that would hide what the rnode itself lives on.
fn refuse_own(mount: &Mount, own: &[&Path], dir: &Path) -> Result<(), CellError> {
    match own
        .iter()
        .copied()
        .chain([dir])
        .find(|own| own.starts_with(&mount.target) || mount.target.starts_with(dir))
    {
        Some(own) => Err(reason(
            mount,
            format!("it would hide {} of the rnode", own.display()),
        )),
        None => Ok(()),
    }
}

/// A tmpfs of our own in the rnode's directory, seen by this cell only.
pub(super) struct Place {
    root: PathBuf,
    dir: PathBuf,
}

impl Place {
    fn make(dir: &Path) -> Result<Self, CellError> {
        let root = dir.join("cell").join("place");
        let failed = |error| CellError::at("make", &root, error);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&root)
            .map_err(failed)?;
        mount_tmpfs(&root, "mode=700,size=1m")?;
        fs::create_dir(root.join("hosts")).map_err(failed)?;
        fs::create_dir(root.join("stage")).map_err(failed)?;
        Ok(Self {
            dir: dir.to_owned(),
            root,
        })
    }

    /// Where new parts of the tree are built.
    pub(super) fn stage(&self) -> PathBuf {
        self.root.join("stage")
    }

    /// Binds a host path, read-only unless it is storage, to a place of its own.
    fn bind(
        &self,
        index: usize,
        one: &Mount,
        metadata: &fs::Metadata,
    ) -> Result<PathBuf, CellError> {
        let bound = self.root.join("hosts").join(index.to_string());
        // Ordering: made on our own tmpfs before anything is bound there, so nothing of the host is ever opened for writing.
        let made = if metadata.is_dir() {
            fs::create_dir(&bound)
        } else {
            fs::File::create_new(&bound).map(drop)
        };
        made.map_err(|error| CellError::at("make", &bound, error))?;
        mount(Some(&one.host), &bound, NONE, MsFlags::MS_BIND, NONE)
            .map_err(|error| refused(one, &error.into()))?;
        if !one.writable {
            read_only(&bound).map_err(|error| refused(one, &error))?;
        }
        Ok(bound)
    }
}

/// Makes a bound path read-only, keeping what the kernel does not let us drop.
fn read_only(bound: &Path) -> io::Result<()> {
    let found = statvfs(bound)?.flags();
    let kept = [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ];
    let kept = kept
        .into_iter()
        .filter(|(here, _)| found.contains(*here))
        .map(|(_, flag)| flag);
    let flags = kept.fold(
        MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY,
        |all, flag| all | flag,
    );
    Ok(mount(NONE, bound, NONE, flags, NONE)?)
}

fn show_directory(
    one: &Mount,
    metadata: &fs::Metadata,
    lower: &Path,
    place: &Place,
    namespaces: Namespaces,
) -> Result<(), CellError> {
    let layers = Layers::open(&place.dir, &one.target, metadata)
        .map_err(|error| CellError::at("make the layers of", &one.target, error))?;
    let target =
        stage::mount_point(&one.target, Leaf::Directory, place).map_err(|error| error.of(one))?;
    let mut options = OsString::new();
    for (name, path) in [
        ("lowerdir=", lower),
        (",upperdir=", &layers.upper),
        (",workdir=", &layers.work),
    ] {
        options.push(name);
        options.push(escape(path));
    }
    if namespaces.user {
        options.push(",userxattr");
    }
    if options.len() > OPTIONS_BYTES_MAX {
        return Err(reason(
            one,
            "the rnode's directory has too long a path".to_owned(),
        ));
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(
        Some("overlay"),
        &target,
        Some("overlay"),
        flags,
        Some(options.as_os_str()),
    )
    .map_err(|error| refused(one, &error.into()))
}

/// Shows storage as it is: a directory, a device or the file behind a volume.
fn show_storage(
    one: &Mount,
    metadata: &fs::Metadata,
    bound: &Path,
    place: &Place,
) -> Result<(), CellError> {
    let leaf = if metadata.is_dir() {
        Leaf::Directory
    } else {
        Leaf::File
    };
    let target = stage::mount_point(&one.target, leaf, place).map_err(|error| error.of(one))?;
    mount(Some(bound), &target, NONE, MsFlags::MS_BIND, NONE)
        .map_err(|error| refused(one, &error.into()))
}

fn show_file(one: &Mount, bound: &Path, place: &Place) -> Result<(), CellError> {
    let target =
        stage::mount_point(&one.target, Leaf::File, place).map_err(|error| error.of(one))?;
    mount(Some(bound), &target, NONE, MsFlags::MS_BIND, NONE)
        .map_err(|error| refused(one, &error.into()))?;
    read_only(&target).map_err(|error| refused(one, &error))
}

/// Mounts an empty tmpfs.
pub(super) fn mount_tmpfs(path: &Path, options: &str) -> Result<(), CellError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options))
        .map_err(|error| CellError::at("mount a tmpfs at", path, error))
}

/// A path as an overlay's option: what would end it is escaped.
pub(super) fn escape(path: &Path) -> OsString {
    let mut escaped = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b'\\' | b',' | b':') {
            escaped.push(b'\\');
        }
        escaped.push(*byte);
    }
    OsString::from_vec(escaped)
}

fn refused(mount: &Mount, error: &io::Error) -> CellError {
    reason(mount, error.to_string())
}

pub(super) fn reason(mount: &Mount, reason: String) -> CellError {
    CellError::Mount {
        host: mount.host.clone(),
        target: mount.target.clone(),
        reason,
    }
}
