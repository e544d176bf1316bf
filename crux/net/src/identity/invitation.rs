//! Invitations: one printable line that lets a rnode, or an operator, in.

use std::fmt;
use std::str::FromStr;

use crux_core::identity::{
    CHAIN_LENGTH_MAX, Charter, Denies, Enrols, Grant, LEAF_BACKDATE_SECONDS, OPERATOR_LIFE_SECONDS,
    Prefix, PublicKey, Refusal, Role, UnixTime, Verb, Verbs, Window, validity_of_certificate,
};
use crux_core::names::{InvitationId, Label};

use crate::identity::files::{encode_chain, take_chain, take_long, take_short};
use crate::identity::issue::issue;
use crate::identity::{Error, SecretKey, WallClock, text};

/// How long an invitation may be claimed unless said otherwise: a day.
pub const INVITATION_LIFE_SECONDS: u64 = 86_400;
/// Most days a grant of an operator or tool is asked for.
const GRANT_DAYS_MAX: u32 = 90;
/// Most uses of a pool.
const USES_MAX: u32 = 65_536;
/// Most hints carried.
const HINTS_MAX: usize = 8;
/// Longest time in which an invitation may be claimed, in seconds: 30 days.
pub const INVITATION_LIFE_SECONDS_MAX: u64 = 30 * 86_400;
const HEAD: &str = "radix1";
const VERSION: u8 = 1;

/// A delegation to enrol: charter, throwaway key, its chain, and where to begin. A secret until it is claimed.
#[derive(Clone)]
pub struct Invitation {
    pub(crate) charter: Charter,
    pub(crate) namespace: Option<Label>,
    pub(crate) key: SecretKey,
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) grant: Grant,
    hints: Vec<String>,
}

/// What an invitation is for.
pub(crate) struct Terms {
    pub(crate) enrols: Enrols,
    pub(crate) label: Option<Label>,
    pub(crate) namespace: Option<Label>,
    pub(crate) uses: u32,
    /// What a tool may do besides looking.
    pub(crate) verbs: Verbs,
    /// How long who comes in may stay; `None`: as long as may be.
    pub(crate) stay_seconds: Option<u64>,
}

impl Terms {
    /// For a person or tool of this name.
    pub(crate) fn person(enrols: Enrols, label: &Label, terms: &GrantTerms) -> Result<Self, Error> {
        let day = 86_400;
        if terms
            .days
            .is_some_and(|days| days == 0 || days > GRANT_DAYS_MAX)
        {
            return Err(Error::Invitation("it must be for 1 to 90 days"));
        }
        Ok(Self {
            enrols,
            label: Some(label.clone()),
            namespace: terms.namespace.clone(),
            uses: 1,
            verbs: Verbs::of(&terms.verbs),
            stay_seconds: terms.days.map(|days| u64::from(days) * day),
        })
    }

    /// For rnodes of a namespace.
    pub(crate) fn rnodes(namespace: &Label, label: Option<&Label>, uses: u32) -> Self {
        Self {
            enrols: Enrols::Rnode,
            label: label.cloned(),
            namespace: Some(namespace.clone()),
            uses,
            verbs: Verbs::NONE,
            stay_seconds: None,
        }
    }
}

/// How much an invited operator or tool is trusted with.
#[derive(Debug, Clone, Default)]
pub struct GrantTerms {
    /// The one namespace it is good for; `None`: everything of the owner.
    pub namespace: Option<Label>,
    /// What a tool may do besides looking; an operator has no use for it.
    pub verbs: Vec<Verb>,
    /// For how many days, 1 to 90; `None`: 90.
    pub days: Option<u32>,
}

impl GrantTerms {
    /// Over `namespace`, or without one over everything.
    #[must_use]
    pub fn over(namespace: Option<&Label>) -> Self {
        Self {
            namespace: namespace.cloned(),
            ..Self::default()
        }
    }
}

/// Who makes an invitation.
pub(crate) struct Inviter<'a> {
    pub(crate) key: &'a SecretKey,
    /// Above the key; empty for a root.
    pub(crate) chain: &'a [Vec<u8>],
    pub(crate) charter: &'a Charter,
    pub(crate) clock: &'a WallClock,
    /// How long it may be claimed.
    pub(crate) life_seconds: u64,
}

