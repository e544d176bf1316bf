//! The owner and operator on a person's machine: `$RADIX_HOME/owner` and `$RADIX_HOME/operator`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crux_core::identity::{
    Charter, DOCUMENT_CONTEXT, Denied, Enrols, Grant, LEAF_BACKDATE_SECONDS, NEVER, NOTICE_CONTEXT,
    NOTICE_DENIED_MAX, Notice, OPERATOR_LIFE_SECONDS, Prefix, PublicKey, REASON_BYTES_MAX, Refusal,
    Role, Signed, UnixTime, Verb, Verbs, Window, is_signed_by, validity_of_certificate,
};
use crux_core::names::{Label, OwnerId};
use crux_wire::document::v1::{Authority, DenyNotice, PendingInvitation};
use prost::Message as _;

use crate::identity::carried::{forget_base, forget_used};
use crate::identity::files::{self, decode_chain, encode_chain};
use crate::identity::invitation::{
    GrantTerms, INVITATION_LIFE_SECONDS, INVITATION_LIFE_SECONDS_MAX, Inviter, Terms,
    operator_passes_on,
};
use crate::identity::issue::issue;
use crate::identity::issued::{Issued, IssuedCertificate};
use crate::identity::succession;
use crate::identity::trust::read_authority;
use crate::identity::{
    Acceptance, Credentials, Error, GrantLine, Invitation, SecretKey, Taken, Trust, WallClock,
};

/// An operator's grant is renewed when less than this is left: 60 of its 90 days.
const RENEW_BELOW_SECONDS: u64 = 60 * 86_400;

/// Why an invitation is withdrawn or closed.
pub(crate) const UNCLAIMED: &str = "nobody came in by it in time";

/// The keys of the owner and operator of this machine's user.
///
/// Without the root key (an operator enrolled by invitation), what needs it answers [`Error::NoRoot`].
#[derive(Debug)]
pub struct OwnerStore {
    root: Option<SecretKey>,
    charter: Charter,
    operator: SecretKey,
    operator_chain: Vec<Vec<u8>>,
    clock: WallClock,
    trust: Trust,
    home: PathBuf,
    made: bool,
    invitation_life_seconds: u64,
}

impl OwnerStore {
    /// Opens the store under `home`; makes owner and operator at the first call, and renews the operator's grant when due.
    ///
    /// Two calls at once make one owner.
    ///
    /// # Errors
    /// [`Error::OtherUser`] and [`Error::Exposed`] before anything is made; [`Error::Io`]; [`Error::Refused`] when the
    /// operator's grant has ended and the root key is not here.
    pub fn open_or_create(home: &Path) -> Result<Self, Error> {
        files::private_dir(home)?;
        files::private_dir(&home.join("owner"))?;
        files::private_dir(&home.join("operator"))?;
        let _lock = lock(&home.join("owner/lock"))?;
        let clock = WallClock::with_floor(&home.join("owner/floor"))?;
        let made = !home.join("owner/charter").exists();
        let (root, charter) = open_owner(&home.join("owner"), Creation::Allowed)?
            .ok_or(Refusal::Charter("it is missing"))?;
        let store = Self::with_operator(home, root, charter, clock)?;
        Ok(Self { made, ..store })
    }

    /// The same, with invitations that may be claimed for this long.
    ///
    /// # Errors
    /// [`Error::Invitation`] unless it is 1 s to 30 days.
    pub fn claimable_within(self, life: Duration) -> Result<Self, Error> {
        let invitation_life_seconds = life.as_secs();
        if invitation_life_seconds == 0 || invitation_life_seconds > INVITATION_LIFE_SECONDS_MAX {
            return Err(Error::Invitation("it must be claimable for 1 s to 30 days"));
        }
        Ok(Self {
            invitation_life_seconds,
            ..self
        })
    }

