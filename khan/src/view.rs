//! What the leader sees of its members.

use std::collections::{BTreeMap, BTreeSet};

/// The members and what they hold, as far as placement depends on it. Order never matters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// The present membership.
    pub rnodes: Vec<Rnode>,
    /// Instances that exist, on whichever rnode; those of rnodes not in `rnodes` are ignored.
    pub holders: Vec<Holder>,
    /// Instances of each class that are ready, or have been: readiness is latched.
    pub ready: BTreeMap<String, u32>,
    /// Classes whose `after` conditions have held once; they are never held back again.
    ///
    /// A class with an instance that was ever started belongs here.
    pub released: BTreeSet<String>,
    /// (class, rnode id): the rnode's agent has given up on the class; it is not placed there.
    pub barred: BTreeSet<(String, String)>,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rnode {
    /// Permanent name, by which it is told from others.
    pub id: String,
    /// Label, which people and preferences go by.
    pub label: String,
    /// Its tags.
    pub tags: BTreeSet<String>,
    /// Whether it may be given more.
    pub standing: Standing,
}

/// Whether a member may be given more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Standing {
    /// It is heard.
    #[default]
    Live,
    /// It is silent but not yet given up: what it holds stays there, nothing new goes there.
    Silent,
}

/// An instance that exists.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// Class.
    pub class: String,
    /// Its number within the class.
    pub index: u32,
    /// Permanent name of its rnode.
    pub rnode: String,
}

impl Rnode {
    /// A live member without tags.
    pub fn new(id: impl Into<String>, label: impl Into<String>) -> Self {
        let (id, label) = (id.into(), label.into());
        Self {
            id,
            label,
            tags: BTreeSet::new(),
            standing: Standing::Live,
        }
    }
}

impl View {
    /// A view of `count` members that do not exist yet, called n1, n2, … both in id and in label.
    ///
    /// For a plan before the first `up`, which the leader will carry out if all of them come.
    #[must_use]
    pub fn imagined(count: u32) -> Self {
        let rnode = |number: u32| Rnode::new(format!("n{number}"), format!("n{number}"));
        Self {
            rnodes: (1..=count).map(rnode).collect(),
            ..Self::default()
        }
    }
}
