//! Which folders of this rnode files may be copied from and to: its mounts' targets and its own files.

use std::sync::Arc;

use crux_core::files::path::RelPath;
use crux_net::files::Root;
use tonic::Status;

use crate::agent::context::Agent;

/// The folder in the rnode's directory that relative paths lie in.
pub(super) const OWN: &str = "files";

/// The declared root that covers `path`, and the path below it.
///
/// # Errors
/// `PermissionDenied` if none does, `InvalidArgument` for a path that is refused.
pub(crate) fn resolve(agent: &Agent, path: &str) -> Result<(Arc<Root>, RelPath), Status> {
    let (at, rest) = if path.starts_with('/') {
        agent.paths.mount_of(path).ok_or_else(|| {
            Status::permission_denied(format!(
                "copy {}: no declared root covers it",
                path.escape_debug()
            ))
        })?
    } else {
        (agent.dir.join(OWN), path)
    };
    let below = RelPath::new(rest).map_err(|refusal| {
        Status::invalid_argument(format!("copy {}: {refusal}", path.escape_debug()))
    })?;
    std::fs::create_dir_all(&at)
        .map_err(|error| Status::internal(format!("make {}: {error}", at.display())))?;
    let root = Root::open(&at).map_err(|error| Status::from(&error))?;
    Ok((Arc::new(root), below))
}