    /// Whether this call made the owner.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        self.made
    }

    /// Opens the store under `home`; `None`: there is no owner yet. Nothing is made but a renewed grant.
    ///
    /// # Errors
    /// As [`open_or_create`](Self::open_or_create).
    pub fn open(home: &Path) -> Result<Option<Self>, Error> {
        if !home.join("owner").exists() {
            return Ok(None);
        }
        files::private_dir(home)?;
        files::private_dir(&home.join("owner"))?;
        files::private_dir(&home.join("operator"))?;
        let _lock = lock(&home.join("owner/lock"))?;
        let clock = WallClock::with_floor(&home.join("owner/floor"))?;
        match open_owner(&home.join("owner"), Creation::Refused)? {
            None => Ok(None),
            Some((root, charter)) => Self::with_operator(home, root, charter, clock).map(Some),
        }
    }

    /// Enrols an operator on this machine with an invitation that is for one (`radix login`).
    ///
    /// # Errors
    /// [`Error::Claimed`] when an owner is here already; [`Error::Invitation`]; [`Error::Refused`] after claim-by.
    pub fn login(home: &Path, invitation: &Invitation) -> Result<Self, Error> {
        files::private_dir(home)?;
        let (owner, operator) = (home.join("owner"), home.join("operator"));
        files::private_dir(&owner)?;
        files::private_dir(&operator)?;
        let _lock = lock(&owner.join("lock"))?;
        if let Some((_, charter)) = open_owner(&owner, Creation::Refused)?
            && charter.owner() != invitation.charter.owner()
        {
            return Err(Error::Claimed(owner));
        }
        let role = person(invitation)?;
        let clock = WallClock::with_floor(&owner.join("floor"))?;
        let key = SecretKey::open_or_create(&operator.join("operator.key"))?;
        let validity = stay(invitation, clock.now());
        let chain = invitation.enrol(role, key.public(), validity)?;
        let line = GrantLine::new(invitation.charter.clone(), chain);
        let line = line.with_hints(invitation.hints().iter().cloned());
        keep_grant(home, &line)?;
        Self::with_operator(home, None, line.charter, clock)
    }

    /// The same store, with invitations that are over as they are made: only whoever is enrolled at once comes in.
    pub(crate) fn at_once(&self) -> Self {
        Self {
            root: self.root.clone(),
            charter: self.charter.clone(),
            operator: self.operator.clone(),
            operator_chain: self.operator_chain.clone(),
            clock: self.clock.clone(),
            trust: self.trust.clone(),
            home: self.home.clone(),
            made: false,
            invitation_life_seconds: 0,
        }
    }

    /// Who owns.
    #[must_use]
    pub const fn owner(&self) -> OwnerId {
        self.charter.owner()
    }

    /// The owner's charter.
    #[must_use]
    pub const fn charter(&self) -> &Charter {
        &self.charter
    }

    /// Whether the root key is on this machine.
    #[must_use]
    pub const fn has_root(&self) -> bool {
        self.root.is_some()
    }

    pub(crate) const fn root(&self) -> Option<&SecretKey> {
        self.root.as_ref()
    }

    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// The operator's chain: the grant first.
    #[must_use]
    pub fn operator_chain(&self) -> &[Vec<u8>] {
        &self.operator_chain
    }

    /// Signs an encoded document with the operator's key; answers the signature and the operator's chain.
    ///
    /// # Errors
    /// [`Error::Crypto`].
    pub fn sign_document(&self, payload: &[u8]) -> Result<(Vec<u8>, Vec<Vec<u8>>), Error> {
        Ok((
            self.operator.sign(DOCUMENT_CONTEXT, payload)?,
            self.operator_chain.clone(),
        ))
    }

    /// Invites one rnode under `label` into `namespace`.
    ///
    /// # Errors
    /// [`Error::Crypto`].
    pub fn invite_named(&self, namespace: &Label, label: &Label) -> Result<Invitation, Error> {
        self.invite_rnodes(namespace, Some(label), 1)
    }

    /// Invites `uses` rnodes into `namespace`, under labels of their choice.
    ///
    /// # Errors
    /// [`Error::Invitation`] when `uses` is out of range; [`Error::Crypto`].
    pub fn invite_pool(&self, namespace: &Label, uses: u32) -> Result<Invitation, Error> {
        self.invite_rnodes(namespace, None, uses)
    }

    fn invite_rnodes(
        &self,
        namespace: &Label,
        label: Option<&Label>,
        uses: u32,
    ) -> Result<Invitation, Error> {
        let terms = Terms::rnodes(namespace, label, uses);
        let invitation = self.inviter().invite(terms)?;
        if let Some(der) = invitation.chain.first() {
            // Each `up` after a `down` makes one; there is place again when those before are over.
            forget_used(&self.home, self.clock.now())?;
            Issued::by_operator(&self.home).keep(der)?;
        }
        Ok(invitation)
    }

    /// Invites an operator on another machine; signed by the root.
    ///
    /// # Errors
    /// [`Error::NoRoot`]; [`Error::Invitation`] for days out of range; [`Error::Crypto`].
    pub fn invite_operator(&self, label: &Label, terms: &GrantTerms) -> Result<Invitation, Error> {
        let key = self
            .root
            .as_ref()
            .ok_or(Error::NoRoot("invite an operator"))?;
        let inviter = Inviter {
            key,
            chain: &[],
            charter: &self.charter,
            clock: &self.clock,
            life_seconds: self.invitation_life_seconds,
        };
        let invitation = inviter.invite(Terms::person(Enrols::Operator, label, terms)?)?;
        if let Some(der) = invitation.chain.first() {
            Issued::at(&self.home).keep(der)?;
        }
        Ok(invitation)
    }

    /// Invites a tool; signed by this operator, and kept here, so that people can name it.
    ///
    /// # Errors
    /// [`Error::Refused`] when this operator may not pass that on; [`Error::Invitation`] for days out of range or by an
    /// operator who was invited; [`Error::Crypto`].
    pub fn invite_tool(&self, label: &Label, terms: &GrantTerms) -> Result<Invitation, Error> {
        let terms = Terms::person(Enrols::Tool, label, terms)?;
        let invitation = self.inviter().invite(terms)?;
        if let Some(der) = invitation.chain.first() {
            Issued::by_operator(&self.home).keep(der)?;
        }
        Ok(invitation)
    }

    /// Where the base rnode is, if this operator or tool came in by invitation: `host:port` each.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn hints(&self) -> Result<Vec<String>, Error> {
        let hints = files::read(&self.home.join("operator/hints"))?.unwrap_or_default();
        let hints = String::from_utf8_lossy(&hints);
        Ok(hints
            .lines()
            .filter(|hint| !hint.is_empty())
            .map(str::to_owned)
            .collect())
    }

    /// Lets the base rnode with `public_key_der` (SubjectPublicKeyInfo) invite and host the rnodes of `namespace`.
    ///
    /// # Errors
    /// [`Error::NoRoot`]; [`Error::Refused`] when the key is not P-256.
    pub fn grant_host(
        &self,
        public_key_der: &[u8],
        namespace: &Label,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let root = self
            .root
            .as_ref()
            .ok_or(Error::NoRoot("let the base rnode host a namespace"))?;
        let key = PublicKey::from_spki(public_key_der)?;
        let grant = Grant::new(
            Role::Host,
            Verbs::of(&[Verb::Invite, Verb::Host]),
            Prefix::namespace(namespace.clone()),
        )
        .may_grant(Verbs::of(&[Verb::Peer, Verb::App]));
        let issued = Issued::at(&self.home);
        // It has no end, so one is enough: what it vouches for must outlast a rotation of the root.
        let held = issued.list()?.into_iter();
        let mut held = held.filter(|held| held.grant == grant && held.key == key);
        if let Some(held) = held.find(|held| self.trust.charter().vouches_for(&held.der)) {
            return Ok(vec![held.der]);
        }
        let from = self.clock.now().minus(2 * LEAF_BACKDATE_SECONDS);
        let der = issue(&grant, Window { from, until: NEVER }, &key, root)?;
        issued.keep(&der)?;
        Ok(vec![der])
    }

    /// The certificates that root keys of this owner issued here, oldest first.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Refused`] for one that cannot be read.
    pub fn issued(&self) -> Result<Vec<IssuedCertificate>, Error> {
        Issued::at(&self.home).list()
    }

    /// Forgets what was certified to this machine's base rnode, whose directory is about to be removed: its grants to host
    /// and, once nobody may claim that, the invitation by which it came in.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Refused`] for a certificate that cannot be read. Repeated, it finishes.
    pub fn forget_base(&self) -> Result<(), Error> {
        let _lock = lock(&self.home.join("owner/lock"))?;
        forget_base(&self.home, &self.charter, self.clock.now())
    }

    /// The invitations that operators of this machine made, of rnodes and tools, oldest first.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Refused`] for one that cannot be read.
    pub fn invited(&self) -> Result<Vec<IssuedCertificate>, Error> {
        Issued::by_operator(&self.home).list()
    }

    /// The invitations made here that may still be claimed, each with its withdrawal: what a base is handed.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Refused`] for one that cannot be read; [`Error::Crypto`].
    pub fn pending_invitations(&self) -> Result<Vec<PendingInvitation>, Error> {
        let now = self.clock.now();
        let denies = self.trust.denies();
        // What an operator key made that was replaced since counts as far as the base knows of it already.
        let ours = |held: &IssuedCertificate| is_signed_by(&held.der, self.operator.public());
        let invited = self.invited()?.into_iter().filter(ours);
        let held = self.issued()?.into_iter().chain(invited);
        let pending = held.filter(|held| {
            matches!(held.grant.role, Role::Invitation { .. })
                && held.grant.claim_by >= now
                && denies.find(&held.key).is_none()
        });
        pending.map(|held| self.pending(held)).collect()
    }

    fn pending(&self, held: IssuedCertificate) -> Result<PendingInvitation, Error> {
        let withdrawal = self.sign_notice(&Notice {
            owner: self.owner(),
            at: held.grant.claim_by,
            denied: vec![Denied::Invitation(held.key.invitation_id())],
            closed: Vec::new(),
            reason: UNCLAIMED.to_owned(),
        })?;
        let above = if is_signed_by(&held.der, self.operator.public()) {
            self.operator_chain.clone()
        } else {
            Vec::new()
        };
        Ok(PendingInvitation {
            chain: std::iter::once(held.der).chain(above).collect(),
            withdrawal: Some(withdrawal),
        })
    }

    /// The operator's side of connections.
    ///
    /// # Errors
    /// [`Error::Crypto`]; [`Error::Refused`] when the grant has ended.
    pub fn credentials(&self) -> Result<Credentials, Error> {
        Credentials::self_renewing(
            self.trust.clone(),
            self.operator.clone(),
            self.operator_chain.clone(),
        )
    }

    /// What this machine believes of the owner: charter and denials; claims seen stay in memory.
    #[must_use]
    pub const fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Denies all of `denied`, by the root key where it is here, else as operator; kept here, for others to be told.
    ///
    /// # Errors
    /// [`Error::Notice`] when there is nothing, too much, or too long a reason; [`Error::NotCounted`] when this operator may
    /// not deny; [`Error::Io`].
    pub fn deny(&self, denied: Vec<Denied>, reason: &str) -> Result<(), Error> {
        if denied.is_empty() || denied.len() > NOTICE_DENIED_MAX {
            return Err(Error::Notice("it must name 1 to 64 to deny"));
        }
        if reason.len() > REASON_BYTES_MAX {
            return Err(Error::Notice("its reason is longer than 256 bytes"));
        }
        self.publish_notice(denied, reason)
    }

    /// The invitations of rnodes that an operator of this machine made with this key.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Refused`] for one that cannot be read.
    pub fn enrolled_by(&self, operator: &PublicKey) -> Result<Vec<IssuedCertificate>, Error> {
        let mut made = self.invited()?;
        // A base that was invited before invitations were kept.
        let base = files::read(&self.home.join("base/identity/chain"))?;
        let chain = base.and_then(|bytes| decode_chain(&bytes));
        if let Some(der) = chain.and_then(|chain| chain.into_iter().nth(1))
            && !made.iter().any(|held| held.der == der)
        {
            made.push(IssuedCertificate::read(der)?);
        }
        made.retain(|held| {
            let role = &held.grant.role;
            let enrols =
                matches!(role, Role::Invitation { enrols, .. } if *enrols == Enrols::Rnode);
            enrols && is_signed_by(&held.der, operator)
        });
        Ok(made)
    }

    /// Vouches by the root for all who came in by these invitations of rnodes, whatever becomes of the operator who made
    /// them. Who has not come in yet may not any more.
    ///
    /// # Errors
    /// [`Error::NoRoot`]; [`Error::Full`] beyond 256 vouchers; [`Error::NotCounted`]; [`Error::Io`].
    pub fn vouch(&self, invitations: &[IssuedCertificate]) -> Result<(), Error> {
        let root = self.root.as_ref();
        let root = root.ok_or(Error::NoRoot("vouch for whom an operator enrolled"))?;
        let now = self.clock.now();
        let mut vouchers = Vec::new();
        for held in invitations {
            // Whoever came in by a clock that is ahead stays too.
            let claim_by = held.grant.claim_by.min(now.plus(LEAF_BACKDATE_SECONDS));
            let grant = Grant {
                claim_by,
                ..held.grant.clone()
            };
            let der = issue(&grant, held.validity, &held.key, root)?;
            Issued::at(&self.home).keep(&der)?;
            vouchers.push(der);
        }
        if vouchers.is_empty() {
            return Ok(());
        }
        let taken = self.take_authority(&Authority {
            vouchers,
            ..Authority::default()
        })?;
        match taken.refused.first() {
            None => Ok(()),
            Some(reason) => Err(Error::NotCounted(reason.clone())),
        }
    }

    fn publish_notice(&self, denied: Vec<Denied>, reason: &str) -> Result<(), Error> {
        let notice = Notice {
            owner: self.owner(),
            at: self.clock.now(),
            denied,
            closed: Vec::new(),
            reason: reason.to_owned(),
        };
        let signed = self.sign_notice(&notice)?;
        let taken = self.take_authority(&Authority {
            notices: vec![signed],
            ..Authority::default()
        })?;
        if taken.changed || taken.refused.is_empty() {
            return Ok(());
        }
        Err(Error::NotCounted(taken.refused.join("; ")))
    }

    /// Takes over what a rnode passed on about the owner, and keeps it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn take_authority(&self, authority: &Authority) -> Result<Taken, Error> {
        let dir = self.home.join("owner");
        let _lock = lock(&dir.join("lock"))?;
        // Another process may have kept something since we looked.
        if let Some(kept) = read_authority(&dir)? {
            self.trust.take_authority(&kept)?;
        }
        let taken = self.trust.take_authority(authority)?;
        if taken.changed {
            files::write(
                &dir.join("authority"),
                &self.trust.authority().encode_to_vec(),
            )?;
            files::write(&dir.join("charter"), self.trust.charter().encoded())?;
        }
        Ok(taken)
    }

    fn sign_notice(&self, notice: &Notice) -> Result<DenyNotice, Error> {
        let payload = notice.encode();
        let (key, chain) = match &self.root {
            Some(root) => (root, Vec::new()),
            None => (&self.operator, self.operator_chain.clone()),
        };
        Ok(DenyNotice {
            signature: key.sign(NOTICE_CONTEXT, &payload)?,
            payload,
            chain,
        })
    }

    fn inviter(&self) -> Inviter<'_> {
        Inviter {
            key: &self.operator,
            chain: &self.operator_chain,
            charter: &self.charter,
            clock: &self.clock,
            life_seconds: self.invitation_life_seconds,
        }
    }

    pub(crate) fn with_operator(
        home: &Path,
        root: Option<SecretKey>,
        charter: Charter,
        clock: WallClock,
    ) -> Result<Self, Error> {
        let dir = home.join("operator");
        let authority = read_authority(&home.join("owner"))?;
        let trust = Trust::with_authority(charter, authority.as_ref(), clock.clone());
        let charter = trust.charter();
        let mut operator = SecretKey::open_or_create(&dir.join("operator.key"))?;
        if root.is_some() && trust.denies().find(operator.public()).is_some() {
            // The key was denied: the owner, who is here, makes another.
            files::remove(&dir.join("operator.key"))?;
            operator = SecretKey::open_or_create(&dir.join("operator.key"))?;
        }
        let now = clock.now();
        let kept = files::read(&dir.join("grant"))?.and_then(|bytes| decode_chain(&bytes));
        let kept = kept.filter(|chain| holds(chain, &operator, &trust));
        let operator_chain = match (kept, &root) {
            (Some(chain), None) => chain,
            (Some(chain), Some(_))
                if left(&chain, now) >= RENEW_BELOW_SECONDS && passes_on_all(&chain) =>
            {
                chain
            }
            (_, Some(root)) => {
                let chain = vec![grant_operator(&operator, root, now)?];
                Issued::at(home).keep(&chain[0])?;
                files::write(&dir.join("grant"), &encode_chain(&chain))?;
                chain
            }
            (None, None) => {
                return Err(Error::NoRoot(
                    "renew the operator's grant, which is missing or has ended",
                ));
            }
        };
        Ok(Self {
            root,
            charter,
            operator,
            operator_chain,
            clock,
            trust,
            home: home.to_owned(),
            made: false,
            invitation_life_seconds: INVITATION_LIFE_SECONDS,
        })
    }
}

