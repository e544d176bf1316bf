//! Streams of files that are being read from here: how many there may be, and an end to those that nobody takes.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use crux_core::identity::Principal;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_stream::Stream;
use tonic::Status;

use crate::agent::context::background;
use crate::agent::limits::{GIVER_UNTAKEN_MAX, GIVERS_CALLER_MAX, GIVERS_MAX};
use crate::agent::rexec_service::Replies;

/// Who reads how many streams.
#[derive(Debug, Default)]
pub(crate) struct Givers(Mutex<BTreeMap<String, usize>>);

impl Givers {
    /// Counts one more stream for a caller, for as long as what is returned lives.
    ///
    /// # Errors
    /// `ResourceExhausted` beyond [`GIVERS_CALLER_MAX`] of one caller, or [`GIVERS_MAX`] of all.
    pub(crate) fn admit(self: &Arc<Self>, caller: &Principal) -> Result<Arc<Giver>, Status> {
        let caller = caller.to_string();
        let mut counts = self.counts();
        let own = counts.get(&caller).copied().unwrap_or(0);
        if own >= GIVERS_CALLER_MAX {
            return Err(Status::resource_exhausted(format!(
                "read: this caller reads {GIVERS_CALLER_MAX} streams of files already"
            )));
        }
        if counts.values().sum::<usize>() >= GIVERS_MAX {
            return Err(Status::resource_exhausted(format!(
                "read: {GIVERS_MAX} streams of files are read here already"
            )));
        }
        counts.insert(caller.clone(), own + 1);
        drop(counts);
        Ok(Arc::new(Giver {
            givers: Arc::clone(self),
            caller,
        }))
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        // Whole numbers are put in only.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One stream that is counted.
#[derive(Debug)]
pub(crate) struct Giver {
    givers: Arc<Givers>,
    caller: String,
}

impl Drop for Giver {
    fn drop(&mut self) {
        let mut counts = self.givers.counts();
        if let Some(count) = counts.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.caller);
            }
        }
    }
}

/// The same stream, which counts as `giver` until its end, and ends when nobody takes what it has for
/// [`GIVER_UNTAKEN_MAX`]: all it holds is let go then, and whoever fills it finds its receiver gone.
pub(crate) fn taken<T: Send + 'static>(stream: Replies<T>, giver: Arc<Giver>) -> Replies<T> {
    let slot = Arc::new(Mutex::new(Slot {
        held: Some((stream, giver)),
        waits: false,
        since: Instant::now(),
        abandoned: false,
    }));
    let (alive, over) = oneshot::channel();
    background("giver", watch(Arc::clone(&slot), over));
    Box::pin(Taken {
        slot,
        _alive: alive,
    })
}

struct Slot<T> {
    /// `None` once it is over.
    held: Option<(Replies<T>, Arc<Giver>)>,
    /// Whether the taker waits for us, rather than we for it.
    waits: bool,
    /// When it took something last.
    since: Instant,
    /// Whether it is still to be told that it took too long.
    abandoned: bool,
}

struct Taken<T> {
    slot: Arc<Mutex<Slot<T>>>,
    /// Dropped with the stream, which ends the watch.
    _alive: oneshot::Sender<()>,
}

impl<T> Stream for Taken<T> {
    type Item = Result<T, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut slot = lock(&self.slot);
        let Some((stream, _)) = &mut slot.held else {
            let told = std::mem::take(&mut slot.abandoned).then(|| {
                let seconds = GIVER_UNTAKEN_MAX.as_secs();
                Err(Status::deadline_exceeded(format!(
                    "read: nothing was taken for {seconds} s"
                )))
            });
            return Poll::Ready(told);
        };
        let polled = stream.as_mut().poll_next(context);
        slot.waits = polled.is_pending();
        slot.since = Instant::now();
        if matches!(polled, Poll::Ready(None)) {
            slot.held = None;
        }
        polled
    }
}

/// Lets go of what nobody takes.
async fn watch<T: Send>(slot: Arc<Mutex<Slot<T>>>, mut over: oneshot::Receiver<()>) {
    let mut look = Instant::now() + GIVER_UNTAKEN_MAX;
    loop {
        tokio::select! {
            _ = &mut over => return,
            () = tokio::time::sleep_until(look) => {}
        }
        let mut slot = lock(&slot);
        let now = Instant::now();
        if slot.waits {
            look = now + GIVER_UNTAKEN_MAX;
        } else if now >= slot.since + GIVER_UNTAKEN_MAX {
            slot.abandoned = slot.held.is_some();
            slot.held = None;
            return;
        } else {
            look = slot.since + GIVER_UNTAKEN_MAX;
        }
    }
}

fn lock<T>(slot: &Mutex<Slot<T>>) -> MutexGuard<'_, Slot<T>> {
    // A stream that panicked is polled no more by whoever polled it.
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crux_core::names::{Label, OwnerId};
    use futures_util::StreamExt;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    fn caller(name: usize) -> Principal {
        let name = Label::new(&format!("b{name}")).unwrap();
        Principal::backend(OwnerId::from_bytes([1; 32]), name)
    }

    #[test]
    fn neither_one_caller_nor_all_read_more_streams_than_there_may_be() {
        let givers = Arc::new(Givers::default());
        let mut held: Vec<_> = (0..GIVERS_CALLER_MAX)
            .map(|_| givers.admit(&caller(0)).unwrap())
            .collect();
        let refused = givers.admit(&caller(0)).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        held.pop();
        held.push(givers.admit(&caller(0)).unwrap());
        for other in GIVERS_CALLER_MAX..GIVERS_MAX {
            held.push(givers.admit(&caller(other / GIVERS_CALLER_MAX)).unwrap());
        }
        let refused = givers.admit(&caller(GIVERS_MAX)).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        held.clear();
        assert!(givers.counts().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_nobody_takes_is_let_go_with_the_thread_that_fills_it() {
        let givers = Arc::new(Givers::default());
        let (tx, rx) = mpsc::channel(1);
        let giver = givers.admit(&caller(0)).unwrap();
        let mut stream = taken(ReceiverStream::new(rx).boxed(), giver);
        let second = tx.clone();
        tx.send(Ok(1)).await.unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), 1);
        tx.send(Ok(2)).await.unwrap();
        // Nobody takes what is there: whoever sends the next is let go.
        assert!(second.send(Ok(3)).await.is_err());
        assert!(givers.counts().is_empty());
        let told = stream.next().await.unwrap().unwrap_err();
        assert_eq!(told.code(), tonic::Code::DeadlineExceeded);
        assert!(stream.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_taker_that_waits_for_what_is_slow_to_come_is_not_cut_off() {
        let givers = Arc::new(Givers::default());
        let (tx, rx) = mpsc::channel(1);
        let giver = givers.admit(&caller(0)).unwrap();
        let mut stream = taken(ReceiverStream::new(rx).boxed(), giver);
        let sending = async {
            tokio::time::sleep(GIVER_UNTAKEN_MAX * 3 + Duration::from_secs(1)).await;
            tx.send(Ok(1)).await.unwrap();
        };
        let (taken, ()) = tokio::join!(stream.next(), sending);
        assert_eq!(taken.unwrap().unwrap(), 1);
    }
}
