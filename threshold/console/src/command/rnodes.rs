//! `radix rnodes`: the rnodes of a namespace.

use crate::args;
use crate::connection::Base;
use crate::failure::Outcome;
use crate::home::Home;
use crate::output::{self, Format};

/// Runs the command.
pub(crate) async fn run(args: args::List) -> Outcome<()> {
    let base = Base::require(&Home::locate()?).await?;
    let status = base.status(args.running.namespace.as_deref()).await?;
    if args.format == Format::Json {
        return output::json(&status.rnodes);
    }
    let rows: Vec<_> = status
        .rnodes
        .iter()
        .map(|rnode| {
            vec![
                rnode.label.clone(),
                rnode.address.clone(),
                rnode.state.clone(),
                if rnode.leader { "leader" } else { "" }.to_owned(),
                rnode.keeper_pid.to_string(),
                rnode.agent_pid.to_string(),
                rnode.id.chars().take(16).collect(),
            ]
        })
        .collect();
    output::table(
        &["RNODE", "ADDRESS", "STATE", "ROLE", "KEEPER", "AGENT", "ID"],
        &rows,
    );
    Ok(())
}
