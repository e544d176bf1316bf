//! The user's face of a horde: built up step by step, then realised.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use futures_util::stream::BoxStream;

use crate::contract::{Keep, Underverse};
use crate::effective::EffectiveNetwork;
use crate::error::Error;
use crate::event::{EventId, Reply, UnderverseEvent};
use crate::generation::Generation;
use crate::name::{ByteCount, HordeName, Role};
use crate::progress::{End, finish};
use crate::running::Running;
use crate::spec::{Execable, HordeSpec, Limits, Mount, MountSource, NetworkSpec, Program};
use crate::storage::{StorageId, StorageKind, StorageRequest, properties};
use crate::tag::{Tag, TagRule};

/// Time a pass is given unless the caller says otherwise: two minutes, of which starting takes seconds.
pub const REALISE_DEADLINE: Duration = Duration::from_secs(120);

/// A horde under construction, and the grip on it once realised.
///
/// ```
/// use underverse::{ExecableBuilder, Horde, NetworkSpec};
/// # fn main() -> Result<(), underverse::Error> {
/// let mut shire = Horde::new("the_shire")?;
/// let data = shire.alloc_file_tree(200_000, "robust");
/// let hobbit = ExecableBuilder::command("hobbit", ["server", "-p", "45271"])?
///     .count(3)
///     .image("shireV2.3")
///     .mount_storage(&data, "/data")
///     .build();
/// let shire = shire.execables([hobbit]).network(NetworkSpec::default());
/// assert_eq!(shire.spec()?.count(), 3);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Horde {
    spec: HordeSpec,
    generation: Generation,
}

impl Horde {
    /// A horde without execables, with the default network.
    ///
    /// # Errors
    /// `Invalid` if `name` is not a name.
    pub fn new(name: &str) -> Result<Self, Error> {
        let spec = HordeSpec {
            name: HordeName::new(name)?,
            execables: Vec::new(),
            network: NetworkSpec::default(),
            storage: Vec::new(),
            users: Vec::new(),
            servers: Vec::new(),
            settings: BTreeMap::new(),
        };
        Ok(Self {
            spec,
            generation: Generation::of_document(1),
        })
    }

    /// Replaces the list of execables.
    #[must_use]
    pub fn execables(mut self, execables: impl IntoIterator<Item = Execable>) -> Self {
        self.spec.execables = execables.into_iter().collect();
        self
    }

    /// Replaces the network asked for.
    #[must_use]
    pub fn network(mut self, network: NetworkSpec) -> Self {
        self.spec.network = network;
        self
    }

    /// Sets the generation under which it is realised; 1 at first.
    #[must_use]
    pub const fn generation(mut self, generation: Generation) -> Self {
        self.generation = generation;
        self
    }

    /// Asks for a file tree; nothing is bound, and nothing can fail, before `realise`.
    pub fn alloc_file_tree(&mut self, capacity_megabytes: u64, wanted: &str) -> StorageId {
        self.alloc(StorageKind::FileTree, capacity_megabytes, wanted)
    }

    /// Asks for a volume; nothing is bound, and nothing can fail, before `realise`.
    pub fn alloc_volume(&mut self, capacity_megabytes: u64, wanted: &str) -> StorageId {
        self.alloc(StorageKind::Volume, capacity_megabytes, wanted)
    }

    fn alloc(&mut self, kind: StorageKind, megabytes: u64, wanted: &str) -> StorageId {
        let id = StorageId::of_request(self.spec.name.as_str(), self.spec.storage.len() + 1);
        self.spec.storage.push(StorageRequest {
            id: id.clone(),
            kind,
            capacity: ByteCount::megabytes(megabytes),
            properties: properties(wanted),
        });
        id
    }

    /// The horde's name.
    #[must_use]
    pub const fn name(&self) -> &HordeName {
        &self.spec.name
    }

    /// What is asked for, checked.
    ///
    /// # Errors
    /// As [`HordeSpec::validate`].
    pub fn spec(&self) -> Result<&HordeSpec, Error> {
        self.spec.validate()?;
        Ok(&self.spec)
    }

    /// Makes it so, within [`REALISE_DEADLINE`]; may be repeated, also after a change.
    ///
    /// # Cancel safety
    /// The pass stops where it is; the next one finishes it.
    pub async fn realise(&self, underverse: &dyn Underverse) -> End {
        finish(underverse.realise(self.generation, &self.spec, REALISE_DEADLINE)).await
    }

