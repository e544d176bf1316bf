//! `radix ps`: the instances.

use crate::args;
use crate::command::status::age;
use crate::connection::Base;
use crate::failure::Outcome;
use crate::home::Home;
use crate::output::{self, Format};

/// Runs the command.
pub(crate) async fn run(args: args::List) -> Outcome<()> {
    let base = Base::require(&Home::locate()?).await?;
    let status = base.status(args.running.namespace.as_deref()).await?;
    if args.format == Format::Json {
        return output::json(&status.instances);
    }
    let rows: Vec<_> = status
        .instances
        .iter()
        .map(|instance| {
            vec![
                instance.instance.clone(),
                instance.rnode.clone(),
                instance.state.to_owned(),
                instance.pid.to_string(),
                instance.restarts.to_string(),
                age(instance.since_unix_ms),
                instance.reason.clone(),
            ]
        })
        .collect();
    output::table(
        &[
            "INSTANCE", "RNODE", "STATE", "PID", "RESTARTS", "SINCE", "NOTE",
        ],
        &rows,
    );
    Ok(())
}
