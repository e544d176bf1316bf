//! The inside of a BLAKE3 digest: each 16 KiB of a file can be checked when it arrives.
//!
//! BLAKE3 is a tree already. The chaining values above whole groups of 16 KiB, here called *seals*,
//! 32 bytes each, are enough to compute the digest; so a list of seals is either right or refused before any byte of the file
//! is taken, and then each group stands for itself, in any order.
//!
//! Source: the BLAKE3 paper (O'Connor et al., 2020), section 2; `blake3::hazmat` for the calls.

use std::ops::Range;

use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root,
};

use super::Digest;

/// Bytes that are checked together. 16 KiB: BLAKE3's widest kernel is busy, an edit sends little anew, and 1 GiB
/// has 2 MiB of seals.
pub const GROUP_BYTES: u64 = 16 * 1024;
/// Bytes of one seal.
pub const SEAL_BYTES: usize = 32;

/// Why a list of seals was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GroupsError {
    /// There are more or fewer seals than groups.
    #[error("take the seals of a file: there are {found}, {wanted} are needed")]
    Count {
        /// Seals that came.
        found: usize,
        /// Groups of the file.
        wanted: usize,
    },
    /// They do not lead to the digest.
    #[error("take the seals of a file: they lead to {0}")]
    Mismatch(Digest),
}

/// What is needed to check each group of one file by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    digest: Digest,
    size: u64,
    /// One for each group; none for a file of one group, whose digest is enough.
    seals: Vec<ChainingValue>,
}

impl Groups {
    /// Takes the seals of a file with this digest and size.
    ///
    /// # Errors
    /// [`GroupsError`] unless they are what the digest was made of.
    pub fn check(digest: Digest, size: u64, seals: Vec<[u8; 32]>) -> Result<Self, GroupsError> {
        let groups = Self {
            digest,
            size,
            seals,
        };
        let wanted = if groups.count() < 2 {
            0
        } else {
            groups.count()
        };
        if groups.seals.len() != wanted {
            return Err(GroupsError::Count {
                found: groups.seals.len(),
                wanted,
            });
        }
        if wanted > 0 {
            let found = root(&groups.seals);
            if found != digest {
                return Err(GroupsError::Mismatch(found));
            }
        }
        Ok(groups)
    }

    /// The digest of the whole file.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Its length in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// How many groups it has; an empty file has one, which is empty.
    #[must_use]
    pub fn count(&self) -> usize {
        usize::try_from(self.size.div_ceil(GROUP_BYTES).max(1)).unwrap_or(usize::MAX)
    }

    /// The seals, one for each group; empty for a file of one group.
    #[must_use]
    pub fn seals(&self) -> &[[u8; 32]] {
        &self.seals
    }

    /// The seals above so many groups each, the last above what is left; `None` unless they are a power of two
    /// and less than all of it.
    ///
    /// [`Groups::is_above`] checks such a list as [`Groups::check`] does one of seals.
    #[must_use]
    pub fn above(&self, together: usize) -> Option<Vec<[u8; SEAL_BYTES]>> {
        let known = together.is_power_of_two() && together < self.seals.len();
        known.then(|| self.seals.chunks(together).map(subtree).collect())
    }

    /// Whether seals above so many groups each lead to a digest.
    #[must_use]
    pub fn is_above(
        digest: Digest,
        size: u64,
        together: usize,
        seals: &[[u8; SEAL_BYTES]],
    ) -> bool {
        let bytes = GROUP_BYTES.saturating_mul(together as u64);
        together.is_power_of_two()
            && seals.len() > 1
            && seals.len() as u64 == size.div_ceil(bytes)
            && root(seals) == digest
    }

    /// Where a group lies in the file.
    #[must_use]
    pub fn range(&self, group: usize) -> Range<u64> {
        let start = (group as u64).saturating_mul(GROUP_BYTES).min(self.size);
        start..start.saturating_add(GROUP_BYTES).min(self.size)
    }

    /// The group that begins at `offset`, if one does.
    #[must_use]
    pub fn group_at(&self, offset: u64) -> Option<usize> {
        let group = usize::try_from(offset / GROUP_BYTES).ok()?;
        (offset.is_multiple_of(GROUP_BYTES) && group < self.count()).then_some(group)
    }

    /// Whether `bytes` are that group.
    #[must_use]
    pub fn verify(&self, group: usize, bytes: &[u8]) -> bool {
        let range = self.range(group);
        if group >= self.count() || range.end - range.start != bytes.len() as u64 {
            return false;
        }
        match self.seals.get(group) {
            Some(seal) => seal_of(group, bytes) == *seal,
            None => Digest::of(bytes) == self.digest,
        }
    }
}

/// Hashes a file piece by piece and keeps the seals of its groups.
#[derive(Debug, Clone, Default)]
pub struct GroupHasher {
    current: blake3::Hasher,
    filled: usize,
    size: u64,
    seals: Vec<ChainingValue>,
}

