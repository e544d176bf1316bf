//! The grant in a certificate's private extension: what its key is for, what it may do and pass on, over which names.

use std::fmt;

use crate::identity::codec::{Reader, put_label};
use crate::identity::{Refusal, UnixTime};
use crate::names::Label;

/// The private extension's object identifier: a random value under the UUID arc, since we have no enterprise number.
pub const OID: &str = "2.25.4874295106313884561";
/// [`OID`] in parts, as certificate generators want it.
pub const OID_COMPONENTS: [u64; 3] = [2, 25, 4_874_295_106_313_884_561];

const VERSION: u8 = 1;
/// Most labels a prefix may have.
const PREFIX_LABELS_MAX: usize = 4;
const MALFORMED: Refusal = Refusal::Malformed("its grant cannot be read");

/// One right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Speak the protocol among rnodes: never more.
    Peer,
    /// Be a process of an application.
    App,
    /// Use what is offered to threshold tools.
    Tool,
    /// Sign documents, command, see everything.
    Operator,
    /// Run commands that no configuration names; off by default.
    ExecAny,
    /// Make invitations.
    Invite,
    /// Hand documents to rnodes it hosts.
    Host,
    /// Start, run and signal the commands of applications: for tools that are to act on them.
    Lifecycle,
}

impl Verb {
    /// All verbs, in the order of their bits.
    pub const ALL: [Self; 8] = [
        Self::Peer,
        Self::App,
        Self::Tool,
        Self::Operator,
        Self::ExecAny,
        Self::Invite,
        Self::Host,
        Self::Lifecycle,
    ];

    const fn bit(self) -> u32 {
        match self {
            Self::Peer => 1,
            Self::App => 2,
            Self::Tool => 4,
            Self::Operator => 8,
            Self::ExecAny => 16,
            Self::Invite => 32,
            Self::Host => 64,
            Self::Lifecycle => 128,
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Peer => "peer",
            Self::App => "app",
            Self::Tool => "tool",
            Self::Operator => "operator",
            Self::ExecAny => "exec.any",
            Self::Invite => "invite",
            Self::Host => "host",
            Self::Lifecycle => "lifecycle",
        })
    }
}

/// A set of verbs. Bits of verbs we do not know are carried and compared, never acted on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Verbs(u32);

impl Verbs {
    /// No verb.
    pub const NONE: Self = Self(0);
    /// Every verb there is or will be: what a root key may grant.
    pub const ALL: Self = Self(u32::MAX);

    /// The set of `verbs`.
    #[must_use]
    pub fn of(verbs: &[Verb]) -> Self {
        Self(verbs.iter().fold(0, |bits, verb| bits | verb.bit()))
    }

    /// A set from its bits.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Its bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether `verb` is in it.
    #[must_use]
    pub const fn has(self, verb: Verb) -> bool {
        self.0 & verb.bit() != 0
    }

    /// Whether all of it lies in `other`.
    #[must_use]
    pub const fn within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// It and `other` together.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What it has in common with `other`.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl fmt::Debug for Verbs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_set()
            .entries(Verb::ALL.iter().filter(|verb| self.has(**verb)))
            .finish()
    }
}

/// The names a grant is good for: those that begin with these labels. Empty: every name of the owner.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Prefix(Vec<Label>);

impl Prefix {
    /// Every name of the owner.
    pub const EVERYTHING: Self = Self(Vec::new());

    /// Everything in `namespace`.
    #[must_use]
    pub fn namespace(namespace: Label) -> Self {
        Self(vec![namespace])
    }

    /// Whether every name in `inner` is in this one too.
    #[must_use]
    pub fn covers(&self, inner: &Self) -> bool {
        inner.0.starts_with(&self.0)
    }

    /// Whether everything in `namespace` is in it.
    #[must_use]
    pub fn covers_namespace(&self, namespace: &Label) -> bool {
        match self.0.as_slice() {
            [] => true,
            [only] => only == namespace,
            _ => false,
        }
    }

    /// The namespace, if it is exactly one.
    #[must_use]
    pub fn one_namespace(&self) -> Option<&Label> {
        match self.0.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }
}

/// Whom an invitation lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Enrols {
    /// A rnode.
    Rnode,
    /// An operator on another machine.
    Operator,
    /// A tool on whatever machine.
    Tool,
}

/// What a certified key is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Role {
    /// A person who signs documents.
    Operator {
        /// What people call them.
        label: Label,
    },
    /// A threshold tool.
    Tool {
        /// Its name in the catalogue.
        label: Label,
    },
    /// A base rnode's key, as the host of other rnodes.
    Host,
    /// The throwaway key of an invitation.
    Invitation {
        /// Whom it lets in.
        enrols: Enrols,
        /// The one name it is for; `None`: a pool.
        label: Option<Label>,
    },
    /// A rnode, for good.
    Rnode {
        /// What people call it.
        label: Label,
        /// Which use of its invitation it took, from 0.
        ordinal: u32,
    },
    /// A short-lived key of the one above.
    Leaf,
    /// A short-lived key of a process that the rnode above runs.
    App {
        /// Its application.
        application: Label,
        /// Its class.
        class: Label,
        /// Which of its class.
        index: u32,
    },
}

