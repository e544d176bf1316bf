//! What an administrator of this machine may do: a role apart from whoever realises hordes.
//!
//! Everything is kept on disk below the state directory, so that it counts in every process that realises from there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use underverse::{Error, Exposed, Kind, ServerChange, StorageExposure, Tag, UnderverseAdmin};

use crate::discover;
use crate::execute::io_at;
use crate::layout::Home;
use crate::local::horde_directories;
use crate::record::Record;
use crate::servers::{self, Servers};
use crate::settings::VirtualServer;
use crate::storage::{self, Exposure, Store};

/// The only plug-in there is: a directory of this machine.
const DIR: &str = "dir";
/// Word of its argument that says how much of the directory's file system may be promised.
const MAX: &str = "max=";

/// The administrator of the backend `local`.
#[derive(Debug, Clone)]
pub struct LocalAdmin {
    home: Home,
    servers: Vec<VirtualServer>,
    machine_root: PathBuf,
}

/// Where the tags of a server come from, beside its declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTags {
    /// The server.
    pub name: String,
    /// What the machine is found to have.
    pub found: BTreeSet<String>,
    /// What an administrator gave.
    pub given: BTreeSet<String>,
    /// What an administrator took, found or declared; none of it is among the server's tags.
    pub taken: BTreeSet<String>,
}

impl LocalAdmin {
    /// The administrator of what is realised from `home` on `servers`.
    #[must_use]
    pub fn new(home: Home, servers: Vec<VirtualServer>) -> Self {
        let machine_root = PathBuf::from("/");
        Self {
            home,
            servers,
            machine_root,
        }
    }

    /// The same of a machine whose `/dev`, `/proc` and `/sys` are below `root`.
    #[must_use]
    pub(crate) fn with_machine_root(mut self, root: PathBuf) -> Self {
        self.machine_root = root;
        self
    }

    /// Where the tags of each server come from: those we are told of, and those that hordes have containers on; by name.
    ///
    /// # Errors
    /// `Io`.
    pub fn server_tags(&self) -> Result<Vec<ServerTags>, Error> {
        let path = self.home.servers();
        let said = Servers::read(&self.home).map_err(io_at("read the servers", &path))?;
        let found = discover::tags(&self.machine_root);
        let mut names = self.used();
        names.extend(self.servers.iter().map(|server| server.name.clone()));
        let tags = |name: String| {
            let tagging = said.tagging(&name);
            ServerTags {
                name,
                found: found.clone(),
                given: tagging.add,
                taken: tagging.remove,
            }
        };
        Ok(names.into_iter().map(tags).collect())
    }

    fn known(&self, server: &str) -> Result<(), Error> {
        let declared = self.servers.iter().any(|known| known.name == server);
        if declared || self.used().contains(server) {
            return Ok(());
        }
        let message = "there is no such server on this machine";
        Err(Error::new(Kind::NotFound, "change a server", message).with("server", server))
    }
}

impl LocalAdmin {
    /// Servers that hordes declared themselves and have containers on.
    fn used(&self) -> BTreeSet<String> {
        let hordes = horde_directories(&self.home.hordes()).unwrap_or_default();
        let records = hordes
            .iter()
            .filter_map(|horde| Record::read(&self.home, horde).ok()?);
        records
            .flat_map(|record| record.containers.into_values())
            .map(|container| container.server)
            .collect()
    }
}

