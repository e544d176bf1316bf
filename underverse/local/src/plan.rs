//! Decides: from what is observed and what is wanted to the steps between. Pure; `execute.rs` follows it.
//!
//! A plan is stages in order; the steps of one stage do not depend on each other.
//! Every step may be taken again after a death anywhere: what it did is seen in the next observation.

use std::collections::{BTreeMap, BTreeSet};

use crate::address::Lease;
use crate::base::ExecutionView;
use crate::command::CommandFile;
use crate::config::RnodeFile;
use crate::label::{Label, Subject};
use crate::network::At;
use crate::record::{ContainerRecord, Door, ProbedState, Record};
use crate::servers::{Change, Numbered, Servers};
use crate::storage::{Allotment, Store};
use crate::wanted::{USERS_PER_RNODE, Wanted, WantedProgram, WantedRnode};

mod ending;
mod step;

pub(crate) use ending::dissolve;
use ending::{surplus, surplus_doors, surplus_ordinals};
pub(crate) use step::{COMMON, Step};

/// What is there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observed {
    pub(crate) record: Option<Record>,
    pub(crate) leases: Vec<Lease>,
    /// By ordinal: every rnode directory.
    pub(crate) directories: BTreeMap<u32, DirectoryView>,
    /// Every execution of this namespace that the base lists.
    pub(crate) executions: Vec<ExecutionView>,
    /// Doors that nobody of ours holds and that cannot be had, with the reason.
    pub(crate) doors_taken: BTreeMap<At, String>,
    /// Rnodes whose identity no longer counts; each is replaced by one of another identity.
    pub(crate) denied: BTreeSet<u32>,
    /// Last number used of this horde before it was dissolved, and under which generation.
    pub(crate) spent: Option<((u64, u64), u32)>,
    /// Changes of servers that the horde was not told of yet.
    pub(crate) news: Vec<Numbered>,
    /// Which boot of the machine this is.
    pub(crate) boot: String,
    /// Storage of the horde, as it is written down.
    pub(crate) allotments: Vec<Allotment>,
    /// What of it does not lie where it should.
    pub(crate) unmade: Vec<Allotment>,
    /// Something of the horde is on disk.
    pub(crate) exists: bool,
    /// What was said of the servers, and what storage there is, of all hordes: read once, so that all that is decided
    /// in one look goes by the same.
    pub(crate) said: Servers,
    pub(crate) store: Store,
}

/// A rnode's directory.
#[derive(Debug, Clone, Default)]
pub(crate) struct DirectoryView {
    /// What it was last started with.
    pub(crate) file: Option<RnodeFile>,
    /// What its command was last started with.
    pub(crate) command: Option<CommandFile>,
}

/// The steps between, and what cannot be had.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) stages: Vec<Vec<Step>>,
    /// Doors that cannot be had, with the reason.
    pub(crate) refused: Vec<(Door, String)>,
    /// Containers whose next start waits for its back-off.
    pub(crate) waiting: Vec<u32>,
    /// Containers for which there is no server now, with the reason.
    pub(crate) unplaced: Vec<(u32, String)>,
    /// Containers that this machine has no room for now, with the reason.
    pub(crate) no_room: Vec<(u32, String)>,
}

impl Plan {
    fn stage(&mut self, steps: Vec<Step>) {
        if !steps.is_empty() {
            self.stages.push(steps);
        }
    }

    /// Whether its first step writes the horde's record.
    pub(crate) fn records(&self) -> bool {
        let mut steps = self.stages.iter().flatten();
        matches!(steps.next(), Some(Step::Record))
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.stages.is_empty()
    }
}

/// How a numbered execution stands.
enum Standing<'a> {
    /// It never had a number.
    New,
    /// It has a number, and the base knows nothing of it.
    Requested,
    Running,
    Dead(&'a ExecutionView),
}

fn standing<'a>(label: Option<&Label>, executions: &'a [ExecutionView]) -> Standing<'a> {
    let Some(label) = label else {
        return Standing::New;
    };
    match executions
        .iter()
        .find(|execution| execution.label == *label)
    {
        None => Standing::Requested,
        Some(execution) if execution.ended.is_some() => Standing::Dead(execution),
        Some(_) => Standing::Running,
    }
}