impl Inviter<'_> {
    pub(crate) fn invite(&self, terms: Terms) -> Result<Invitation, Error> {
        if terms.uses == 0 || terms.uses > USES_MAX {
            return Err(Error::Invitation("it must have 1 to 65536 uses"));
        }
        let now = self.clock.now();
        let key = SecretKey::generate()?;
        let claim_by = now.plus(self.life_seconds);
        let passes_on = match terms.enrols {
            Enrols::Rnode => Verbs::of(&[Verb::Peer, Verb::App]),
            Enrols::Tool => Verbs::of(&[Verb::Tool]).or(terms.verbs),
            Enrols::Operator => operator_passes_on(),
        };
        let prefix = terms
            .namespace
            .clone()
            .map_or(Prefix::EVERYTHING, Prefix::namespace);
        let role = Role::Invitation {
            enrols: terms.enrols,
            label: terms.label,
        };
        let mut grant = Grant::new(role, Verbs::NONE, prefix).may_grant(passes_on);
        grant.claim_by = claim_by;
        grant.uses = terms.uses;
        let validity = Window {
            from: now.minus(LEAF_BACKDATE_SECONDS),
            until: claim_by.plus(terms.stay_seconds.unwrap_or(0)),
        };
        let mut chain = vec![issue(&grant, validity, key.public(), self.key)?];
        chain.extend(self.chain.iter().cloned());
        let invitation = Invitation {
            charter: self.charter.clone(),
            namespace: terms.namespace,
            key,
            chain,
            grant,
            hints: Vec::new(),
        };
        // A leaf is still to come below whoever comes in.
        if invitation.chain.len() + 2 > CHAIN_LENGTH_MAX {
            return Err(Error::Invitation(
                "an operator who was invited cannot invite: ask where the root key is",
            ));
        }
        if terms.enrols == Enrols::Tool {
            // Nobody is handed what could not be used: rights and names lie within the inviter's.
            invitation.check()?;
        }
        Ok(invitation)
    }
}

/// What an operator may pass on.
pub(crate) fn operator_passes_on() -> Verbs {
    Verbs::of(&[
        Verb::Operator,
        Verb::Invite,
        Verb::Tool,
        Verb::Lifecycle,
        Verb::Peer,
        Verb::App,
    ])
}

impl Invitation {
    /// The same, with addresses (`host:port`) to begin at; at most 8 are kept.
    #[must_use]
    pub fn with_hints<T: Into<String>>(mut self, hints: impl IntoIterator<Item = T>) -> Self {
        self.hints = hints
            .into_iter()
            .map(Into::into)
            .filter(|hint| hint.len() <= usize::from(u8::MAX))
            .take(HINTS_MAX)
            .collect();
        self
    }

    /// Its id: the hash of the throwaway key.
    #[must_use]
    pub fn id(&self) -> InvitationId {
        self.key.public().invitation_id()
    }

    /// Into which namespace; `None`: it enrols an operator of everything.
    #[must_use]
    pub const fn namespace(&self) -> Option<&Label> {
        self.namespace.as_ref()
    }

    /// For which name; `None`: a pool.
    #[must_use]
    pub const fn label(&self) -> Option<&Label> {
        match &self.grant.role {
            Role::Invitation { label, .. } => label.as_ref(),
            _ => None,
        }
    }

    /// How many may come in by it.
    #[must_use]
    pub const fn uses(&self) -> u32 {
        self.grant.uses
    }

    /// Until when.
    #[must_use]
    pub const fn claim_by(&self) -> UnixTime {
        self.grant.claim_by
    }

    /// Where to begin: `host:port` each.
    #[must_use]
    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    /// Its certificate and those above, without any secret: what a base is told of it.
    #[must_use]
    pub fn certificates(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// Whose it is.
    #[must_use]
    pub const fn charter(&self) -> &Charter {
        &self.charter
    }

    /// How long an operator or tool that comes in by it may stay, from when it does.
    pub(crate) fn stay_seconds(&self) -> u64 {
        let until = self.chain.first();
        let until = until.and_then(|der| validity_of_certificate(der).ok());
        let until = until.map_or(0, |validity| validity.until.seconds());
        match until.saturating_sub(self.grant.claim_by.seconds()) {
            0 => OPERATOR_LIFE_SECONDS,
            stay => stay,
        }
    }

    pub(crate) const fn enrols(&self) -> Option<Enrols> {
        match &self.grant.role {
            Role::Invitation { enrols, .. } => Some(*enrols),
            _ => None,
        }
    }

    /// Certifies the joiner with the throwaway key.
    pub(crate) fn enrol(
        &self,
        role: Role,
        joiner: &PublicKey,
        validity: Window,
    ) -> Result<Vec<Vec<u8>>, Error> {
        if validity.from > self.grant.claim_by {
            return Err(Refusal::ClaimedLate(self.grant.claim_by).into());
        }
        let grant = match role {
            Role::Operator { .. } => Grant::new(
                role,
                Verbs::of(&[Verb::Operator, Verb::Invite]),
                self.grant.prefix.clone(),
            ),
            Role::Tool { .. } => Grant::new(role, self.grant.may_grant, self.grant.prefix.clone()),
            _ => Grant::new(role, Verbs::of(&[Verb::Peer]), self.grant.prefix.clone()),
        };
        // A tool passes nothing on.
        let grant = match grant.role {
            Role::Tool { .. } => grant,
            _ => grant.may_grant(self.grant.may_grant),
        };
        let mut chain = vec![issue(&grant, validity, joiner, &self.key)?];
        chain.extend(self.chain.iter().cloned());
        Ok(chain)
    }

    /// The text form: one printable line, about 1.7 KB.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = vec![VERSION];
        put_long(&mut out, self.charter.encoded());
        put_short(
            &mut out,
            self.namespace.as_ref().map_or("", Label::as_str).as_bytes(),
        );
        put_long(&mut out, self.key.pkcs8());
        out.extend_from_slice(&encode_chain(&self.chain));
        out.push(u8::try_from(self.hints.len()).unwrap_or(u8::MAX));
        self.hints
            .iter()
            .for_each(|hint| put_short(&mut out, hint.as_bytes()));
        text::seal(HEAD, out)
    }

