//! The first bytes of a block device, or of a file that stands for one.

use std::fs::File;
use std::io;
use std::sync::Arc;

use crux_core::files::path::RelPath;
use tokio::io::AsyncReadExt;

use super::folder::told;
use super::{Content, DataService};
use crate::files::Root;

/// See the module.
#[derive(Debug)]
pub struct Block {
    root: Arc<Root>,
    path: RelPath,
    bytes: u64,
}

impl Block {
    /// The device at a path below a root, and how many of its bytes are the data.
    #[must_use]
    pub const fn new(root: Arc<Root>, path: RelPath, bytes: u64) -> Self {
        Self { root, path, bytes }
    }
}

#[tonic::async_trait]
impl DataService for Block {
    async fn open(&self) -> io::Result<Content> {
        let (root, path, total) = (Arc::clone(&self.root), self.path.clone(), self.bytes);
        let opening = tokio::task::spawn_blocking(move || opened(&root, &path, total));
        let file = opening.await.map_err(io::Error::other)??;
        Ok(Content {
            bytes: Box::new(tokio::fs::File::from_std(file).take(total)),
            total: Some(total),
        })
    }
}

fn opened(root: &Root, path: &RelPath, total: u64) -> io::Result<File> {
    let file = root.block(path).map_err(told)?;
    // The size of a device is where it ends.
    let mut end = &file;
    let size = io::Seek::seek(&mut end, io::SeekFrom::End(0))?;
    io::Seek::rewind(&mut end)?;
    if size < total {
        let text = format!("it has {size} bytes, fewer than {total}");
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
    }
    Ok(file)
}
