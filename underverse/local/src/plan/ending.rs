//! What is not wanted: rnodes beyond the count, doors that went, strays, and whole hordes.

use std::collections::BTreeSet;

use underverse::Keep;

use super::{Observed, Plan, Step, Work, container};
use crate::label::Subject;
use crate::network::At;
use crate::record::{Door, Record};
use crate::wanted::Wanted;

/// Plans the end of the horde. `dissolving` is set before anything is ended.
pub(crate) fn dissolve(observed: &Observed, keep: Keep) -> Plan {
    let mut plan = Plan::default();
    let running = || {
        observed
            .executions
            .iter()
            .filter(|execution| execution.ended.is_none())
    };
    let freed = match keep {
        Keep::Nothing => observed.allotments.clone(),
        Keep::Storage => Vec::new(),
    };
    let free = |plan: &mut Plan| {
        if !freed.is_empty() {
            plan.stage(vec![Step::Free(freed.clone())]);
        }
    };
    if !observed.exists && running().next().is_none() {
        free(&mut plan);
        return plan;
    }
    let reason = "the horde is dissolved";
    if observed
        .record
        .as_ref()
        .is_some_and(|record| !record.dissolving)
    {
        plan.stage(vec![Step::Record]);
    }
    let mut forwards = Vec::new();
    let mut cells = Vec::new();
    for execution in running() {
        let id = execution.id.clone();
        match execution.label.subject {
            Subject::Cell { ordinal } => {
                cells.push(Step::EndCell {
                    execution: id,
                    ordinal,
                    reason,
                });
            }
            Subject::Forward {
                listen, carries, ..
            } => {
                forwards.push(Step::EndForward {
                    execution: id,
                    at: At { listen, carries },
                    reason,
                });
            }
        }
    }
    plan.stage(forwards);
    plan.stage(cells);
    let directories = observed.directories.keys();
    plan.stage(
        directories
            .map(|&ordinal| Step::RemoveDirectory { ordinal })
            .collect(),
    );
    free(&mut plan);
    plan.stage(vec![Step::RemoveHorde]);
    plan
}

pub(super) fn surplus_ordinals(wanted: &Wanted, observed: &Observed) -> Vec<u32> {
    let beyond = |ordinal: &u32| *ordinal > wanted.count();
    let numbered = observed
        .record
        .iter()
        .flat_map(|record| record.containers.keys().copied());
    let leased = observed.leases.iter().map(|lease| lease.ordinal);
    let all: BTreeSet<u32> = numbered.chain(leased).filter(beyond).collect();
    all.into_iter().collect()
}

pub(super) fn surplus_doors(wanted: &Wanted, record: Option<&Record>) -> Vec<At> {
    let kept: BTreeSet<At> = wanted.doors.iter().map(Door::at).collect();
    let held = record
        .into_iter()
        .flat_map(|record| record.forwards.keys().copied());
    held.filter(|at| !kept.contains(at)).collect()
}

/// Ends what is not wanted: rnodes beyond the count, highest first, doors that went, and strays.
pub(super) fn surplus(wanted: &Wanted, observed: &Observed, work: &mut Work) {
    let record = observed.record.as_ref();
    let beyond = |ordinal: u32| ordinal > wanted.count();
    let unplaced = |ordinal: u32| wanted.unplaced.iter().any(|(other, _)| *other == ordinal);
    for execution in observed
        .executions
        .iter()
        .filter(|execution| execution.ended.is_none())
    {
        let id = execution.id.clone();
        match &execution.label.subject {
            Subject::Cell { ordinal } => {
                let current = record.and_then(|record| record.cell_label(*ordinal));
                let reason = match () {
                    () if beyond(*ordinal) => "the horde is smaller now",
                    () if unplaced(*ordinal) => {
                        work.mark.push(*ordinal);
                        "no server is left for it"
                    }
                    () if current.as_ref() != Some(&execution.label) => "nothing asked for it",
                    () => continue,
                };
                work.end_cells.push(Step::EndCell {
                    execution: id,
                    ordinal: *ordinal,
                    reason,
                });
            }
            Subject::Forward {
                listen,
                class,
                port,
                way,
                carries,
            } => {
                let door = Door {
                    listen: *listen,
                    class: class.clone(),
                    port: *port,
                    way: *way,
                    carries: *carries,
                };
                let current = record.and_then(|record| record.forward_label(door.at()));
                let asked =
                    current.as_ref() == Some(&execution.label) && wanted.doors.contains(&door);
                // Without its socket it would send to yesterday's members for ever; another takes over.
                if !asked || !execution.linked {
                    let reason = if asked {
                        "it has lost the base"
                    } else {
                        "it is not asked for any more"
                    };
                    work.end_forwards.push(Step::EndForward {
                        execution: id,
                        at: door.at(),
                        reason,
                    });
                }
            }
        }
    }
    work.end_cells.sort_by_key(|step| match step {
        Step::EndCell { ordinal, .. } => std::cmp::Reverse(*ordinal),
        _ => std::cmp::Reverse(0),
    });
    work.mark.extend(
        surplus_ordinals(wanted, observed)
            .into_iter()
            .filter(|ordinal| container(record, *ordinal).is_some_and(|held| !held.ending)),
    );
    work.remove.extend(
        observed
            .directories
            .keys()
            .rev()
            .filter(|ordinal| beyond(**ordinal))
            .map(|&ordinal| Step::RemoveDirectory { ordinal }),
    );
}
