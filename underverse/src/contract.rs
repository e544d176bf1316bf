//! The contract every backend keeps, written as if five existed.
//!
//! Each line of a **Behaviour** list names a case of the conformance suite.

use std::fmt::Debug;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use crate::capability::Capabilities;
use crate::effective::Effective;
use crate::error::Error;
use crate::event::{EventId, Reply, UnderverseEvent};
use crate::generation::Generation;
use crate::name::HordeName;
use crate::progress::{HordePlan, ProgressStream};
use crate::running::{Running, Server, ServerChange};
use crate::spec::{AddressId, HordeSpec};
use crate::storage::{Exposed, StorageExposure};

/// What stays after `dissolve`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Nothing but memoirs.
    Nothing,
    /// Bound storage and memoirs.
    Storage,
}

/// Whatever supplies containers, storage and network.
///
/// Every resource made carries horde, ordinal and generation, so that all of it is found again by listing.
/// Calls are idempotent under the caller's horde name and generation and may be repeated at any time.
///
/// **Behaviour**
/// - `life.cycle`: realised, observed, realised again without a mutating call, adopted by a new process with the same result,
///   mended after something was removed behind its back, dissolved: nothing is left.
/// - `life.beside`: what is done to one horde changes nothing of another.
#[async_trait]
pub trait Underverse: Send + Sync + Debug {
    /// The backend's name as users write it: "local".
    fn name(&self) -> &str;

    /// What this substrate can and cannot do, with strength.
    ///
    /// **Behaviour**
    /// - `capabilities.probed`: an effect that can be probed is probed, not assumed.
    /// - `capabilities.stable`: a new process of the backend on the same ground tells the same record.
    /// - `capabilities.reasons`: what is weak or absent says why.
    /// - `capabilities.absent-refuses`: asking for what is absent ends `Refused` with `Unsupported`, and nothing is made.
    fn capabilities(&self) -> Capabilities;

    /// The servers, with tags and resources, sorted by name.
    ///
    /// **Behaviour**
    /// - `servers.sorted`: there is at least one; they are sorted by name, and no name is told twice.
    /// - `servers.tags-inherited`: containers list their server's tags.
    /// - `servers.tags-added`: containers list the tags that their execable adds.
    ///
    /// # Errors
    /// `Unavailable`; nothing changed.
    async fn servers(&self) -> Result<Vec<Server>, Error>;

    /// Obtains an external address for `horde`; `request` names it, so that a repeat answers with the same one.
    ///
    /// **Behaviour**
    /// - `address.distinct`: two requests get two ids; the mapping is stable.
    /// - `address.repeated`: the same request of the same horde gets the same id and address.
    /// - `address.exhausted`: `Limit` when there is none left; a released one can be had again.
    ///
    /// # Errors
    /// `Unsupported`, `Limit`, `Unavailable`.
    async fn acquire_address(
        &self,
        horde: &HordeName,
        request: &str,
    ) -> Result<(AddressId, IpAddr), Error> {
        let error = Error::unsupported("obtain an external address", "this backend has none");
        Err(error.with("horde", horde).with("request", request))
    }

    /// Gives an external address back.
    ///
    /// **Behaviour**
    /// - `address.release-twice`: releasing what is not held succeeds.
    /// - `address.taken`: refused with `Taken` while a door of a realised horde is there; possible again after `dissolve`.
    ///
    /// # Errors
    /// `Unsupported`, `Taken` while a realised horde uses it.
    async fn release_address(&self, id: &AddressId) -> Result<(), Error> {
        let error = Error::unsupported("release an external address", "this backend has none");
        Err(error.with("address", id))
    }

    /// What `realise` would change now, without changing it.
    ///
    /// **Behaviour**
    /// - `plan.makes-nothing`: no mutating call is made.
    /// - `plan.names-changes`: what `realise` would make, it names.
    /// - `plan.empty-when-realised`: empty after a `realise` that ended `Done`.
    /// - `plan.same-refusals`: what `realise` would refuse, it refuses.
    ///
    /// # Errors
    /// As `realise`; nothing changed.
    async fn plan(&self, generation: Generation, spec: &HordeSpec) -> Result<HordePlan, Error>;

