//! `radix data`: what rnodes have, and the verbs that change it.

use std::collections::BTreeSet;

use crux_core::digest::Digest;
use crux_wire::fileio::v1::{FileInfo, MountRequest, RemoveRequest, ScanRequest, UnmountRequest};
use serde::Serialize;

use super::need::labels;
use crate::args::{DataCommand, List};
use crate::connection::{Base, RnodeConnection};
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
            let there = base
                .rnode(list.running.namespace.as_deref(), &rnode)
                .await?;
            let (digest, source) = digest_or_path(&there, what).await?;
            let request = MountRequest {
                digest,
                source,
                path,
                writable,
            };
            mount((&there, &rnode), request, list.format).await
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
            let (digest, path) = digest_or_path(&rnode_there, what.clone()).await?;
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

/// Fewest digits by which a digest is meant, not a path. Lists show twelve.
const DIGITS_MIN: usize = 8;

/// A digest, which may be cut short, or a path, and nothing for the other.
async fn digest_or_path(there: &RnodeConnection, what: String) -> Outcome<(String, String)> {
    if what.parse::<Digest>().is_ok() {
        return Ok((what, String::new()));
    }
    let is_short = what.len() >= DIGITS_MIN && what.bytes().all(|digit| digit.is_ascii_hexdigit());
    if !is_short {
        return Ok((String::new(), what));
    }
    let begins = what.to_ascii_lowercase();
    let known = scan(there, "").await?.into_iter().map(|info| info.digest);
    let found: BTreeSet<String> = known.filter(|digest| digest.starts_with(&begins)).collect();
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some(digest), None) => Ok((digest, String::new())),
        (None, _) => Ok((String::new(), what)),
        (Some(one), Some(other)) => {
            let text = format!("{what} is the beginning of {one} and {other}");
            Err(Failure::usage(text).hint("give more digits"))
        }
    }
}

async fn scan(there: &RnodeConnection, prefix: &str) -> Outcome<Vec<FileInfo>> {
    let failed = |status: tonic::Status| Failure::status("look at what is there", &status);
    let prefix = prefix.to_owned();
    let scanned = there.files().scan(ScanRequest { prefix }).await;
    let mut scanned = scanned.map_err(failed)?.into_inner();
    let mut found = Vec::new();
    while let Some(info) = scanned.message().await.map_err(failed)? {
        found.push(info);
    }
    Ok(found)
}

fn was_there(existed: bool, otherwise: impl FnOnce() -> String) -> Outcome<()> {
    if existed {
        return Ok(());
    }
    Err(Failure::usage(otherwise()).hint("`radix data list` shows what is there"))
}

async fn mount(
    (there, rnode): (&RnodeConnection, &str),
    request: MountRequest,
    format: Format,
) -> Outcome<()> {
    let path = request.path.clone();
    let mounted = there.files().mount(request).await;
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
    match format {
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
        let there = base.rnode(namespace, &label).await?;
        let found = scan(&there, prefix).await?.into_iter();
        shown.extend(found.map(|info| of(&label, info)));
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
