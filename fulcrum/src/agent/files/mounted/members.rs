//! What discovery says about mounted sets and what is in them.

use std::path::Path;
use std::sync::Arc;

use crux_core::files::manifest::Entry;
use crux_core::files::path::RelPath;
use crux_net::files::{HardLinks, Offered, offer};
use crux_wire::fileio::v1::{FileInfo, MountReply};

use super::{Origin, Record};
use crate::agent::context::Agent;
use crate::agent::files::roots;
use crate::agent::limits::MEMBERS_MAX;

/// What a set that was just mounted consists of; nothing of it where its members cannot be told.
pub(crate) async fn summary(agent: &Arc<Agent>, path: &str) -> MountReply {
    let (agent, path) = (Arc::clone(agent), path.to_owned());
    let walked = tokio::task::spawn_blocking(move || walk(&agent, &path)).await;
    let Ok(Ok(walked)) = walked else {
        return MountReply::default();
    };
    MountReply {
        manifest: walked.digest().to_string(),
        files: walked.manifest().files().count() as u64,
        bytes: walked.manifest().bytes(),
        ..MountReply::default()
    }
}

/// The set at a path, walked and hashed where that is not remembered.
fn walk(agent: &Agent, path: &str) -> Result<Offered, String> {
    let placed = roots::declared(agent, path).map_err(|status| status.message().to_owned())?;
    let (root, below) = placed;
    let stands = root.mounted(&below).map_err(|error| error.to_string())?;
    if stands.is_none() {
        return Err("it is not mounted".to_owned());
    }
    let set = root.below(&below).map_err(|error| error.to_string())?;
    let links = HardLinks::AsFiles;
    let walked = offer::offer(Arc::new(set), &RelPath::ROOT, links, &agent.files.cache);
    walked.map_err(|error| error.to_string())
}

/// All sets, each followed by its members. Blocks: call it off the runtime.
pub(crate) fn infos(agent: &Agent) -> Vec<FileInfo> {
    let sets = agent.files.mounted.all().into_iter();
    sets.flat_map(|(path, record)| set(agent, &path, &record))
        .collect()
}

fn set(agent: &Agent, path: &str, record: &Record) -> Vec<FileInfo> {
    let mut set = FileInfo {
        name: path.to_owned(),
        digest: match &record.origin {
            Origin::Blob(digest) => digest.clone(),
            Origin::Path(_) => String::new(),
        },
        kind: "set".to_owned(),
        persistent: true,
        mounted: path.to_owned(),
        ..FileInfo::default()
    };
    let walked = match walk(agent, path) {
        Ok(walked) => walked,
        Err(reason) => {
            set.reason = agent.files.mounted.reason(path).unwrap_or(reason);
            return vec![set];
        }
    };
    set.digest = walked.digest().to_string();
    set.size = walked.manifest().bytes();
    let files = walked.manifest().files().count();
    if files > MEMBERS_MAX {
        set.reason = format!("it has {files} members, more than {MEMBERS_MAX}");
        return vec![set];
    }
    let mut infos = vec![set];
    for (at, entry) in walked.manifest().entries() {
        if let Entry::File { size, digest, mode } = entry {
            infos.push(FileInfo {
                name: Path::new(path).join(at.as_str()).display().to_string(),
                size: *size,
                digest: digest.to_string(),
                kind: "member".to_owned(),
                persistent: true,
                executable: mode & 0o111 != 0,
                mounted: path.to_owned(),
                ..FileInfo::default()
            });
        }
    }
    infos
}
