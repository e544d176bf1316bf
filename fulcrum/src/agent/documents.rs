//! The signed documents this rnode holds, on disk before anyone is told that they are accepted.
//!
//! [`judge`] is the rule, [`Documents`] the store. Signatures are checked by the caller, before.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crux_net::durable;
use crux_wire::document::v1::{Document, SignedDocument};
use prost::Message;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::limits::{GENERATIONS_KEPT, NAMESPACES_MAX};

#[cfg(test)]
mod tests;

/// What becomes of an offered document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is newer than what is held.
    Accept,
    /// It asks for what is held already.
    Unchanged,
    /// It is older than what is held, or edited from something else.
    Stale(String),
    /// It cannot be taken here at all.
    Refused(String),
    /// This rnode is about to end, and all it holds with it.
    Exiting,
}

/// Who judges, and what it has seen of the namespace.
#[derive(Debug, Clone)]
pub(crate) struct Judge<'a> {
    /// The owner of this rnode, in hex.
    pub(crate) owner: &'a str,
    /// The only namespace taken; `None` on a base, which takes all.
    pub(crate) own_namespace: Option<&'a str>,
    /// The highest generation ever accepted here.
    pub(crate) highest: u64,
    /// The newest document held.
    pub(crate) held: Option<&'a Document>,
    /// The operator insists although it was edited from another generation.
    pub(crate) take_over: bool,
    /// Whether documents are taken still.
    pub(crate) accepting: Accepting,
}

/// Whether a rnode takes documents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Accepting {
    /// Until it is asked to end.
    #[default]
    Documents,
    /// Never again in this life: what it took now would be deleted with it.
    Nothing,
}

/// Decides about a document whose signature holds.
pub(crate) fn judge(judge: &Judge<'_>, offered: &Document) -> Verdict {
    if offered.owner != judge.owner {
        return Verdict::Refused("it belongs to another owner".to_owned());
    }
    if !is_namespace(&offered.namespace) {
        return Verdict::Refused("its namespace is not a label".to_owned());
    }
    if judge
        .own_namespace
        .is_some_and(|own| own != offered.namespace)
    {
        return Verdict::Refused(format!("it is for namespace {}", offered.namespace));
    }
    if judge.accepting == Accepting::Nothing {
        return Verdict::Exiting;
    }
    let same = judge
        .held
        .is_some_and(|held| held.digest == offered.digest && held.dissolved == offered.dissolved);
    let base = judge.own_namespace.is_none();
    if same && (base || offered.generation == judge.highest) {
        return Verdict::Unchanged;
    }
    if offered.generation <= judge.highest {
        return Verdict::Stale(format!(
            "generation {} is not above {}",
            offered.generation, judge.highest
        ));
    }
    // A nested rnode may have missed generations; the base, where documents enter, may not.
    let live = judge.held.is_some_and(|held| !held.dissolved);
    if base && live && !judge.take_over && offered.base != judge.highest {
        return Verdict::Stale(format!(
            "it was edited from generation {}, but generation {} is held",
            offered.base, judge.highest
        ));
    }
    Verdict::Accept
}

/// Whether `label` can name a namespace: 1 to 63 of `a-z A-Z 0-9 - _`, no leading dash.
#[must_use]
pub fn is_namespace(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// A document that was accepted here.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Accepted {
    /// As it was signed.
    pub(crate) signed: SignedDocument,
    /// Its content.
    pub(crate) document: Document,
}

/// The highest marks seen of one namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Highest {
    /// Of documents.
    pub(crate) generation: u64,
    /// Generation of the newest assignment acted on.
    pub(crate) assigned_generation: u64,
    /// Leader term of that assignment.
    pub(crate) assigned_term: u64,
}

#[derive(Debug, Default)]
struct Held {
    namespaces: BTreeMap<String, Vec<Arc<Accepted>>>,
    /// Documents whose signers no longer count.
    held_back: BTreeSet<(String, u64)>,
    highest: BTreeMap<String, Highest>,
}

/// The documents of this rnode.
#[derive(Debug)]
pub(crate) struct Documents {
    dir: PathBuf,
    held: Mutex<Held>,
    changed: watch::Sender<u64>,
}

