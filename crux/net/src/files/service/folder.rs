//! A file of a folder below a declared root, such as a network file system that is mounted there.

use std::io;
use std::sync::Arc;

use crux_core::files::path::RelPath;

use super::{Content, DataService};
use crate::files::{Error, Kind, Root};

/// See the module.
#[derive(Debug)]
pub struct Folder {
    root: Arc<Root>,
    path: RelPath,
}

impl Folder {
    /// The file at a path below a root.
    #[must_use]
    pub const fn new(root: Arc<Root>, path: RelPath) -> Self {
        Self { root, path }
    }
}

#[tonic::async_trait]
impl DataService for Folder {
    async fn open(&self) -> io::Result<Content> {
        let (root, path) = (Arc::clone(&self.root), self.path.clone());
        // A network may be behind it.
        let opening = tokio::task::spawn_blocking(move || {
            let file = root.file(&path).map_err(told)?;
            let total = file.metadata()?.len();
            Ok::<_, io::Error>((file, total))
        });
        let (file, total) = opening.await.map_err(io::Error::other)??;
        Ok(Content {
            bytes: Box::new(tokio::fs::File::from_std(file)),
            total: Some(total),
        })
    }
}

/// A refusal of a root as an operating system's.
pub(super) fn told(error: Error) -> io::Error {
    let kind = match error.kind() {
        Kind::NotFound => io::ErrorKind::NotFound,
        Kind::Refused | Kind::Denied => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
