//! Where what is written over a mount is kept: `DIR/cell/layers/<target's digest>/{upper,work}`.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crux_core::digest::Digest;

/// The upper and work directories of one mount.
#[derive(Debug)]
pub(super) struct Layers {
    pub(super) upper: PathBuf,
    pub(super) work: PathBuf,
}

impl Layers {
    /// Finds or makes the layers of what is mounted at `target`; they stay from one cell to the next.
    ///
    /// The upper layer takes the mode of `host`, since it is what the root of the mount shows.
    pub(super) fn open(dir: &Path, target: &Path, host: &fs::Metadata) -> io::Result<Self> {
        let name = Digest::of(target.as_os_str().as_encoded_bytes()).short();
        let root = dir.join("cell").join("layers").join(name);
        let mut private = fs::DirBuilder::new();
        private.recursive(true).mode(0o700).create(&root)?;
        let layers = Self {
            upper: root.join("upper"),
            work: root.join("work"),
        };
        if !layers.upper.try_exists()? {
            fs::create_dir(&layers.upper)?;
            fs::set_permissions(&layers.upper, host.permissions())?;
        }
        private.create(&layers.work)?;
        Ok(layers)
    }
}

/// Removes everything a cell left below `DIR/cell`, the layers of its mounts included.
///
/// The kernel leaves directories in there that even their owner may not open, which a plain removal stumbles over.
/// Nothing is followed out of it. Call it when no cell runs on `dir`.
///
/// # Errors
/// The system's; what could be removed is gone.
pub fn clear(dir: &Path) -> io::Result<()> {
    let root = dir.join("cell");
    match open_up(&root) {
        Ok(()) => fs::remove_dir_all(root),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Lets the owner open every directory from `path` on down.
fn open_up(path: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() {
        return Ok(());
    }
    let mode = metadata.permissions().mode();
    if mode & 0o700 != 0o700 {
        fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o700))?;
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}
