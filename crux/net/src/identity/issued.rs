//! What keys of this machine certified, a file a certificate, named by its digest: `owner/issued` by root keys,
//! `operator/invited` by the operator; `owner/erased` and `operator/used` say what of it serves nobody any more.
//!
//! A new root carries over what roots certified, and people name by label whom they deny.

use std::path::{Path, PathBuf};

use crux_core::digest::Digest;
use crux_core::identity::{
    Grant, LEAF_BACKDATE_SECONDS, PublicKey, UnixTime, Window, validity_of_certificate,
};

use crate::identity::{Error, files};

/// Most certificates kept. 1 024: four times what a charter carries over.
const ISSUED_MAX: usize = 1_024;

/// Longest time after claim-by in which whoever came in by an invitation is to be met. An hour: a 24th of the usual day.
pub const SETTLE_GRACE_SECONDS_MAX: u64 = 3_600;

/// One certificate that a key of this machine made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// Its bytes.
    pub der: Vec<u8>,
    /// Whom it is for.
    pub key: PublicKey,
    /// What it says.
    pub grant: Grant,
    /// From when, until when.
    pub validity: Window,
}

impl IssuedCertificate {
    /// Reads one.
    pub(crate) fn read(der: Vec<u8>) -> Result<Self, Error> {
        Ok(Self {
            key: PublicKey::of_certificate(&der)?,
            grant: Grant::of_certificate(&der)?,
            validity: validity_of_certificate(&der)?,
            der,
        })
    }

    /// When an invitation may be settled by a base that has been there since `present`.
    #[must_use]
    pub fn settled_from(&self, present: UnixTime) -> UnixTime {
        let made = self.validity.from.plus(LEAF_BACKDATE_SECONDS);
        let claimable = self.grant.claim_by.seconds().saturating_sub(made.seconds());
        let grace = (claimable / 24).min(SETTLE_GRACE_SECONDS_MAX);
        self.grant.claim_by.max(present).plus(grace)
    }
}

/// The directory.
pub(crate) struct Issued(PathBuf);

impl Issued {
    /// Of the state directory `home`.
    pub(crate) fn at(home: &Path) -> Self {
        Self(home.join("owner").join("issued"))
    }

    /// Of those of `home` that can serve nobody any more, and that a charter carries still: the next one is not to.
    pub(crate) fn erased(home: &Path) -> Self {
        Self(home.join("owner").join("erased"))
    }

    /// Of rnodes and tools that the operator of `home` invited.
    pub(crate) fn by_operator(home: &Path) -> Self {
        Self(home.join("operator").join("invited"))
    }

    /// Of those of them by which bases came in that are gone, until they are settled.
    pub(crate) fn used(home: &Path) -> Self {
        Self(home.join("operator").join("used"))
    }

    /// Keeps one, durably.
    pub(crate) fn keep(&self, der: &[u8]) -> Result<(), Error> {
        files::private_dir(&self.0)?;
        if self.list()?.len() >= ISSUED_MAX {
            return Err(Error::Full("1024 are kept here already"));
        }
        files::write(&self.0.join(Digest::of(der).to_string()), der)
    }

    /// Forgets those that `may_go`.
    pub(crate) fn forget(&self, may_go: impl Fn(&IssuedCertificate) -> bool) -> Result<(), Error> {
        for held in self.list()?.into_iter().filter(may_go) {
            files::remove(&self.0.join(Digest::of(&held.der).to_string()))?;
        }
        Ok(())
    }

    /// All of them, oldest first.
    pub(crate) fn list(&self) -> Result<Vec<IssuedCertificate>, Error> {
        let entries = match std::fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => {
                return Err(Error::Io {
                    operation: "list",
                    path: self.0.clone(),
                    source,
                });
            }
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(Error::io("list", &self.0))?.path();
            let Some(der) = files::read(&path)? else {
                continue;
            };
            let named = path
                .file_name()
                .is_some_and(|name| *name == *Digest::of(&der).to_string());
            // Anything else is the remains of a write that was cut off.
            if named {
                found.push(IssuedCertificate::read(der)?);
            }
        }
        found.sort_by_key(|held| (held.validity.from, held.key));
        Ok(found)
    }
}
