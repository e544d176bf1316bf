//! What is kept of hordes whose containers are directories below one root.
//!
//! ```text
//! ROOT/serial               the last number given to a container; stays for ever
//! ROOT/generations/HORDE    the highest generation seen; stays for ever
//! ROOT/hordes/HORDE/asked   what was asked; `events` beside it
//! ROOT/hordes/HORDE/ID/     a container (`process.rs`); one whose name begins with a dot is being removed
//! ```

use std::path::{Path, PathBuf};

use underverse::{Effective, Error, Generation, HordeName, HordeSpec, Kind, Role, Running};
use underverse_conformance::Tap;

use super::process::{self, Found};
use super::{Journal, kept, plain_effective};

/// Hordes below a root. Everything is read again at each call.
#[derive(Debug, Clone)]
pub struct Hordes {
    root: PathBuf,
    tap: Tap,
}

impl Hordes {
    /// The hordes below `root`; the suite counts mutating calls at `tap`, everybody else passes a closed one.
    #[must_use]
    pub const fn new(root: PathBuf, tap: Tap) -> Self {
        Self { root, tap }
    }

    fn folder(&self, name: &HordeName) -> PathBuf {
        self.root.join("hordes").join(name.as_str())
    }

    fn seen(&self, name: &HordeName) -> PathBuf {
        self.root.join("generations").join(name.as_str())
    }

    /// Refuses a generation below the highest that was seen.
    ///
    /// # Errors
    /// `Stale`.
    pub fn check(&self, name: &HordeName, generation: Generation) -> Result<(), Error> {
        kept::check(&self.seen(name), generation)
    }

    /// Notes what is asked, before anything is done about it.
    ///
    /// # Errors
    /// `Io`, or whatever the suite wants.
    pub async fn note(&self, generation: Generation, spec: &HordeSpec) -> Result<(), Error> {
        let asked = self.folder(&spec.name).join("asked");
        if kept::kept(&asked).is_some_and(|(of, held)| of == generation && held == *spec) {
            return Ok(());
        }
        self.tap.call("note what is asked").await?;
        kept::see(&self.seen(&spec.name), generation)?;
        kept::keep(&asked, generation, spec)
    }

    /// The events of a horde.
    #[must_use]
    pub fn journal(&self, name: &HordeName) -> Journal {
        Journal::new(self.folder(name).join("events"), name.clone())
    }

    /// The containers that are as `wanted` by ordinal, and those that are not.
    #[must_use]
    pub fn sorted(&self, name: &HordeName, wanted: &[HordeSpec]) -> (Vec<Found>, Vec<Found>) {
        process::found(&self.folder(name))
            .into_iter()
            .partition(|one| {
                let wanted = wanted.get(one.ordinal as usize - 1);
                one.alive && one.made.as_ref().map(|(_, made)| made) == wanted
            })
    }

    /// Makes the directory of a new container that is made from `made`, and returns its id and place.
    ///
    /// # Errors
    /// `Io`, or whatever the suite wants.
    pub async fn make(
        &self,
        generation: Generation,
        ordinal: u32,
        made: &HordeSpec,
    ) -> Result<(String, PathBuf), Error> {
        let id = format!("n{ordinal}-{}", kept::number(&self.root.join("serial"))?);
        let at = self.folder(&made.name).join(&id);
        self.tap.call("make a container").await?;
        kept::keep(&at.join("made"), generation, made)?;
        self.tap.call("start a container").await?;
        Ok((id, at))
    }

    /// Gives a container up; if it ended by itself, that is told first.
    ///
    /// # Errors
    /// `Io`, or whatever the suite wants.
    pub async fn give_up(&self, name: &HordeName, one: &Found) -> Result<(), Error> {
        let at = self.folder(name).join(&one.id);
        if !one.alive && process::pid(&at).is_some() {
            self.journal(name)
                .failed(&one.label(), &one.id, process::how_ended(&at))?;
        }
        process::give_up(&self.folder(name), &one.id, &self.tap).await
    }

    /// Ends and removes the containers that were given up.
    ///
    /// # Errors
    /// `Io`, `Unavailable`, or whatever the suite wants.
    pub async fn sweep(&self, name: &HordeName) -> Result<(), Error> {
        process::sweep(&self.folder(name), &self.tap).await
    }

    /// Ends a horde and removes all that was made for it; its generation stays.
    ///
    /// # Errors
    /// `Stale`, `Io`, `Unavailable`, or whatever the suite wants.
    pub async fn unmake(&self, generation: Generation, name: &HordeName) -> Result<(), Error> {
        self.check(name, generation)?;
        if !self.folder(name).exists() {
            return Ok(());
        }
        kept::see(&self.seen(name), generation)?;
        for one in &process::found(&self.folder(name)) {
            self.give_up(name, one).await?;
        }
        self.sweep(name).await?;
        self.tap.call("forget the horde").await?;
        kept::forget(&self.folder(name))
    }

    /// The containers as they are told.
    #[must_use]
    pub fn running(&self, name: &HordeName, server: &str) -> Vec<Running> {
        let found = process::found(&self.folder(name)).into_iter();
        found
            .filter_map(|one| one.running(&self.folder(name), server))
            .collect()
    }

    /// What was obtained, also of a horde that is not there.
    #[must_use]
    pub fn obtained(&self, name: &HordeName) -> Effective {
        let found = process::found(&self.folder(name));
        let of = |role: &Role| {
            found
                .iter()
                .filter(|one| one.alive && one.role() == Some(role))
                .count()
        };
        let asked = kept::kept(&self.folder(name).join("asked"));
        plain_effective(name, asked.as_ref(), |role| {
            u32::try_from(of(role)).unwrap_or(u32::MAX)
        })
    }

    /// What was obtained.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn effective(&self, name: &HordeName) -> Result<Effective, Error> {
        let missing = || {
            Error::new(Kind::NotFound, "describe a horde", "it is not there").with("horde", name)
        };
        if Path::exists(&self.folder(name).join("asked")) {
            Ok(self.obtained(name))
        } else {
            Err(missing())
        }
    }

    /// The hordes of which anything is there, sorted.
    ///
    /// # Errors
    /// `Invalid` if a directory has no name of a horde.
    pub fn list(&self) -> Result<Vec<HordeName>, Error> {
        kept::directories(&self.root.join("hordes"))
            .into_iter()
            .map(HordeName::new)
            .collect()
    }
}
