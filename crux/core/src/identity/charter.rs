//! The charter: which root keys speak for an owner, signed by themselves.

use std::collections::BTreeSet;

use crate::digest::Digest;
use crate::identity::codec::Reader;
use crate::identity::{PublicKey, Refusal};
use crate::names::{KeyId, OwnerId};

/// Most root keys a charter may name.
pub const ROOT_KEYS_MAX: usize = 4;
/// Most certificates of earlier roots that a charter may carry over: with 256 an invitation still fits into 16 KiB.
pub const CARRIED_MAX: usize = 256;

/// How far a charter's generation may be from the one before: a stolen root key must not use them up. 2³²: far above any
/// number of rotations, and so small that as many steps fit.
const GENERATION_STEP_MAX: u64 = 1 << 32;
const VERSION: u8 = 1;
/// The version of a charter that carries certificates over.
const VERSION_CARRYING: u8 = 2;
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
    carried: BTreeSet<Digest>,
    encoded: Vec<u8>,
}

impl Charter {
    /// The bytes that the root keys sign for the first charter of an owner with `roots`.
    #[must_use]
    pub fn first_payload(roots: &[PublicKey]) -> Vec<u8> {
        payload(&owner_of(roots), 1, roots, &BTreeSet::new())
    }

    /// The bytes to sign for the successor of this charter with `roots`.
    ///
    /// `carried` are digests (BLAKE3 of the DER) of certificates that earlier roots signed and that still count, each as it
    /// is; at most [`CARRIED_MAX`] of them are read.
    #[must_use]
    pub fn successor_payload(&self, roots: &[PublicKey], carried: &BTreeSet<Digest>) -> Vec<u8> {
        payload(
            &self.owner,
            self.generation.saturating_add(1),
            roots,
            carried,
        )
    }

    /// The same, with a generation of the caller's: above that of rivals.
    #[must_use]
    pub fn successor_payload_at(
        &self,
        generation: u64,
        roots: &[PublicKey],
        carried: &BTreeSet<Digest>,
    ) -> Vec<u8> {
        payload(&self.owner, generation, roots, carried)
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
        if next.generation - self.generation > GENERATION_STEP_MAX {
            return Err(Refusal::Charter(
                "its generation is too far from the one held",
            ));
        }
        let message = next.own_message();
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

    /// Digests of the certificates of earlier roots that still count; at most [`CARRIED_MAX`].
    #[must_use]
    pub const fn carried(&self) -> &BTreeSet<Digest> {
        &self.carried
    }

    /// What it says, without who signed it.
    #[must_use]
    pub fn id(&self) -> Digest {
        Digest::of(&self.own_payload())
    }

    /// The key that weighs more than all others together: the last.
    #[must_use]
    pub fn recovery(&self) -> Option<&PublicKey> {
        self.roots.last()
    }

    /// How much the keys of `before` that signed this one weigh: one each, the last as many as there are; 0: it is none of its
    /// successors.
    #[must_use]
    pub fn weight(&self, before: &Self) -> usize {
        let Ok((_, signatures)) = Self::read(&self.encoded) else {
            return 0;
        };
        let message = self.own_message();
        let weights = before.roots.iter().map(|root| {
            let weight = match before.recovery() {
                Some(recovery) if recovery == root => before.roots.len(),
                _ => 1,
            };
            signed(&signatures, root, &message).map_or(0, |()| weight)
        });
        weights.sum()
    }

    fn own_payload(&self) -> Vec<u8> {
        payload(&self.owner, self.generation, &self.roots, &self.carried)
    }

    fn own_message(&self) -> Vec<u8> {
        Self::message(&self.own_payload())
    }

    /// Its bytes, with the signatures.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    fn read(bytes: &[u8]) -> Result<(Self, Signatures), Refusal> {
        let mut reader = Reader::new(bytes, MALFORMED);
        let version = reader.u8()?;
        if version != VERSION && version != VERSION_CARRYING {
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
        let carried = if version == VERSION_CARRYING {
            read_carried(&mut reader)?
        } else {
            BTreeSet::new()
        };
        let signatures = read_signatures(&mut reader)?;
        reader.end()?;
        if generation == 1 && !carried.is_empty() {
            return Err(Refusal::Charter("the first one has nothing to carry over"));
        }
        if generation == 1 && owner != owner_of(&roots) {
            return Err(Refusal::Charter("its owner is not the hash of its keys"));
        }
        let charter = Self {
            owner,
            generation,
            roots,
            carried,
            encoded: bytes.to_vec(),
        };
        let message = charter.own_message();
        charter
            .roots
            .iter()
            .try_for_each(|root| signed(&signatures, root, &message))?;
        Ok((charter, signatures))
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

/// One value has one encoding: the version says whether anything is carried.
fn payload(
    owner: &OwnerId,
    generation: u64,
    roots: &[PublicKey],
    carried: &BTreeSet<Digest>,
) -> Vec<u8> {
    let version = if carried.is_empty() {
        VERSION
    } else {
        VERSION_CARRYING
    };
    let mut out = vec![version];
    out.extend_from_slice(owner.as_bytes());
    out.extend_from_slice(&generation.to_be_bytes());
    out.push(u8::try_from(roots.len()).unwrap_or(u8::MAX));
    for root in roots {
        out.extend_from_slice(root.point());
    }
    if !carried.is_empty() {
        let count = u16::try_from(carried.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&count.to_be_bytes());
        for digest in carried {
            out.extend_from_slice(digest.as_bytes());
        }
    }
    out
}

fn read_carried(reader: &mut Reader<'_>) -> Result<BTreeSet<Digest>, Refusal> {
    let count = usize::from(reader.u16()?);
    if count == 0 || count > CARRIED_MAX {
        return Err(MALFORMED);
    }
    let mut carried = BTreeSet::new();
    for _ in 0..count {
        let digest = Digest::from_bytes(reader.array()?);
        if carried.last().is_some_and(|last| *last >= digest) {
            return Err(MALFORMED);
        }
        carried.insert(digest);
    }
    Ok(carried)
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
