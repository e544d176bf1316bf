//! Looks at disk and base: what is there of a horde, and what may be asked of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirEntry;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use underverse::{Effective, Error, Generation, HordeName, HordeSpec, Kind, Running};

use super::Local;
use crate::address::{self, Lease};
use crate::base::ExecutionView;
use crate::command::CommandFile;
use crate::config::RnodeFile;
use crate::execute::io_at;
use crate::external;
use crate::label::ordinal_of;
use crate::plan::{DirectoryView, Observed};
use crate::record::{self, Door, Record};
use crate::report;
use crate::servers::Servers;
use crate::storage::{Allotment, Store};
use crate::wanted::{Facts, Wanted, wanted};
use crate::{answers, maintenance};

/// What can be seen of a horde.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) running: Vec<Running>,
    pub(crate) effective: Effective,
    pub(crate) leases: Vec<Lease>,
}

impl Local {
    /// Looks at disk and base.
    pub(crate) async fn observe(&self, horde: &HordeName) -> Result<Observed, Error> {
        let (home, name) = (&self.settings.home, horde.as_str());
        let executions = self.executions(horde).await?;
        let directory = home.horde(name);
        let record = Record::read(home, name)
            .map_err(io_at("read the horde's record", &home.record(name)))?;
        let leases = address::read(home, name)
            .map_err(io_at("read the horde's addresses", &home.addresses(name)))?;
        let directories =
            directories(&directory).map_err(io_at("read the horde's directory", &directory))?;
        let exists = directories.is_some();
        let said = self.said()?;
        let told = record.as_ref().map_or(said.serial, |record| record.told);
        let store = self.store()?;
        let own = |one: &&Allotment| one.horde == name;
        let allotments: Vec<_> = store.allotments.iter().filter(own).cloned().collect();
        Ok(Observed {
            news: said.after(told).cloned().collect(),
            boot: self.ground.boot(),
            unmade: allotments
                .iter()
                .filter(|one| !one.is_made())
                .cloned()
                .collect(),
            allotments,
            record,
            leases,
            directories: directories.unwrap_or_default(),
            executions,
            doors_taken: BTreeMap::new(),
            denied: BTreeSet::new(),
            spent: record::spent(home, name),
            exists,
            said,
            store,
        })
    }

    /// The doors that nobody of ours holds and that cannot be had.
    pub(super) fn doors_taken(&self, doors: &[Door], observed: &mut Observed) {
        let outside = |door: &&Door| door.way.leads_in();
        for door in doors.iter().filter(outside) {
            let ours = observed
                .executions
                .iter()
                .any(|view| view.ended.is_none() && view.label.subject.door() == Some(door.at()));
            if ours {
                continue;
            }
            if let Err(error) = self.ground.can_listen(door.listen, door.carries) {
                observed
                    .doors_taken
                    .insert(door.at(), why_closed(door.listen, &error));
            }
        }
    }

    pub(super) fn wanted(
        &self,
        generation: Generation,
        spec: &HordeSpec,
        observed: &Observed,
    ) -> Result<Wanted, Error> {
        let external = self.settings.home.external();
        let externals = external::read(&self.settings.home)
            .map_err(io_at("read the external addresses", &external))?;
        let ground = self.ground();
        let abilities = self.base.abilities();
        let leaving = self.leaving(&spec.name, observed)?;
        let facts = Facts {
            store: &observed.store,
            said: &observed.said,
            found: &|| self.found(),
            leaving: &leaving,
            settings: &self.settings,
            abilities: &abilities,
            uid: ground.uid(),
            exists: &|path: &Path| ground.exists(path),
            record: observed.record.as_ref(),
            user_ranges_taken: &|| self.user_ranges_taken(spec.name.as_str()),
            numbers_taken: &|| self.numbers_taken(spec.name.as_str()),
            externals: &externals,
        };
        wanted(generation, spec, &facts)
    }

    /// What was said of the servers, as it stands on disk.
    fn said(&self) -> Result<Servers, Error> {
        let home = &self.settings.home;
        Servers::read(home).map_err(io_at("read what was said of servers", &home.servers()))
    }

    /// The containers that may leave a server that is maintained.
    fn leaving(&self, horde: &HordeName, observed: &Observed) -> Result<BTreeSet<u32>, Error> {
        let Some(record) = observed.record.as_ref() else {
            return Ok(BTreeSet::new());
        };
        if record.maintenance.is_empty() {
            return Ok(BTreeSet::new());
        }
        let path = self.settings.home.answers(horde.as_str());
        let answers = answers::read(&path).map_err(io_at("read the answers", &path))?;
        let runs = |ordinal: &u32| {
            let label = record.cell_label(*ordinal);
            let mut views = observed.executions.iter();
            views.any(|view| Some(&view.label) == label.as_ref() && view.ended.is_none())
        };
        let whole = record.containers.keys().all(runs);
        Ok(maintenance::leaving(
            record,
            &answers,
            self.ground.unix_ms(),
            whole,
        ))
    }

