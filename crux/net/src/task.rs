//! The one place that spawns tasks: each has a name, and a policy for when its handle goes and for when it panics.
//!
//! Not for threads, and not for waiting on many tasks at once: see `tokio_util::task::TaskTracker`.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::task::{AbortHandle, JoinHandle};

/// What becomes of a task when its [`Task`] handle is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDrop {
    /// It is stopped at its next `.await`.
    Abort,
    /// It goes on to its own end.
    Drain,
}

/// What becomes of the process when a task panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnPanic {
    /// The panic is logged under the task's name; the rest goes on.
    Log,
    /// The panic is logged and the process ends with exit code 70: whoever started it starts it anew.
    StopProcess,
}

/// How a task ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// When its handle is dropped.
    pub on_drop: OnDrop,
    /// When it panics.
    pub on_panic: OnPanic,
}

impl Policy {
    /// Ends with its handle; a panic is logged.
    pub const ABORT: Self = Self {
        on_drop: OnDrop::Abort,
        on_panic: OnPanic::Log,
    };
    /// Outlives its handle; a panic is logged.
    pub const DRAIN: Self = Self {
        on_drop: OnDrop::Drain,
        on_panic: OnPanic::Log,
    };
    /// Outlives its handle; a panic ends the process.
    pub const ESSENTIAL: Self = Self {
        on_drop: OnDrop::Drain,
        on_panic: OnPanic::StopProcess,
    };
}

/// Exit code of a process stopped by [`OnPanic::StopProcess`]: an internal error, as in the table of exit codes.
const EXIT_INTERNAL: i32 = 70;

/// A spawned task; await it for its result.
///
/// Dropping it stops the task if its policy says so.
#[derive(Debug)]
pub struct Task<T> {
    name: &'static str,
    policy: Policy,
    handle: JoinHandle<T>,
}

/// A task did not reach its end: it was stopped, or it panicked.
#[derive(Debug, thiserror::Error)]
#[error("finish task {name}: it {}", if *panicked { "panicked" } else { "was stopped" })]
pub struct TaskEnded {
    /// The task's name.
    pub name: &'static str,
    /// Whether it panicked.
    pub panicked: bool,
}

impl<T> Task<T> {
    /// The name it was spawned under.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Stops the task at its next `.await`.
    pub fn abort(&self) {
        self.handle.abort();
    }

    /// A handle that can stop the task and does nothing when dropped.
    #[must_use]
    pub fn abort_handle(&self) -> AbortHandle {
        self.handle.abort_handle()
    }

    /// Whether the task has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, TaskEnded>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let name = self.name;
        Pin::new(&mut self.handle)
            .poll(context)
            .map_err(|error| TaskEnded {
                name,
                panicked: error.is_panic(),
            })
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        if self.policy.on_drop == OnDrop::Abort {
            self.handle.abort();
        }
    }
}

/// Reports a panic while the task's stack unwinds.
struct PanicGuard {
    name: &'static str,
    on_panic: OnPanic,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        tracing::error!(task = self.name, "a task panicked");
        if self.on_panic == OnPanic::StopProcess {
            std::process::exit(EXIT_INTERNAL);
        }
    }
}

/// Spawns `future` on the current runtime under `name`.
///
/// # Panics
/// Outside a tokio runtime.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where tasks are spawned"
)]
pub fn spawn<F>(name: &'static str, policy: Policy, future: F) -> Task<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let guarded = async move {
        let _guard = PanicGuard {
            name,
            on_panic: policy.on_panic,
        };
        future.await
    };
    Task {
        name,
        policy,
        handle: tokio::spawn(guarded),
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::sync::oneshot;

    use super::{Policy, spawn};

    struct Tell(Option<oneshot::Sender<()>>);

    impl Drop for Tell {
        fn drop(&mut self) {
            if let Some(sender) = self.0.take() {
                sender.send(()).ok();
            }
        }
    }

    #[tokio::test]
    async fn a_task_gives_its_result_and_its_name() {
        let task = spawn("sum", Policy::ABORT, async { 1 + 1 });
        assert_eq!(task.name(), "sum");
        assert_eq!(task.await.ok(), Some(2));
    }

    #[tokio::test]
    async fn an_aborting_task_ends_with_its_handle_and_a_draining_one_goes_on() {
        let (sender, ended) = oneshot::channel();
        let tell = Tell(Some(sender));
        drop(spawn("waiting", Policy::ABORT, async move {
            let _tell = tell;
            pending::<()>().await;
        }));
        ended.await.expect("the future was dropped");
        let (sender, done) = oneshot::channel();
        drop(spawn(
            "finishing",
            Policy::DRAIN,
            async move { sender.send(7) },
        ));
        assert_eq!(done.await, Ok(7));
    }

    #[tokio::test]
    async fn a_panic_is_told_to_whoever_waits() {
        let task = spawn("failing", Policy::ABORT, async {
            panic!("as the test wants")
        });
        assert!(
            task.await
                .is_err_and(|ended| ended.panicked && ended.name == "failing")
        );
    }
}