impl Documents {
    /// Opens `agent/documents` below `dir`; files that cannot be read are left where they are.
    ///
    /// # Errors
    /// When the directory cannot be made or listed.
    ///
    /// One that is not as it was signed, as `is_whole` finds out, is left where it lies and not read.
    pub(crate) fn open(
        agent_dir: &Path,
        is_whole: impl Fn(&SignedDocument) -> bool,
    ) -> io::Result<Self> {
        let dir = agent_dir.join("documents");
        std::fs::create_dir_all(&dir)?;
        let mut held = Held::default();
        if let Some(bytes) = durable::read(&agent_dir.join("highest.json"))? {
            held.highest = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
        }
        for entry in std::fs::read_dir(&dir)? {
            let path = entry?.path();
            let Some(accepted) = read_document(&path) else {
                continue;
            };
            if is_whole(&accepted.signed) {
                let document = &accepted.document;
                let highest = held.highest.entry(document.namespace.clone()).or_default();
                highest.generation = highest.generation.max(document.generation);
                let of = held
                    .namespaces
                    .entry(document.namespace.clone())
                    .or_default();
                of.push(Arc::new(accepted));
                of.sort_by_key(|accepted| accepted.document.generation);
            } else {
                tracing::error!(path = %path.display(), "a document is not as it was signed; it is not read");
            }
        }
        let (changed, _) = watch::channel(0);
        Ok(Self {
            dir,
            held: Mutex::new(held),
            changed,
        })
    }

    /// Wakes at each change of what is held.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The newest document of a namespace.
    pub(crate) fn newest(&self, namespace: &str) -> Option<Arc<Accepted>> {
        self.lock()
            .namespaces
            .get(namespace)
            .and_then(|of| of.last())
            .cloned()
    }

    /// The newest document of a namespace, unless its signer no longer counts: then nothing may be done by it.
    pub(crate) fn acting(&self, namespace: &str) -> Option<Arc<Accepted>> {
        let held = self.lock();
        let newest = held.namespaces.get(namespace)?.last()?;
        let document = (namespace.to_owned(), newest.document.generation);
        (!held.held_back.contains(&document)).then(|| Arc::clone(newest))
    }

    /// Judges every document again, by charter and denies; answers those newly held back, for people.
    pub(crate) fn judge_again(&self, counts: impl Fn(&Accepted) -> bool) -> Vec<String> {
        let mut held = self.lock();
        let all = held.namespaces.values().flatten();
        let now: BTreeSet<(String, u64)> = all
            .filter(|accepted| !counts(accepted))
            .map(|accepted| &accepted.document)
            .map(|document| (document.namespace.clone(), document.generation))
            .collect();
        let fresh: Vec<String> = now
            .difference(&held.held_back)
            .map(|(namespace, generation)| format!("{namespace} generation {generation}"))
            .collect();
        if now != held.held_back {
            held.held_back = now;
            drop(held);
            self.changed.send_modify(|count| *count += 1);
        }
        fresh
    }

    /// Namespaces whose newest document is held back.
    pub(crate) fn held_back(&self) -> Vec<String> {
        let held = self.lock();
        let newest = held.namespaces.values().filter_map(|of| of.last());
        newest
            .map(|accepted| &accepted.document)
            .map(|document| (document.namespace.clone(), document.generation))
            .filter(|document| held.held_back.contains(document))
            .map(|(namespace, _)| namespace)
            .collect()
    }

    /// One generation of a namespace, if it is still held.
    pub(crate) fn generation(&self, namespace: &str, generation: u64) -> Option<Arc<Accepted>> {
        let held = self.lock();
        let of = held.namespaces.get(namespace)?;
        of.iter()
            .find(|accepted| accepted.document.generation == generation)
            .cloned()
    }

    /// The newest document of each namespace, sorted.
    pub(crate) fn all(&self) -> Vec<Arc<Accepted>> {
        self.lock()
            .namespaces
            .values()
            .filter_map(|of| of.last())
            .cloned()
            .collect()
    }

