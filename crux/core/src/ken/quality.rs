//! The four promises a shared thing may have, and why a request about one is refused.

/// Which promise a shared thing has; no API hides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Quality {
    /// May be lost.
    BestEffort,
    /// One owner, owner-sequenced; everyone agrees within the convergence window; gone with its owner.
    Converging,
    /// Signed, highest generation wins, survives every rnode.
    Document,
    /// Exactly once and in order per pair, across crashes. Not there yet: asks are refused.
    Turn,
}

/// Why a request about shared data was refused. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The operation needs a seated leader, of which there are none yet: `single`, claims, compare-and-set, turns.
    #[error("do what only a seated leader may allow: this version has none")]
    Unsupported,
    /// The key is empty or above [`KEY_BYTES_MAX`](super::KEY_BYTES_MAX).
    #[error("accept a key: it is empty or longer than 320 bytes")]
    Key,
    /// The key begins with [`RESERVED_PREFIX`](super::RESERVED_PREFIX).
    #[error("accept a key: keys below flock/ are the flock's own")]
    Reserved,
    /// The value is above [`VALUE_BYTES_MAX`](super::VALUE_BYTES_MAX).
    #[error("accept a value: it is longer than 8 KiB")]
    Value,
    /// The owner has as many entries or bytes as it may have.
    #[error("accept an entry: this rnode has 4096 entries or 8 MiB of them already")]
    Full,
    /// The document is empty, above [`DOCUMENT_BYTES_MAX`](super::DOCUMENT_BYTES_MAX), or not what its digest says.
    #[error("accept a document: it is empty, longer than 1 MiB, or does not match its digest")]
    Document,
    /// The document was judged and not accepted: its signature, or what the driver knows of it.
    #[error("accept a document: its signature was not accepted")]
    Signature,
    /// A document of a higher generation is known, or another of the same.
    #[error("accept a document: a newer one is known")]
    Stale,
    /// The rnode has quit its flock, which is final for this incarnation.
    #[error("take part in a flock: this rnode has quit it")]
    Ended,
}