impl GroupHasher {
    /// A hasher that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.size += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.filled == GROUP {
                self.end_group();
            }
            let take = bytes.len().min(GROUP - self.filled);
            self.current.update(&bytes[..take]);
            self.filled += take;
            bytes = &bytes[take..];
        }
    }

    /// The digest of all pieces, with its seals.
    #[must_use]
    pub fn finish(mut self) -> Groups {
        let digest = if self.seals.is_empty() {
            Digest::from_bytes(*self.current.finalize().as_bytes())
        } else {
            self.end_group();
            root(&self.seals)
        };
        Groups {
            digest,
            size: self.size,
            seals: self.seals,
        }
    }

    fn end_group(&mut self) {
        self.seals.push(self.current.finalize_non_root());
        self.current = blake3::Hasher::new();
        self.current
            .set_input_offset(self.seals.len() as u64 * GROUP_BYTES);
        self.filled = 0;
    }
}

const GROUP: usize = 16 * 1024;

fn seal_of(group: usize, bytes: &[u8]) -> ChainingValue {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(group as u64 * GROUP_BYTES);
    hasher.update(bytes);
    hasher.finalize_non_root()
}

/// The digest that two or more seals lead to.
fn root(seals: &[ChainingValue]) -> Digest {
    let (left, right) = seals.split_at(left_count(seals.len()));
    let merged = merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash);
    Digest::from_bytes(*merged.as_bytes())
}

fn subtree(seals: &[ChainingValue]) -> ChainingValue {
    match seals {
        [seal] => *seal,
        _ => {
            let (left, right) = seals.split_at(left_count(seals.len()));
            merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
        }
    }
}

/// Groups below the left child: the greatest power of two that leaves one for the right.
const fn left_count(count: usize) -> usize {
    count.div_ceil(2).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * 31 % 251) as u8).collect()
    }

    fn hashed(bytes: &[u8], piece: usize) -> Groups {
        let mut hasher = GroupHasher::new();
        bytes.chunks(piece).for_each(|piece| hasher.update(piece));
        hasher.finish()
    }

    #[test]
    fn the_nodes_lead_to_the_plain_digest_at_every_size() {
        for groups in [0, 1, 2, 3, 4, 5, 7, 8, 9, 17] {
            for odd in [0, 1, 1024, GROUP - 1] {
                let bytes = bytes(groups * GROUP + odd);
                let found = hashed(&bytes, 100_000);
                assert_eq!(found.digest(), Digest::of(&bytes), "{groups} {odd}");
                let checked = Groups::check(found.digest(), found.size(), found.seals().to_vec());
                assert_eq!(checked, Ok(found));
            }
        }
    }

    #[test]
    fn a_group_is_itself_and_no_other() {
        let bytes = bytes(3 * GROUP + 7);
        let groups = hashed(&bytes, GROUP);
        let part = |group: usize| {
            let range = groups.range(group);
            &bytes[range.start as usize..range.end as usize]
        };
        for group in 0..4 {
            assert!(groups.verify(group, part(group)));
            assert!(!groups.verify(group + 1, part(group)) || group == 4);
            let mut flipped = part(group).to_vec();
            flipped[3] ^= 1;
            assert!(!groups.verify(group, &flipped));
        }
        assert!(!groups.verify(4, b""));
        assert_eq!(groups.group_at(GROUP_BYTES), Some(1));
        assert_eq!(groups.group_at(1), None);
        assert_eq!(groups.group_at(4 * GROUP_BYTES), None);
    }

    #[test]
    fn seals_above_several_groups_lead_to_the_digest_and_others_do_not() {
        for groups in [2usize, 3, 5, 16, 17, 33] {
            let found = hashed(&bytes(groups * GROUP - 5), GROUP);
            for together in [1usize, 2, 4, 16, 32] {
                let Some(mut above) = found.above(together) else {
                    assert!(together >= groups);
                    continue;
                };
                let check = |above: &[[u8; 32]]| {
                    Groups::is_above(found.digest(), found.size(), together, above)
                };
                assert!(check(&above), "{groups} by {together}");
                assert!(!check(&above[1..]));
                above.swap(0, 1);
                assert!(!check(&above));
            }
            assert_eq!(found.above(3), None);
        }
    }

    #[test]
    fn nodes_that_lie_are_refused_before_any_byte_is_taken() {
        let groups = hashed(&bytes(5 * GROUP), GROUP);
        let mut seals = groups.seals().to_vec();
        seals[2][0] ^= 1;
        assert!(matches!(
            Groups::check(groups.digest(), groups.size(), seals),
            Err(GroupsError::Mismatch(_))
        ));
        let short = groups.seals()[1..].to_vec();
        assert!(matches!(
            Groups::check(groups.digest(), groups.size(), short),
            Err(GroupsError::Count { .. })
        ));
        let wrong_size = Groups::check(groups.digest(), GROUP_BYTES, groups.seals().to_vec());
        assert!(wrong_size.is_err());
    }
}
