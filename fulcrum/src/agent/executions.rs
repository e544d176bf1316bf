//! A mirror of the keeper's executions: what runs, what ended, and a wake-up at each change.
//!
//! Not for deciding; the keeper's records are the truth and this is filled from them at every start.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use crux_wire::keeper::v1::{Execution, Outcome, OutcomeKind, Spawn};
use tokio::sync::{OwnedRwLockReadGuard, RwLock, mpsc, watch};

use super::limits::KEEPER_WAIT;
use crate::keeper::client::{CallError, HOLDS_FROM, KeeperRef, LIMITS_FROM};

/// The agent's end of an execution's socket, under the execution's id.
pub(crate) type Socket = (String, OwnedFd);

/// The executions of this rnode.
#[derive(Debug)]
pub(crate) struct Executions {
    keeper: KeeperRef,
    /// What of the protocol the keeper speaks.
    version: u32,
    known: Mutex<BTreeMap<String, Arc<Execution>>>,
    changed: watch::Sender<u64>,
    sockets: mpsc::Sender<Socket>,
    /// Read by each start from its decision until it is listed; written by whoever must see all that were begun.
    starting: Arc<RwLock<()>>,
}

impl Executions {
    /// Takes over what a keeper of that version lists. Sockets of executions, now and later, go to `sockets`;
    /// when that is full, an execution's socket is not served until the next agent.
    ///
    /// # Errors
    /// When the keeper does not answer within [`KEEPER_WAIT`].
    pub(crate) async fn adopt(
        keeper: KeeperRef,
        version: u32,
        sockets: mpsc::Sender<Socket>,
    ) -> Result<Self, CallError> {
        let mut known = BTreeMap::new();
        for (execution, socket) in answered(keeper.list()).await? {
            if let (Some(socket), None) = (socket, &execution.outcome) {
                offer(&sockets, (execution.execution.clone(), socket));
            }
            known.insert(execution.execution.clone(), Arc::new(execution));
        }
        let (changed, _) = watch::channel(0);
        Ok(Self {
            keeper,
            version,
            known: Mutex::new(known),
            changed,
            sockets,
            starting: Arc::default(),
        })
    }

    /// One execution, finished or not.
    pub(crate) fn get(&self, execution: &str) -> Option<Arc<Execution>> {
        self.lock().get(execution).cloned()
    }

    /// All of them, sorted by id.
    pub(crate) fn list(&self) -> Vec<Arc<Execution>> {
        self.lock().values().cloned().collect()
    }

