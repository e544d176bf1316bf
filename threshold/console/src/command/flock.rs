//! `radix flock`: leader, tenure, members.

use crate::args;
use crate::connection::Base;
use crate::failure::Outcome;
use crate::home::Home;
use crate::output::{self, Format};
use crate::view::{Flock, span};

/// Runs the command.
pub(crate) async fn run(args: args::List) -> Outcome<()> {
    let base = Base::require(&Home::locate()?).await?;
    let reply = base
        .any_rnode(args.running.namespace.as_deref())
        .await?
        .flock()
        .await?;
    let flock = Flock::from_wire(&reply);
    if args.format == Format::Json {
        return output::json(&flock);
    }
    output::line(&format!(
        "flock {} of namespace {}: leader {} ({}), term {}, tenure {}",
        flock.flock,
        flock.namespace,
        flock.leader_label,
        flock.grade,
        flock.term,
        span(flock.tenure_ms)
    ));
    let rows: Vec<_> = flock
        .members
        .iter()
        .map(|member| {
            vec![
                member.label.clone(),
                member.state.clone(),
                member.incarnation.to_string(),
                member.address.clone(),
                span(member.silent_ms),
                member.id.chars().take(16).collect(),
            ]
        })
        .collect();
    output::table(
        &["RNODE", "STATE", "INCARNATION", "ADDRESS", "SILENT", "ID"],
        &rows,
    );
    Ok(())
}