    /// Makes the horde be as `spec` says.
    ///
    /// Returns steps and one end. All is allotted and its start requested when it ends `Done`;
    /// no promise is made on order or time within, and containers need not be running yet.
    /// The stream does its work while it is polled; dropping it stops the pass where it is.
    ///
    /// **Behaviour**
    /// - `realise.counts`: as many containers start as were asked for.
    /// - `realise.one-end`: the stream ends with exactly one `End`, as its last item.
    /// - `realise.invalid`: what no backend could carry out is refused with `Invalid`, and nothing is made.
    /// - `realise.unchanged`: a second call with an unchanged spec makes no mutating call and ends `Done`.
    /// - `realise.lower-generation`: refused with `Stale`, nothing changed.
    /// - `realise.lower-after-restart`: likewise by a new process of the backend.
    /// - `realise.lower-after-dissolve`: likewise after the horde was dissolved.
    /// - `realise.interrupted`: after a death at any step, another call completes it; nothing is doubled.
    /// - `realise.adopts`: a new process of the backend finds what exists: same ids, no mutating call.
    /// - `realise.concurrent`: of two calls at once each comes to an end, and nothing is doubled.
    /// - `realise.changed`: a container whose program changed is replaced, under a new id; the others stay.
    /// - `realise.resize`: more are added at the end; none beside is touched.
    /// - `realise.shrink`: fewer are taken from the end; none beside is touched.
    /// - `realise.none`: a count of 0 leaves a horde without containers.
    /// - `realise.partial`: what succeeded stays; `Partial` names each part that did not.
    /// - `realise.partial-completed`: a later call completes it.
    /// - `realise.heals`: a container that ended by itself is started again, after its death is confirmed.
    /// - `realise.heals-id`: it has a new id, and its ordinal and label of before.
    /// - `realise.heals-only`: the others are not touched for that.
    /// - `realise.shortfall`: a count the substrate cannot hold is refused with `Limit` and the reason.
    /// - `realise.storage`: storage that cannot be bound is refused here, naming mount and request.
    /// - `realise.mount-missing`: a host path that does not exist is refused, naming it.
    /// - `realise.weaker`: what is obtained in weaker form is in `Effective::weaker`.
    /// - `realise.tags`: required tags all hold where it runs.
    /// - `realise.tags-unsatisfiable`: where they hold nowhere, refused with `Unsatisfiable`, naming the tag.
    /// - `realise.deadline`: when it passes, ends `Partial` with what there is.
    /// - `network.connected`: every member reaches every member on any port, over IPv4, at the address that `Running` tells.
    /// - `network.horde-private`: where enforced, nobody but members opens a connection to a member, except through a door.
    /// - `network.flock-private`: where enforced, members of the owner's other flock-private hordes do, and nobody from outside.
    /// - `network.open`: a horde that asks for no privacy is reached by everybody on this substrate.
    /// - `network.private-wins`: `horde_private` with or without `flock_private` is the same.
    /// - `network.outbound`: without a limit, a member opens connections to the internet.
    /// - `network.outbound-none`: with a limit of 0, where enforced, every connection to the internet fails.
    /// - `network.outbound-limit`: with a limit of n, where enforced, the connection after n simultaneous ones of the whole horde
    ///   is refused; when one has ended, another is possible.
    /// - `network.door`: a door leads to every member that listens, in even shares, and to none that does not.
    /// - `network.door-private`: a door leads into a private horde too.
    /// - `network.door-address`: a door at an acquired address is open there and nowhere else.
    /// - `network.door-udp`: a door for UDP carries datagrams to members that listen, and each answer to whoever it is for;
    ///   where absent, it is refused with `Unsupported`.
    /// - `network.door-both`: one for connections and one for datagrams may be at the same address and port; each is told with
    ///   its protocol, and goes without the other.
    /// - `network.names`: where present, the label of a member resolves to its address inside every member.
    /// - `network.names-current`: where enforced, a name server that members are told to ask answers with the addresses of a label,
    ///   of `label.horde` in its flock and of all members of a role; after a move, with the new ones within the time an answer may be kept.
    /// - `network.healed`: a container that was started again has its address again, and doors and members reach it.
    /// - `network.resized`: members that are added are connected, and doors lead to them; members that left get nothing.
    /// - `realise.spread`: containers of a role spread over the servers that fit; none holds all while another fits.
    /// - `command.environment`: a command finds its horde, label, role, ordinal, server, tags and address in its environment
    ///   (`RADIX_HORDE RADIX_NAME RADIX_ROLE RADIX_ORDINAL RADIX_SERVER RADIX_TAGS RADIX_IP`), beside what the spec adds.
    /// - `command.changed`: a command whose words, environment, limits or mounts changed is started anew, one at a time.
    /// - `command.limits`: a limit that is enforced holds against the command; one that is not is in `Effective::weaker`.
    /// - `storage.nothing-before`: nothing is allotted before `realise`; after it, exactly what was asked for.
    /// - `storage.properties`: storage lies on an exposure that has every property asked for but `shared`, on the container's
    ///   server; where there is none, refused with `Unsatisfiable`, naming mount, request and property.
    /// - `storage.exhausted`: where there is one and none has room, refused with `Limit`, naming mount and request.
    /// - `storage.mounted`: a file tree is a directory at its path that can be written; a volume is a file or device of its size.
    /// - `storage.persists`: what was written is there after the container was started again, by whatever cause.
    /// - `storage.shared`: a request with the property `shared` is allotted once, and every container that mounts it sees the same.
    /// - `storage.thin`: on a thin exposure sizes are counted, and reported as not enforced.
    /// - `storage.resized`: what a container that was taken away held is freed.
    fn realise<'a>(
        &'a self,
        generation: Generation,
        spec: &'a HordeSpec,
        deadline: Duration,
    ) -> ProgressStream<'a>;

    /// The containers that exist, by ordinal.
    ///
    /// **Behaviour**
    /// - `running.ids`: ids are unique.
    /// - `running.never-again`: an id is never used again, also after `dissolve`.
    /// - `running.order`: by ordinal, from 1, without gaps after `realise` ended `Done`; no label twice.
    /// - `running.generation`: each tells the generation it was started under, which is kept while it runs.
    /// - `running.unknown`: an unknown horde has none.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn running(&self, name: &HordeName) -> Result<Vec<Running>, Error>;

    /// What the horde really got.
    ///
    /// **Behaviour**
    /// - `effective.counts`: each role tells what was asked and what was obtained, and why if that is less.
    /// - `effective.generation`: the highest generation carried out.
    /// - `effective.unknown`: `NotFound` for a horde that is not there.
    /// - `network.requested-effective`: what was obtained is told beside what was asked; where it is weaker, `weaker` says so and why.
    /// - `network.probed`: nothing about the network is called enforced that was not tried on this horde; `probes` says how.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    async fn effective(&self, name: &HordeName) -> Result<Effective, Error>;

    /// Ends the horde and removes all that was made for it.
    ///
    /// **Behaviour**
    /// - `dissolve.nothing-left`: processes, mounts, ports and directories are as before the first `realise`; memoirs stay.
    /// - `dissolve.adopted`: a new process of the backend dissolves what another made.
    /// - `dissolve.unknown`: ends `Done` for a horde that is not there.
    /// - `dissolve.lower-generation`: refused with `Stale`.
    /// - `dissolve.interrupted`: after a death at any step, another call completes it.
    /// - `storage.freed`: with `Keep::Nothing`, storage is removed and its capacity free again.
    /// - `storage.kept`: with `Keep::Storage`, it stays allotted, and the next `realise` under that name finds its content.
    fn dissolve<'a>(
        &'a self,
        generation: Generation,
        name: &'a HordeName,
        keep: Keep,
    ) -> ProgressStream<'a>;

    /// What happened after `since` to `horde`, then what happens, for as long as the stream is held.
    ///
    /// **Behaviour**
    /// - `events.first`: a first start shows `ContainerStarted` that replaces nothing.
    /// - `events.live`: what happens while the stream is held arrives on it.
    /// - `events.order`: in the order of ids, each at least once; a duplicate carries the same id.
    /// - `events.resume`: nothing after `since` is left out while it is within the kept ones.
    /// - `events.lasting`: they outlive the backend's process; a consumer that comes back with its last id misses none of a burst.
    /// - `events.exit`: the reason in `ContainerFailed` says how the container ended: its exit code or signal.
    /// - `events.failed-started`: a healed container shows `ContainerFailed` with the old id, then `ContainerStarted` with both.
    fn events(
        &self,
        horde: &HordeName,
        since: Option<EventId>,
    ) -> BoxStream<'static, UnderverseEvent>;

    /// The owner's answer to an event.
    ///
    /// **Behaviour**
    /// - `answer.unknown`: `NotFound` for an event that is not kept.
    /// - `answer.repeated`: the last answer counts.
    /// - `answer.rolling`: to planned maintenance: no more containers are away at once, and steps are so far apart, as it says.
    /// - `answer.staged`: one container is moved; the others when the owner acknowledges the event.
    /// - `answer.deny-until`: none is moved before that time.
    ///
    /// # Errors
    /// `NotFound`, `Unsupported`, `Io`.
    async fn answer(&self, horde: &HordeName, event: EventId, reply: Reply) -> Result<(), Error>;

    /// The hordes that exist, sorted.
    ///
    /// **Behaviour**
    /// - `list.sorted`: sorted, each once.
    /// - `list.leftover`: after a death at any step of `realise` or `dissolve`, a horde of which something exists is listed.
    /// - `list.from-below`: read from the substrate, never from memory.
    ///
    /// # Errors
    /// `Unavailable`, `Io`.
    async fn list(&self) -> Result<Vec<HordeName>, Error>;
}

