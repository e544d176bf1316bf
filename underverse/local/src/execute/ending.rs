//! Steps that end and remove.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::Duration;

use underverse::{Effect, Error, EventKind, Kind};

use super::{END_POLL, Pass, each, io_at, io_error};
use crate::base::EndSignal;
use crate::command::CommandFile;
use crate::config::Isolation;
use crate::events::News;
use crate::label::rnode_label;
use crate::layout::LEAVING;
use crate::network::{At, Way};
use crate::storage::{self, Allotment};
use crate::wanted::Wanted;
use crate::{durable, groups, mark, record, switch_dir};

/// Time a forwarder is given to end after being asked: it holds nothing that must be kept.
pub(super) const FORWARD_GRACE: Duration = Duration::from_secs(2);
/// Time in which a forwarder has surely looked at changed leases: it looks every 250 ms.
const FORWARD_LOOKED: Duration = Duration::from_millis(500);
/// Time for the kernel to take away what was ended by force.
const FORCE_GRACE: Duration = Duration::from_secs(10);

/// How often a control group that is still busy is tried, [`END_POLL`] apart: 2 s in all.
const GROUP_TRIES: u32 = 40;

impl Pass<'_> {
    /// Asks an execution to end, waits, forces it, and returns when the base says that it ended.
    pub(super) async fn end(&self, execution: &str, grace: Duration) -> Result<(), Error> {
        for (signal, grace) in [(EndSignal::Ask, grace), (EndSignal::Force, FORCE_GRACE)] {
            match self.local.base().signal(execution, signal).await {
                Err(error) if error.kind() == Kind::NotFound => return Ok(()),
                other => other?,
            }
            if tokio::time::timeout(grace, self.ended(execution))
                .await
                .is_ok()
            {
                return Ok(());
            }
        }
        Err(Error::new(
            Kind::DeadlineExceeded,
            "end an execution",
            "it does not end",
        )
        .effect(Effect::Unknown)
        .with("execution", execution))
    }

    /// Lets the agent of a rnode that will not be there again leave its flock when it is asked to end.
    pub(super) fn announce_leaving(&self, ordinal: u32) -> Result<(), Error> {
        let wanted = |wanted: &Wanted| wanted.rnodes.iter().any(|rnode| rnode.ordinal == ordinal);
        // Of a horde that is dissolved nobody is left to be told.
        if self.wanted.is_none_or(wanted) {
            return Ok(());
        }
        let home = &self.local.settings().home;
        let path = home
            .rnode(self.horde.as_str(), &rnode_label(ordinal))
            .join(LEAVING);
        match std::fs::File::create(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(io_at("mark a rnode that leaves", &path)(error))
            }
            _ => Ok(()),
        }
    }

    pub(super) async fn ended(&self, execution: &str) {
        loop {
            // A base that is away for a moment is asked again; the time-out around us is the limit.
            if let Ok(list) = self.local.base().list(Some(self.horde.as_str())).await
                && list
                    .iter()
                    .all(|view| view.id != execution || view.ended.is_some())
            {
                return;
            }
            tokio::time::sleep(END_POLL).await;
        }
    }

    /// Without a pid namespace, ends what carries the rnode's mark: only then is it dead.
    pub(super) async fn sweep(&self, ordinal: u32) -> Result<(), Error> {
        let isolation = self
            .record
            .lock()
            .await
            .as_ref()
            .map(|record| record.isolation);
        if isolation == Some(Isolation::PidMount) {
            return Ok(());
        }
        let label = rnode_label(ordinal);
        let mark = mark::rnode_mark(self.horde.as_str(), &label, &self.base.owner);
        let swept = self.local.ground().sweep(mark).await;
        swept.map_err(|error| io_error("end a rnode's processes", error).with("rnode", label))
    }

    pub(super) async fn bury(&self, execution: &str, ordinal: u32, how: &str) -> Result<(), Error> {
        self.sweep(ordinal).await?;
        let asked = {
            let record = self.record.lock().await;
            let held = record
                .as_ref()
                .and_then(|record| record.containers.get(&ordinal));
            held.is_some_and(|held| held.ending)
        };
        if !asked {
            let kind = EventKind::ContainerFailed {
                container: execution.to_owned(),
                reason: how.to_owned(),
            };
            self.tell(vec![News::container(rnode_label(ordinal), kind)])?;
        }
        self.change(|record| each(record, &[ordinal], |held| held.buried = true))
            .await
    }

    /// Removes a control group, which the kernel lets go of a moment after the last of its processes.
    async fn remove_group(&self, group: &Path) -> Result<(), Error> {
        for _ in 0..GROUP_TRIES {
            match groups::remove(group) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    tokio::time::sleep(END_POLL).await;
                }
                other => return other.map_err(io_at("remove a control group", group)),
            }
        }
        groups::remove(group).map_err(io_at("remove a control group", group))
    }

    pub(super) async fn remove_directory(&self, ordinal: u32) -> Result<(), Error> {
        self.sweep(ordinal).await?;
        let path = self
            .local
            .settings()
            .home
            .rnode(self.horde.as_str(), &rnode_label(ordinal));
        // Ordering: their names stand in the directory, so it goes last.
        let command = CommandFile::read(&path).ok().flatten();
        for group in command.iter().flat_map(|command| &command.groups) {
            self.remove_group(group).await?;
        }
        durable::remove_tree(&path).map_err(io_at("remove a rnode's directory", &path))
    }

    pub(super) async fn forget(&self, ordinals: &[u32], doors: &[At]) -> Result<(), Error> {
        let mut leases = self.leases.lock().await;
        let mut kept = leases.clone();
        kept.retain(|lease| !ordinals.contains(&lease.ordinal));
        self.write_leases(&kept)?;
        if kept.len() < leases.len() && self.has_doors().await {
            // Whoever is given such an address next must not get what a door of ours still sends there.
            tokio::time::sleep(FORWARD_LOOKED).await;
        }
        let hosts = kept.iter().map(|lease| lease.host).collect();
        self.local.claims().keep_only(self.horde, &hosts);
        *leases = kept;
        drop(leases);
        self.write_names().await?;
        self.change(|record| {
            record
                .containers
                .retain(|ordinal, _| !ordinals.contains(ordinal));
            record.forwards.retain(|at, _| !doors.contains(at));
        })
        .await
    }

    /// Whether a door follows the leases to addresses that others may be given.
    async fn has_doors(&self) -> bool {
        let record = self.record.lock().await;
        let mut doors = record.iter().flat_map(|record| &record.doors);
        doors.any(|door| door.way == Way::Here && door.class.is_empty())
    }

    pub(super) fn free(&self, freed: &[Allotment]) -> Result<(), Error> {
        let home = &self.local.settings().home;
        storage::free(home, freed).map_err(io_at("free storage", &home.storage()))
    }

    /// The highest number that was used under the present generation.
    async fn spent(&self) -> Result<((u64, u64), u32), Error> {
        let record = self.record.lock().await.clone();
        let cells = record.iter().flat_map(|record| record.containers.values());
        let forwards = record.iter().flat_map(|record| record.forwards.values());
        let held = cells.map(|held| (held.generation, held.attempt));
        let held = held.chain(forwards.map(|held| (held.generation, held.attempt)));
        let listed = self.local.executions(self.horde).await?;
        let listed = listed
            .iter()
            .map(|view| (view.label.generation, view.label.attempt));
        let home = &self.local.settings().home;
        let before = record::spent(home, self.horde.as_str());
        let used = held.chain(listed).chain(before);
        Ok(used.max().unwrap_or((self.generation, 0)))
    }

    pub(super) async fn remove_horde(&self) -> Result<(), Error> {
        let spent = self.spent().await?;
        let home = &self.local.settings().home;
        let directory = home.horde(self.horde.as_str());
        let generation = home.generation(self.horde.as_str());
        record::keep_generation(home, self.horde.as_str(), self.generation.0)
            .map_err(io_at("keep the horde's last generation", &generation))?;
        record::keep_spent(home, self.horde.as_str(), spent)
            .map_err(io_at("keep the horde's last number", &generation))?;
        // Ordering: the directory goes last, since a dissolve that is repeated begins with it.
        self.local.base().forget(self.horde.as_str()).await?;
        durable::remove_tree(&directory)
            .map_err(io_at("remove the horde's directory", &directory))?;
        let claims = self.local.claims();
        claims.keep_only(self.horde, &BTreeSet::new());
        let switch = home.flock_switch();
        switch_dir::remove_unless_held(&switch)
            .await
            .map_err(io_at("remove the flock's switch", &switch))?;
        durable::remove_empty_dir(&home.hordes());
        Ok(())
    }
}
