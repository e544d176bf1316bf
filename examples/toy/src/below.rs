//! What the conformance suite is told of what lies below a toy; it never asks the toy.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process_group};
use underverse::Running;
use underverse_conformance::{Below, Cannot, Opened, Tap};
use underverse_plugin::kit::{kept, process};

use crate::Toy;

/// Grounds for a toy: a directory each.
#[derive(Debug, Clone, Copy)]
pub struct ToyBelow;

/// The directory of a container, of whichever horde; one that was given up counts too.
fn at(directory: &Path, id: &str) -> Result<PathBuf, Cannot> {
    let hordes = directory.join("hordes");
    let folders = kept::directories(&hordes)
        .into_iter()
        .map(|horde| hordes.join(horde).join(id));
    folders
        .into_iter()
        .find(|path| path.exists())
        .ok_or_else(|| Cannot::Failed(format!("there is no {id}")))
}

#[async_trait]
impl Below for ToyBelow {
    async fn open(&self, directory: &Path, tap: Tap) -> Result<Opened, Cannot> {
        let toy = Toy::new(directory.to_owned(), tap);
        Ok(Opened {
            underverse: Arc::new(toy),
            admin: None,
            process: None,
        })
    }

    async fn inventory(&self, directory: &Path) -> Result<BTreeSet<String>, Cannot> {
        let mut found = BTreeSet::new();
        let hordes = directory.join("hordes");
        for horde in kept::directories(&hordes) {
            found.insert(format!("horde {horde}"));
            found.extend(
                kept::directories(&hordes.join(&horde))
                    .iter()
                    .map(|id| format!("container {horde}/{id}")),
            );
        }
        found.extend(
            process::below(directory)
                .iter()
                .map(|group| format!("process group {group}")),
        );
        Ok(found)
    }

    async fn remove(&self, directory: &Path, id: &str) -> Result<(), Cannot> {
        let at = at(directory, id)?;
        process::end(&at)
            .await
            .map_err(|error| Cannot::Failed(error.chain()))
    }

    fn sweep(&self, directory: &Path) {
        for group in process::below(directory)
            .into_iter()
            .filter_map(Pid::from_raw)
        {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    async fn environment(
        &self,
        directory: &Path,
        of: &Running,
    ) -> Result<BTreeMap<String, String>, Cannot> {
        let at = at(directory, of.id.as_str())?;
        // It is there once the shell has said who it is.
        while process::pid(&at).is_none() && process::is_alive(&at) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        Ok(process::environment(&at)?)
    }
}
