//! Folders below a root that are kept open while their neighbours are looked at.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crux_core::files::path::RelPath;
use rustix::fs::Stat;

use super::error::{Error, Kind};
use super::root::{Root, open_file, stat_in};

/// Folders below a root, each opened once while neighbours are looked at.
pub(super) struct Folders<'a> {
    root: &'a Root,
    open: HashMap<RelPath, Option<Arc<OwnedFd>>>,
}

/// Folders kept open at once.
const FOLDERS_OPEN_MAX: usize = 64;

impl<'a> Folders<'a> {
    pub(super) fn new(root: &'a Root) -> Self {
        Self {
            root,
            open: HashMap::new(),
        }
    }

    /// The folder that a path lies in; `None` if it is not there.
    pub(super) fn parent(&mut self, path: &RelPath) -> Result<Option<&OwnedFd>, Error> {
        let (at, _) = path.split().unwrap_or_default();
        if !self.open.contains_key(&at) {
            if self.open.len() >= FOLDERS_OPEN_MAX {
                self.open.clear();
            }
            let folder = match self.root.folder(&at) {
                Ok(folder) => Some(Arc::new(folder)),
                Err(error) if error.kind() == Kind::NotFound => None,
                Err(error) => return Err(error),
            };
            self.open.insert(at.clone(), folder);
        }
        Ok(self.open.get(&at).and_then(Option::as_deref))
    }

    pub(super) fn stat(&mut self, path: &RelPath) -> Result<Option<Stat>, Error> {
        let Some((_, name)) = path.split() else {
            return self.root.stat(path);
        };
        match self.parent(path)? {
            Some(folder) => stat_in(folder, name, path),
            None => Ok(None),
        }
    }

    /// Opens the regular file at a path.
    pub(super) fn file(&mut self, path: &RelPath) -> Result<File, Error> {
        let (_, name) = path
            .split()
            .ok_or_else(|| Error::refused(path, "a folder stands where a file should"))?;
        let gone = || Error::io("open", path, io::ErrorKind::NotFound);
        let folder = self.parent(path)?.ok_or_else(gone)?;
        open_file(folder, name, path)
    }
}
