//! Blobs on their way into the store, hashed and written beside the runtime: the agent has one thread, and a large piece
//! or the last sync would hold it. Piece by piece, so that no thread waits for whoever sends.

use std::io;
use std::sync::Arc;

use crux_net::store::{self, Info, Put, Store, Writer};

/// A blob on its way.
#[derive(Debug)]
pub(crate) struct Writing(Writer<Arc<Store>>);

impl Writing {
    /// Starts a blob.
    ///
    /// # Errors
    /// As [`Store::writer`].
    pub(crate) async fn begin(store: &Arc<Store>, put: Put) -> Result<Self, store::Error> {
        let opening = Arc::clone(store);
        off(store, move || opening.shared_writer(put).map(Self)).await
    }

    /// Appends the next piece.
    ///
    /// # Errors
    /// As [`Writer::append`]; nothing is left behind.
    pub(crate) async fn append(
        self,
        store: &Arc<Store>,
        bytes: Vec<u8>,
    ) -> Result<Self, store::Error> {
        let append = move || {
            let Self(mut writer) = self;
            writer.append(&bytes)?;
            Ok(Self(writer))
        };
        off(store, append).await
    }

    /// Bytes taken so far.
    pub(crate) fn size(&self) -> u64 {
        self.0.size()
    }

    /// Syncs the blob and gives it its name.
    ///
    /// # Errors
    /// As [`Writer::commit`].
    pub(crate) async fn commit(self, store: &Arc<Store>) -> Result<Info, store::Error> {
        off(store, move || self.0.commit()).await
    }
}

/// Does something with the store that may block for long beside the runtime.
pub(crate) async fn off<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce() -> Result<T, store::Error> + Send + 'static,
) -> Result<T, store::Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(store::Error::reading(store.dir(), io::Error::other(error))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crux_core::digest::Digest;

    #[tokio::test]
    async fn a_blob_is_written_piece_by_piece_off_the_runtimes_thread() {
        let dir = std::env::temp_dir().join(format!("radix-writing-{}", std::process::id()));
        let store = Arc::new(Store::open(&dir).unwrap());
        let own = std::thread::current().id();
        let at = off(&store, || Ok(std::thread::current().id()))
            .await
            .unwrap();
        assert_ne!(at, own);
        let put = Put {
            expected: Some(Digest::of(b"one two")),
            executable: false,
        };
        let mut writing = Writing::begin(&store, put).await.unwrap();
        for piece in ["one", " two"] {
            writing = writing.append(&store, piece.into()).await.unwrap();
        }
        assert_eq!(writing.size(), 7);
        writing.commit(&store).await.unwrap();
        assert!(store.has(&Digest::of(b"one two")));
        drop(store);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
