//! What applying a description would change: the plan, printed before anything is done.

use std::collections::{BTreeMap, BTreeSet};

use crux_core::adf::{Application, Source, parse};
use crux_core::digest::Digest;
use crux_wire::document::v1::Document;
use khan::spec::Spec;
use khan::{ClassReport, Holder, Placed, Placement, Plan, Rnode, Side, View};
use serde_json::{Value, json};

use crate::application::Described;
use crate::connection::Base;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::view::{Status, natural};

/// What would change.
#[derive(Debug)]
pub(crate) struct Proposal {
    namespace: String,
    from_generation: Option<u64>,
    rnodes_from: u32,
    rnodes_to: u32,
    plan: Plan,
    notes: Vec<String>,
    short: Vec<String>,
    same: bool,
}

impl Proposal {
    /// Compares what runs with what `draft` asks for.
    pub(crate) async fn make(
        base: Option<&Base>,
        described: &Described,
        draft: &Document,
        present: Option<&Document>,
    ) -> Outcome<Self> {
        let status = match (base, present) {
            (Some(base), Some(_)) => Some(base.status(Some(&draft.namespace)).await?),
            _ => None,
        };
        let program = khan::compile(&described.application)
            .map_err(|diagnostics| Failure::diagnostics(&diagnostics))?;
        let view = view(status.as_ref(), described.rnodes_wanted());
        let placement = khan::place(&program, &view);
        let mut notes: Vec<String> = placement
            .warnings
            .iter()
            .map(|warning| format!("{}: {}", warning.subject, warning.message))
            .collect();
        let short = shortfalls(&placement);
        notes.extend_from_slice(&short);
        let before = Side {
            instances: status.as_ref().map(held).unwrap_or_default(),
            specs: present
                .map(|present| specs(&read(present), present))
                .unwrap_or_default(),
        };
        let after = Side::of(&placement, specs(&described.application, draft));
        let plan = if present.is_some_and(|present| present.digest == draft.digest) {
            Plan::default()
        } else {
            khan::plan(&before, &after)
        };
        Ok(Self {
            namespace: draft.namespace.clone(),
            from_generation: present.map(|present| present.generation),
            rnodes_from: present.map_or(0, |present| present.rnodes_wanted),
            rnodes_to: draft.rnodes_wanted,
            plan,
            notes,
            short,
            same: present.is_some_and(|present| present.digest == draft.digest),
        })
    }

    /// Adds what is to be known besides the plan.
    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Whether nothing would change.
    pub(crate) const fn is_empty(&self) -> bool {
        self.same
    }

    /// Which classes find no place for all their instances, each with the constraints that leave none.
    pub(crate) fn short(&self) -> &[String] {
        &self.short
    }

    /// How many instances would stop, if only for a moment.
    pub(crate) fn stops(&self) -> usize {
        let counts = self.plan.counts();
        let rnodes = self.rnodes_from.saturating_sub(self.rnodes_to);
        counts.stop + counts.replace + counts.moved + usize::try_from(rnodes).unwrap_or(usize::MAX)
    }

    /// Prints the plan for people.
    pub(crate) fn print(&self) {
        if self.same {
            output::line(&format!("{}: nothing to change", self.namespace));
            self.print_notes();
            return;
        }
        let from = self.from_generation.map_or_else(
            || "nothing".to_owned(),
            |generation| format!("generation {generation}"),
        );
        output::line(&format!("plan for {}, from {from}:", self.namespace));
        if self.rnodes_from != self.rnodes_to {
            output::line(&format!(
                "  rnodes {} -> {}",
                self.rnodes_from, self.rnodes_to
            ));
        }
        if self.plan.is_empty() {
            output::line("  no process starts or stops");
        } else {
            for line in self.plan.to_string().lines() {
                output::line(&format!("  {line}"));
            }
        }
        self.print_notes();
    }

    fn print_notes(&self) {
        for note in &self.notes {
            output::line(&format!("  note: {note}"));
        }
    }

