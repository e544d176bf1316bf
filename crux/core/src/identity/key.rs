//! Public keys: P-256 points, in the one encoding we accept.

use std::fmt;

use crate::identity::Refusal;
use crate::names::{InvitationId, KeyId, RnodeId};

const POINT_BYTES: usize = 65;
/// SubjectPublicKeyInfo of an uncompressed P-256 point, up to the point: SEQUENCE, {id-ecPublicKey, prime256v1}, BIT STRING.
const SPKI_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// Bytes of a SubjectPublicKeyInfo as we accept it.
const SPKI_BYTES: usize = SPKI_HEAD.len() + POINT_BYTES;

/// A P-256 public key: the uncompressed point.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; POINT_BYTES]);

impl PublicKey {
    /// Reads an uncompressed point of 65 bytes.
    ///
    /// # Errors
    /// [`Refusal::NotP256`]. Whether the point lies on the curve shows at the first signature checked with it.
    pub fn from_point(bytes: &[u8]) -> Result<Self, Refusal> {
        let point: [u8; POINT_BYTES] = bytes.try_into().map_err(|_| Refusal::NotP256)?;
        if point[0] == 4 {
            Ok(Self(point))
        } else {
            Err(Refusal::NotP256)
        }
    }

    /// Reads a DER SubjectPublicKeyInfo, in its one encoding of 91 bytes.
    ///
    /// # Errors
    /// [`Refusal::NotP256`].
    pub fn from_spki(der: &[u8]) -> Result<Self, Refusal> {
        let point = der.strip_prefix(&SPKI_HEAD).ok_or(Refusal::NotP256)?;
        Self::from_point(point)
    }

    /// The 65 bytes of the point.
    #[must_use]
    pub const fn point(&self) -> &[u8; POINT_BYTES] {
        &self.0
    }

    /// The DER SubjectPublicKeyInfo.
    #[must_use]
    pub fn spki(&self) -> [u8; SPKI_BYTES] {
        let mut der = [0; SPKI_BYTES];
        der[..SPKI_HEAD.len()].copy_from_slice(&SPKI_HEAD);
        der[SPKI_HEAD.len()..].copy_from_slice(&self.0);
        der
    }

    /// The key's id, whatever its role.
    #[must_use]
    pub fn id(&self) -> KeyId {
        KeyId::from_bytes(self.derive("radix 2026 key id"))
    }

    /// The permanent name of the rnode whose first key this is.
    #[must_use]
    pub fn rnode_id(&self) -> RnodeId {
        RnodeId::from_bytes(self.derive("radix 2026 rnode id"))
    }

    /// The id of the invitation whose throwaway key this is.
    #[must_use]
    pub fn invitation_id(&self) -> InvitationId {
        InvitationId::from_bytes(self.derive("radix 2026 invitation id"))
    }

    /// Checks an ECDSA signature (SHA-256, ASN.1 DER) over `message`.
    ///
    /// # Errors
    /// [`Refusal::BadSignature`].
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), Refusal> {
        #[cfg(test)]
        VERIFIED.with(|count| count.set(count.get() + 1));
        ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P256_SHA256_ASN1, &self.0)
            .verify(message, signature)
            .map_err(|_| Refusal::BadSignature)
    }

    fn derive(&self, context: &str) -> [u8; 32] {
        blake3::derive_key(context, &self.0)
    }
}

#[cfg(test)]
thread_local! {
    /// How many signatures this thread has checked, for tests of what is not checked again.
    pub(crate) static VERIFIED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PublicKey({})", self.id().short())
    }
}