    /// Whether containers of a horde are being moved from servers that are maintained.
    pub(crate) fn is_moving(&self, horde: &HordeName) -> bool {
        let record = Record::read(&self.settings.home, horde.as_str())
            .ok()
            .flatten();
        record.is_some_and(|record| {
            let on_it = |server: &String| {
                record
                    .containers
                    .values()
                    .any(|held| held.server == *server)
            };
            record.maintenance.keys().any(on_it)
        })
    }

    /// What is exposed and allotted, as it stands on disk.
    fn store(&self) -> Result<Store, Error> {
        let home = &self.settings.home;
        Store::read(home).map_err(io_at("read what storage there is", &home.storage()))
    }

    /// Where the doors of all hordes are.
    pub(super) fn door_hosts(&self) -> Result<BTreeSet<IpAddr>, Error> {
        let home = &self.settings.home;
        let hordes = home.hordes();
        let failed = |error| io_at("read the hordes", &hordes)(error);
        let mut hosts = BTreeSet::new();
        for horde in horde_directories(&hordes).map_err(failed)? {
            let record = Record::read(home, &horde).map_err(failed)?;
            let doors = record.into_iter().flat_map(|record| record.doors);
            hosts.extend(doors.map(|door| door.listen.ip()));
        }
        Ok(hosts)
    }

    pub(super) fn user_ranges_taken(&self, horde: &str) -> BTreeSet<u32> {
        let others = self.other_records(horde).into_iter();
        others
            .filter_map(|record| record.user_range_start)
            .collect()
    }

    fn numbers_taken(&self, horde: &str) -> BTreeSet<u8> {
        let others = self.other_records(horde).into_iter();
        others
            .filter_map(|record| record.switch)
            .map(|on| on.number)
            .collect()
    }

    fn other_records(&self, horde: &str) -> Vec<Record> {
        let home = &self.settings.home;
        let mut others = horde_directories(&home.hordes()).unwrap_or_default();
        others.retain(|other| other != horde);
        let read = |other: &String| Record::read(home, other).ok()?;
        others.iter().filter_map(read).collect()
    }

    /// Refuses a generation below the highest that was ever written down for the horde.
    pub(super) fn check_generation(
        &self,
        generation: Generation,
        horde: &HordeName,
        observed: &Observed,
    ) -> Result<(), Error> {
        let held = observed.record.as_ref().map(Record::generation);
        let last = record::last_generation(&self.settings.home, horde.as_str());
        let last = last.map(Generation::of_document);
        match held.max(last) {
            Some(highest) if generation < highest => Err(Error::new(
                Kind::Stale,
                "change a horde",
                format!("generation {generation} is older than {highest}, which was seen"),
            )
            .with("horde", horde)),
            _ => Ok(()),
        }
    }

    /// The horde's executions as the base lists them.
    pub(crate) async fn executions(&self, horde: &HordeName) -> Result<Vec<ExecutionView>, Error> {
        self.base.list(Some(horde.as_str())).await
    }

    /// What can be seen of a horde now; `None` if it is not there.
    pub(crate) async fn seen(&self, horde: &HordeName) -> Result<Option<Seen>, Error> {
        let mut observed = self.observe(horde).await?;
        let Some(record) = observed.record.clone() else {
            return Ok(None);
        };
        self.doors_taken(&record.doors, &mut observed);
        Ok(Some(Seen {
            running: report::running(&self.settings.home, horde, &observed),
            effective: report::effective(horde, record.generation(), &observed),
            leases: observed.leases,
        }))
    }
}

fn why_closed(listen: std::net::SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!("port {} of {} is taken", listen.port(), listen.ip()),
        io::ErrorKind::PermissionDenied => {
            format!("port {} may not be opened by this user", listen.port())
        }
        io::ErrorKind::AddrNotAvailable => format!("{} is not an address here", listen.ip()),
        _ => format!("port {} of {}: {error}", listen.port(), listen.ip()),
    }
}

/// The rnode directories below a horde's, with what each was last started with; `None` if it has none itself.
fn directories(horde: &Path) -> io::Result<Option<BTreeMap<u32, DirectoryView>>> {
    let mut found = BTreeMap::new();
    let entries = match std::fs::read_dir(horde) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let ordinal = entry.file_name().to_str().and_then(ordinal_of);
        let Some(ordinal) = ordinal.filter(|_| is_dir(&entry)) else {
            continue;
        };
        // A file that cannot be read is written anew before the next start.
        let file = RnodeFile::read(&entry.path()).ok().flatten();
        let command = CommandFile::read(&entry.path()).ok().flatten();
        found.insert(ordinal, DirectoryView { file, command });
    }
    Ok(Some(found))
}

/// Whether it is a directory, or leads to one: most file systems say so with its name.
fn is_dir(entry: &DirEntry) -> bool {
    match entry.file_type() {
        Ok(kind) if !kind.is_symlink() => kind.is_dir(),
        _ => entry.path().is_dir(),
    }
}

pub(crate) fn horde_directories(hordes: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(hordes) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if is_dir(&entry) {
            names.extend(entry.file_name().to_str().map(str::to_owned));
        }
    }
    Ok(names)
}
