//! Who resulted from a chain.

use std::fmt;

use crate::identity::{Prefix, Refusal, Verb, Verbs, Window};
use crate::names::{InvitationId, KeyId, Label, NamespaceId, OwnerId, RnodeId};

/// One use of one invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// Which invitation.
    pub invitation: InvitationId,
    /// Which of its uses, from 0.
    pub ordinal: u32,
}

impl fmt::Display for Claim {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.invitation, self.ordinal)
    }
}

/// Who someone is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// A rnode of a namespace.
    Rnode {
        /// Its namespace's label.
        namespace: Label,
        /// Its permanent name.
        id: RnodeId,
        /// What people call it; not unique for ever.
        label: Label,
        /// How it came in.
        claim: Claim,
    },
    /// A process that a rnode runs.
    App {
        /// Its namespace's label.
        namespace: Label,
        /// Its application.
        application: Label,
        /// Its class.
        class: Label,
        /// Which of its class.
        index: u32,
        /// The rnode that vouches for it.
        rnode: RnodeId,
    },
    /// A base rnode's key, as the host of the namespaces in its prefix.
    Host {
        /// The base rnode.
        id: RnodeId,
    },
    /// A person.
    Operator {
        /// What people call them.
        label: Label,
        /// Their key.
        id: KeyId,
    },
    /// A threshold tool.
    Tool {
        /// Its name.
        label: Label,
        /// Its key.
        id: KeyId,
    },
    /// A backend on this rnode's own process socket; never by certificate.
    Backend {
        /// Its name: `local`.
        name: Label,
    },
}

/// A claim and the key that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enrolment {
    /// What was taken.
    pub claim: Claim,
    /// Who took it: the rnode, or for an operator the hash that a rnode of that key would have.
    pub taker: RnodeId,
}

/// Someone who was verified, with what they may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Who it is.
    pub who: Who,
    /// To whom it belongs.
    pub owner: OwnerId,
    /// What it may do.
    pub verbs: Verbs,
    /// Over which names.
    pub prefix: Prefix,
    /// While the clock is in it, the judgement stands.
    pub valid: Window,
    /// How it, or the rnode that vouches for it, came in; `None`: without an invitation.
    pub enrolment: Option<Enrolment>,
}

impl Principal {
    /// A process of this rnode, known by the socket it inherited.
    #[must_use]
    pub fn local_app(owner: OwnerId, who: Who) -> Self {
        let prefix = match &who {
            Who::App { namespace, .. } | Who::Rnode { namespace, .. } => {
                Prefix::namespace(namespace.clone())
            }
            Who::Host { .. } | Who::Operator { .. } | Who::Tool { .. } | Who::Backend { .. } => {
                Prefix::EVERYTHING
            }
        };
        Self {
            who,
            owner,
            verbs: Verbs::of(&[Verb::App]),
            prefix,
            valid: Window::ALWAYS,
            enrolment: None,
        }
    }

    /// A backend on the base rnode's own process socket, with the base's rights.
    #[must_use]
    pub fn backend(owner: OwnerId, name: Label) -> Self {
        let verbs = Verbs::of(&[Verb::Peer, Verb::Operator, Verb::Invite, Verb::Host]);
        Self {
            who: Who::Backend { name },
            owner,
            verbs,
            prefix: Prefix::EVERYTHING,
            valid: Window::ALWAYS,
            enrolment: None,
        }
    }

    /// Checks that it has `verb` over all of `namespace`.
    ///
    /// # Errors
    /// [`Refusal::LacksVerb`] or [`Refusal::OutOfReach`].
    pub fn may(&self, verb: Verb, namespace: &Label) -> Result<(), Refusal> {
        if !self.verbs.has(verb) {
            return Err(Refusal::LacksVerb(verb));
        }
        if !self.prefix.covers_namespace(namespace) {
            return Err(Refusal::OutOfReach(namespace.clone()));
        }
        Ok(())
    }

    /// The label of the one namespace it stands in; `None` for people, tools, hosts and backends.
    #[must_use]
    pub const fn namespace(&self) -> Option<&Label> {
        match &self.who {
            Who::Rnode { namespace, .. } | Who::App { namespace, .. } => Some(namespace),
            Who::Host { .. } | Who::Operator { .. } | Who::Tool { .. } | Who::Backend { .. } => {
                None
            }
        }
    }

    /// The id of that namespace.
    #[must_use]
    pub fn namespace_id(&self) -> Option<NamespaceId> {
        self.namespace()
            .map(|label| NamespaceId::of(&self.owner, label))
    }

    /// The rnode it is, or whose key it is.
    #[must_use]
    pub const fn rnode(&self) -> Option<RnodeId> {
        match &self.who {
            Who::Rnode { id, .. } | Who::Host { id } => Some(*id),
            Who::App { .. } | Who::Operator { .. } | Who::Tool { .. } | Who::Backend { .. } => None,
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.who {
            Who::Rnode {
                namespace,
                id,
                label,
                ..
            } => write!(formatter, "rnode {namespace}/{label} ({})", id.short()),
            Who::App {
                namespace,
                application,
                class,
                index,
                ..
            } => {
                write!(formatter, "{namespace}/{application}/{class}/{index}")
            }
            Who::Host { id } => write!(formatter, "host ({})", id.short()),
            Who::Operator { label, id } => write!(formatter, "operator {label} ({})", id.short()),
            Who::Tool { label, id } => write!(formatter, "tool {label} ({})", id.short()),
            Who::Backend { name } => write!(formatter, "backend {name}"),
        }
    }
}
