//! The horde model, the `Underverse` trait over whatever supplies containers, capability records and events.
//!
//! A *horde* is a named set of containers asked of an underverse and realised.
//! Users begin with [`Horde`]; backends implement [`Underverse`]; tools read [`Capabilities`] and [`Effective`].
//! This crate knows no runtime, clock, socket, file or environment, no backend, and spawns no task.
//! Read `contract.rs` next: every line of its Behaviour lists is a case that each backend must pass.

mod capability;
mod contract;
mod effective;
mod error;
mod event;
mod generation;
mod horde;
mod name;
mod progress;
mod rnodes;
mod running;
mod spec;
mod storage;
mod tag;
mod zone;

pub use capability::{Capabilities, Capability, Strength};
pub use contract::{Keep, Underverse, UnderverseAdmin};
pub use effective::{
    Effective, EffectiveNetwork, EffectivePort, EffectiveRole, EffectiveStorage, NetworkProbe,
    Obtained, PortState, Weaker,
};
pub use error::{Effect, Error, Kind};
pub use event::{EventId, EventKind, MaintenancePolicy, Reply, UnderverseEvent};
pub use generation::Generation;
pub use horde::{ExecableBuilder, Horde, REALISE_DEADLINE};
pub use name::{ByteCount, ContainerId, HordeName, NAME_BYTES_MAX, NotBytes, Role};
pub use progress::{
    Action, End, Failure, HordePlan, PlannedStep, Progress, ProgressStream, StepDone, finish,
};
pub use rnodes::{FromRnodes, backend_of, from_rnodes};
pub use running::{Running, RunningState, Server, ServerChange};
pub use spec::{
    AddressId, EXECABLES_MAX, Execable, ExternalAddress, HordeSpec, Limits, MOUNTS_MAX, Members,
    Mount, MountSource, NetworkSpec, PORTS_MAX, PortConnect, Program, Protocol, ServerSpec,
    UserSource, UserSpec,
};
pub use storage::{Exposed, StorageExposure, StorageId, StorageKind, StorageRequest, properties};
pub use tag::{TAG_BYTES_MAX, Tag, TagRule, first_broken};
pub use zone::Zone;

/// What README.md shows must compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