/// What is wanted beyond what runs.
#[derive(Default)]
struct Work {
    /// How many are started that are missing.
    missing: u32,
    mark: Vec<u32>,
    end_forwards: Vec<Step>,
    end_cells: Vec<Step>,
    bury: Vec<Step>,
    remove: Vec<Step>,
    lease: Vec<u32>,
    number_cells: Vec<(u32, u32)>,
    number_forwards: Vec<(Door, u32)>,
    prepare: Vec<Step>,
    start: Vec<Step>,
    announce: Vec<u32>,
    start_forwards: Vec<Step>,
}

/// Plans the way to `wanted`. Executions in `hold` are dead ones whose back-off has not passed.
pub(crate) fn realise(wanted: &Wanted, observed: &Observed, hold: &BTreeSet<String>) -> Plan {
    let mut plan = Plan {
        unplaced: wanted.unplaced.clone(),
        ..Plan::default()
    };
    let mut work = Work::default();
    let record = observed.record.as_ref();
    surplus(wanted, observed, &mut work);
    let mut replaced = false;
    for rnode in &wanted.rnodes {
        rnode_steps(
            rnode,
            wanted,
            observed,
            hold,
            (&mut plan, &mut work, &mut replaced),
        );
    }
    for door in &wanted.doors {
        door_steps(door, wanted, observed, hold, (&mut plan, &mut work));
    }
    let gone: Vec<u32> = surplus_ordinals(wanted, observed);
    let gone_doors = surplus_doors(wanted, record);
    if record.is_none_or(|record| !records(wanted, record)) {
        plan.stage(vec![Step::Record]);
    }
    plan.stage(single(work.mark, Step::Mark));
    plan.stage(work.end_forwards);
    plan.stage(work.end_cells);
    // Ordering: after what a change ends and before anything is started for it, so that it is told with the old ids.
    plan.stage(news(observed));
    plan.stage(work.bury);
    plan.stage(work.remove);
    if !gone.is_empty() || !gone_doors.is_empty() {
        plan.stage(vec![Step::Forget {
            ordinals: gone,
            doors: gone_doors,
        }]);
    }
    let (missing, surplus) = storage(wanted, observed);
    if !surplus.is_empty() {
        plan.stage(vec![Step::Free(surplus)]);
    }
    plan.stage(missing.into_iter().map(Step::Allot).collect());
    plan.stage(single(work.lease, Step::Lease));
    if !work.number_cells.is_empty() || !work.number_forwards.is_empty() {
        let (cells, forwards) = (work.number_cells, work.number_forwards);
        plan.stage(vec![Step::Number { cells, forwards }]);
    }
    plan.stage(work.prepare);
    plan.stage(work.start);
    plan.stage(single(work.announce, Step::Announce));
    plan.stage(work.start_forwards);
    // When nothing else is left to do: what would be found before would be old at once.
    if plan.is_empty()
        && let Some(probe) = probe(wanted, observed)
    {
        plan.stage(vec![probe]);
    }
    plan
}

/// Tells what became of servers, and of the machine, since the horde was told last.
fn news(observed: &Observed) -> Vec<Step> {
    let Some(record) = observed.record.as_ref() else {
        return Vec::new();
    };
    // A record of an older version names no boot: nothing is known of one.
    let known = !record.boot.is_empty();
    let boot = (known && record.boot != observed.boot).then(|| observed.boot.clone());
    if observed.news.is_empty() && boot.is_none() {
        return Vec::new();
    }
    let news = observed.news.clone();
    vec![Step::News { news, boot }]
}

/// Whether a server was rebooted and what ran on it has not ended for that yet.
fn rebooted(observed: &Observed, server: &str) -> bool {
    let of = |one: &&Numbered| one.server == server && one.change == Change::Reboot;
    observed.news.iter().any(|one| of(&one))
}

/// Storage that is to be made, and storage that nobody asks for any more.
fn storage(wanted: &Wanted, observed: &Observed) -> (Vec<Allotment>, Vec<Allotment>) {
    let made =
        |one: &&Allotment| observed.allotments.contains(one) && !observed.unmade.contains(one);
    let missing = wanted.allotments.iter().filter(|one| !made(one)).cloned();
    let asked = |held: &&Allotment| wanted.allotments.iter().any(|one| one.same(held));
    let surplus = observed
        .allotments
        .iter()
        .filter(|held| !asked(held))
        .cloned();
    (missing.collect(), surplus.collect())
}

