//! Who may call what: the one table of every method the agent serves.
//!
//! What is not in the table is refused. Rules that need state (own namespace, pinned digests, offered services)
//! stand in the services, after this. The guard that consults the table at every call is in `agent/guard.rs`.

/// What a caller is to this rnode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An operator over our namespace.
    Operator,
    /// An operator of other namespaces than the base's own, at the base.
    NarrowOperator,
    /// A tool over our namespace that may also act on the application, seen from a nested rnode.
    Steward,
    /// A tool over our namespace.
    Tool,
    /// A tool of other namespaces than the base's own, at the base.
    NarrowTool,
    /// A base rnode's key, for a namespace it hosts.
    Host,
    /// A rnode of namespace `base`, seen from a nested rnode.
    Base,
    /// A rnode of our own namespace.
    Peer,
    /// A rnode of another namespace of the owner, seen from the base.
    Nested,
    /// An instance of an application.
    App,
    /// An execution of the base's configuration `radix`, on its process socket.
    Backend,
}

use Kind::{
    App, Backend, Base, Host, NarrowOperator, NarrowTool, Nested, Operator, Peer, Steward, Tool,
};

/// Method path → who may call it.
const TABLE: &[(&str, &[Kind])] = &[
    (
        "/radix.fulcrum.v1.Fulcrum/Describe",
        &[
            Operator,
            NarrowOperator,
            Steward,
            Tool,
            NarrowTool,
            Host,
            Base,
            Peer,
            Nested,
            Backend,
        ],
    ),
    (
        "/radix.fulcrum.v1.Fulcrum/Flock",
        &[Operator, Steward, Tool, Host, Base, Peer, Backend],
    ),
    (
        "/radix.fulcrum.v1.Fulcrum/Services",
        &[Operator, Steward, Tool, Host, Base, Peer, Backend],
    ),
    (
        "/radix.fulcrum.v1.Fulcrum/Status",
        &[Operator, Steward, Tool, Host, Base, Peer, Backend],
    ),
    (
        "/radix.fulcrum.v1.Fulcrum/Entries",
        &[Operator, Steward, Tool, Backend],
    ),
    (
        "/radix.fulcrum.v1.Fulcrum/PutDocument",
        &[Operator, NarrowOperator, Host, Base],
    ),
    (
        "/radix.fulcrum.v1.Fulcrum/GetDocument",
        &[
            Operator,
            NarrowOperator,
            Steward,
            Tool,
            NarrowTool,
            Host,
            Base,
            Peer,
            Nested,
            Backend,
        ],
    ),
    (
        "/radix.fulcrum.v1.Fulcrum/WatchDocuments",
        &[Operator, NarrowOperator, Steward, Tool, NarrowTool, Backend],
    ),
    ("/radix.fulcrum.v1.Fulcrum/Invite", &[Backend]),
    (
        "/radix.fulcrum.v1.Fulcrum/Events",
        &[
            Operator,
            NarrowOperator,
            Steward,
            Tool,
            NarrowTool,
            Host,
            Base,
            Backend,
        ],
    ),
    (
        "/radix.fulcrum.v1.Fulcrum/Memoir",
        &[Operator, Steward, Tool],
    ),
    (
        "/radix.fulcrum.v1.Fulcrum/Metrics",
        &[Operator, Steward, Tool, Host, Base, Backend],
    ),
    (
        "/radix.fulcrum.v1.Fulcrum/Hint",
        &[Operator, Host, Base, Backend],
    ),
    (
        "/radix.fulcrum.v1.Fulcrum/Hordes",
        &[Operator, NarrowOperator, Steward, Tool, NarrowTool, Backend],
    ),
    ("/radix.fulcrum.v1.Fulcrum/PutHordeState", &[Backend]),
    (
        "/radix.fulcrum.v1.Fulcrum/Tunnel",
        &[Operator, NarrowOperator, Steward, Tool, NarrowTool],
    ),
    ("/radix.fulcrum.v1.Fulcrum/Exit", &[Operator, Host, Backend]),
    (
        "/radix.fulcrum.v1.Fulcrum/GetAuthority",
        &[
            Operator,
            NarrowOperator,
            Steward,
            Tool,
            NarrowTool,
            Host,
            Base,
            Peer,
            Nested,
            Backend,
        ],
    ),
    (
        "/radix.fulcrum.v1.Fulcrum/PutAuthority",
        &[Operator, NarrowOperator, Host, Base, Peer, Nested],
    ),
    (
        "/radix.fulcrum.v1.Fulcrum/Access",
        &[Operator, Steward, Tool, Backend],
    ),
    (
        "/radix.rexec.v1.Rexec/Configurations",
        &[Operator, Steward, Tool, Backend],
    ),
    ("/radix.rexec.v1.Rexec/Start", &[Operator, Steward, Backend]),
    ("/radix.rexec.v1.Rexec/Run", &[Operator, Steward, Backend]),
    (
        "/radix.rexec.v1.Rexec/List",
        &[Operator, Steward, Tool, Backend],
    ),
    (
        "/radix.rexec.v1.Rexec/Signal",
        &[Operator, Steward, Backend],
    ),
    (
        "/radix.rexec.v1.Rexec/Wait",
        &[Operator, Steward, Tool, Backend],
    ),
    (
        "/radix.rexec.v1.Rexec/Output",
        &[Operator, Steward, Tool, Backend],
    ),
    (
        "/radix.fileio.v1.FileIo/Have",
        &[
            Operator,
            NarrowOperator,
            Steward,
            Tool,
            NarrowTool,
            Host,
            Base,
            Peer,
            Nested,
            Backend,
        ],
    ),
    (
        "/radix.fileio.v1.FileIo/Get",
        &[
            Operator,
            NarrowOperator,
            Steward,
            Tool,
            NarrowTool,
            Host,
            Base,
            Peer,
            Nested,
            Backend,
        ],
    ),
    (
        "/radix.fileio.v1.FileIo/Put",
        &[Operator, NarrowOperator, Backend],
    ),
    ("/radix.fileio.v1.FileIo/Need", &[Operator, Backend]),
    (
        "/radix.fileio.v1.FileIo/Scan",
        &[Operator, Steward, Tool, Backend],
    ),
    ("/radix.fileio.v1.FileIo/Offer", &[Operator, Backend]),
    (
        "/radix.fileio.v1.FileIo/Manifest",
        &[Operator, Steward, Tool, Host, Base, Peer, Nested, Backend],
    ),
    (
        "/radix.fileio.v1.FileIo/Read",
        &[Operator, Steward, Tool, Host, Base, Peer, Nested, Backend],
    ),
    ("/radix.fileio.v1.FileIo/Expect", &[Operator, Backend]),
    (
        "/radix.fileio.v1.FileIo/Give",
        &[Operator, Base, Peer, Nested, Backend],
    ),
    ("/radix.fileio.v1.FileIo/Copy", &[Operator, Backend]),
    ("/radix.fileio.v1.FileIo/Push", &[Operator, Backend]),
    ("/radix.fileio.v1.FileIo/StateNeed", &[Operator, Backend]),
    ("/radix.fileio.v1.FileIo/DropNeed", &[Operator, Backend]),
    (
        "/radix.fileio.v1.FileIo/Needs",
        &[Operator, Steward, Tool, Backend],
    ),
    ("/radix.fileio.v1.FileIo/Remove", &[Operator, Backend]),
    ("/radix.fileio.v1.FileIo/Mount", &[Operator, Backend]),
    ("/radix.fileio.v1.FileIo/Unmount", &[Operator, Backend]),
    ("/radix.fileio.v1.FileIo/Switch", &[Operator, Backend]),
    ("/radix.process.v1.Process/Whoami", &[App, Backend]),
    ("/radix.process.v1.Process/Register", &[App]),
    ("/radix.process.v1.Process/Unregister", &[App]),
    ("/radix.process.v1.Process/Lookup", &[App, Backend]),
    ("/radix.process.v1.Process/Watch", &[App, Backend]),
    ("/radix.process.v1.Process/Leaf", &[App]),
    ("/radix.process.v1.Process/Put", &[App]),
    ("/radix.process.v1.Process/Get", &[App]),
    ("/radix.process.v1.Process/List", &[App]),
    ("/radix.process.v1.Process/CompareAndSet", &[App]),
];