/// What an administrator may do to an underverse: a role apart from the user's, who cannot expose.
///
/// ```compile_fail
/// async fn a_user(underverse: &dyn underverse::Underverse, exposure: underverse::StorageExposure) {
///     let _ = underverse.expose(exposure).await;
/// }
/// ```
#[async_trait]
pub trait UnderverseAdmin: Send + Sync + Debug {
    /// Offers storage of a server.
    ///
    /// **Behaviour**
    /// - `expose.probed`: capacity is probed; a source that does not exist is refused as `Invalid`.
    /// - `expose.unknown-scheme`: a `bind` that names no plug-in is refused with `Unsupported`, naming it.
    /// - `expose.repeated`: the same offer again changes nothing; another one of the same server and source is `Taken`.
    ///
    /// # Errors
    /// `Invalid`, `Unsupported`, `Taken`, `NotFound` for an unknown server.
    async fn expose(&self, exposure: StorageExposure) -> Result<(), Error>;

    /// Withdraws an offer.
    ///
    /// **Behaviour**
    /// - `unexpose.unknown`: `NotFound` for what is not offered.
    /// - `unexpose.in-use`: refused with `Taken` while storage on it is allotted.
    ///
    /// # Errors
    /// `Taken`, `NotFound`, `Unsupported`.
    async fn unexpose(&self, server: &str, source: &str) -> Result<(), Error>;

