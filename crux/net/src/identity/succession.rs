//! How an owner's root keys begin and are replaced: first charter, rotation, recovery. Each step survives being cut off.
//!
//! Files in `owner/`: `root.key`, `recovery.key` (until it was shown and erased), `charter`, `authority`; and, while a
//! rotation is under way, `root.key.next` and `recovery.key.next`. The new keys lie on disk before the charter that names
//! them; whoever opens the owner next finishes the rest.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crux_core::identity::{Charter, NOTICE_CONTEXT, Refusal};
use crux_wire::document::v1::{Authority, DenyNotice};
use prost::Message as _;

use crate::identity::carried::{carried, forget_erased};
use crate::identity::files;
use crate::identity::owner::lock;
use crate::identity::trust::read_authority;
use crate::identity::{Error, OwnerStore, SecretKey, Trust, WallClock};

const RECOVERY_HEAD: &str = "radixrecovery1";
const CHECK_BYTES: usize = 4;
const NOT_OF_CHARTER: Error = Error::Recovery("it is not a key of the charter held here");
/// Longest text read as a recovery key.
const RECOVERY_TEXT_MAX: usize = 1_024;

/// The first charter of an owner: its root key, and the recovery key that can replace it.
pub(crate) fn first(dir: &Path, root: &SecretKey) -> Result<Charter, Error> {
    let recovery = SecretKey::open_or_create(&dir.join("recovery.key"))?;
    let payload = Charter::first_payload(&[*root.public(), *recovery.public()]);
    let message = Charter::message(&payload);
    let signatures = sign(&message, &[root, &recovery])?;
    Ok(Charter::decode(&Charter::assemble(&payload, &signatures))?)
}

type Signatures = Vec<(crux_core::identity::PublicKey, Vec<u8>)>;

fn sign(message: &[u8], keys: &[&SecretKey]) -> Result<Signatures, Error> {
    keys.iter()
        .map(|key| Ok((*key.public(), key.sign(b"", message)?)))
        .collect()
}

/// The newest charter that lies in `dir`; `None`: there is no owner yet.
pub(crate) fn newest_charter(dir: &Path) -> Result<Option<Charter>, Error> {
    Ok(known(dir)?.map(|trust| trust.charter()))
}

/// What lies in `dir`; `None`: there is no owner yet.
fn known(dir: &Path) -> Result<Option<Trust>, Error> {
    let Some(bytes) = files::read(&dir.join("charter"))? else {
        return Ok(None);
    };
    let (charter, authority) = (Charter::decode(&bytes)?, read_authority(dir)?);
    let trust = Trust::with_authority(charter, authority.as_ref(), WallClock::system());
    Ok(Some(trust))
}

/// Finishes a rotation that was cut off after its charter was written; drops one that was cut off before.
pub(crate) fn finish(dir: &Path) -> Result<(), Error> {
    let Some(next) = files::read_secret(&dir.join("root.key.next"))? else {
        return Ok(());
    };
    let charter = newest_charter(dir)?;
    let named = match (charter, SecretKey::from_pkcs8(&next)) {
        (Some(charter), Ok(key)) => charter.roots().contains(key.public()),
        _ => false,
    };
    for name in ["recovery.key", "root.key"] {
        let fresh = dir.join(format!("{name}.next"));
        match files::read_secret(&fresh)? {
            Some(key) if named => files::write(&dir.join(name), &key)?,
            _ => {}
        }
        files::remove(&fresh)?;
    }
    Ok(())
}

/// What came of replacing the root key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotated {
    /// Whether the recovery key replaced signed too.
    pub by_recovery: bool,
    /// How many certificates were left out by which nobody acts any more, the oldest, for want of room: documents that were
    /// signed by them are held back until somebody signs them again.
    pub left_out: usize,
}

impl OwnerStore {
    /// Replaces the root key: the successor charter is signed by old and new, and carries over what the old one certified.
    ///
    /// There is a new recovery key too. Where the old one signs as well, because it lies here or is given as text, both are
    /// worth nothing afterwards; without it the old one can still overturn the rotation. This store is stale then: open it
    /// anew.
    ///
    /// # Errors
    /// [`Error::NoRoot`]; [`Error::RecoveryText`] when the text is none, [`Error::Recovery`] when not of the charter
    /// held; [`Error::Full`] when more may still let somebody in than a charter carries over; [`Error::Io`].
    /// Until the new charter is on disk, nothing has changed.
    pub fn rotate(&self, recovery: Option<&str>) -> Result<Rotated, Error> {
        let root = self.root().ok_or(Error::NoRoot("replace the root key"))?;
        let given = recovery.map(read_recovery).transpose()?;
        let of_charter = |key: &SecretKey| self.charter().roots().contains(key.public());
        if given.as_ref().is_some_and(|key| !of_charter(key)) {
            return Err(NOT_OF_CHARTER);
        }
        let kept = files::read_secret(&self.home().join("owner/recovery.key"))?;
        let kept = kept.and_then(|key| SecretKey::from_pkcs8(&key).ok());
        let recovery = given.or(kept).filter(of_charter);
        let old: Vec<&SecretKey> = [root].into_iter().chain(&recovery).collect();
        let left_out = replace(self.home(), self.charter(), &old)?;
        Ok(Rotated {
            by_recovery: recovery.is_some(),
            left_out,
        })
    }