/// Reads `dir` or `dir:max=BYTES` and probes what the directory can hold.
fn probe(exposure: &StorageExposure) -> Result<u64, Error> {
    let refuse = |kind, message: String| {
        let error = Error::new(kind, "expose storage", message);
        Err(error.with("source", &exposure.source))
    };
    let (scheme, argument) = match exposure.bind.split_once(':') {
        Some((scheme, argument)) => (scheme, Some(argument)),
        None => (exposure.bind.as_str(), None),
    };
    if scheme != DIR {
        let message = format!("no plug-in binds {scheme:?}; this backend has {DIR:?}");
        return refuse(Kind::Unsupported, message);
    }
    let most = match argument.map(|argument| argument.strip_prefix(MAX).map(str::parse)) {
        None => u64::MAX,
        Some(Some(Ok(most))) => most,
        Some(_) => {
            let message = format!("{:?} is not {DIR} or {DIR}:{MAX}BYTES", exposure.bind);
            return refuse(Kind::Invalid, message);
        }
    };
    let source = Path::new(&exposure.source);
    if !source.is_absolute() || !source.is_dir() {
        return refuse(
            Kind::Invalid,
            "it is not a directory of this machine, by its absolute path".to_owned(),
        );
    }
    match rustix::fs::statvfs(source) {
        Ok(found) => Ok(found.f_bavail.saturating_mul(found.f_frsize).min(most)),
        Err(error) => refuse(
            Kind::Invalid,
            format!("its capacity cannot be probed: {error}"),
        ),
    }
}

#[async_trait]
impl UnderverseAdmin for LocalAdmin {
    async fn expose(&self, exposure: StorageExposure) -> Result<(), Error> {
        self.known(&exposure.server)?;
        let offer = Exposure {
            capacity: probe(&exposure)?,
            server: exposure.server,
            source: exposure.source,
            bind: exposure.bind,
            kind: exposure.kind.into(),
            tags: exposure.tags,
            thin: exposure.thin,
        };
        let source = offer.source.clone();
        let put = |store: &mut Store| {
            let same =
                |held: &&Exposure| held.server == offer.server && held.source == offer.source;
            let Some(held) = store.exposures.iter().find(same) else {
                store.exposures.push(offer);
                return Ok(true);
            };
            // What is left of a file system changes; what was probed first counts.
            Ok(Exposure {
                capacity: held.capacity,
                ..offer
            } == *held)
        };
        match storage::change(&self.home, put) {
            Ok(true) => Ok(()),
            Ok(false) => {
                let message = "it is exposed already, in another way";
                Err(Error::new(Kind::Taken, "expose storage", message).with("source", source))
            }
            Err(error) => Err(io_at("expose storage", &self.home.storage())(error)),
        }
    }

    async fn unexpose(&self, server: &str, source: &str) -> Result<(), Error> {
        let take = |store: &mut Store| {
            let same = |held: &Exposure| held.server == server && held.source == source;
            let Some(held) = store.exposures.iter().find(|held| same(held)) else {
                return Ok(Some((Kind::NotFound, "it is not exposed".to_owned())));
            };
            let of = |one: &storage::Allotment| one.server == server && one.source == source;
            if store.allotments.iter().any(of) {
                let allotted = store.allotted(held);
                let message = format!("{allotted} bytes of it are allotted");
                return Ok(Some((Kind::Taken, message)));
            }
            store.exposures.retain(|held| !same(held));
            Ok(None)
        };
        let refused = storage::change(&self.home, take)
            .map_err(io_at("withdraw storage", &self.home.storage()))?;
        refused.map_or(Ok(()), |(kind, message)| {
            let error = Error::new(kind, "withdraw storage", message);
            Err(error.with("server", server).with("source", source))
        })
    }

    async fn exposures(&self) -> Result<Vec<Exposed>, Error> {
        let store = Store::read(&self.home);
        let store = store.map_err(io_at("read the exposures", &self.home.storage()))?;
        Ok(store.exposed())
    }

    async fn tag(&self, server: &str, add: &[Tag], remove: &[Tag]) -> Result<(), Error> {
        self.known(server)?;
        let words = |tags: &[Tag]| tags.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (add, remove) = (words(add), words(remove));
        servers::change(&self.home, |servers| servers.tag(server, &add, &remove))
            .map_err(io_at("tag a server", &self.home.servers()))
    }

    async fn change_server(&self, server: &str, change: ServerChange) -> Result<(), Error> {
        self.known(server)?;
        servers::change(&self.home, |servers| servers.change(server, change.into()))
            .map_err(io_at("change a server", &self.home.servers()))
    }
}
