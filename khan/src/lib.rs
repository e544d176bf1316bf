//! Khan: what a placement file means. Tree in; placement, explanation and plan out. Pure.
//!
//! [`compile`] turns an application's picks into a [`Program`]; [`place`] applies it to a [`View`]
//! of the members and yields a [`Placement`], which says for every rnode what it runs and for every
//! class what is missing and why; [`plan`] compares what runs with what shall. [`spec`] tells
//! whether an instance still runs what it should.
//!
//! Nothing here has memory: the same program and view give the same placement, whatever the order
//! of the view's parts, so that a new leader continues where the last one ended. Stability comes
//! from the view's holders, which keep their instances as long as the program allows it.
//! It spawns no task. Read [`place`] next.

mod compile;
mod evaluate;
mod json;
mod place;
mod plan;
pub mod spec;
mod view;

pub use compile::{Program, compile};
pub use place::{Assigned, ClassReport, Placed, Placement, Short, Warning, place};
pub use plan::{Action, ActionKind, Counts, Plan, Side, plan};
pub use view::{Holder, Rnode, Standing, View};
