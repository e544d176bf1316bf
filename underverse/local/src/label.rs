//! What is written into an execution's label, and the names of executions: how everything is found again.

use serde::{Deserialize, Serialize};
use underverse::Generation;

use crate::network::{At, Carries, Way};

/// What an execution of ours on the base is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Label {
    /// Namespace of the horde.
    pub namespace: String,
    /// Generation it was started under: document, then term.
    pub generation: (u64, u64),
    /// How often this container was started under that record, from 1.
    pub attempt: u32,
    /// What it is.
    pub subject: Subject,
}

/// What an execution is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// A cell: the rnode with this ordinal.
    Cell {
        /// From 1.
        ordinal: u32,
    },
    /// A forwarder.
    Forward {
        /// Where it listens.
        listen: std::net::SocketAddr,
        /// Class it leads to; empty for all members.
        class: String,
        /// Port the members listen on.
        port: u16,
        /// Which way it leads.
        #[serde(default)]
        way: Way,
        /// What it carries.
        #[serde(default)]
        carries: Carries,
    },
}

impl Subject {
    /// Where the door is; `None` for a cell.
    pub(crate) const fn door(&self) -> Option<At> {
        match self {
            Self::Cell { .. } => None,
            Self::Forward {
                listen, carries, ..
            } => Some(At {
                listen: *listen,
                carries: *carries,
            }),
        }
    }
}

impl Label {
    /// The bytes that travel with the execution.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // A struct of plain fields always serialises.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads what [`Label::encode`] wrote; `None` for anything else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// The execution's name: unique for ever, since generations of a namespace never repeat.
    #[must_use]
    pub fn execution(&self) -> String {
        let Self {
            namespace,
            generation: (document, term),
            attempt,
            subject,
        } = self;
        match subject {
            Subject::Cell { ordinal } => {
                format!(
                    "cell-{namespace}-{}-g{document}.{term}-{attempt}",
                    rnode_label(*ordinal)
                )
            }
            Subject::Forward {
                listen, carries, ..
            } => {
                let host = listen.ip().to_string().replace(':', ".");
                let kind = match carries {
                    Carries::Tcp => "",
                    Carries::Udp => "udp",
                };
                format!(
                    "forward-{namespace}-{host}-{kind}{}-g{document}.{term}-{attempt}",
                    listen.port()
                )
            }
        }
    }

    /// What the names of a namespace's executions begin with. So may those of another one: `a-n1` begins with `a-`.
    #[must_use]
    pub fn execution_prefixes(namespace: &str) -> [String; 2] {
        ["cell", "forward"].map(|what| format!("{what}-{namespace}-"))
    }

    /// The generation it was started under.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        Generation {
            document: self.generation.0,
            term: self.generation.1,
        }
    }
}

/// The label of the rnode with `ordinal`: "n1".
#[must_use]
pub fn rnode_label(ordinal: u32) -> String {
    format!("n{ordinal}")
}

/// The ordinal in a rnode's label; `None` if it is not one of ours.
#[must_use]
pub fn ordinal_of(label: &str) -> Option<u32> {
    let digits = label.strip_prefix('n')?;
    let ordinal: u32 = digits.parse().ok()?;
    (ordinal > 0 && rnode_label(ordinal) == label).then_some(ordinal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_reads_back_what_it_wrote_and_nothing_else() {
        let cell = Label {
            namespace: "stix".to_owned(),
            generation: (7, 0),
            attempt: 2,
            subject: Subject::Cell { ordinal: 3 },
        };
        assert_eq!(Label::decode(&cell.encode()), Some(cell.clone()));
        assert_eq!(cell.execution(), "cell-stix-n3-g7.0-2");
        assert_eq!(Label::decode(b"something else"), None);
        assert_eq!(Label::decode(b""), None);
    }

    #[test]
    fn only_our_own_directory_names_are_rnodes() {
        assert_eq!(ordinal_of("n12"), Some(12));
        for other in [
            "n0",
            "n01",
            "n",
            "m1",
            "n-1",
            "n+1",
            "addresses.json",
            "n99999999999",
        ] {
            assert_eq!(ordinal_of(other), None, "{other}");
        }
    }
}