impl Role {
    /// Its name in messages.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Operator { .. } => "operator",
            Self::Tool { .. } => "tool",
            Self::Host => "host",
            Self::Invitation { .. } => "invitation",
            Self::Rnode { .. } => "rnode",
            Self::Leaf => "leaf",
            Self::App { .. } => "process",
        }
    }
}

/// What a certificate's private extension says.
///
/// One value has one encoding; a longer, shorter or otherwise different one is not read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Grant {
    /// What the key is.
    pub role: Role,
    /// What its holder may do.
    pub verbs: Verbs,
    /// What it may pass on.
    pub may_grant: Verbs,
    /// The names it is good for.
    pub prefix: Prefix,
    /// Until when an invitation may be claimed; zero in other roles.
    pub claim_by: UnixTime,
    /// How often an invitation may be claimed; zero in other roles.
    pub uses: u32,
}

impl Grant {
    /// A grant of `role` with `verbs` over `prefix`, that may pass on nothing.
    #[must_use]
    pub const fn new(role: Role, verbs: Verbs, prefix: Prefix) -> Self {
        Self {
            role,
            verbs,
            may_grant: Verbs::NONE,
            prefix,
            claim_by: UnixTime::from_seconds(0),
            uses: 0,
        }
    }

    /// The same, able to pass on `verbs`.
    #[must_use]
    pub fn may_grant(mut self, verbs: Verbs) -> Self {
        self.may_grant = verbs;
        self
    }

    /// The bytes of the extension.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        encode_role(&mut out, &self.role);
        out.extend_from_slice(&self.verbs.bits().to_be_bytes());
        out.extend_from_slice(&self.may_grant.bits().to_be_bytes());
        out.push(u8::try_from(self.prefix.0.len()).unwrap_or(u8::MAX));
        self.prefix
            .0
            .iter()
            .for_each(|label| put_label(&mut out, Some(label)));
        out.extend_from_slice(&self.claim_by.seconds().to_be_bytes());
        out.extend_from_slice(&self.uses.to_be_bytes());
        out
    }

    /// Reads the bytes of the extension.
    ///
    /// # Errors
    /// [`Refusal::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut reader = Reader::new(bytes, MALFORMED);
        if reader.u8()? != VERSION {
            return Err(Refusal::Malformed(
                "its grant has a version this release does not know",
            ));
        }
        let role = decode_role(&mut reader)?;
        let verbs = Verbs::from_bits(reader.u32()?);
        let may_grant = Verbs::from_bits(reader.u32()?);
        let count = usize::from(reader.u8()?);
        if count > PREFIX_LABELS_MAX {
            return Err(MALFORMED);
        }
        let prefix = Prefix(
            (0..count)
                .map(|_| reader.label())
                .collect::<Result<_, _>>()?,
        );
        let claim_by = UnixTime::from_seconds(reader.u64()?);
        let uses = reader.u32()?;
        reader.end()?;
        let invitation = matches!(role, Role::Invitation { .. });
        let consistent = if invitation {
            uses > 0
        } else {
            uses == 0 && claim_by.seconds() == 0
        };
        if !consistent {
            return Err(MALFORMED);
        }
        Ok(Self {
            role,
            verbs,
            may_grant,
            prefix,
            claim_by,
            uses,
        })
    }
}

fn encode_role(out: &mut Vec<u8>, role: &Role) {
    match role {
        Role::Operator { label } => {
            out.push(1);
            put_label(out, Some(label));
        }
        Role::Tool { label } => {
            out.push(2);
            put_label(out, Some(label));
        }
        Role::Host => out.push(3),
        Role::Invitation { enrols, label } => {
            out.push(4);
            out.push(match enrols {
                Enrols::Rnode => 1,
                Enrols::Operator => 2,
                Enrols::Tool => 3,
            });
            put_label(out, label.as_ref());
        }
        Role::Rnode { label, ordinal } => {
            out.push(5);
            put_label(out, Some(label));
            out.extend_from_slice(&ordinal.to_be_bytes());
        }
        Role::Leaf => out.push(6),
        Role::App {
            application,
            class,
            index,
        } => {
            out.push(7);
            put_label(out, Some(application));
            put_label(out, Some(class));
            out.extend_from_slice(&index.to_be_bytes());
        }
    }
}

fn decode_role(reader: &mut Reader<'_>) -> Result<Role, Refusal> {
    Ok(match reader.u8()? {
        1 => Role::Operator {
            label: reader.label()?,
        },
        2 => Role::Tool {
            label: reader.label()?,
        },
        3 => Role::Host,
        4 => {
            let enrols = match reader.u8()? {
                1 => Enrols::Rnode,
                2 => Enrols::Operator,
                3 => Enrols::Tool,
                _ => return Err(MALFORMED),
            };
            Role::Invitation {
                enrols,
                label: reader.label_or_none()?,
            }
        }
        5 => Role::Rnode {
            label: reader.label()?,
            ordinal: reader.u32()?,
        },
        6 => Role::Leaf,
        7 => Role::App {
            application: reader.label()?,
            class: reader.label()?,
            index: reader.u32()?,
        },
        _ => return Err(MALFORMED),
    })
}
