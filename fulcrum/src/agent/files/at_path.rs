//! A needed blob at a path: a copy by content, put back when it is gone or something else stands there.

use std::sync::Arc;

use crux_net::files::{Error, Kind};
use tonic::Status;

use super::needs::Need;
use super::roots;
use crate::agent::context::Agent;
use crate::agent::paths::digest;

/// Permissions of a copy, and of one that is executable: nobody writes to it.
const MODES: (u32, u32) = (0o444, 0o555);

/// Makes a need's blob stand at its path. Says whether it had to be put there.
///
/// # Errors
/// Why it does not stand there, for people; what stood there is as it was.
pub(crate) async fn put(
    agent: &Arc<Agent>,
    id: &str,
    need: &Need,
    path: &str,
) -> Result<bool, String> {
    let (agent, id) = (Arc::clone(agent), id.to_owned());
    let (need, path) = (need.clone(), path.to_owned());
    let putting = tokio::task::spawn_blocking(move || write(&agent, &id, &need, &path));
    putting.await.map_err(|error| error.to_string())?
}

fn write(agent: &Agent, id: &str, need: &Need, path: &str) -> Result<bool, String> {
    let said = |status: Status| status.message().to_owned();
    let _alone = agent.files.placing.lock();
    if !agent.files.needs.all().contains_key(id) {
        return Err("it was dropped".to_owned());
    }
    let (root, below) = roots::resolve(agent, path).map_err(said)?;
    let wanted = digest(&need.digest).ok_or("its digest is none")?;
    let mode = if need.executable { MODES.1 } else { MODES.0 };
    if stands(agent, root.file(&below), &need.digest).is_ok_and(|stands| stands) {
        return Ok(false);
    }
    let opened = agent.store.open_verified(&wanted);
    let (mut blob, size) = opened.map_err(|error| error.to_string())?;
    let room = agent.files.quota.as_ref().map(|quota| quota.reserve(size));
    let room = room.transpose().map_err(|beyond| {
        let (left, quota) = (beyond.left_bytes, beyond.quota_bytes);
        format!("it has {size} bytes, and the rnode's quota of {quota} bytes leaves {left}")
    })?;
    let put = root.put_file(&below, &mut blob, (id, mode));
    put.map_err(|error| error.to_string())?;
    if let Some(room) = room {
        room.named(size);
    }
    Ok(true)
}

/// Whether an open file is the blob; hashed only if it was touched since.
fn stands(agent: &Agent, file: Result<std::fs::File, Error>, digest: &str) -> Result<bool, Error> {
    let hashed = agent.files.cache.hash(&mut file?);
    Ok(hashed.is_ok_and(|(_, groups)| groups.digest().to_string() == digest))
}

/// Removes what a need put at its path, if it still is that. Blocks.
///
/// # Errors
/// The refusal, or that something else stands there.
pub(crate) fn remove(agent: &Agent, need: &Need, path: &str) -> Result<(), Status> {
    let _alone = agent.files.placing.lock();
    let (root, below) = roots::resolve(agent, path)?;
    match stands(agent, root.file(&below), &need.digest) {
        Ok(true) => {}
        Err(error) if error.kind() == Kind::NotFound => return Ok(()),
        Ok(false) | Err(_) => {
            return Err(Status::failed_precondition(format!(
                "remove {path}: something else stands there; the need is dropped"
            )));
        }
    }
    let removed = root.remove_file(&below);
    removed.map(drop).map_err(|error| Status::from(&error))
}
