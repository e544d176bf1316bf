//! `radix plan`: what `up` would change.

use underverse_local::limits::Machine;

use crate::application::Described;
use crate::args;
use crate::base_start::{self, Ourselves};
use crate::command::up;
use crate::connection::Base;
use crate::document;
use crate::failure::{Failure, Fault, Outcome};
use crate::home::Home;
use crate::output::{self, Format};
use crate::prepare;
use crate::proposal::Proposal;
use crate::room;

/// Runs the command.
pub(crate) async fn run(args: args::Plan) -> Outcome<()> {
    let described = Described::load(&args.target.dir, &args.backend)?;
    let home = Home::open()?;
    described.check_backend()?;
    let base = Base::find(&home).await?;
    if base.is_none() && !home.base().join(fulcrum::config::FILE).exists() {
        room::check_machine(described.rnodes_wanted(), 0, &Machine::read())?;
    }
    let ourselves = Ourselves::stored(&home)?;
    let draft = prepare::draft(&home, &described, &ourselves)?;
    let present = match &base {
        Some(base) => base.itself().document(&draft.namespace).await?,
        None => None,
    };
    let present = present
        .as_ref()
        .map(up::decode)
        .transpose()?
        .filter(|document| !document.dissolved);
    let draft = document::keep_builtins(draft, present.as_ref());
    if let Some(base) = &base {
        let held = room::held(present.as_ref(), &base.hordes().await?);
        room::check_machine(draft.rnodes_wanted, held, &Machine::read())?;
    }
    let mut proposal = Proposal::make(base.as_ref(), &described, &draft, present.as_ref()).await?;
    if let Some(why) = up::stale(&home, &described, (present.as_ref(), &draft)) {
        proposal.note(format!("`up` refuses this without --take-over: {why}"));
    }
    if let Some(base) = &base
        && let Some(note) = base_start::difference(base, &ourselves).await?
    {
        proposal.note(format!("{note}; `up` replaces its agent"));
    }
    match args.format {
        Format::Json => output::json(&proposal.json())?,
        Format::Text => proposal.print(),
    }
    if !proposal.short().is_empty() {
        let text = format!(
            "not everything that is asked for finds a place: {}",
            proposal.short().join("; ")
        );
        return Err(Failure::new(Fault::Unsatisfiable, text)
            .hint("ask for fewer instances or more rnodes; `radix up` starts what fits, and waits for the rest"));
    }
    if args.detailed_exitcode && !proposal.is_empty() {
        return Err(Failure::new(Fault::Code(6), String::new()));
    }
    Ok(())
}