    /// The plan for programs.
    pub(crate) fn json(&self) -> Value {
        let plan: Value = serde_json::from_str(&self.plan.to_json()).unwrap_or_default();
        json!({
            "namespace": self.namespace,
            "from_generation": self.from_generation,
            "rnodes": { "from": self.rnodes_from, "to": self.rnodes_to },
            "actions": plan["actions"],
            "counts": plan["counts"],
            "notes": self.notes,
        })
    }
}

/// A line for each class that finds no place for all its instances.
fn shortfalls(placement: &Placement) -> Vec<String> {
    let line = |class: &ClassReport| {
        let short = class.short.as_ref()?;
        Some(format!(
            "{} is short by {}: {}",
            class.class, short.by, short.reason
        ))
    };
    placement.classes.iter().filter_map(line).collect()
}

/// The description inside a document that was checked when it was signed.
fn read(document: &Document) -> Application {
    let own = document.files.iter().filter(|file| !file.library);
    let sources: Vec<Source> = own
        .map(|file| Source::new(file.name.clone(), file.text.clone().into_bytes()))
        .collect();
    let library = |name: &str| {
        let mut files = document.files.iter().filter(|file| file.library);
        files
            .find(|file| file.name == name)
            .map(|file| file.text.clone().into_bytes())
    };
    parse(&document.application, &sources, &library).0
}

/// What each class runs.
fn specs(application: &Application, document: &Document) -> BTreeMap<String, Spec> {
    let pins: BTreeMap<String, Digest> = document
        .pins
        .iter()
        .filter_map(|pin| Some((pin.path.clone(), pin.digest.parse().ok()?)))
        .collect();
    application
        .begat
        .runs
        .iter()
        .filter_map(|rule| {
            let class = rule.class.value.clone();
            let spec = Spec::of(application, &class, rule.user_id(), &pins).ok()?;
            Some((class, spec))
        })
        .collect()
}

/// The instances that exist now.
fn held(status: &Status) -> Vec<Placed> {
    status
        .instances
        .iter()
        .filter(|instance| !matches!(instance.state, "stopped" | "stopping"))
        .map(|instance| Placed {
            class: instance.class.clone(),
            index: instance.index,
            rnode: id_of(status, &instance.rnode),
            label: instance.rnode.clone(),
        })
        .collect()
}

fn id_of(status: &Status, label: &str) -> String {
    let rnode = status.rnodes.iter().find(|rnode| rnode.label == label);
    rnode.map_or_else(|| label.to_owned(), |rnode| rnode.id.clone())
}

/// The members as they will be: those that are there, and imagined ones up to `wanted`.
fn view(status: Option<&Status>, wanted: u32) -> View {
    let Some(status) = status else {
        return View::imagined(wanted);
    };
    let mut rnodes: Vec<Rnode> = status
        .rnodes
        .iter()
        .map(|rnode| {
            let id = if rnode.id.is_empty() {
                &rnode.label
            } else {
                &rnode.id
            };
            Rnode::new(id.clone(), rnode.label.clone())
        })
        .collect();
    rnodes.sort_by_key(|rnode| natural(&rnode.label));
    rnodes.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
    let known: BTreeSet<String> = rnodes.iter().map(|rnode| rnode.label.clone()).collect();
    for label in (1..=wanted).map(|number| format!("n{number}")) {
        if !known.contains(&label) && rnodes.len() < wanted as usize {
            rnodes.push(Rnode::new(label.clone(), label));
        }
    }
    let holders = held(status)
        .into_iter()
        .map(|placed| Holder {
            class: placed.class,
            index: placed.index,
            rnode: placed.rnode,
        })
        .collect();
    let mut ready: BTreeMap<String, u32> = BTreeMap::new();
    let mut released = BTreeSet::new();
    for instance in &status.instances {
        released.insert(instance.class.clone());
        if instance.state == "ready" {
            *ready.entry(instance.class.clone()).or_default() += 1;
        }
    }
    let barred = status
        .instances
        .iter()
        .filter(|instance| instance.state == "gave up")
        .map(|instance| (instance.class.clone(), id_of(status, &instance.rnode)))
        .collect();
    View {
        rnodes,
        holders,
        ready,
        released,
        barred,
    }
}
