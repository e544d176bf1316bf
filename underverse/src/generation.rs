//! Which announcement is newer.

use std::fmt;

/// The version of a desired state: the document's generation, then the term of the leader who acts on it.
///
/// Ordered; every resource made carries it, and a lower one than the highest seen is refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation {
    /// Generation of the signed document.
    pub document: u64,
    /// Term of the leader; 0 where no leader takes part.
    pub term: u64,
}

impl Generation {
    /// The generation of a document that no leader stands behind.
    #[must_use]
    pub const fn of_document(document: u64) -> Self {
        Self { document, term: 0 }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.term {
            0 => write!(formatter, "{}", self.document),
            term => write!(formatter, "{}.{term}", self.document),
        }
    }
}
