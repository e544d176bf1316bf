//! `radix rnode show` and `radix rnode may`: what one rnode is, and what its users may do with files there.

use std::collections::BTreeMap;

use crux_wire::fulcrum::v1::AccessRequest;
use serde::Serialize;

use crate::args::{List, RnodeCommand};
use crate::connection::{Base, RnodeConnection};
use crate::failure::{Failure, Fault, Outcome};
use crate::home::Home;
use crate::output::{self, Format};

#[derive(Debug, Serialize)]
struct Shown {
    id: String,
    label: String,
    namespace: String,
    owner: String,
    version: String,
    incarnation: u64,
    cpus: u32,
    memory_bytes: u64,
    storage_bytes: u64,
    storage_free_bytes: u64,
    tags: Vec<String>,
    agent_pid: i32,
    keeper_pid: String,
    directory: BTreeMap<String, String>,
    configurations: Vec<String>,
    executable_digest: String,
}

/// Runs the command.
pub(crate) async fn run(command: RnodeCommand) -> Outcome<()> {
    match command {
        RnodeCommand::Show { label, list } => show(&label, &list).await,
        RnodeCommand::May {
            label,
            wish,
            path,
            user,
            list,
        } => {
            let request = AccessRequest { user, path, wish };
            may(&label, request, &list).await
        }
    }
}

async fn rnode_of(label: &str, list: &List) -> Outcome<RnodeConnection> {
    let base = Base::require(&Home::locate()?).await?;
    if label == "base" {
        Ok(base.itself())
    } else {
        base.rnode(list.running.namespace.as_deref(), label).await
    }
}

/// Whether a property of a rnode and a user holds, as `--format json` prints it.
#[derive(Debug, Serialize)]
struct Property {
    property: String,
    holds: bool,
    reason: String,
    uid: u32,
}

async fn may(label: &str, request: AccessRequest, list: &List) -> Outcome<()> {
    let rnode = rnode_of(label, list).await?;
    let reply = rnode.fulcrum().access(request).await;
    let reply = reply
        .map_err(|status| Failure::status("check an access", &status))?
        .into_inner();
    let shown = Property {
        property: reply.property,
        holds: reply.holds,
        reason: reply.reason,
        uid: reply.uid,
    };
    if list.format == Format::Json {
        output::json(&shown)?;
    } else if shown.holds {
        output::line(&shown.property);
    }
    if shown.holds {
        return Ok(());
    }
    let text = format!("it does not hold that {}: {}", shown.property, shown.reason);
    Err(Failure::new(Fault::Refused, text))
}

async fn show(label: &str, list: &List) -> Outcome<()> {
    let rnode = rnode_of(label, list).await?;
    let reply = rnode.describe().await?;
    let record = reply.rnode.unwrap_or_default();
    let resources = record.resources.unwrap_or_default();
    let shown = Shown {
        id: record.id,
        label: record.label,
        namespace: record.namespace,
        owner: reply.owner,
        version: record.version,
        incarnation: record.incarnation,
        cpus: resources.cpus,
        memory_bytes: resources.memory_bytes,
        storage_bytes: resources.storage_bytes,
        storage_free_bytes: resources.storage_free_bytes,
        tags: record.tags,
        agent_pid: reply.agent_pid,
        keeper_pid: reply.keeper_pid,
        directory: reply
            .directory
            .into_iter()
            .map(|line| (line.name, line.address))
            .collect(),
        configurations: reply.configurations,
        executable_digest: reply.executable_digest,
    };
    if list.format == Format::Json {
        return output::json(&shown);
    }
    text(&shown);
    Ok(())
}

fn text(shown: &Shown) {
    const MIB: u64 = 1024 * 1024;
    output::line(&format!("rnode       {} ({})", shown.label, shown.id));
    output::line(&format!(
        "cluster     {} of owner {}",
        shown.namespace, shown.owner
    ));
    output::line(&format!(
        "version     {}, incarnation {}",
        shown.version, shown.incarnation
    ));
    output::line(&format!(
        "resources   {} cpus, {} MiB memory, {} of {} MiB storage free",
        shown.cpus,
        shown.memory_bytes / MIB,
        shown.storage_free_bytes / MIB,
        shown.storage_bytes / MIB
    ));
    if !shown.tags.is_empty() {
        output::line(&format!("tags        {}", shown.tags.join(" ")));
    }
    output::line(&format!(
        "processes   keeper {}, agent {}, as it counts them; `radix rnodes` as this machine does",
        shown.keeper_pid, shown.agent_pid
    ));
    output::line(&format!("may run     {}", shown.configurations.join(" ")));
    for (name, address) in &shown.directory {
        output::line(&format!("service     {name} {address}"));
    }
}
