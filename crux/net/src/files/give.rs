//! The giving side over the wire.

use std::sync::Arc;

use crux_wire::fileio::v1::file_io_client::FileIoClient;
use crux_wire::fileio::v1::{CopyProgress, GiveInput, Piece, Want};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::error::Error;
use super::offer::Offered;

/// Pieces that wait to be sent; the reader of the file waits beyond it.
pub(crate) const PIECES_QUEUED: usize = 32;
/// Bytes of a manifest in one message.
const MANIFEST_PAGE_BYTES: usize = 256 * 1024;

/// What is asked for, read beside the runtime.
#[must_use]
pub fn pieces(offered: &Arc<Offered>, wants: Vec<Want>) -> mpsc::Receiver<Piece> {
    let (tx, rx) = mpsc::channel(PIECES_QUEUED);
    let offered = Arc::clone(offered);
    drop(tokio::task::spawn_blocking(move || {
        offered.give(&wants, &mut |piece| tx.blocking_send(piece).is_ok());
    }));
    rx
}

/// A manifest in messages.
pub fn pages(text: &str) -> impl Iterator<Item = &[u8]> {
    text.as_bytes().chunks(MANIFEST_PAGE_BYTES)
}

/// Gives an offer to a rnode that expects it under `ticket`, and tells how far it says it is.
///
/// # Errors
/// What the taker says, or that it is gone; calling it again goes on from there.
///
/// # Cancel safety
/// As after an error.
pub async fn give(
    client: &mut FileIoClient<Channel>,
    ticket: String,
    offered: &Arc<Offered>,
    told: &(dyn Fn(&CopyProgress) + Send + Sync),
) -> Result<CopyProgress, Error> {
    let gone = |_| Error::gone("the taker is gone");
    let (tx, rx) = mpsc::channel(PIECES_QUEUED);
    let manifest = Arc::clone(offered);
    let first = tx.clone();
    let sending = async move {
        let hello = GiveInput {
            ticket,
            name: manifest.name().to_owned(),
            ..GiveInput::default()
        };
        first.send(hello).await.map_err(gone)?;
        let text = manifest.text();
        for page in pages(&text) {
            let page = GiveInput {
                manifest: page.to_vec(),
                ..GiveInput::default()
            };
            first.send(page).await.map_err(gone)?;
        }
        let end = GiveInput {
            manifest_end: true,
            ..GiveInput::default()
        };
        first.send(end).await.map_err(gone)
    };
    let calling = client.give(ReceiverStream::new(rx));
    let (sent, called) = tokio::join!(sending, calling);
    let mut outputs = called
        .map_err(|status| Error::from_status(&status))?
        .into_inner();
    sent?;
    loop {
        let output = outputs
            .message()
            .await
            .map_err(|status| Error::from_status(&status))?
            .ok_or_else(|| Error::gone("the taker ended before it was done"))?;
        if let Some(progress) = output.progress {
            told(&progress);
            if progress.done {
                return Ok(progress);
            }
        }
        let Some(read) = output.read else { continue };
        let mut pieces = pieces(offered, read.wants);
        while let Some(piece) = pieces.recv().await {
            tx.send(input(piece)).await.map_err(gone)?;
        }
        let end = Piece {
            end: true,
            ..Piece::default()
        };
        tx.send(input(end)).await.map_err(gone)?;
    }
}

fn input(piece: Piece) -> GiveInput {
    GiveInput {
        piece: Some(piece),
        ..GiveInput::default()
    }
}