/// Whether a caller of this kind may call the method at `path` (`/package.Service/Method`).
#[must_use]
pub fn allows(path: &str, kind: Kind) -> bool {
    TABLE
        .iter()
        .find(|(method, _)| *method == path)
        .is_some_and(|(_, kinds)| kinds.contains(&kind))
}

impl Kind {
    /// All kinds, in the order in which people read them.
    pub const ALL: [Self; 11] = [
        Operator,
        NarrowOperator,
        Steward,
        Tool,
        NarrowTool,
        Host,
        Base,
        Peer,
        Nested,
        App,
        Backend,
    ];

    /// Its name in the printed table.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Operator => "operator",
            NarrowOperator => "narrow operator",
            Steward => "steward",
            Tool => "tool",
            NarrowTool => "narrow tool",
            Host => "host",
            Base => "base",
            Peer => "peer",
            Nested => "nested",
            App => "app",
            Backend => "backend",
        }
    }
}

/// The table as Markdown, for docs/formats/authority.md: a line a method, a column a kind.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from("| method |");
    for kind in Kind::ALL {
        text.push_str(&format!(" {} |", kind.name()));
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(Kind::ALL.len()));
    for (method, kinds) in TABLE {
        text.push_str(&format!("\n| `{}` |", method.trim_start_matches("/radix.")));
        for kind in Kind::ALL {
            text.push_str(if kinds.contains(&kind) {
                " yes |"
            } else {
                " |"
            });
        }
    }
    text.push('\n');
    text
}