    /// Digests pinned by any held generation of a namespace, in hex.
    pub(crate) fn pinned(&self, namespace: &str) -> BTreeSet<String> {
        let held = self.lock();
        let of = held
            .namespaces
            .get(namespace)
            .map_or(&[][..], Vec::as_slice);
        of.iter()
            .flat_map(|accepted| &accepted.document.pins)
            .map(|pin| pin.digest.clone())
            .collect()
    }

    /// The highest marks of a namespace.
    pub(crate) fn highest(&self, namespace: &str) -> Highest {
        self.lock()
            .highest
            .get(namespace)
            .copied()
            .unwrap_or_default()
    }

    /// Takes a judged document; it is durable when this returns.
    ///
    /// # Errors
    /// When it cannot be written, or there are too many namespaces; nothing changed then.
    pub(crate) fn accept(&self, signed: SignedDocument, document: Document) -> io::Result<()> {
        let namespace = document.namespace.clone();
        let generation = document.generation;
        let old: Vec<u64>;
        {
            let mut held = self.lock();
            if held.namespaces.len() >= NAMESPACES_MAX && !held.namespaces.contains_key(&namespace)
            {
                return Err(io::Error::other("too many namespaces are held"));
            }
            durable::replace(&self.path(&namespace, generation), &signed.encode_to_vec())?;
            let mut highest = held.highest.clone();
            highest.entry(namespace.clone()).or_default().generation = generation;
            self.write_highest(&highest)?;
            held.highest = highest;
            let of = held.namespaces.entry(namespace.clone()).or_default();
            of.push(Arc::new(Accepted { signed, document }));
            let surplus = of.len().saturating_sub(GENERATIONS_KEPT);
            old = of
                .drain(..surplus)
                .map(|accepted| accepted.document.generation)
                .collect();
        }
        for generation in old {
            // A leftover file does no harm: newer generations win at the next start.
            let _ = durable::remove(&self.path(&namespace, generation));
        }
        self.changed.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Drops a dissolved namespace; its highest generation stays known.
    ///
    /// # Errors
    /// When a file cannot be removed; the namespace is forgotten in memory all the same.
    pub(crate) fn forget(&self, namespace: &str) -> io::Result<()> {
        let gone = self.lock().namespaces.remove(namespace).unwrap_or_default();
        let result = gone.iter().try_for_each(|accepted| {
            durable::remove(&self.path(namespace, accepted.document.generation))
        });
        self.changed.send_modify(|count| *count += 1);
        result
    }

    /// Persists that an assignment is about to be acted on; a lower one is refused.
    ///
    /// # Errors
    /// When it cannot be written; the assignment must not be acted on then.
    pub(crate) fn assigned(&self, namespace: &str, generation: u64, term: u64) -> io::Result<bool> {
        let mut held = self.lock();
        let mut highest = held.highest.clone();
        let mark = highest.entry(namespace.to_owned()).or_default();
        let seen = (mark.assigned_generation, mark.assigned_term);
        if (generation, term) < seen {
            return Ok(false);
        }
        if (generation, term) > seen {
            (mark.assigned_generation, mark.assigned_term) = (generation, term);
            self.write_highest(&highest)?;
            held.highest = highest;
        }
        Ok(true)
    }

    fn write_highest(&self, highest: &BTreeMap<String, Highest>) -> io::Result<()> {
        let bytes = serde_json::to_vec(highest).map_err(io::Error::other)?;
        let agent_dir = self.dir.parent().unwrap_or(&self.dir);
        durable::replace(&agent_dir.join("highest.json"), &bytes)
    }

    fn path(&self, namespace: &str, generation: u64) -> PathBuf {
        self.dir.join(format!("{namespace}.{generation}"))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        // The maps are whole between statements, so a panic elsewhere leaves nothing half done.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_document(path: &Path) -> Option<Accepted> {
    if path.file_name()?.to_str()?.starts_with('.') {
        return None;
    }
    let signed = SignedDocument::decode(std::fs::read(path).ok()?.as_slice()).ok()?;
    let document = Document::decode(signed.payload.as_slice()).ok()?;
    Some(Accepted { signed, document })
}
