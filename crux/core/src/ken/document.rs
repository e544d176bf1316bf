//! The document of a namespace, and its assembly from parts.

use std::sync::Arc;

use super::DOCUMENT_BYTES_MAX;
use crate::digest::Digest;

/// Which of two documents is newer: the higher generation, then the higher digest.
///
/// Two documents of one generation come only from two signers at once; the digest decides so that all choose alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DocumentId {
    /// The generation its signer gave it.
    pub generation: u64,
    /// The digest of its signed bytes.
    pub digest: Digest,
}

/// The document of a namespace: signed bytes that every rnode keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Which one it is.
    pub id: DocumentId,
    /// The bytes as signed; their digest is the id's.
    pub bytes: Arc<[u8]>,
}

impl DocumentId {
    /// This document's share of the fingerprint.
    pub(crate) fn mark(&self) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher
            .update(b"document")
            .update(&self.generation.to_be_bytes())
            .update(self.digest.as_bytes());
        u64::from_be_bytes(
            *hasher
                .finalize()
                .as_bytes()
                .first_chunk()
                .unwrap_or(&[0; 8]),
        )
    }
}

/// A document that is arriving in parts, in order, from one peer.
#[derive(Debug, Clone)]
pub(crate) struct Assembly {
    pub(crate) id: DocumentId,
    total: usize,
    bytes: Vec<u8>,
}

impl Assembly {
    /// Begins, if `total` is within the limits.
    pub(crate) fn new(id: DocumentId, total: u32) -> Option<Self> {
        let total = usize::try_from(total).ok()?;
        (1..=DOCUMENT_BYTES_MAX).contains(&total).then_some(Self {
            id,
            total,
            bytes: Vec::new(),
        })
    }

    /// Where the next part begins.
    pub(crate) fn offset(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }

    /// Takes a part; false when it does not fit.
    pub(crate) fn push(&mut self, offset: u32, part: &[u8]) -> bool {
        let fits = offset == self.offset()
            && !part.is_empty()
            && self.bytes.len() + part.len() <= self.total;
        if fits {
            self.bytes.extend_from_slice(part);
        }
        fits
    }

    /// Whether all parts are here.
    pub(crate) fn is_whole(&self) -> bool {
        self.bytes.len() == self.total
    }

    /// The document, if its bytes have the digest they were announced with.
    pub(crate) fn finish(self) -> Option<Document> {
        (Digest::of(&self.bytes) == self.id.digest).then(|| Document {
            id: self.id,
            bytes: self.bytes.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_the_document_only_in_order_and_only_with_its_digest() {
        let id = DocumentId {
            generation: 1,
            digest: Digest::of(b"abcdef"),
        };
        let mut assembly = Assembly::new(id, 6).expect("within the limits");
        assert!(!assembly.push(3, b"def"));
        assert!(assembly.push(0, b"abc") && !assembly.is_whole() && !assembly.push(3, b"defg"));
        assert!(assembly.push(3, b"def") && assembly.is_whole());
        assert_eq!(
            assembly.finish().map(|document| document.bytes.to_vec()),
            Some(b"abcdef".to_vec())
        );
        let mut forged = Assembly::new(id, 6).expect("within the limits");
        assert!(forged.push(0, b"abcdeX"));
        assert_eq!(forged.finish(), None);
        assert!(Assembly::new(id, 0).is_none() && Assembly::new(id, 1 << 21).is_none());
    }
}