/// Every method in the table, in its order.
pub fn methods() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(method, _)| *method)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROTOS: [(&str, &str); 4] = [
        (
            "radix.fulcrum.v1.Fulcrum",
            include_str!("../../crux/wire/proto/radix/fulcrum/v1/fulcrum.proto"),
        ),
        (
            "radix.rexec.v1.Rexec",
            include_str!("../../crux/wire/proto/radix/rexec/v1/rexec.proto"),
        ),
        (
            "radix.fileio.v1.FileIo",
            include_str!("../../crux/wire/proto/radix/fileio/v1/fileio.proto"),
        ),
        (
            "radix.process.v1.Process",
            include_str!("../../crux/wire/proto/radix/process/v1/process.proto"),
        ),
    ];

    #[test]
    fn every_method_that_is_served_stands_in_the_table_once() {
        let mut served: Vec<String> = PROTOS
            .iter()
            .flat_map(|(service, text)| {
                text.lines().filter_map(move |line| {
                    let (name, _) = line.trim().strip_prefix("rpc ")?.split_once('(')?;
                    Some(format!("/{service}/{name}"))
                })
            })
            .collect();
        served.sort();
        let mut listed: Vec<&str> = methods().collect();
        listed.sort_unstable();
        assert_eq!(served, listed);
    }

    #[test]
    fn the_printed_table_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/formats/authority.md");
        let (begin, end) = ("<!-- table: begin -->\n", "<!-- table: end -->");
        let page = std::fs::read_to_string(path).unwrap();
        let (head, rest) = page.split_once(begin).unwrap();
        let (printed, tail) = rest.split_once(end).unwrap();
        if std::env::var_os("RADIX_WRITE_TABLE").is_some() {
            std::fs::write(path, [head, begin, &markdown(), end, tail].concat()).unwrap();
            return;
        }
        assert_eq!(
            printed,
            markdown(),
            "run RADIX_WRITE_TABLE=1 cargo test -p fulcrum --lib the_printed_table"
        );
    }

    #[test]
    fn what_is_not_in_the_table_is_refused_to_everyone() {
        for kind in Kind::ALL {
            assert!(!allows("/radix.rexec.v1.Rexec/Shell", kind));
            assert!(!allows("", kind));
        }
    }

    #[test]
    fn rnodes_and_applications_can_never_start_or_signal_anything() {
        for method in ["Start", "Run", "Signal"] {
            for kind in [
                NarrowOperator,
                Tool,
                NarrowTool,
                Host,
                Base,
                Peer,
                Nested,
                App,
            ] {
                assert!(!allows(&format!("/radix.rexec.v1.Rexec/{method}"), kind));
            }
        }
        for method in ["PutDocument", "PutAuthority", "Exit"] {
            assert!(!allows(
                &format!("/radix.fulcrum.v1.Fulcrum/{method}"),
                Steward
            ));
        }
        assert!(!allows("/radix.fulcrum.v1.Fulcrum/PutDocument", Peer));
        assert!(!allows("/radix.fulcrum.v1.Fulcrum/Invite", Operator));
    }
}
