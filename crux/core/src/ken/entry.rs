//! One entry of the shared map, as signed by its owner and relayed verbatim.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::codec::{Malformed, Put, Reader};
use super::{KEY_BYTES_MAX, SIGNATURE_BYTES_MAX, VALUE_BYTES_MAX};
use crate::names::{NamespaceId, RnodeId};

/// Keys below this belong to the flock's own upkeep.
pub const RESERVED_PREFIX: &str = "flock/";

const VERSION: u8 = 1;
const TOMBSTONE: u8 = 1;
/// What precedes the namespace and the body in the bytes that are signed.
const CONTEXT: &[u8] = b"radix-flock-entry/1\0";
/// Most bytes of a body: the fixed fields, the longest key and value, and 256 bytes of fields we do not know.
const BODY_BYTES_MAX: usize = 64 + KEY_BYTES_MAX + VALUE_BYTES_MAX + 256;

/// One entry: its owner's word about one key, with the owner's signature.
///
/// ```text
/// u32 length of body │ body: version u8, flags u8 (1 withdrawn), owner 32, generation u64, sequence u64,
///                    │       key u16+bytes (UTF-8), value u32+bytes, fields of later versions
/// u16 length         │ signature over CONTEXT + namespace + body
/// ```
///
/// Cheap to clone. Unknown fields and flags are kept, since the bytes travel as received.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    raw: Arc<[u8]>,
    body: Range<usize>,
    key: Range<usize>,
    value: Range<usize>,
    signature: Range<usize>,
    owner: RnodeId,
    generation: u64,
    sequence: u64,
    withdrawn: bool,
}

/// What an owner is about to sign.
#[derive(Debug, Clone, Copy)]
pub struct Draft<'a> {
    /// The owner.
    pub owner: RnodeId,
    /// The owner's incarnation.
    pub generation: u64,
    /// The owner's sequence, never used before in this generation.
    pub sequence: u64,
    /// The key; at most [`KEY_BYTES_MAX`] bytes.
    pub key: &'a str,
    /// The value, or none to withdraw the key; at most [`VALUE_BYTES_MAX`] bytes.
    pub value: Option<&'a [u8]>,
}

impl Draft<'_> {
    fn body(&self) -> Vec<u8> {
        let value = self.value.unwrap_or_default();
        let mut body = Vec::with_capacity(56 + self.key.len() + value.len());
        body.put_u8(VERSION)
            .put_u8(if self.value.is_none() { TOMBSTONE } else { 0 });
        body.put(self.owner.as_bytes())
            .put_u64(self.generation)
            .put_u64(self.sequence);
        body.put_bytes16(self.key.as_bytes()).put_bytes32(value);
        body
    }

    /// Makes the entry; `sign` gets the bytes to sign.
    ///
    /// # Errors
    /// [`Malformed::Long`] when key, value or signature is above its limit.
    pub fn sign(
        &self,
        namespace: &NamespaceId,
        sign: impl FnOnce(&[u8]) -> Vec<u8>,
    ) -> Result<Entry, Malformed> {
        let body = self.body();
        let signature = sign(&signed_bytes(namespace, &body));
        let mut raw = Vec::with_capacity(body.len() + signature.len() + 6);
        raw.put_bytes32(&body).put_bytes16(&signature);
        Entry::read(&mut Reader::new(&raw))
    }
}

fn signed_bytes(namespace: &NamespaceId, body: &[u8]) -> Vec<u8> {
    [CONTEXT, namespace.as_bytes(), body].concat()
}

