//! The walk down a chain: from a root key of the charter to the one who shows it, refusing whatever widens.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::identity::certificate::Certificate;
use crate::identity::{
    Charter, Claim, Closing, Enrolment, Enrols, GRANT_LIFE_MAX_SECONDS, Grant,
    LEAF_LIFE_MAX_SECONDS, Prefix, Principal, PublicKey, Refusal, Role, UnixTime, Verb, Verbs, Who,
    Window,
};
use crate::names::{InvitationId, KeyId, ParseIdError, RnodeId};

/// Most certificates a chain may have.
pub const CHAIN_LENGTH_MAX: usize = 4;

/// What a deny names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Denied {
    /// A key, whatever its role.
    Key(KeyId),
    /// A rnode: for instance the one that lost a claim.
    Rnode(RnodeId),
    /// An invitation, with all who came in by it.
    Invitation(InvitationId),
}

impl fmt::Display for Denied {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(id) => write!(formatter, "key {id}"),
            Self::Rnode(id) => write!(formatter, "rnode {id}"),
            Self::Invitation(id) => write!(formatter, "invitation {id}"),
        }
    }
}

impl FromStr for Denied {
    type Err = ParseIdError;

    /// Reads what it displays.
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        match text.split_once(' ') {
            Some(("key", id)) => id.parse().map(Self::Key),
            Some(("rnode", id)) => id.parse().map(Self::Rnode),
            Some(("invitation", id)) => id.parse().map(Self::Invitation),
            _ => Err(ParseIdError),
        }
    }
}

/// Keys that no longer count, whatever vouches for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Denies {
    denied: BTreeSet<Denied>,
    /// Closed invitations, each with the names for which that counts.
    closed: Vec<(Prefix, Closing)>,
    /// Claims that two made, each with the one that stays.
    settled: BTreeMap<Claim, RnodeId>,
}

impl Denies {
    /// Denies `denied`; answers whether that is new.
    pub fn deny(&mut self, denied: Denied) -> bool {
        self.denied.insert(denied)
    }

    /// Why `key` is denied, in any of its possible roles; `None`: it is not.
    #[must_use]
    pub fn find(&self, key: &PublicKey) -> Option<Denied> {
        if self.denied.is_empty() {
            return None;
        }
        [
            Denied::Key(key.id()),
            Denied::Rnode(key.rnode_id()),
            Denied::Invitation(key.invitation_id()),
        ]
        .into_iter()
        .find(|denied| self.denied.contains(denied))
    }

    /// Whether nothing is denied.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.denied.is_empty() && self.closed.is_empty() && self.settled.is_empty()
    }

    /// All that is denied, ascending; without what is closed.
    pub fn iter(&self) -> impl Iterator<Item = &Denied> {
        self.denied.iter()
    }

    /// Closes an invitation for chains whose invitation lies within `scope`.
    pub(crate) fn close(&mut self, scope: Prefix, closing: Closing) {
        self.closed.push((scope, closing));
    }

    /// The same, with what `other` closes.
    #[must_use]
    pub fn with_closings_of(mut self, other: &Self) -> Self {
        self.closed.extend(other.closed.iter().cloned());
        self
    }

    /// Lets `holder` and nobody else have `claim`.
    pub fn settle(&mut self, claim: Claim, holder: RnodeId) {
        self.settled.insert(claim, holder);
    }

    /// Who holds a claim that was settled, if that is not `taker`.
    #[must_use]
    pub fn lost_to(&self, claim: &Claim, taker: RnodeId) -> Option<RnodeId> {
        let holder = self.settled.get(claim).copied();
        holder.filter(|holder| *holder != taker)
    }

    /// Whether an invitation was closed without `taker` being listed for `claim`; over whatever names that counts.
    #[must_use]
    pub fn closes(&self, claim: &Claim, taker: RnodeId) -> bool {
        let mut closed = self.closed.iter();
        closed.any(|(_, closing)| !closing.allows(claim, taker))
    }

    fn check_settled(
        &self,
        invitation: &Certificate<'_>,
        enrolled: &Certificate<'_>,
    ) -> Result<(), Refusal> {
        let Some(Enrolment { claim, taker }) = enrolment_of(enrolled, invitation) else {
            return Ok(());
        };
        match self.lost_to(&claim, taker) {
            Some(holder) => Err(Refusal::LostClaim {
                invitation: claim.invitation,
                holder,
                taker,
            }),
            None => Ok(()),
        }
    }

    /// Whether `invitation`, made for `prefix`, is closed to `enrolled`.
    fn closed_to(&self, invitation: &Certificate<'_>, enrolled: &Certificate<'_>) -> bool {
        let Some(enrolment) = enrolment_of(enrolled, invitation) else {
            return false;
        };
        let mut closed = self.closed.iter();
        closed.any(|(scope, closing)| {
            scope.covers(&invitation.grant.prefix)
                && !closing.allows(&enrolment.claim, enrolment.taker)
        })
    }
}