/// Tries the network of a horde on a switch, unless it was tried as it is.
fn probe(wanted: &Wanted, observed: &Observed) -> Option<Step> {
    let on = wanted.switch.as_ref()?.on;
    let record = observed.record.as_ref()?;
    let runs = |label: Option<Label>| {
        let label = label?;
        let view = observed
            .executions
            .iter()
            .find(|view| view.label == label)?;
        view.ended.is_none().then(|| view.id.clone())
    };
    let cells: Vec<(u32, String)> = (wanted.rnodes.iter())
        .filter_map(|rnode| Some((rnode.ordinal, runs(record.cell_label(rnode.ordinal))?)))
        .collect();
    let (from, to) = (cells.first()?.0, cells.last()?.0);
    let out = runs(record.forward_label(on.out_at()));
    let of = ProbedState {
        switch: on,
        network: wanted.network.clone(),
        from,
        to,
        executions: cells.into_iter().map(|(_, id)| id).chain(out).collect(),
    };
    let tried = record.probed.as_ref().is_some_and(|probed| probed.of == of);
    (!tried).then_some(Step::Probe(of))
}

fn single(ordinals: Vec<u32>, step: fn(Vec<u32>) -> Step) -> Vec<Step> {
    if ordinals.is_empty() {
        Vec::new()
    } else {
        vec![step(ordinals)]
    }
}

/// Whether the record says what is wanted.
fn records(wanted: &Wanted, record: &Record) -> bool {
    record.generation == wanted.generation
        && !record.dissolving
        && record.roles == wanted.roles
        && record.network == wanted.network
        && record.doors == wanted.doors
        && record.weaker == wanted.weaker
        && record.user_range_start == wanted.user_range_start
        && record.isolation == wanted.isolation
        && record.switch == wanted.switch.as_ref().map(|switch| switch.on)
}

fn container(record: Option<&Record>, ordinal: u32) -> Option<&ContainerRecord> {
    record?.containers.get(&ordinal)
}

fn rnode_steps(
    rnode: &WantedRnode,
    wanted: &Wanted,
    observed: &Observed,
    hold: &BTreeSet<String>,
    (plan, work, replaced): (&mut Plan, &mut Work, &mut bool),
) {
    let ordinal = rnode.ordinal;
    let record = observed.record.as_ref();
    let held = container(record, ordinal);
    let label = record.and_then(|record| record.cell_label(ordinal));
    let next = next_cell_attempt(wanted, observed, ordinal);
    let mut reason = "it is asked for";
    let moves = held.is_some_and(|held| held.server != rnode.server);
    let restarts = held.is_some_and(|held| rebooted(observed, &held.server));
    let denied = observed.denied.contains(&ordinal);
    match standing(label.as_ref(), &observed.executions) {
        Standing::Running if denied || moves || restarts || differs(rnode, wanted, observed) => {
            // One at a time, so that the flock keeps its members; whoever says that a server goes says how many at once.
            // One that is denied is no member any more.
            let at_once = rnode.urgent || restarts || denied;
            if *replaced && !at_once {
                return;
            }
            *replaced |= !at_once;
            work.mark.push(ordinal);
            let execution = label.map_or_else(String::new, |label| label.execution());
            let reason = match (denied, moves, restarts) {
                (true, ..) => "its identity is denied",
                (_, _, true) => "its server is rebooted",
                (_, true, _) => "it moves to another server",
                (_, false, false) => "what it is started with has changed",
            };
            work.end_cells.push(Step::EndCell {
                execution,
                ordinal,
                reason,
            });
            work.number_cells.push((ordinal, next));
        }
        Standing::Running => {
            if held.is_some_and(|held| !held.announced) {
                work.announce.push(ordinal);
            }
            return;
        }
        Standing::Dead(execution) => {
            reason = "it ended by itself";
            if held.is_some_and(|held| !held.buried) {
                let how = execution
                    .ended
                    .as_ref()
                    .map_or_else(String::new, |end| end.how.clone());
                work.bury.push(Step::Bury {
                    execution: execution.id.clone(),
                    ordinal,
                    how,
                });
            }
            if hold.contains(&execution.id) {
                plan.waiting.push(ordinal);
                return;
            }
            if !has_room(ordinal, wanted, plan, work) {
                return;
            }
            work.number_cells.push((ordinal, next));
        }
        Standing::New | Standing::Requested if !has_room(ordinal, wanted, plan, work) => return,
        Standing::New => work.number_cells.push((ordinal, next)),
        Standing::Requested => {}
    }
    if denied {
        // Its key lies in its directory: what is made there anew is another rnode.
        work.remove.push(Step::RemoveDirectory { ordinal });
    }
    if !observed.leases.iter().any(|lease| lease.ordinal == ordinal) {
        work.lease.push(ordinal);
    }
    work.prepare.push(Step::Prepare { ordinal });
    work.start.push(Step::StartCell { ordinal, reason });
    work.announce.push(ordinal);
}

