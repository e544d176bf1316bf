//! What can be measured.

mod clone;
mod exec;
mod files;
mod heal;
mod idle;
mod plan;
mod rest;
mod spread;
mod status;
mod up;
mod verify;

use crate::row::Row;

/// One scenario.
pub(crate) struct Scenario {
    /// Its word on the command line.
    pub(crate) name: &'static str,
    /// What it measures, beside what.
    pub(crate) about: &'static str,
    /// Measures it.
    pub(crate) run: fn() -> Result<Vec<Row>, String>,
}

/// Every scenario.
pub(crate) const ALL: &[Scenario] = &[
    Scenario {
        name: "up",
        about: "warm `up` of examples/stix to all ready, beside a shell loop and supervisord (U4)",
        run: up::run,
    },
    Scenario {
        name: "idle",
        about: "memory, processor and bytes sent of idle keepers and agents (F5, M4)",
        run: idle::run,
    },
    Scenario {
        name: "status",
        about: "`radix status`, beside `radix --version` and `supervisorctl status`",
        run: status::run,
    },
    Scenario {
        name: "exec",
        about: "a command on a rnode, beside ssh, a local spawn and a bare fsync (F1, F2)",
        run: exec::run,
    },
    Scenario {
        name: "heal",
        about: "from kill -9 to a replacement, beside supervisord and runit (F6)",
        run: heal::run,
    },
    Scenario {
        name: "files",
        about: "files from rnode to rnode, beside scp and rsync (F7, F8, F9)",
        run: files::run,
    },
    Scenario {
        name: "spread",
        about: "64 MiB to 16 rnodes on links of 200 Mbit/s, beside one copy and a star (F10)",
        run: spread::run,
    },
    Scenario {
        name: "verify",
        about: "the check of a digest before a start, first and remembered (F12)",
        run: verify::run,
    },
    Scenario {
        name: "rest",
        about: "one call as REST, beside the same as gRPC over the same session (FUL-05)",
        run: rest::run,
    },
    Scenario {
        name: "plan",
        about: "plan of a thousand hordes, to be made and unchanged (U5)",
        run: plan::run,
    },
    Scenario {
        name: "clone",
        about: "fresh clone to ready examples/stix, compile included",
        run: clone::run,
    },
];
