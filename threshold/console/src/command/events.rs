//! `radix events`: what happened, oldest first, with a token to resume from.

use crux_wire::fulcrum::v1::Event;
use serde::Serialize;

use crate::args;
use crate::connection::Base;
use crate::failure::{Failure, Outcome};
use crate::home::Home;
use crate::output::{self, Format};

/// One event as JSON.
#[derive(Debug, Serialize)]
struct Line<'a> {
    token: &'a str,
    unix_ms: u64,
    kind: &'a str,
    subject: &'a str,
    text: &'a str,
    namespace: &'a str,
    rnode: &'a str,
    fields: std::collections::BTreeMap<&'a str, &'a str>,
}

/// Runs the command.
pub(crate) async fn run(args: args::Events) -> Outcome<()> {
    let base = Base::require(&Home::locate()?).await?;
    let rnode = if args.running.namespace.as_deref() == Some("base") {
        base.itself()
    } else {
        base.any_rnode(args.running.namespace.as_deref()).await?
    };
    let mut events = rnode
        .events(args.after.unwrap_or_default(), args.follow)
        .await?;
    loop {
        match events.message().await {
            Ok(Some(event)) => print(&event, args.format)?,
            Ok(None) => return Ok(()),
            Err(status) => return Err(Failure::status("follow events", &status)),
        }
    }
}

fn print(event: &Event, format: Format) -> Outcome<()> {
    if format == Format::Json {
        let line = Line {
            token: &event.token,
            unix_ms: event.unix_ms,
            kind: &event.kind,
            subject: &event.subject,
            text: &event.text,
            namespace: &event.namespace,
            rnode: &event.rnode,
            fields: event
                .fields
                .iter()
                .map(|field| (field.name.as_str(), field.value.as_str()))
                .collect(),
        };
        let text = serde_json::to_string(&line)
            .map_err(|error| Failure::failed(format!("failed to write JSON: {error}")))?;
        output::line(&text);
        return Ok(());
    }
    output::line(&format!(
        "{} {} {} {} {}",
        event.token,
        crate::clock::shown(event.unix_ms),
        event.kind,
        event.subject,
        event.text
    ));
    Ok(())
}