    /// Reads the text form; white space around it is ignored.
    ///
    /// # Errors
    /// [`Error::Invitation`] or [`Error::Refused`].
    pub fn decode(line: &str) -> Result<Self, Error> {
        let content = text::open(HEAD, line)?;
        let damaged = || Error::Invitation("it is damaged or incomplete");
        let invitation = read(&content).ok_or_else(damaged)??;
        invitation.check()?;
        Ok(invitation)
    }

    /// Refuses an invitation whose chain would not let anyone in.
    fn check(&self) -> Result<(), Error> {
        let (role, validity) = match self.enrols() {
            Some(Enrols::Rnode) => {
                let label = self.label().cloned().unwrap_or_else(Label::base);
                (
                    Role::Rnode { label, ordinal: 0 },
                    Window {
                        from: self.grant.claim_by,
                        until: crux_core::identity::NEVER,
                    },
                )
            }
            Some(person @ (Enrols::Operator | Enrols::Tool)) => {
                let label = self.label().cloned().unwrap_or_else(Label::base);
                let role = match person {
                    Enrols::Tool => Role::Tool { label },
                    Enrols::Operator | Enrols::Rnode => Role::Operator { label },
                };
                (
                    role,
                    Window {
                        from: self.grant.claim_by,
                        until: self.grant.claim_by,
                    },
                )
            }
            None => return Err(Error::Invitation("its certificate is not an invitation's")),
        };
        let trial = SecretKey::generate()?;
        let chain = self.enrol(role, trial.public(), validity)?;
        let signature = trial.sign(b"", b"")?;
        let signed = crux_core::identity::Signed {
            context: b"",
            payload: b"",
            signature: &signature,
            chain: &chain,
        };
        crux_core::identity::verify_signed(
            &signed,
            &self.charter,
            &Denies::default(),
            crux_core::identity::Moment::Kept,
        )?;
        Ok(())
    }
}

fn read(bytes: &[u8]) -> Option<Result<Invitation, Error>> {
    let mut bytes = bytes.strip_prefix(&[VERSION])?;
    let charter = take_long(&mut bytes)?;
    let namespace = std::str::from_utf8(take_short(&mut bytes)?).ok()?;
    let key = take_long(&mut bytes)?;
    let chain = take_chain(&mut bytes)?;
    let (count, rest) = bytes.split_first()?;
    bytes = rest;
    if usize::from(*count) > HINTS_MAX {
        return None;
    }
    let hints = (0..*count)
        .map(|_| {
            Some(
                std::str::from_utf8(take_short(&mut bytes)?)
                    .ok()?
                    .to_owned(),
            )
        })
        .collect::<Option<Vec<_>>>()?;
    if !bytes.is_empty() {
        return None;
    }
    Some(assemble(charter, namespace, key, chain, hints))
}

fn assemble(
    charter: &[u8],
    namespace: &str,
    key: &[u8],
    chain: Vec<Vec<u8>>,
    hints: Vec<String>,
) -> Result<Invitation, Error> {
    let charter = Charter::decode(charter)?;
    let key = SecretKey::from_pkcs8(key)?;
    let grant = Grant::of_certificate(chain.first().ok_or(Refusal::NoCertificate)?)?;
    let namespace = match namespace {
        "" => None,
        text => {
            Some(Label::new(text).map_err(|_| Error::Invitation("its namespace is not a label"))?)
        }
    };
    if namespace.as_ref() != grant.prefix.one_namespace() {
        return Err(Error::Invitation(
            "its namespace is not the one it was made for",
        ));
    }
    Ok(Invitation {
        charter,
        namespace,
        key,
        chain,
        grant,
        hints,
    })
}

impl FromStr for Invitation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::decode(text)
    }
}

impl fmt::Debug for Invitation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Invitation({})", self.id().short())
    }
}

/// A base rnode with a host grant: it invites the rnodes it hosts. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct BaseInviter {
    key: SecretKey,
    chain: Vec<Vec<u8>>,
    namespace: Label,
    charter: Charter,
    clock: WallClock,
}

impl BaseInviter {
    pub(crate) const fn new(
        key: SecretKey,
        chain: Vec<Vec<u8>>,
        namespace: Label,
        charter: Charter,
        clock: WallClock,
    ) -> Self {
        Self {
            key,
            chain,
            namespace,
            charter,
            clock,
        }
    }

    /// Invites one rnode, under `label`.
    ///
    /// # Errors
    /// [`Error::Crypto`].
    pub fn invite_named(&self, label: &Label) -> Result<Invitation, Error> {
        let inviter = Inviter {
            key: &self.key,
            chain: &self.chain,
            charter: &self.charter,
            clock: &self.clock,
            life_seconds: INVITATION_LIFE_SECONDS,
        };
        inviter.invite(Terms::rnodes(&self.namespace, Some(label), 1))
    }
}

fn put_long(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn put_short(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(bytes);
}