    /// Those whose id begins with one of `prefixes`, sorted by id; all of them if there is none.
    pub(crate) fn beginning_with(&self, prefixes: &[String]) -> Vec<Arc<Execution>> {
        if prefixes.is_empty() {
            return self.list();
        }
        let known = self.lock();
        let mut found = BTreeMap::new();
        for prefix in prefixes {
            let from = known.range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded));
            found.extend(from.take_while(|(id, _)| id.starts_with(prefix.as_str())));
        }
        found.into_values().cloned().collect()
    }

    /// Says that an execution is being started, until the guard is dropped.
    ///
    /// # Cancel safety
    /// Safe: nothing is changed.
    pub(crate) async fn begin(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.starting).read_owned().await
    }

    /// Waits until all that were begun before are listed, or have failed.
    ///
    /// # Cancel safety
    /// Safe: nothing is changed.
    pub(crate) async fn settled(&self) {
        drop(self.starting.write().await);
    }

    /// Wakes at each start, end and forgetting.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Starts an execution from a verified descriptor, which executes only after `record` is done; it is listed when
    /// this returns. The keeper prepares and records it meanwhile, if it can hold it back.
    ///
    /// # Errors
    /// What `record` says: nothing was executed then. Within, as [`KeeperRef::spawn`].
    pub(crate) async fn spawn<E>(
        &self,
        spawn: Spawn,
        (executable, stdin): (OwnedFd, Option<OwnedFd>),
        record: impl Future<Output = Result<(), E>>,
    ) -> Result<Result<Arc<Execution>, CallError>, E> {
        let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
        let asked = match pipe {
            Ok((hold, gate)) if self.version >= HOLDS_FROM => {
                let asked = self.keeper.spawn_held(spawn, executable, stdin, Some(hold));
                let recorded = async {
                    // Ordering: the keeper has more to do, so it is asked first.
                    tokio::task::yield_now().await;
                    record.await?;
                    // A keeper that refused, or is gone, has closed its end.
                    let _ = rustix::io::write(&gate, &[1]);
                    Ok(())
                };
                let (asked, recorded) = tokio::join!(asked, recorded);
                recorded?;
                asked
            }
            _ => {
                record.await?;
                self.keeper.spawn(spawn, executable, stdin).await
            }
        };
        Ok(asked.map(|started| self.took(started)))
    }

    /// Whether the keeper ends what has had its time.
    pub(crate) const fn keeper_limits(&self) -> bool {
        self.version >= LIMITS_FROM
    }

    /// Lists what the keeper has started.
    fn took(&self, (execution, socket): (Execution, Option<OwnedFd>)) -> Arc<Execution> {
        let execution = Arc::new(execution);
        let known = {
            let mut known = self.lock();
            // Its exit may have been told before this answer; an end is never taken back.
            let entry = known.entry(execution.execution.clone());
            let fresh = matches!(entry, std::collections::btree_map::Entry::Vacant(_));
            let known = Arc::clone(entry.or_insert(execution));
            if let (Some(socket), true) = (socket, fresh) {
                offer(&self.sockets, (known.execution.clone(), socket));
            }
            known
        };
        self.changed.send_modify(|count| *count += 1);
        known
    }

    /// Takes note of an end that the keeper told.
    pub(crate) fn exited(&self, execution: Execution) {
        self.lock()
            .insert(execution.execution.clone(), Arc::new(execution));
        self.changed.send_modify(|count| *count += 1);
    }

    /// Sends a signal to the execution's process group, or to its process alone.
    ///
    /// # Errors
    /// As [`KeeperRef::signal`].
    pub(crate) async fn signal(
        &self,
        execution: &str,
        signal: i32,
        group: bool,
    ) -> Result<(), CallError> {
        self.keeper.signal(execution, signal, group).await
    }

    /// Drops a finished execution and its output.
    ///
    /// # Errors
    /// As [`KeeperRef::forget`].
    pub(crate) async fn forget(&self, execution: &str) -> Result<(), CallError> {
        let result = self.keeper.forget(execution).await;
        let gone = matches!(
            result,
            Ok(())
                | Err(CallError::Refused {
                    kind: crux_wire::keeper::v1::RefusedKind::NotFound,
                    ..
                })
        );
        if gone {
            self.lock().remove(execution);
            self.changed.send_modify(|count| *count += 1);
        }
        result
    }

    /// Waits until an execution has ended; `None` if it is not known, or no longer.
    ///
    /// # Cancel safety
    /// Safe: nothing is changed.
    pub(crate) async fn wait(&self, execution: &str) -> Option<Arc<Execution>> {
        let mut changes = self.changes();
        loop {
            changes.mark_unchanged();
            let known = self.get(execution)?;
            if known.outcome.is_some() {
                return Some(known);
            }
            changes.changed().await.ok()?;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Execution>>> {
        // Whole between statements; what the keeper tells next corrects the rest.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for an answer of the keeper that an agent cannot begin without.
///
/// # Errors
/// [`CallError::Silent`] after [`KEEPER_WAIT`]: the agent then ends, and its keeper starts another.
///
/// # Cancel safety
/// As the call.
pub(crate) async fn answered<T>(
    call: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    let answer = tokio::time::timeout(KEEPER_WAIT, call).await;
    answer.unwrap_or(Err(CallError::Silent(KEEPER_WAIT)))
}

fn offer(sockets: &mpsc::Sender<Socket>, socket: Socket) {
    if let Err(error) = sockets.try_send(socket) {
        tracing::warn!(%error, "the socket of an execution is not served");
    }
}

/// How an execution ended, for people.
pub(crate) fn outcome_text(outcome: &Outcome) -> String {
    let text = match outcome.kind() {
        OutcomeKind::Exited => format!("exit code {}", outcome.code),
        OutcomeKind::Signalled => format!("signal {}", outcome.code),
        OutcomeKind::NotStarted => "not started".to_owned(),
        OutcomeKind::Lost => "lost".to_owned(),
        OutcomeKind::Unspecified => "ended".to_owned(),
    };
    if outcome.reason.is_empty() {
        text
    } else {
        format!("{text} ({})", outcome.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::{client, packet};

    #[tokio::test(start_paused = true)]
    async fn a_keeper_that_answers_nothing_ends_the_wait_of_a_new_agent() {
        let (ours, keepers) = packet::pair().unwrap();
        let (keeper, _exits, link) = client::connect(ours).unwrap();
        let (sockets, _waiting) = mpsc::channel(1);
        let adopted = tokio::select! {
            adopted = Executions::adopt(keeper, LIMITS_FROM, sockets) => adopted,
            ended = link.run() => panic!("the link ended: {ended:?}"),
        };
        assert!(matches!(adopted, Err(CallError::Silent(KEEPER_WAIT))));
        drop(keepers);
    }
}
