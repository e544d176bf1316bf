//! A rnode's identity on disk: `DIR/identity`.

use std::path::{Path, PathBuf};

use crux_core::identity::{
    Charter, Claim, Closing, Enrols, NEVER, NOTICE_CONTEXT, Notice, Principal, PublicKey, Refusal,
    Role, Signed, VERDICT_CONTEXT, Weight, Who, Window,
};
use crux_core::names::{Label, NamespaceId, OwnerId, RnodeId};
use crux_wire::document::v1::{DenyNotice, Verdict};

use crate::identity::files::{self, decode_chain, encode_chain};
use crate::identity::owner::UNCLAIMED;
use crate::identity::trust::Acceptance;
use crate::identity::{
    BaseInviter, Credentials, Dispute, Error, Invitation, LeafIssuer, SecretKey, Trust, WallClock,
};

/// A joiner's place in a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What it calls itself.
    pub label: Label,
    /// Which of the pool's uses it takes, from 0.
    pub ordinal: u32,
}

/// The key, enrolment and beliefs of one rnode.
#[derive(Debug, Clone)]
pub struct RnodeIdentity {
    dir: PathBuf,
    key: SecretKey,
    chain: Vec<Vec<u8>>,
    trust: Trust,
    hints: Vec<String>,
    namespace: Label,
    label: Label,
    claim: Claim,
}

/// The chain of the rnode whose identity lies in `dir`, as far as one can be read; not judged.
#[must_use]
pub fn enrolled_chain(dir: &Path) -> Option<Vec<Vec<u8>>> {
    let path = dir.join("chain");
    // The directory is another's: anything but a file might never end.
    if !std::fs::symlink_metadata(&path).ok()?.is_file() {
        return None;
    }
    decode_chain(&files::read(&path).ok().flatten()?)
}

impl RnodeIdentity {
    /// Claims `invitation` for the rnode in `dir`: makes its key there, enrols it, and keeps the result.
    ///
    /// Repeated after an interruption it finishes; repeated after success it answers the same rnode.
    /// `place` is for pools; a named invitation says itself what the rnode is called.
    ///
    /// # Errors
    /// [`Error::Refused`] after claim-by; [`Error::Invitation`] when it is not for a rnode, or a pool's place is missing;
    /// [`Error::Claimed`] when `dir` was claimed with another invitation.
    pub fn claim(dir: &Path, invitation: &Invitation, place: Option<Place>) -> Result<Self, Error> {
        files::private_dir(dir)?;
        if let Some(held) = Self::open(dir)? {
            let same = held.claim.invitation == invitation.id();
            return if same {
                Ok(held)
            } else {
                Err(Error::Claimed(dir.to_owned()))
            };
        }
        if invitation.enrols() != Some(Enrols::Rnode) {
            return Err(Error::Invitation("it is for an operator, not for a rnode"));
        }
        let place = match (invitation.label(), place) {
            (Some(label), _) => Place {
                label: label.clone(),
                ordinal: 0,
            },
            (None, Some(place)) => place,
            (None, None) => {
                return Err(Error::Invitation(
                    "it is for a pool: the label and place are missing",
                ));
            }
        };
        if place.ordinal >= invitation.uses() {
            return Err(Refusal::WrongOrdinal {
                uses: invitation.uses(),
                ordinal: place.ordinal,
            }
            .into());
        }
        let clock = WallClock::with_floor(&dir.join("floor"))?;
        let key = SecretKey::open_or_create(&dir.join("rnode.key"))?;
        let role = Role::Rnode {
            label: place.label,
            ordinal: place.ordinal,
        };
        let chain = invitation.enrol(
            role,
            key.public(),
            Window {
                from: clock.now(),
                until: NEVER,
            },
        )?;
        files::write(&dir.join("charter"), invitation.charter.encoded())?;
        files::write(&dir.join("hints"), invitation.hints().join("\n").as_bytes())?;
        // The chain comes last: with it the claim is made, before it nothing was.
        files::write(&dir.join("chain"), &encode_chain(&chain))?;
        Self::open(dir)?.ok_or_else(|| Error::Damaged {
            path: dir.join("chain"),
            what: "it vanished",
        })
    }

    /// Opens the identity in `dir`; `None`: nothing was claimed there yet.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Exposed`], [`Error::Damaged`]; [`Error::Refused`] when charter or denies no longer bear it.
    pub fn open(dir: &Path) -> Result<Option<Self>, Error> {
        if !dir.join("chain").exists() {
            return Ok(None);
        }
        let clock = WallClock::with_floor(&dir.join("floor"))?;
        Self::open_with(dir, clock)
    }

