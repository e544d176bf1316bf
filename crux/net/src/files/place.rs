//! One file put whole at a path below a root.

use std::fs::File;
use std::io;

use crux_core::files::path::RelPath;
use rustix::fs::{AtFlags, Mode, OFlags, fchmod, openat, renameat, unlinkat};
use rustix::io::Errno;

use super::error::Error;
use super::root::{Root, sync_folder};
use super::staging::Staging;

impl Root {
    /// Puts the content of an open file at a path, with `mode`: staged, synced, named. A link there is replaced, not
    /// followed; what stands there before stays until the new is whole. `name` tells stagings apart. Blocks.
    ///
    /// # Errors
    /// [`super::Kind`]; what stood there is as it was.
    pub fn put_file(
        &self,
        path: &RelPath,
        content: &mut File,
        (name, mode): (&str, u32),
    ) -> Result<(), Error> {
        let (parent, own) = path
            .split()
            .ok_or_else(|| Error::refused(path, "a folder stands where a file should"))?;
        let parent = self.make_folder(&parent)?;
        let staging = Staging::open(self).map_err(|error| Error::io("stage", path, error))?;
        let put = staged(&staging, content, (name, mode)).and_then(|()| {
            renameat(&staging, name, &parent, own)?;
            sync_folder(&parent)
        });
        if put.is_err() {
            // What cannot be finished must not keep the disk full.
            let _ = unlinkat(&staging, name, AtFlags::empty());
        }
        put.map_err(
            |error| match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::ISDIR) => Error::refused(path, "a folder stands where a file should"),
                _ => Error::io("write", path, error),
            },
        )
    }
}

fn staged(staging: &Staging, content: &mut File, (name, mode): (&str, u32)) -> io::Result<()> {
    match unlinkat(staging, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(staging, name, flags, Mode::from_raw_mode(0o600))?;
    let mut file = File::from(file);
    io::Seek::rewind(content)?;
    io::copy(content, &mut file)?;
    fchmod(&file, Mode::from_raw_mode(mode))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use crux_core::files::path::STAGING;

    use super::*;
    use crate::files::Kind;

    #[test]
    fn a_file_is_put_whole_over_what_stands_there_and_leads_nowhere() {
        let at = std::env::temp_dir().join(format!("radix-place-{}", std::process::id()));
        fs::create_dir_all(at.join("root/folder")).unwrap();
        fs::write(at.join("content"), b"new").unwrap();
        fs::write(at.join("target"), b"kept").unwrap();
        symlink(at.join("target"), at.join("root/link")).unwrap();
        symlink(&at, at.join("root/door")).unwrap();
        let root = Root::open(&at.join("root")).unwrap();
        let put = |path: &str| {
            let mut content = File::open(at.join("content")).unwrap();
            root.put_file(&RelPath::new(path).unwrap(), &mut content, ("n", 0o444))
        };
        put("deep/er/file").unwrap();
        put("link").unwrap();
        assert_eq!(fs::read(at.join("root/link")).unwrap(), b"new");
        assert_eq!(fs::read(at.join("target")).unwrap(), b"kept");
        let metadata = fs::metadata(at.join("root/deep/er/file")).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o444);
        for path in ["folder", "door/out", "link/x"] {
            assert_eq!(put(path).unwrap_err().kind(), Kind::Refused, "{path}");
        }
        assert!(!at.join("out").exists() && !at.join("root").join(STAGING).exists());
        fs::remove_dir_all(&at).unwrap();
    }
}