    /// Replaces a lost root key by means of the recovery key.
    ///
    /// Also ends it where charters stand against each other: with the recovery key of the last one that they have in common,
    /// or, where the root key of the one held is here, with a key of the other: then both sides agree.
    ///
    /// # Errors
    /// [`Error::RecoveryText`] when the text is none, [`Error::Recovery`] when not of this owner; as [`rotate`](Self::rotate).
    pub fn recover(home: &Path, text: &str) -> Result<Rotated, Error> {
        let recovery = read_recovery(text)?;
        let dir = home.join("owner");
        files::private_dir(home)?;
        files::private_dir(&dir)?;
        if !dir.join("charter").exists() {
            // The owner's directory is gone: the base rnode of this machine knows the charter.
            let identity = home.join("base/identity");
            for name in ["authority", "charter"] {
                if let Some(bytes) = files::read(&identity.join(name))? {
                    files::write(&dir.join(name), &bytes)?;
                }
            }
        }
        let known = known(&dir)?.ok_or(Error::Recovery("there is no charter here"))?;
        let succession = known.succession();
        let open = succession.open();
        let names = |charter: &&Charter| charter.roots().contains(recovery.public());
        let common = open.iter().filter_map(|rival| succession.common(rival));
        let mut before = std::iter::once(succession.held()).chain(common);
        let root = files::read_secret(&dir.join("root.key"))?;
        let key = root.as_deref().map(SecretKey::from_pkcs8).transpose()?;
        let key = key.filter(|key| succession.held().roots().contains(key.public()));
        // Whose root key made the one that is held without us, as a thief's does, is overturned from where it left ours.
        let earlier = || succession.line().iter().rev().find(names);
        let (before, old) = match (before.find(names), open.iter().any(names), &key) {
            (Some(before), ..) => (before, vec![&recovery]),
            (None, true, Some(key)) => (succession.held(), vec![key, &recovery]),
            (None, _, None) => (earlier().ok_or(NOT_OF_CHARTER)?, vec![&recovery]),
            (None, false, Some(_)) => return Err(NOT_OF_CHARTER),
        };
        let left_out = replace(home, before, &old)?;
        Ok(Rotated {
            by_recovery: true,
            left_out,
        })
    }

    /// The recovery key as text, while it lies on this machine.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Exposed`].
    pub fn recovery_key(&self) -> Result<Option<String>, Error> {
        let key = files::read_secret(&self.home().join("owner/recovery.key"))?;
        Ok(key.map(|key| write_recovery(&key)))
    }

    /// Erases the recovery key from this machine.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn erase_recovery_key(&self) -> Result<(), Error> {
        files::remove(&self.home().join("owner/recovery.key"))
    }
}

/// Makes new root and recovery keys, and the charter after `before` that names them, vouched for by `old`.
///
/// Answers how much that had ended was left out for want of room.
fn replace(home: &Path, before: &Charter, old: &[&SecretKey]) -> Result<usize, Error> {
    let dir = home.join("owner");
    let _lock = lock(&dir.join("lock"))?;
    let trust = known(&dir)?.ok_or(Refusal::Charter("it is missing"))?;
    let succession = trust.succession();
    let generations = succession.all().into_iter().map(Charter::generation);
    let generation = generations.max().unwrap_or(0).saturating_add(1);
    let of_root = trust.notices_of_root();
    let (root, recovery) = (SecretKey::generate()?, SecretKey::generate()?);
    let (carried, left_out) = carried(home, &[before, succession.held()], &trust)?;
    let names = [*root.public(), *recovery.public()];
    let payload = before.successor_payload_at(generation, &names, &carried);
    let message = Charter::message(&payload);
    let signatures = sign(&message, &[old, &[&root, &recovery]].concat())?;
    let next = Charter::assemble(&payload, &signatures);
    // Ordering: the keys first; the charter that names them makes them count.
    files::write(&dir.join("recovery.key.next"), recovery.pkcs8())?;
    files::write(&dir.join("root.key.next"), root.pkcs8())?;
    let notices = of_root
        .iter()
        .map(|notice| {
            let payload = notice.encode();
            Ok(DenyNotice {
                signature: root.sign(NOTICE_CONTEXT, &payload)?,
                payload,
                chain: Vec::new(),
            })
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let next_id = Charter::decode(&next)?.id();
    let taken = trust.take_authority(&Authority {
        charters: vec![next],
        notices,
        ..Authority::default()
    })?;
    if let Some(reason) = taken.refused.first() {
        return Err(Error::NotCounted(reason.clone()));
    }
    if trust.charter().id() != next_id {
        return Err(Error::NotCounted(
            "it weighs no more than those that stand against each other".to_owned(),
        ));
    }
    files::write(&dir.join("authority"), &trust.authority().encode_to_vec())?;
    files::write(&dir.join("charter"), trust.charter().encoded())?;
    finish(&dir)?;
    forget_erased(home, &trust.charter())?;
    Ok(left_out)
}

fn write_recovery(pkcs8: &[u8]) -> String {
    let check = blake3::hash(pkcs8);
    let bytes = [pkcs8, &check.as_bytes()[..CHECK_BYTES]].concat();
    format!("{RECOVERY_HEAD}{}", URL_SAFE_NO_PAD.encode(bytes))
}

fn read_recovery(text: &str) -> Result<SecretKey, Error> {
    let text = text.trim();
    if text.len() > RECOVERY_TEXT_MAX {
        return Err(Error::RecoveryText("it is too long"));
    }
    let text = text
        .strip_prefix(RECOVERY_HEAD)
        .ok_or(Error::RecoveryText("it does not begin with radixrecovery1"))?;
    let damaged = || Error::RecoveryText("it is damaged or incomplete");
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| damaged())?;
    let (pkcs8, check) = bytes
        .split_at_checked(bytes.len().saturating_sub(CHECK_BYTES))
        .ok_or_else(damaged)?;
    if blake3::hash(pkcs8).as_bytes()[..CHECK_BYTES] != *check {
        return Err(damaged());
    }
    SecretKey::from_pkcs8(pkcs8)
}