/// What an invitation of a person or tool makes of whoever comes.
pub(crate) fn person(invitation: &Invitation) -> Result<Role, Error> {
    let label = invitation.label().cloned().unwrap_or_else(operator_label);
    match invitation.enrols() {
        Some(Enrols::Operator) => Ok(Role::Operator { label }),
        Some(Enrols::Tool) => Ok(Role::Tool { label }),
        Some(Enrols::Rnode) | None => Err(Error::Invitation(
            "it is for a rnode, not for an operator or tool",
        )),
    }
}

/// How long whoever comes in now may stay.
pub(crate) fn stay(invitation: &Invitation, now: UnixTime) -> Window {
    Window {
        from: now,
        until: now.plus(invitation.stay_seconds()),
    }
}

/// Writes down who somebody has become; the charter last, with it they are.
pub(crate) fn keep_grant(home: &Path, line: &GrantLine) -> Result<(), Error> {
    let operator = home.join("operator");
    files::write(&operator.join("grant"), &encode_chain(&line.chain))?;
    files::write(&operator.join("hints"), line.hints().join("\n").as_bytes())?;
    files::write(&home.join("owner/charter"), line.charter.encoded())
}

/// Whether an owner may be made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Creation {
    Allowed,
    Refused,
}

/// The root key, if it is here, and the charter. A root key without charter is a first `up` that died: finished here.
pub(crate) fn open_owner(
    dir: &Path,
    creation: Creation,
) -> Result<Option<(Option<SecretKey>, Charter)>, Error> {
    succession::finish(dir)?;
    let key_file = dir.join("root.key");
    let root = files::read_secret(&key_file)?
        .map(|der| SecretKey::from_pkcs8(&der))
        .transpose()?;
    let charter = succession::newest_charter(dir)?;
    match (root, charter) {
        (root, Some(charter)) => {
            let counts = |key: &SecretKey| charter.roots().contains(key.public());
            if charter.generation() == 1 && root.as_ref().is_some_and(|key| !counts(key)) {
                return Err(Error::Damaged {
                    path: key_file,
                    what: "it is not a root key of the charter beside it",
                });
            }
            // One that was replaced elsewhere is worth nothing any more, and no reason to stop.
            Ok(Some((root.filter(counts), charter)))
        }
        (None, None) if creation == Creation::Refused => Ok(None),
        (root, None) => {
            let root = root.map_or_else(|| SecretKey::open_or_create(&key_file), Ok)?;
            let charter = succession::first(dir, &root)?;
            files::write(&dir.join("charter"), charter.encoded())?;
            Ok(Some((Some(root), charter)))
        }
    }
}