impl Entry {
    /// Reads one entry off the front of `reader`; the signature is not checked here.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let body = reader.bytes32(BODY_BYTES_MAX)?;
        let signature = reader.bytes16(SIGNATURE_BYTES_MAX)?;
        let mut raw = Vec::with_capacity(body.len() + signature.len() + 6);
        raw.put_bytes32(body).put_bytes16(signature);
        let mut fields = Reader::new(body);
        let version = fields.u8()?;
        let flags = fields.u8()?;
        let owner = RnodeId::from_bytes(fields.array()?);
        let (generation, sequence) = (fields.u64()?, fields.u64()?);
        let key = fields.bytes16(KEY_BYTES_MAX)?;
        let value = fields.bytes32(VALUE_BYTES_MAX)?;
        if version == 0 || key.is_empty() || std::str::from_utf8(key).is_err() {
            return Err(Malformed::Value);
        }
        let key_start = 4 + 50 + 2;
        let value_start = key_start + key.len() + 4;
        Ok(Self {
            body: 4..4 + body.len(),
            key: key_start..key_start + key.len(),
            value: value_start..value_start + value.len(),
            signature: 4 + body.len() + 2..raw.len(),
            raw: raw.into(),
            owner,
            generation,
            sequence,
            withdrawn: flags & TOMBSTONE != 0,
        })
    }

    /// The encoded entry, byte for byte as its owner made it.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The rnode whose word this is.
    #[must_use]
    pub const fn owner(&self) -> RnodeId {
        self.owner
    }

    /// The owner's incarnation.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// The owner's sequence.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &str {
        // The bytes were checked in `read`; an empty key cannot occur.
        std::str::from_utf8(&self.raw[self.key.clone()]).unwrap_or_default()
    }

    /// The value; empty when withdrawn.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.raw[self.value.clone()]
    }

    /// Whether the owner took the key back.
    #[must_use]
    pub const fn is_withdrawn(&self) -> bool {
        self.withdrawn
    }

    /// The owner's signature.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        &self.raw[self.signature.clone()]
    }

    /// The bytes that the signature covers.
    #[must_use]
    pub fn signed_bytes(&self, namespace: &NamespaceId) -> Vec<u8> {
        signed_bytes(namespace, &self.raw[self.body.clone()])
    }

    /// This entry's share of a table's fingerprint.
    pub(crate) fn mark(&self) -> u64 {
        let hash = blake3::hash(&self.raw[self.body.clone()]);
        u64::from_be_bytes(*hash.as_bytes().first_chunk().unwrap_or(&[0; 8]))
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.withdrawn { " withdrawn" } else { "" };
        let (owner, key) = (self.owner.short(), self.key());
        write!(
            formatter,
            "Entry({owner}/{key} {}.{}{mark} {} bytes)",
            self.generation,
            self.sequence,
            self.value.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(value: Option<&[u8]>) -> Draft<'_> {
        Draft {
            owner: RnodeId::from_bytes([3; 32]),
            generation: 4,
            sequence: 5,
            key: "service/worker",
            value,
        }
    }

    fn namespace() -> NamespaceId {
        NamespaceId::from_bytes([9; 32])
    }

    #[test]
    fn an_entry_reads_back_what_was_signed() {
        let mut signed = Vec::new();
        let entry = draft(Some(b"here")).sign(&namespace(), |bytes| {
            signed = bytes.to_vec();
            b"signature".to_vec()
        });
        let entry = entry.expect("within the limits");
        let again = Entry::read(&mut Reader::new(entry.raw())).expect("what was written");
        assert_eq!(again, entry);
        assert_eq!(
            (again.key(), again.value(), again.signature()),
            ("service/worker", &b"here"[..], &b"signature"[..])
        );
        assert_eq!(
            (again.generation(), again.sequence(), again.is_withdrawn()),
            (4, 5, false)
        );
        assert_eq!(again.signed_bytes(&namespace()), signed);
        let gone = draft(None)
            .sign(&namespace(), |_| Vec::new())
            .expect("within the limits");
        assert!(gone.is_withdrawn() && gone.value().is_empty());
    }

    #[test]
    fn fields_of_later_versions_are_kept_and_covered_by_the_signature() {
        let mut body = draft(Some(b"v")).body();
        body[0] = 2;
        body.extend_from_slice(b"from the future");
        let mut raw = Vec::new();
        raw.put_bytes32(&body).put_bytes16(b"s");
        let entry = Entry::read(&mut Reader::new(&raw)).expect("later versions only add");
        assert_eq!(entry.raw(), raw);
        assert!(
            entry
                .signed_bytes(&namespace())
                .ends_with(b"from the future")
        );
    }

    #[test]
    fn what_is_too_long_or_too_short_is_refused() {
        let long = "k".repeat(KEY_BYTES_MAX + 1);
        let sign = |draft: Draft<'_>| draft.sign(&namespace(), |_| Vec::new()).err();
        assert_eq!(
            sign(Draft {
                key: &long,
                ..draft(None)
            }),
            Some(Malformed::Long)
        );
        assert_eq!(
            sign(Draft {
                key: "",
                ..draft(None)
            }),
            Some(Malformed::Value)
        );
        assert_eq!(
            sign(draft(Some(&[0; VALUE_BYTES_MAX + 1]))),
            Some(Malformed::Long)
        );
        let raw = draft(Some(b"v"))
            .sign(&namespace(), |_| vec![1; 64])
            .expect("within the limits")
            .raw()
            .to_vec();
        for end in 0..raw.len() {
            assert!(Entry::read(&mut Reader::new(&raw[..end])).is_err());
        }
    }
}