    /// Whether the identity in `dir` is there and no longer counts: denied, or its claim lost to another.
    #[must_use]
    pub fn is_denied(dir: &Path) -> bool {
        matches!(
            Self::open(dir),
            Err(Error::Refused(
                Refusal::Denied(_) | Refusal::LostClaim { .. }
            ))
        )
    }

    /// Forgets who lives in `dir`, so that another identity can be claimed there; what it knows of others stays.
    ///
    /// # Errors
    /// [`Error::Io`]; repeated, it finishes.
    pub fn discard(dir: &Path) -> Result<(), Error> {
        // Ordering: without a chain nobody lives there.
        files::remove(&dir.join("chain"))?;
        files::remove(&dir.join("rnode.key"))?;
        let hosts = dir.join("hosts");
        let Ok(entries) = std::fs::read_dir(&hosts) else {
            return Ok(());
        };
        for entry in entries.filter_map(Result::ok) {
            files::remove(&entry.path())?;
        }
        Ok(())
    }

    /// Opens the identity in `dir` with a clock of the caller's.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(dir: &Path, clock: WallClock) -> Result<Option<Self>, Error> {
        files::private_dir(dir)?;
        let missing = |name: &'static str| Error::Damaged {
            path: dir.join(name),
            what: "it is missing",
        };
        let Some(chain) = files::read(&dir.join("chain"))? else {
            return Ok(None);
        };
        let chain = decode_chain(&chain).ok_or_else(|| Error::Damaged {
            path: dir.join("chain"),
            what: "it is cut short",
        })?;
        let key =
            files::read_secret(&dir.join("rnode.key"))?.ok_or_else(|| missing("rnode.key"))?;
        let key = SecretKey::from_pkcs8(&key)?;
        let charter = files::read(&dir.join("charter"))?.ok_or_else(|| missing("charter"))?;
        let trust = Trust::open(dir, Charter::decode(&charter)?, clock)?;
        let hints = files::read(&dir.join("hints"))?.unwrap_or_default();
        let hints = String::from_utf8_lossy(&hints)
            .lines()
            .map(str::to_owned)
            .collect();
        let principal = principal_of_own(&key, &chain, &trust)?;
        let Who::Rnode {
            namespace,
            label,
            claim,
            ..
        } = principal.who
        else {
            return Err(Error::Damaged {
                path: dir.join("chain"),
                what: "it is not a rnode's",
            });
        };
        Ok(Some(Self {
            dir: dir.to_owned(),
            key,
            chain,
            trust,
            hints,
            namespace,
            label,
            claim,
        }))
    }

    /// Its permanent name.
    #[must_use]
    pub fn id(&self) -> RnodeId {
        self.key.public().rnode_id()
    }

    /// What people call it.
    #[must_use]
    pub const fn label(&self) -> &Label {
        &self.label
    }

    /// The label of its namespace.
    #[must_use]
    pub const fn namespace(&self) -> &Label {
        &self.namespace
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace_id(&self) -> NamespaceId {
        NamespaceId::of(&self.owner(), &self.namespace)
    }

    /// Whose it is.
    #[must_use]
    pub fn owner(&self) -> OwnerId {
        self.trust.owner()
    }

    /// How it came in.
    #[must_use]
    pub const fn claim_made(&self) -> Claim {
        self.claim
    }

    /// Where its invitation said to begin: `host:port` each.
    #[must_use]
    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    /// Its public key.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        self.key.public()
    }

    /// Its chain: its enrolment first. Stands beside what it signs.
    #[must_use]
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// What it believes, shared by all its credentials.
    #[must_use]
    pub const fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Signs {context, payload} with its permanent key.
    ///
    /// # Errors
    /// [`Error::Crypto`].
    pub fn sign(&self, context: &[u8], payload: &[u8]) -> Result<Vec<u8>, Error> {
        self.key.sign(context, payload)
    }

    /// Its side of connections.
    ///
    /// # Errors
    /// [`Error::Crypto`]; [`Error::Refused`].
    pub fn credentials(&self) -> Result<Credentials, Error> {
        Credentials::self_renewing(self.trust.clone(), self.key.clone(), self.chain.clone())
    }

    /// Its side of connections to rnodes that are denied, to tell them so: it judges by the charter alone.
    ///
    /// What is said over them must be no secret.
    ///
    /// # Errors
    /// [`Error::Crypto`]; [`Error::Refused`].
    pub fn parting_credentials(&self) -> Result<Credentials, Error> {
        let trust = Trust::new(self.trust.charter(), self.trust.clock().clone());
        Credentials::self_renewing(trust, self.key.clone(), self.chain.clone())
    }

    /// Says that the first of two that made one claim stays; `None`: we are one of them, or do not know enough.
    ///
    /// # Errors
    /// [`Error::Crypto`].
    pub fn sign_verdict(
        &self,
        dispute: &Dispute,
        weight: Weight,
    ) -> Result<Option<Verdict>, Error> {
        if [dispute.holder, dispute.rival].contains(&self.id()) {
            return Ok(None);
        }
        let Some(verdict) = dispute.verdict(self.owner(), weight) else {
            return Ok(None);
        };
        let payload = verdict.encode();
        Ok(Some(Verdict {
            signature: self.key.sign(VERDICT_CONTEXT, &payload)?,
            payload,
            chain: self.chain.clone(),
        }))
    }

    /// Issues leaves to its processes.
    #[must_use]
    pub fn leaf_issuer(&self) -> LeafIssuer {
        LeafIssuer::new(
            self.key.clone(),
            self.chain.clone(),
            self.namespace.clone(),
            self.trust.clock().clone(),
        )
    }

    /// Keeps a host grant that the owner gave to this rnode's key for `namespace`; a newer one replaces an older.
    ///
    /// # Errors
    /// [`Error::Refused`] when it is not for this key and namespace; [`Error::Io`].
    pub fn add_host_grant(&self, namespace: &Label, chain: &[Vec<u8>]) -> Result<(), Error> {
        self.check_host_grant(namespace, chain)?;
        let hosts = self.dir.join("hosts");
        files::private_dir(&hosts)?;
        files::write(&hosts.join(namespace.as_str()), &encode_chain(chain))
    }

    /// Forgets the host grant for `namespace`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn drop_host_grant(&self, namespace: &Label) -> Result<(), Error> {
        files::remove(&self.dir.join("hosts").join(namespace.as_str()))
    }

    /// Its side of connections as the host of `namespace`; `None`: it was not given that.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Refused`] when the grant no longer holds.
    pub fn host_credentials(&self, namespace: &Label) -> Result<Option<Credentials>, Error> {
        let Some(chain) = self.host_chain(namespace)? else {
            return Ok(None);
        };
        Credentials::self_renewing(self.trust.clone(), self.key.clone(), chain).map(Some)
    }

    /// Makes invitations into `namespace`; `None`: it was not given that.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Refused`] when the grant no longer holds.
    pub fn inviter(&self, namespace: &Label) -> Result<Option<BaseInviter>, Error> {
        let Some(chain) = self.host_chain(namespace)? else {
            return Ok(None);
        };
        let clock = self.trust.clock().clone();
        Ok(Some(BaseInviter::new(
            self.key.clone(),
            chain,
            namespace.clone(),
            self.trust.charter(),
            clock,
        )))
    }

    /// Closes an invitation into `namespace`, as its host; `None`: it was not given that.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Refused`] when the grant no longer holds; [`Error::Crypto`].
    pub fn close_invitation(
        &self,
        namespace: &Label,
        closing: Closing,
    ) -> Result<Option<DenyNotice>, Error> {
        let Some(chain) = self.host_chain(namespace)? else {
            return Ok(None);
        };
        let notice = Notice {
            owner: self.owner(),
            at: self.trust.clock().now(),
            denied: Vec::new(),
            closed: vec![closing],
            reason: UNCLAIMED.to_owned(),
        };
        let payload = notice.encode();
        Ok(Some(DenyNotice {
            signature: self.key.sign(NOTICE_CONTEXT, &payload)?,
            payload,
            chain,
        }))
    }

    fn host_chain(&self, namespace: &Label) -> Result<Option<Vec<Vec<u8>>>, Error> {
        let path = self.dir.join("hosts").join(namespace.as_str());
        let Some(bytes) = files::read(&path)? else {
            return Ok(None);
        };
        let chain = decode_chain(&bytes).ok_or(Error::Damaged {
            path,
            what: "it is cut short",
        })?;
        self.check_host_grant(namespace, &chain)?;
        Ok(Some(chain))
    }

    fn check_host_grant(&self, namespace: &Label, chain: &[Vec<u8>]) -> Result<(), Error> {
        let principal = principal_of_own(&self.key, chain, &self.trust)?;
        if !matches!(principal.who, Who::Host { .. }) {
            return Err(Refusal::WrongUse("certificate that is not a host's").into());
        }
        principal.may(crux_core::identity::Verb::Host, namespace)?;
        Ok(())
    }
}

/// Who `chain` makes the holder of `key`; refused when it is for another key.
fn principal_of_own(key: &SecretKey, chain: &[Vec<u8>], trust: &Trust) -> Result<Principal, Error> {
    let context = b"radix-own/1\n";
    let signature = key.sign(context, b"")?;
    let signed = Signed {
        context,
        payload: b"",
        signature: &signature,
        chain,
    };
    Ok(trust.verify_signed(&signed, Acceptance::Kept)?)
}
