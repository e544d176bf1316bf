//! What is wrong on this rnode right now, by topic, for the status.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// The present troubles; one a topic.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    topics: Mutex<BTreeMap<&'static str, Vec<String>>>,
}

impl Trouble {
    /// Replaces what is wrong about a topic; nothing, if it is empty.
    pub(crate) fn set(&self, topic: &'static str, texts: Vec<String>) {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if texts.is_empty() {
            topics.remove(topic);
        } else {
            topics.insert(topic, texts);
        }
    }

    /// All of it.
    pub(crate) fn list(&self) -> Vec<String> {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        topics.values().flatten().cloned().collect()
    }
}
