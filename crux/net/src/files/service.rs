//! Data services: where data files can be had that no rnode holds.
//!
//! An object service answers GET, a network file system is a folder, a block device is bytes without a name.
//! None of them is believed: whoever reads compares what came with the digest it asked for.

mod block;
mod folder;
mod object;

use std::fmt::Debug;
use std::io;

use tokio::io::AsyncRead;

pub use block::Block;
pub use folder::Folder;
pub use object::Object;

/// One data file of a data service.
///
/// # Behaviour
/// - gives the whole content from its first byte, and as many bytes as it told before
/// - content that is cut short ends with an error, never as if it were all
/// - what is not there is `NotFound`
/// - opened again, it begins anew
#[tonic::async_trait]
pub trait DataService: Debug + Send + Sync {
    /// Opens the content.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied`, or what the service said.
    ///
    /// # Cancel safety
    /// Safe: nothing is kept.
    async fn open(&self) -> io::Result<Content>;
}

/// An open content.
pub struct Content {
    /// Its bytes.
    pub bytes: Box<dyn AsyncRead + Send + Unpin>,
    /// How many they are, where the service tells.
    pub total: Option<u64>,
}

impl Debug for Content {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Content")
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
