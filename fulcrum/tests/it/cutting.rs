//! A link between two agents that is cut, as often as a test likes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Forwards connections to one address and cuts each after some bytes.
pub(crate) struct Cutting {
    pub(crate) address: SocketAddr,
    pub(crate) moved: Arc<AtomicU64>,
    pub(crate) cuts: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl Cutting {
    /// `after(n)`: bytes after which the n-th connection is cut; `None` lets it be.
    pub(crate) async fn start(
        to: String,
        after: impl Fn(usize) -> Option<u64> + Send + 'static,
    ) -> Self {
        Self::begin(to, after, None).await
    }

    /// Holds each connection up after so many bytes, until `on` lets all go on.
    pub(crate) async fn holding(to: String, bytes: u64, on: &Arc<Notify>) -> Self {
        Self::begin(to, move |_| Some(bytes), Some(Arc::clone(on))).await
    }

    async fn begin(
        to: String,
        after: impl Fn(usize) -> Option<u64> + Send + 'static,
        on: Option<Arc<Notify>>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (moved, cuts) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counted, cut) = (Arc::clone(&moved), Arc::clone(&cuts));
        let serving = spawn(async move {
            for number in 0.. {
                let Ok((near, _)) = listener.accept().await else {
                    return;
                };
                let Ok(far) = TcpStream::connect(&to).await else {
                    continue;
                };
                let limit = after(number);
                let (counted, cut) = (Arc::clone(&counted), Arc::clone(&cut));
                let on = on.clone();
                spawn(async move {
                    if forward(near, far, (limit, on), &counted).await {
                        cut.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        Self {
            address,
            moved,
            cuts,
            serving,
        }
    }
}

impl Drop for Cutting {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's own runtime ends with the test"
)]
fn spawn<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(work)
}

/// Says whether it cut the connection.
async fn forward(
    near: TcpStream,
    far: TcpStream,
    (limit, on): (Option<u64>, Option<Arc<Notify>>),
    counted: &Arc<AtomicU64>,
) -> bool {
    let (mut near_in, mut near_out) = near.into_split();
    let (mut far_in, mut far_out) = far.into_split();
    let up = async {
        let _ = tokio::io::copy(&mut near_in, &mut far_out).await;
        let _ = far_out.shutdown().await;
        std::future::pending::<()>().await;
    };
    let down = async {
        let mut buffer = vec![0; 64 * 1024];
        let mut left = limit.unwrap_or(u64::MAX);
        loop {
            let want = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            if want == 0 {
                let Some(on) = &on else { return true };
                on.notified().await;
                left = u64::MAX;
                continue;
            }
            match far_in.read(&mut buffer[..want]).await {
                Ok(0) | Err(_) => return false,
                Ok(length) => {
                    counted.fetch_add(length as u64, Ordering::Relaxed);
                    left -= length as u64;
                    if near_out.write_all(&buffer[..length]).await.is_err() {
                        return false;
                    }
                }
            }
        }
    };
    tokio::select! {
        () = up => false,
        cut = down => cut,
    }
}
