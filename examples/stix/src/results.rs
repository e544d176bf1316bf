//! Results on the application's blackboard: one entry an asking instance, so their number is
//! bounded by the number of instances.

use std::collections::{BTreeMap, VecDeque};

use crux::{Blackboard, Entry};

use crate::answer::Answer;
use crate::program::{Failure, Me};

/// Answers that one instance keeps on the blackboard: what fits its 4 KiB with room to spare.
const KEPT_MAX: usize = 4;
/// What keys of results begin with.
const PREFIX: &str = "results/";

/// The results of one instance.
#[derive(Debug)]
pub struct Results {
    board: Option<Blackboard>,
    key: String,
    kept: VecDeque<Answer>,
}

impl Results {
    /// The results of `me`; alone they are kept nowhere.
    #[must_use]
    pub fn of(me: &Me) -> Self {
        Self {
            board: me.agent.as_ref().map(Blackboard::new),
            // An instance may move; a rnode's entry is shown over another's of the same key only
            // if it was written more often, so each rnode has its own.
            key: format!("{PREFIX}{}/{}/{}", me.class, me.index, me.rnode),
            kept: VecDeque::new(),
        }
    }

    /// Adds an answer, and puts the newest ones on the blackboard.
    ///
    /// # Errors
    /// [`Failure::Failed`] if the agent does not take them; the next answer brings these along.
    ///
    /// # Cancel safety
    /// Dropping it leaves open whether the blackboard has them.
    pub async fn add(&mut self, answer: Answer) -> Result<(), Failure> {
        self.kept.push_front(answer);
        self.kept.truncate(KEPT_MAX);
        let Some(board) = &self.board else {
            return Ok(());
        };
        let mut value = serde_json::to_vec(&self.kept).unwrap_or_default();
        while value.len() > crux::VALUE_BYTES_MAX && self.kept.len() > 1 {
            self.kept.pop_back();
            value = serde_json::to_vec(&self.kept).unwrap_or_default();
        }
        let put = board.put(&self.key, &value).await;
        put.map_err(|error| Failure::to("write a result to the blackboard", error))
    }
}

/// The results of all instances, newest first.
///
/// # Errors
/// [`Failure::Failed`] if the agent does not answer.
///
/// # Cancel safety
/// Dropping it changes nothing.
pub async fn all(board: &Blackboard) -> Result<Vec<Answer>, Failure> {
    let entries = board.list(PREFIX).await;
    let entries = entries.map_err(|error| Failure::to("read the blackboard", error))?;
    let mut results: Vec<Answer> = entries.iter().flat_map(read).collect();
    results.sort_by_key(|answer| std::cmp::Reverse(answer.at_unix_ms));
    Ok(results)
}

/// The newest result of each instance, ordered by instance; `results` begin with the newest.
#[must_use]
pub fn newest(results: &[Answer]) -> Vec<&Answer> {
    let mut newest: BTreeMap<&str, &Answer> = BTreeMap::new();
    for answer in results {
        newest.entry(&answer.asked_by).or_insert(answer);
    }
    newest.into_values().collect()
}

/// What cannot be read was not written by one of us, and is passed over.
fn read(entry: &Entry) -> Vec<Answer> {
    serde_json::from_slice(&entry.value).unwrap_or_default()
}