fn grant_operator(operator: &SecretKey, root: &SecretKey, now: UnixTime) -> Result<Vec<u8>, Error> {
    let role = Role::Operator {
        label: operator_label(),
    };
    let grant = Grant::new(
        role,
        Verbs::of(&[Verb::Operator, Verb::Invite]),
        Prefix::EVERYTHING,
    )
    .may_grant(operator_passes_on());
    // Older than any invitation it makes at once, which are dated back themselves.
    let validity = Window {
        from: now.minus(2 * LEAF_BACKDATE_SECONDS),
        until: now.plus(OPERATOR_LIFE_SECONDS),
    };
    issue(&grant, validity, operator.public(), root)
}

/// Whether `chain` makes `operator` an operator, or a tool, now.
fn holds(chain: &[Vec<u8>], operator: &SecretKey, trust: &Trust) -> bool {
    let Ok(signature) = operator.sign(DOCUMENT_CONTEXT, b"") else {
        return false;
    };
    let signed = Signed {
        context: DOCUMENT_CONTEXT,
        payload: b"",
        signature: &signature,
        chain,
    };
    trust
        .verify_signed(&signed, Acceptance::New)
        .is_ok_and(|who| who.verbs.has(Verb::Operator) || who.verbs.has(Verb::Tool))
}

/// Whether the grant passes on all that an operator's does today: an older release knew fewer verbs.
fn passes_on_all(chain: &[Vec<u8>]) -> bool {
    let grant = chain
        .first()
        .and_then(|der| Grant::of_certificate(der).ok());
    grant.is_some_and(|grant| operator_passes_on().within(grant.may_grant))
}

/// Seconds left of the grant on top.
fn left(chain: &[Vec<u8>], now: UnixTime) -> u64 {
    let until = chain
        .first()
        .and_then(|der| validity_of_certificate(der).ok())
        .map_or(0, |window| window.until.seconds());
    until.saturating_sub(now.seconds())
}

fn operator_label() -> Label {
    Label::new("operator").unwrap_or_else(|_| Label::base())
}

/// Held until dropped: one process at a time makes or renews.
pub(crate) fn lock(path: &Path) -> Result<File, Error> {
    let open = |path: &Path| {
        use std::os::unix::fs::OpenOptionsExt;
        File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
    };
    let path: PathBuf = path.to_owned();
    let file = open(&path).map_err(Error::io("open", &path))?;
    file.lock().map_err(Error::io("lock", &path))?;
    Ok(file)
}