    /// What is offered and what is left of it, by server, then by source.
    ///
    /// **Behaviour**
    /// - `exposures.exact`: `allotted` is exactly the sum of the capacities asked for and allotted.
    ///
    /// # Errors
    /// `Io`, `Unavailable`.
    async fn exposures(&self) -> Result<Vec<Exposed>, Error>;

    /// Adds and removes tags of a server.
    ///
    /// **Behaviour**
    /// - `tag.unknown`: `NotFound` for a server that is not there.
    /// - `tag.inherited`: containers started later inherit them; those that run keep theirs.
    ///
    /// # Errors
    /// `NotFound`, `Unsupported`.
    async fn tag(
        &self,
        server: &str,
        add: &[crate::Tag],
        remove: &[crate::Tag],
    ) -> Result<(), Error>;

    /// Says that something becomes of a server; every horde with containers on it is told, by the next pass at the latest.
    ///
    /// **Behaviour**
    /// - `server.rebooted`: `ServerRebooted` with the ids that ran on it; they are started again.
    /// - `server.gone`: `ServerGone` likewise; they are started on other servers that fit, else missing with the reason.
    /// - `server.degraded`: `ServerDegraded` likewise; they stay, and new ones go elsewhere where something fits.
    /// - `server.maintained`: `MaintenancePlanned` likewise; no new ones go there; moved as the answer says.
    /// - `server.restored`: `ServerRestored`; it takes containers again, and none is moved back for that.
    ///
    /// # Errors
    /// `NotFound`, `Unsupported`.
    async fn change_server(&self, server: &str, change: ServerChange) -> Result<(), Error>;
}