impl FromIterator<Denied> for Denies {
    fn from_iter<T: IntoIterator<Item = Denied>>(denied: T) -> Self {
        Self {
            denied: denied.into_iter().collect(),
            closed: Vec::new(),
            settled: BTreeMap::new(),
        }
    }
}

/// Whether the clock counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Judged now: what has ended is refused.
    Now(UnixTime),
    /// Judged before, when it was accepted and the clock counted: only charter and denies count.
    Kept,
}

/// Judges a chain shown on a connection: the shower's certificate first, the one a root key signed last.
///
/// # Errors
/// The first rule of `docs/design/identity.md` §4 that is broken.
pub fn verify<C: AsRef<[u8]>>(
    chain: &[C],
    charter: &Charter,
    denies: &Denies,
    moment: Moment,
) -> Result<Principal, Refusal> {
    let links = links(chain, charter)?;
    let rights = walk(&links, charter, denies)?;
    match &links[0].grant.role {
        Role::Leaf | Role::App { .. } => principal(&links, rights, charter, moment),
        role => Err(Refusal::WrongUse(role.name())),
    }
}

/// Judges a chain that stands beside a signature, and gives the key that must have made it: never a leaf's.
pub(crate) fn verify_signer<C: AsRef<[u8]>>(
    chain: &[C],
    charter: &Charter,
    denies: &Denies,
    moment: Moment,
) -> Result<(Principal, PublicKey), Refusal> {
    let links = links(chain, charter)?;
    let rights = walk(&links, charter, denies)?;
    match &links[0].grant.role {
        Role::Operator { .. } | Role::Tool { .. } | Role::Host | Role::Rnode { .. } => {
            Ok((principal(&links, rights, charter, moment)?, links[0].key))
        }
        role => Err(Refusal::WrongUse(role.name())),
    }
}

/// Judges an invitation by its own chain, the invitation first, and gives its key and what it says; its claim-by is not judged.
///
/// # Errors
/// The first rule that is broken, or that it is no invitation.
pub fn verify_invitation<C: AsRef<[u8]>>(
    chain: &[C],
    charter: &Charter,
    denies: &Denies,
) -> Result<(PublicKey, Grant), Refusal> {
    let mut links = links(chain, charter)?;
    walk(&links, charter, denies)?;
    let shown = links.swap_remove(0);
    match &shown.grant.role {
        Role::Invitation { .. } => Ok((shown.key, shown.grant)),
        role => Err(Refusal::WrongUse(role.name())),
    }
}

