//! The rpcs of `FileIo` that mount and unmount; `files/mounted.rs` does it.

use std::sync::Arc;

use crux_core::identity::Principal;
use crux_wire::fileio::v1::{MountReply, MountRequest};
use tonic::Status;

use super::context::{Agent, fields};
use super::fileio_copy::{recorded, refused};
use super::files::mounted::{self, Origin};

/// Mounts a data set, from now on.
pub(super) async fn mount(
    agent: &Arc<Agent>,
    caller: &Principal,
    request: MountRequest,
) -> Result<MountReply, Status> {
    let MountRequest {
        digest,
        source,
        path,
        writable,
    } = request;
    let origin = match (digest.is_empty(), source.is_empty()) {
        (false, true) => Origin::Blob(digest.clone()),
        (true, false) => Origin::Path(source.clone()),
        _ => return Err(Status::invalid_argument("mount: name a digest or a source")),
    };
    let record = fields! {
        "path": path.escape_debug().to_string(), "digest": digest.clone(),
        "source": source.escape_debug().to_string(), "writable": writable,
        "caller": caller.to_string(),
    };
    recorded(agent, "file.mount", record).await?;
    let shown = match mounted::show(agent, &path, origin, writable).await {
        Ok(shown) => shown,
        Err(status) => {
            mounted::note_corrupt(agent, &digest, &status).await;
            return Err(refused(agent, &path, caller, status).await);
        }
    };
    let told = mounted::summary(agent, &path).await;
    Ok(MountReply {
        existed: shown.existed,
        form: shown.form.to_owned(),
        ..told
    })
}

/// Unmounts a data set. Says whether there was one.
pub(super) async fn unmount(
    agent: &Arc<Agent>,
    caller: &Principal,
    path: &str,
) -> Result<bool, Status> {
    let record = fields! {
        "path": path.escape_debug().to_string(), "caller": caller.to_string(),
    };
    recorded(agent, "file.unmount", record).await?;
    mounted::take_away(agent, path).await
}