/// Takes room for one that is missing, or says why there is none.
fn has_room(ordinal: u32, wanted: &Wanted, plan: &mut Plan, work: &mut Work) -> bool {
    let short = wanted.room.as_ref();
    if let Some(room) = short.filter(|room| work.missing >= room.fits) {
        plan.no_room.push((ordinal, room.why.clone()));
        return false;
    }
    work.missing += 1;
    true
}

/// Whether a running rnode was started with other mounts, tags or users than are wanted.
fn differs(rnode: &WantedRnode, wanted: &Wanted, observed: &Observed) -> bool {
    // It keeps the tags it was started with, whatever an administrator says of its server now.
    let tags = &rnode.kept_tags;
    let directory = observed.directories.get(&rnode.ordinal);
    let held = |lease: &&Lease| lease.ordinal == rnode.ordinal;
    let host = observed.leases.iter().find(held).map(|lease| lease.host);
    let command = host.and_then(|host| CommandFile::of(rnode, tags, wanted, host));
    let started = directory.and_then(|directory| directory.command.as_ref());
    match (&rnode.program, started) {
        (WantedProgram::Command(_), _) => {
            let same = started
                .zip(command)
                .map(|(started, wanted)| started.is_as(&wanted));
            return same == Some(false) || (started.is_none() && host.is_some());
        }
        (WantedProgram::Fulcrum, Some(_)) => return true,
        (WantedProgram::Fulcrum, None) => {}
    }
    let Some(file) = directory.and_then(|directory| directory.file.as_ref()) else {
        return false;
    };
    file.mounts != rnode.mounts
        || file.tags != *tags
        || file.isolation != wanted.isolation
        || file.quota_bytes != wanted.quota_bytes
        || file.user_range_start != rnode_users(wanted, rnode.ordinal)
}

/// First uid of a rnode's share of the horde's range.
pub(crate) fn rnode_users(wanted: &Wanted, ordinal: u32) -> Option<u32> {
    wanted
        .user_range_start
        .map(|start| start + ordinal.saturating_sub(1) * USERS_PER_RNODE)
}

/// The number after every number this generation has used for the rnode, on disk or at the base.
fn next_cell_attempt(wanted: &Wanted, observed: &Observed, ordinal: u32) -> u32 {
    let listed = observed
        .executions
        .iter()
        .filter_map(|execution| match execution.label.subject {
            Subject::Cell { ordinal: other } if other == ordinal => {
                Some((execution.label.generation, execution.label.attempt))
            }
            _ => None,
        });
    let held = container(observed.record.as_ref(), ordinal);
    let held = held.map(|held| (held.generation, held.attempt));
    next_attempt(wanted.generation, listed.chain(held).chain(observed.spent))
}

fn next_attempt(generation: (u64, u64), used: impl Iterator<Item = ((u64, u64), u32)>) -> u32 {
    let same = used
        .filter(|(other, _)| *other == generation)
        .map(|(_, attempt)| attempt);
    same.max().unwrap_or(0) + 1
}

fn door_steps(
    door: &Door,
    wanted: &Wanted,
    observed: &Observed,
    hold: &BTreeSet<String>,
    (plan, work): (&mut Plan, &mut Work),
) {
    let record = observed.record.as_ref();
    let held = record.and_then(|record| record.forwards.get(&door.at()));
    let label = record
        .and_then(|record| record.forward_label(door.at()))
        .filter(|_| held.is_some_and(|held| held.door == *door));
    let needs_number = match standing(label.as_ref(), &observed.executions) {
        Standing::Running => return,
        Standing::Dead(execution) if hold.contains(&execution.id) => return,
        Standing::Dead(_) | Standing::New => true,
        Standing::Requested => false,
    };
    if let Some(reason) = observed.doors_taken.get(&door.at()) {
        plan.refused.push((door.clone(), reason.clone()));
        return;
    }
    if needs_number {
        let listed = observed
            .executions
            .iter()
            .filter(|execution| execution.label.subject.door() == Some(door.at()))
            .map(|execution| (execution.label.generation, execution.label.attempt));
        let held = held.map(|held| (held.generation, held.attempt));
        let used = listed.chain(held).chain(observed.spent);
        let next = next_attempt(wanted.generation, used);
        work.number_forwards.push((door.clone(), next));
    }
    work.start_forwards
        .push(Step::StartForward { door: door.clone() });
}

#[cfg(test)]
mod tests;