/// Reads the chain and checks every signature, the root's first, so that a stranger costs one check a root key.
fn links<'a, C: AsRef<[u8]>>(
    chain: &'a [C],
    charter: &Charter,
) -> Result<Vec<Certificate<'a>>, Refusal> {
    if chain.is_empty() {
        return Err(Refusal::NoCertificate);
    }
    if chain.len() > CHAIN_LENGTH_MAX {
        return Err(Refusal::ChainTooLong(chain.len()));
    }
    let links = chain
        .iter()
        .map(|der| Certificate::parse(der.as_ref()))
        .collect::<Result<Vec<_>, _>>()?;
    let top = &links[links.len() - 1];
    if !charter.stands_above(top, chain[chain.len() - 1].as_ref()) {
        return Err(Refusal::ForeignOwner(charter.owner()));
    }
    for pair in links.windows(2).rev() {
        pair[0].signed_by(&pair[1].key)?;
    }
    Ok(links)
}

impl Charter {
    /// Whether a root key signed this certificate, or an earlier one did and it was carried over as it is.
    fn stands_above(&self, top: &Certificate<'_>, der: &[u8]) -> bool {
        let signed = self.roots().iter().any(|root| top.signed_by(root).is_ok());
        signed || (!self.carried().is_empty() && self.carried().contains(&Digest::of(der)))
    }

    /// Whether a certificate stands directly below this charter. Only its signature is judged.
    #[must_use]
    pub fn vouches_for(&self, der: &[u8]) -> bool {
        Certificate::parse(der).is_ok_and(|top| self.stands_above(&top, der))
    }
}

/// What the link above allows.
struct Above<'a> {
    role: Option<&'a Role>,
    verbs: Verbs,
    may_grant: Verbs,
    prefix: &'a Prefix,
}

