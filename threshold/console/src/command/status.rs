//! `radix status`: how the application is doing, the blocking thing first.

use crate::args;
use crate::connection::Base;
use crate::failure::Outcome;
use crate::home::Home;
use crate::output::{self, Format};
use crate::view::{Status, span};

/// Runs the command.
pub(crate) async fn run(args: args::Status) -> Outcome<()> {
    let base = Base::require(&Home::locate()?).await?;
    let status = base.status(args.running.namespace.as_deref()).await?;
    match args.format {
        Format::Json => output::json(&status)?,
        Format::Text => text(&status),
    }
    Ok(())
}

/// Prints the status for people.
pub(crate) fn text(status: &Status) {
    output::line(&headline(status));
    for problem in &status.problems {
        output::line(&format!("  problem: {problem}"));
    }
    output::line("");
    let rows: Vec<_> = status
        .classes
        .iter()
        .map(|class| {
            vec![
                class.class.clone(),
                class.wanted.to_string(),
                class.running.to_string(),
                class.ready.to_string(),
                class.reason.clone(),
            ]
        })
        .collect();
    output::table(&["CLASS", "WANTED", "RUNNING", "READY", "NOTE"], &rows);
    let troubled: Vec<_> = status
        .instances
        .iter()
        .filter(|instance| instance.state != "ready")
        .collect();
    if !troubled.is_empty() {
        output::line("");
        for instance in troubled {
            output::line(&format!(
                "  {} on {}: {} {}",
                instance.instance, instance.rnode, instance.state, instance.reason
            ));
        }
    }
    for exposure in &status.exposures {
        output::line("");
        output::line(&format!(
            "  http://{} -> {}:{} ({}{}{})",
            exposure.address,
            exposure.class,
            exposure.port,
            exposure.state,
            if exposure.message.is_empty() {
                ""
            } else {
                ": "
            },
            exposure.message
        ));
    }
    for weaker in &status.weaker {
        output::line(&format!("  weaker than asked: {weaker}"));
    }
}

/// The first line: how far it is, or that it ends.
fn headline(status: &Status) -> String {
    if status.ending {
        // How many are wanted, and by which generation, no longer means anything.
        let left = match status.rnodes.len() {
            1 => "1 rnode is left".to_owned(),
            count => format!("{count} rnodes are left"),
        };
        return format!("{} is ending, {left}", status.namespace);
    }
    let state = match status.settled {
        true => "settled",
        false => "not settled",
    };
    let leader = match status.leader.as_str() {
        "" => "none yet",
        leader => leader,
    };
    format!(
        "{} generation {} ({state}), {} of {} rnodes, leader {leader}",
        status.namespace, status.generation, status.rnodes_running, status.rnodes_wanted,
    )
}

/// How long ago `unix_ms` was, for people.
pub(crate) fn age(unix_ms: u64) -> String {
    span(crate::clock::unix_ms().saturating_sub(unix_ms))
}
