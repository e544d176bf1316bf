//! Which folders of this rnode files may be copied from and to: its mounts' targets and its own files.

use std::sync::Arc;

use crux_core::files::path::RelPath;
use crux_net::files::Root;
use tonic::Status;

use crate::agent::context::Agent;

/// The folder in the rnode's directory that relative paths lie in.
pub(super) const OWN: &str = "files";

/// The declared root that covers `path`, and the path below it. A mounted data set is a root for what lies in it,
/// since nothing is renamed from one file system to another.
///
/// # Errors
/// `PermissionDenied` if none does, `InvalidArgument` for a path that is refused.
pub(crate) fn resolve(agent: &Agent, path: &str) -> Result<(Arc<Root>, RelPath), Status> {
    let Some((set, rest)) = agent.files.mounted.holding(path) else {
        return declared(agent, path);
    };
    let (root, at) = declared(agent, &set)?;
    let stands = root.mounted(&at).map_err(|error| Status::from(&error))?;
    if stands.is_none() {
        return Err(Status::failed_precondition(format!(
            "copy {}: the set at {set} is not mounted now",
            path.escape_debug()
        )));
    }
    let root = root.below(&at).map_err(|error| Status::from(&error))?;
    Ok((Arc::new(root), below(path, rest)?))
}

/// The same for the place of a mounted set itself.
pub(crate) fn declared(agent: &Agent, path: &str) -> Result<(Arc<Root>, RelPath), Status> {
    let (at, rest) = if path.starts_with('/') {
        agent.paths.mount_of(path).ok_or_else(|| {
            Status::permission_denied(format!(
                "{}: no declared root covers it; a `mount` of the description declares one",
                path.escape_debug()
            ))
        })?
    } else {
        (agent.dir.join(OWN), path)
    };
    let below = below(path, rest)?;
    std::fs::create_dir_all(&at)
        .map_err(|error| Status::internal(format!("make {}: {error}", at.display())))?;
    let root = Root::open(&at).map_err(|error| Status::from(&error))?;
    Ok((Arc::new(root), below))
}

fn below(path: &str, rest: &str) -> Result<RelPath, Status> {
    RelPath::new(rest).map_err(|refusal| {
        Status::invalid_argument(format!("copy {}: {refusal}", path.escape_debug()))
    })
}
