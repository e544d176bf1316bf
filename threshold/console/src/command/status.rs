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
    let state = if status.settled {
        "settled"
    } else {
        "not settled"
    };
    output::line(&format!(
        "{} generation {} ({}), {} of {} rnodes, leader {}",
        status.namespace,
        status.generation,
        state,
        status.rnodes_running,
        status.rnodes_wanted,
        if status.leader.is_empty() {
            "none yet"
        } else {
            &status.leader
        },
    ));
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

/// How long ago `unix_ms` was, for people.
pub(crate) fn age(unix_ms: u64) -> String {
    span(crate::clock::unix_ms().saturating_sub(unix_ms))
}