/// Checks each link against the one above it; answers the rights that remain.
fn walk(links: &[Certificate<'_>], charter: &Charter, denies: &Denies) -> Result<Verbs, Refusal> {
    if let Some(denied) = charter.roots().iter().find_map(|root| denies.find(root)) {
        // A denied root ends everything below it until a successor charter arrives.
        return Err(Refusal::Denied(denied));
    }
    let mut above = Above {
        role: None,
        verbs: Verbs::ALL,
        may_grant: Verbs::ALL,
        prefix: &Prefix::EVERYTHING,
    };
    for (at, link) in links.iter().enumerate().rev() {
        if let Some(denied) = denies.find(&link.key) {
            return Err(Refusal::Denied(denied));
        }
        step(&above, link)?;
        if let Some(issuer) = links.get(at + 1) {
            check_times(issuer, link)?;
            if denies.closed_to(issuer, link) {
                let invitation = issuer.key.invitation_id();
                return Err(Refusal::Denied(Denied::Invitation(invitation)));
            }
            denies.check_settled(issuer, link)?;
        }
        let grant = &link.grant;
        above = Above {
            role: Some(&grant.role),
            verbs: grant.verbs,
            may_grant: grant.may_grant,
            prefix: &grant.prefix,
        };
    }
    Ok(above.verbs)
}

fn step(above: &Above<'_>, link: &Certificate<'_>) -> Result<(), Refusal> {
    let grant = &link.grant;
    if !may_follow(above.role, &grant.role) {
        let issuer = above.role.map_or("root", Role::name);
        return Err(Refusal::RoleNotAllowed {
            issuer,
            subject: grant.role.name(),
        });
    }
    if matches!(grant.role, Role::Invitation { .. }) && !above.verbs.has(Verb::Invite) {
        return Err(Refusal::LacksVerb(Verb::Invite));
    }
    // A leaf is its issuer for an hour; everything else is granted.
    let limit = if matches!(grant.role, Role::Leaf) {
        above.verbs
    } else {
        above.may_grant
    };
    if !grant.verbs.within(limit) || !grant.may_grant.within(above.may_grant) {
        return Err(Refusal::RightsExtended);
    }
    if matches!(grant.role, Role::Leaf | Role::App { .. }) && grant.may_grant != Verbs::NONE {
        return Err(Refusal::RightsExtended);
    }
    if !above.prefix.covers(&grant.prefix) {
        return Err(Refusal::NamesExtended);
    }
    if matches!(grant.role, Role::Rnode { .. }) && grant.prefix.one_namespace().is_none() {
        return Err(Refusal::NotOneNamespace);
    }
    Ok(())
}

/// The table of who may vouch for whom; `None` is a root key.
const fn may_follow(issuer: Option<&Role>, subject: &Role) -> bool {
    match issuer {
        None => matches!(
            subject,
            Role::Operator { .. } | Role::Tool { .. } | Role::Host | Role::Invitation { .. }
        ),
        Some(Role::Operator { .. }) => matches!(
            subject,
            Role::Invitation { .. } | Role::Tool { .. } | Role::Leaf
        ),
        Some(Role::Tool { .. }) => matches!(subject, Role::Leaf),
        Some(Role::Host) => matches!(
            subject,
            Role::Invitation {
                enrols: Enrols::Rnode,
                ..
            } | Role::Leaf
        ),
        Some(Role::Invitation {
            enrols: Enrols::Rnode,
            ..
        }) => matches!(subject, Role::Rnode { .. }),
        Some(Role::Invitation {
            enrols: Enrols::Operator,
            ..
        }) => matches!(subject, Role::Operator { .. }),
        Some(Role::Invitation {
            enrols: Enrols::Tool,
            ..
        }) => matches!(subject, Role::Tool { .. }),
        Some(Role::Rnode { .. }) => matches!(subject, Role::Leaf | Role::App { .. }),
        Some(Role::Leaf | Role::App { .. }) => false,
    }
}

/// What the moments stated in two neighbouring links must satisfy, whatever the time is now.
fn check_times(issuer: &Certificate<'_>, link: &Certificate<'_>) -> Result<(), Refusal> {
    if matches!(issuer.grant.role, Role::Operator { .. } | Role::Tool { .. })
        && matches!(link.grant.role, Role::Invitation { .. } | Role::Tool { .. })
        && !issuer.validity.contains(link.validity.from)
    {
        return Err(Refusal::InvitedAfterExpiry);
    }
    let Role::Invitation { label: invited, .. } = &issuer.grant.role else {
        return Ok(());
    };
    let (taken, ordinal) = match &link.grant.role {
        Role::Rnode { label, ordinal } => (label, *ordinal),
        Role::Operator { label } | Role::Tool { label } => (label, 0),
        Role::Host | Role::Invitation { .. } | Role::Leaf | Role::App { .. } => return Ok(()),
    };
    if let Some(invited) = invited
        && invited != taken
    {
        return Err(Refusal::WrongLabel {
            invited: invited.clone(),
            taken: taken.clone(),
        });
    }
    if ordinal >= issuer.grant.uses {
        return Err(Refusal::WrongOrdinal {
            uses: issuer.grant.uses,
            ordinal,
        });
    }
    if link.validity.from > issuer.grant.claim_by {
        return Err(Refusal::ClaimedLate(issuer.grant.claim_by));
    }
    if link.validity.from < issuer.validity.from {
        return Err(Refusal::NotYetValid(issuer.validity.from));
    }
    // An invitation that is valid beyond its claim-by says so how long a person or tool stays.
    let stay = issuer
        .validity
        .until
        .seconds()
        .saturating_sub(issuer.grant.claim_by.seconds());
    let ends = matches!(link.grant.role, Role::Operator { .. } | Role::Tool { .. });
    if ends && stay > 0 && link.validity.seconds() > stay {
        return Err(Refusal::LifeTooLong(link.validity.seconds()));
    }
    Ok(())
}

fn principal(
    links: &[Certificate<'_>],
    verbs: Verbs,
    charter: &Charter,
    moment: Moment,
) -> Result<Principal, Refusal> {
    let shown = &links[0];
    let holder = match shown.grant.role {
        // A leaf's issuer exists: nothing but a root could stand above otherwise, and no root may issue a leaf.
        Role::Leaf | Role::App { .. } => links.get(1).ok_or(Refusal::WrongUse("leaf"))?,
        _ => shown,
    };
    let enrolment = enrolment(links);
    let who = who(shown, holder, enrolment)?;
    let valid = validity(shown, holder)?;
    if let Moment::Now(now) = moment {
        check_now(valid, now)?;
    }
    Ok(Principal {
        who,
        owner: charter.owner(),
        verbs,
        prefix: shown.grant.prefix.clone(),
        valid,
        enrolment,
    })
}

/// Who the holder is, or the process it vouches for.
fn who(
    shown: &Certificate<'_>,
    holder: &Certificate<'_>,
    enrolment: Option<Enrolment>,
) -> Result<Who, Refusal> {
    let namespace = || {
        let namespace = holder.grant.prefix.one_namespace();
        namespace.cloned().ok_or(Refusal::NotOneNamespace)
    };
    Ok(match (&shown.grant.role, &holder.grant.role) {
        (
            Role::App {
                application,
                class,
                index,
            },
            Role::Rnode { .. },
        ) => Who::App {
            namespace: namespace()?,
            application: application.clone(),
            class: class.clone(),
            index: *index,
            rnode: holder.key.rnode_id(),
        },
        (_, Role::Rnode { label, .. }) => Who::Rnode {
            namespace: namespace()?,
            id: holder.key.rnode_id(),
            label: label.clone(),
            claim: enrolment.ok_or(Refusal::WrongUse("rnode"))?.claim,
        },
        (_, Role::Host) => Who::Host {
            id: holder.key.rnode_id(),
        },
        (_, Role::Operator { label }) => Who::Operator {
            label: label.clone(),
            id: holder.key.id(),
        },
        (_, Role::Tool { label }) => Who::Tool {
            label: label.clone(),
            id: holder.key.id(),
        },
        (_, role) => return Err(Refusal::WrongUse(role.name())),
    })
}

/// The one link that came in by an invitation, if there is one: the lowest.
fn enrolment(links: &[Certificate<'_>]) -> Option<Enrolment> {
    links
        .windows(2)
        .find_map(|pair| enrolment_of(&pair[0], &pair[1]))
}

/// The claim by which `enrolled` came in, if `issuer` is an invitation.
fn enrolment_of(enrolled: &Certificate<'_>, issuer: &Certificate<'_>) -> Option<Enrolment> {
    let ordinal = match (&enrolled.grant.role, &issuer.grant.role) {
        (Role::Rnode { ordinal, .. }, Role::Invitation { .. }) => *ordinal,
        (Role::Operator { .. } | Role::Tool { .. }, Role::Invitation { .. }) => 0,
        _ => return None,
    };
    let claim = Claim {
        invitation: issuer.key.invitation_id(),
        ordinal,
    };
    Some(Enrolment {
        claim,
        taker: enrolled.key.rnode_id(),
    })
}

/// When the clock allows this one: a leaf's and a process's span, and an operator's or tool's own.
fn validity(shown: &Certificate<'_>, holder: &Certificate<'_>) -> Result<Window, Refusal> {
    let mut valid = Window::ALWAYS;
    for link in [shown, holder] {
        let life_max = match link.grant.role {
            Role::Leaf | Role::App { .. } => LEAF_LIFE_MAX_SECONDS,
            Role::Operator { .. } | Role::Tool { .. } => GRANT_LIFE_MAX_SECONDS,
            Role::Host | Role::Invitation { .. } | Role::Rnode { .. } => continue,
        };
        if link.validity.seconds() > life_max {
            return Err(Refusal::LifeTooLong(link.validity.seconds()));
        }
        valid = valid.and(link.validity);
    }
    Ok(valid)
}

fn check_now(valid: Window, now: UnixTime) -> Result<(), Refusal> {
    if now < valid.from {
        return Err(Refusal::NotYetValid(valid.from));
    }
    if now > valid.until {
        return Err(Refusal::Expired(valid.until));
    }
    Ok(())
}