    /// What really runs.
    ///
    /// # Errors
    /// As [`Underverse::running`].
    pub async fn running(&self, underverse: &dyn Underverse) -> Result<Vec<Running>, Error> {
        underverse.running(&self.spec.name).await
    }

    /// The network as obtained.
    ///
    /// # Errors
    /// As [`Underverse::effective`].
    pub async fn effective_network(
        &self,
        underverse: &dyn Underverse,
    ) -> Result<EffectiveNetwork, Error> {
        Ok(underverse.effective(&self.spec.name).await?.network)
    }

    /// The channel from the underverse.
    pub fn from_underverse(
        &self,
        underverse: &dyn Underverse,
        since: Option<EventId>,
    ) -> BoxStream<'static, UnderverseEvent> {
        underverse.events(&self.spec.name, since)
    }

    /// The channel to the underverse.
    ///
    /// # Errors
    /// As [`Underverse::answer`].
    pub async fn to_underverse(
        &self,
        underverse: &dyn Underverse,
        event: EventId,
        reply: Reply,
    ) -> Result<(), Error> {
        underverse.answer(&self.spec.name, event, reply).await
    }

    /// Ends it and removes what was made.
    ///
    /// # Cancel safety
    /// The pass stops where it is; the next one finishes it.
    pub async fn release(&self, underverse: &dyn Underverse, keep: Keep) -> End {
        finish(underverse.dissolve(self.generation, &self.spec.name, keep)).await
    }
}

/// Builds one [`Execable`].
#[derive(Debug, Clone)]
pub struct ExecableBuilder(Execable);

impl ExecableBuilder {
    /// One container of `role` that runs the command `words`.
    ///
    /// # Errors
    /// `Invalid` if `role` is not a name.
    pub fn command<W: Into<String>>(
        role: &str,
        words: impl IntoIterator<Item = W>,
    ) -> Result<Self, Error> {
        let words = words.into_iter().map(Into::into).collect();
        Ok(Self(Execable::new(
            Role::new(role)?,
            Program::Command(words),
        )))
    }

    /// One rnode of `role`.
    ///
    /// # Errors
    /// `Invalid` if `role` is not a name.
    pub fn fulcrum(role: &str) -> Result<Self, Error> {
        Ok(Self(Execable::new(
            Role::new(role)?,
            Program::Fulcrum(vec!["fulcrum".to_owned()]),
        )))
    }

    /// Sets how many; 0 asks for none.
    #[must_use]
    pub const fn count(mut self, count: u32) -> Self {
        self.0.count = count;
        self
    }

    /// Sets the image.
    #[must_use]
    pub fn image(mut self, image: &str) -> Self {
        self.0.image = Some(image.to_owned());
        self
    }

    /// Requires that a tag holds, or with a leading `!` that it does not.
    ///
    /// # Errors
    /// `Invalid` if it is not a tag.
    pub fn require(mut self, rule: &str) -> Result<Self, Error> {
        self.0.required.push(rule.parse::<TagRule>()?);
        Ok(self)
    }

    /// Adds a tag to the inherited ones.
    ///
    /// # Errors
    /// `Invalid` if it is not a tag, for instance because of a leading `!`.
    pub fn add_tag(mut self, tag: &str) -> Result<Self, Error> {
        self.0.added.insert(tag.parse::<Tag>()?);
        Ok(self)
    }

    /// Makes a directory of the server visible at `target`.
    #[must_use]
    pub fn mount_host(mut self, source: impl AsRef<Path>, target: impl AsRef<Path>) -> Self {
        self.0.mounts.push(Mount {
            source: MountSource::Host(source.as_ref().to_owned()),
            target: target.as_ref().to_owned(),
        });
        self
    }

    /// Makes storage visible at `target`.
    #[must_use]
    pub fn mount_storage(mut self, storage: &StorageId, target: impl AsRef<Path>) -> Self {
        self.0.mounts.push(Mount {
            source: MountSource::Storage(storage.clone()),
            target: target.as_ref().to_owned(),
        });
        self
    }

    /// Sets a variable of the program's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.0.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Sets upper limits.
    #[must_use]
    pub const fn limits(mut self, limits: Limits) -> Self {
        self.0.limits = limits;
        self
    }

    /// The execable.
    #[must_use]
    pub fn build(self) -> Execable {
        self.0
    }
}
