//! The charter: which root keys speak for an owner, signed by themselves.

use std::collections::BTreeSet;

use crate::identity::codec::Reader;
use crate::identity::{PublicKey, Refusal};
use crate::names::{KeyId, OwnerId};

/// Most root keys a charter may name.
pub const ROOT_KEYS_MAX: usize = 4;

const VERSION: u8 = 1;
const CONTEXT: &[u8] = b"radix-charter/1\n";
/// An ECDSA P-256 signature in DER has at most 72 bytes; more is not read.
const SIGNATURE_BYTES_MAX: usize = 80;
/// Each new key and each replaced one may sign.
const SIGNATURES_MAX: u8 = 8;
const MALFORMED: Refusal = Refusal::Charter("it is cut short or malformed");

/// The root keys of an owner, with the signatures that make them so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charter {
    owner: OwnerId,
    generation: u64,
    roots: Vec<PublicKey>,
    encoded: Vec<u8>,
}

impl Charter {
    /// The bytes that the root keys sign for the first charter of an owner with `roots`.
    #[must_use]
    pub fn first_payload(roots: &[PublicKey]) -> Vec<u8> {
        payload(&owner_of(roots), 1, roots)
    }

    /// The bytes to sign for the successor of this charter with `roots`.
    #[must_use]
    pub fn successor_payload(&self, roots: &[PublicKey]) -> Vec<u8> {
        payload(&self.owner, self.generation.saturating_add(1), roots)
    }

    /// What a root key signs, given a payload.
    #[must_use]
    pub fn message(payload: &[u8]) -> Vec<u8> {
        [CONTEXT, payload].concat()
    }

    /// Puts a payload and signatures over its [`message`](Self::message) together.
    #[must_use]
    pub fn assemble(payload: &[u8], signatures: &[(PublicKey, Vec<u8>)]) -> Vec<u8> {
        let mut out = payload.to_vec();
        out.push(u8::try_from(signatures.len()).unwrap_or(u8::MAX));
        for (key, signature) in signatures {
            out.extend_from_slice(key.id().as_bytes());
            out.extend_from_slice(
                &u16::try_from(signature.len())
                    .unwrap_or(u16::MAX)
                    .to_be_bytes(),
            );
            out.extend_from_slice(signature);
        }
        out
    }

    /// Reads a charter: signed by every key in it, and of generation 1 only the one its owner is named after.
    ///
    /// A later generation read so is only as good as where it came from; [`succeed`](Self::succeed) judges one.
    ///
    /// # Errors
    /// [`Refusal::Charter`], [`Refusal::NotP256`] or [`Refusal::BadSignature`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let (charter, _) = Self::read(bytes)?;
        Ok(charter)
    }

    /// Reads the charter that follows this one.
    ///
    /// # Errors
    /// As [`decode`](Self::decode); also when the owner differs, the generation is not higher, or no key of this one signed.
    pub fn succeed(&self, bytes: &[u8]) -> Result<Self, Refusal> {
        let (next, signatures) = Self::read(bytes)?;
        if next.owner != self.owner {
            return Err(Refusal::ForeignOwner(self.owner));
        }
        if next.generation <= self.generation {
            return Err(Refusal::Charter("it is not newer than the one held"));
        }
        let message = Self::message(&payload(&next.owner, next.generation, &next.roots));
        let vouched = self
            .roots
            .iter()
            .any(|root| signed(&signatures, root, &message).is_ok());
        if vouched {
            Ok(next)
        } else {
            Err(Refusal::Charter("no root key of the one held signed it"))
        }
    }

    /// Who it speaks for.
    #[must_use]
    pub const fn owner(&self) -> OwnerId {
        self.owner
    }

    /// Its place among its owner's charters, from 1.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// The root keys: 1 to [`ROOT_KEYS_MAX`], without repeats.
    #[must_use]
    pub fn roots(&self) -> &[PublicKey] {
        &self.roots
    }

    /// Its bytes, with the signatures.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    fn read(bytes: &[u8]) -> Result<(Self, Signatures), Refusal> {
        let mut reader = Reader::new(bytes, MALFORMED);
        if reader.u8()? != VERSION {
            return Err(Refusal::Charter(
                "it has a version this release does not know",
            ));
        }
        let owner = OwnerId::from_bytes(reader.array()?);
        let generation = reader.u64()?;
        let count = usize::from(reader.u8()?);
        if count == 0 || count > ROOT_KEYS_MAX || generation == 0 {
            return Err(MALFORMED);
        }
        let roots = (0..count)
            .map(|_| PublicKey::from_point(reader.bytes(65)?))
            .collect::<Result<Vec<_>, _>>()?;
        if roots.iter().collect::<BTreeSet<_>>().len() != count {
            return Err(Refusal::Charter("it names a key twice"));
        }
        let signatures = read_signatures(&mut reader)?;
        reader.end()?;
        if generation == 1 && owner != owner_of(&roots) {
            return Err(Refusal::Charter("its owner is not the hash of its keys"));
        }
        let message = Self::message(&payload(&owner, generation, &roots));
        roots
            .iter()
            .try_for_each(|root| signed(&signatures, root, &message))?;
        Ok((
            Self {
                owner,
                generation,
                roots,
                encoded: bytes.to_vec(),
            },
            signatures,
        ))
    }
}

type Signatures = Vec<(KeyId, Vec<u8>)>;

fn owner_of(roots: &[PublicKey]) -> OwnerId {
    let mut hasher = blake3::Hasher::new_derive_key("radix 2026 owner id");
    for root in roots {
        hasher.update(root.point());
    }
    OwnerId::from_bytes(*hasher.finalize().as_bytes())
}

fn payload(owner: &OwnerId, generation: u64, roots: &[PublicKey]) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend_from_slice(owner.as_bytes());
    out.extend_from_slice(&generation.to_be_bytes());
    out.push(u8::try_from(roots.len()).unwrap_or(u8::MAX));
    for root in roots {
        out.extend_from_slice(root.point());
    }
    out
}

fn read_signatures(reader: &mut Reader<'_>) -> Result<Signatures, Refusal> {
    let count = reader.u8()?;
    if count > SIGNATURES_MAX {
        return Err(MALFORMED);
    }
    (0..count)
        .map(|_| {
            let key = KeyId::from_bytes(reader.array()?);
            let length = usize::from(reader.u16()?);
            if length > SIGNATURE_BYTES_MAX {
                return Err(MALFORMED);
            }
            Ok((key, reader.bytes(length)?.to_vec()))
        })
        .collect()
}

fn signed(signatures: &Signatures, root: &PublicKey, message: &[u8]) -> Result<(), Refusal> {
    let id = root.id();
    let (_, signature) = signatures
        .iter()
        .find(|(key, _)| *key == id)
        .ok_or(Refusal::Charter("a key in it did not sign it"))?;
    root.verify(message, signature)
}
