//! `radix data`: what rnodes have, and the verbs that change it.

use crux_core::digest::Digest;
use crux_wire::fileio::v1::{FileInfo, MountRequest, RemoveRequest, ScanRequest, UnmountRequest};
use serde::Serialize;

use super::need::labels;
use crate::args::{DataCommand, List};
use crate::connection::Base;
use crate::failure::{Failure, Outcome};
use crate::home::Home;
use crate::output::{self, Format};

#[derive(Debug, Serialize)]
struct Shown {
    rnode: String,
    kind: String,
    name: String,
    bytes: u64,
    digest: String,
    persistent: bool,
    executable: bool,
    corrupt: bool,
    mounted: String,
    service: String,
    reason: String,
}

#[derive(Debug, Serialize)]
struct Mounted {
    rnode: String,
    path: String,
    form: String,
    manifest: String,
    files: u64,
    bytes: u64,
}

/// Runs the command.
pub(crate) async fn run(command: DataCommand) -> Outcome<()> {
    let base = Base::require(&Home::locate()?).await?;
    match command {
        DataCommand::All {
            rnode,
            prefix,
            list,
        } => show(&base, rnode.as_deref().unwrap_or("ALL"), &prefix, &list).await,
        DataCommand::Mount {
            rnode,
            what,
            path,
            writable,
            list,
        } => {
            let (digest, source) = digest_or_path(what);
            let request = MountRequest {
                digest,
                source,
                path,
                writable,
            };
            mount(&base, &rnode, request, &list).await
        }
        DataCommand::Unmount {
            rnode,
            path,
            running,
        } => {
            let rnode_there = base.rnode(running.namespace.as_deref(), &rnode).await?;
            let request = UnmountRequest { path: path.clone() };
            let unmounted = rnode_there.files().unmount(request).await;
            let unmounted = unmounted.map_err(|status| Failure::status("unmount", &status))?;
            was_there(unmounted.into_inner().existed, || {
                format!("{rnode} has mounted nothing at {path}")
            })
        }
        DataCommand::Remove {
            rnode,
            what,
            running,
        } => {
            let rnode_there = base.rnode(running.namespace.as_deref(), &rnode).await?;
            let (digest, path) = digest_or_path(what.clone());
            let removed = rnode_there
                .files()
                .remove(RemoveRequest { digest, path })
                .await;
            let removed = removed.map_err(|status| Failure::status("remove", &status))?;
            was_there(removed.into_inner().existed, || {
                format!("{rnode} has no {what}")
            })
        }
    }
}

/// A digest, or a path, and nothing for the other.
fn digest_or_path(what: String) -> (String, String) {
    if what.parse::<Digest>().is_ok() {
        (what, String::new())
    } else {
        (String::new(), what)
    }
}

fn was_there(existed: bool, otherwise: impl FnOnce() -> String) -> Outcome<()> {
    if existed {
        return Ok(());
    }
    Err(Failure::usage(otherwise()).hint("`radix data list` shows what is there"))
}

async fn mount(base: &Base, rnode: &str, request: MountRequest, list: &List) -> Outcome<()> {
    let connection = base.rnode(list.running.namespace.as_deref(), rnode).await?;
    let path = request.path.clone();
    let mounted = connection.files().mount(request).await;
    let mounted = mounted
        .map_err(|status| Failure::status("mount", &status))?
        .into_inner();
    let mounted = Mounted {
        rnode: rnode.to_owned(),
        path,
        form: mounted.form,
        manifest: mounted.manifest,
        files: mounted.files,
        bytes: mounted.bytes,
    };
    match list.format {
        Format::Json => output::json(&mounted),
        Format::Text => {
            output::line(&format!(
                "{rnode}:{}: {}, {} files, {} bytes",
                mounted.path, mounted.form, mounted.files, mounted.bytes
            ));
            Ok(())
        }
    }
}

async fn show(base: &Base, rnodes: &str, prefix: &str, list: &List) -> Outcome<()> {
    let namespace = list.running.namespace.as_deref();
    let mut shown = Vec::new();
    for label in labels(base, namespace, rnodes).await? {
        let failed = |status: &tonic::Status| Failure::status(&format!("look at {label}"), status);
        let request = ScanRequest {
            prefix: prefix.to_owned(),
        };
        let mut files = base.rnode(namespace, &label).await?.files();
        let scanned = files
            .scan(request)
            .await
            .map_err(|status| failed(&status))?;
        let mut scanned = scanned.into_inner();
        while let Some(info) = scanned.message().await.map_err(|status| failed(&status))? {
            shown.push(of(&label, info));
        }
    }
    if list.format == Format::Json {
        return output::json(&shown);
    }
    let rows: Vec<_> = shown.iter().map(row).collect();
    output::table(&["RNODE", "KIND", "NAME", "BYTES", "DIGEST", "NOTE"], &rows);
    Ok(())
}

fn of(rnode: &str, info: FileInfo) -> Shown {
    Shown {
        rnode: rnode.to_owned(),
        kind: info.kind,
        name: info.name,
        bytes: info.size,
        digest: info.digest,
        persistent: info.persistent,
        executable: info.executable,
        corrupt: info.corrupt,
        mounted: info.mounted,
        service: info.service,
        reason: info.reason,
    }
}

fn row(shown: &Shown) -> Vec<String> {
    let note = match shown {
        shown if shown.corrupt => "corrupt".to_owned(),
        shown if !shown.persistent && shown.kind == "local" => "ephemeral".to_owned(),
        shown if !shown.reason.is_empty() => shown.reason.clone(),
        shown => shown.service.clone(),
    };
    vec![
        shown.rnode.clone(),
        shown.kind.clone(),
        shown.name.clone(),
        shown.bytes.to_string(),
        shown.digest.chars().take(12).collect(),
        note,
    ]
}
