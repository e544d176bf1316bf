//! Mounts, unmounts, and finishes what an agent before us began.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crux_core::files::path::RelPath;
use crux_net::files::{self, Root};
use tonic::Status;

use super::image::Form;
use super::{Origin, Record, attach};
use crate::agent::context::{Agent, fields};
use crate::agent::files::{held, roots};
use crate::agent::limits::MOUNTED_MAX;
use crate::agent::paths::digest;
use crate::config::Isolation;

/// What became of a wish to mount.
#[derive(Debug)]
pub(crate) struct Shown {
    /// Whether it stood already.
    pub(crate) existed: bool,
    /// squashfs, erofs, ext4 or folder.
    pub(crate) form: &'static str,
}

/// A set that is open, to be mounted.
enum Source {
    Image(File, Form),
    Folder(OwnedFd),
}

/// Where a set is to be seen.
struct Place {
    root: Arc<Root>,
    below: RelPath,
}

impl Place {
    fn of(agent: &Agent, path: &str) -> Result<Self, Status> {
        if !path.starts_with('/') {
            return Err(Status::invalid_argument(format!(
                "mount at {}: name an absolute path below the target of a mount",
                path.escape_debug()
            )));
        }
        let (root, below) = roots::declared(agent, path)?;
        if below == RelPath::ROOT {
            return Err(Status::invalid_argument(format!(
                "mount at {path}: it is a whole root"
            )));
        }
        Ok(Self { root, below })
    }
}

/// Refuses where a mount would be seen beyond this rnode, or could never be made.
fn offered_here(agent: &Agent) -> Result<(), Status> {
    match agent.config.isolation {
        Isolation::PidMount => Ok(()),
        Isolation::None => Err(attach::not_here(
            "this rnode has no cell, and its machine would see the mount",
        )),
    }
}

/// Records a set and mounts it. Blocks for as long as its image is verified: it runs beside the runtime.
///
/// # Errors
/// The reason; nothing was changed.
///
/// # Cancel safety
/// Goes on to its end.
pub(crate) async fn show(
    agent: &Arc<Agent>,
    path: &str,
    origin: Origin,
    writable: bool,
) -> Result<Shown, Status> {
    let working = Arc::clone(&agent.files.mounted.working).lock_owned().await;
    let (agent, path) = (Arc::clone(agent), path.to_owned());
    let showing = tokio::task::spawn_blocking(move || {
        let _working = working;
        begin(&agent, &path, origin, writable)
    });
    showing
        .await
        .map_err(|error| Status::internal(error.to_string()))?
}

fn begin(agent: &Agent, path: &str, origin: Origin, writable: bool) -> Result<Shown, Status> {
    offered_here(agent)?;
    let mounted = &agent.files.mounted;
    let place = Place::of(agent, path)?;
    let source = open(agent, &origin, writable)?;
    let form = source.form();
    if let Some(record) = mounted.find(path) {
        if record.origin != origin || record.writable != writable || record.ending {
            return Err(Status::already_exists(format!(
                "mount at {path}: another set is mounted there"
            )));
        }
        attach_again(agent, path, &record)?;
        return Ok(Shown {
            existed: true,
            form,
        });
    }
    if let Some(other) = mounted.crossing(path) {
        return Err(Status::already_exists(format!(
            "mount at {path}: the set at {other} is mounted there, and sets do not lie in each other"
        )));
    }
    if mounted.all().len() >= MOUNTED_MAX {
        return Err(Status::resource_exhausted(format!(
            "mount at {path}: {MOUNTED_MAX} sets are mounted"
        )));
    }
    let made = !exists(&place)?;
    let record = Record {
        origin,
        writable,
        made,
        ending: false,
    };
    mounted
        .set(path, Some(record))
        .map_err(|error| unwritten(&error))?;
    if let Err(status) = attach(agent, &place, source, writable) {
        undo(agent, path, &place, made);
        return Err(status);
    }
    Ok(Shown {
        existed: false,
        form,
    })
}

fn exists(place: &Place) -> Result<bool, Status> {
    match place.root.folder(&place.below) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == files::Kind::NotFound => Ok(false),
        Err(error) => Err(Status::from(&error)),
    }
}

/// Takes back what was recorded for a set that could not be mounted.
fn undo(agent: &Agent, path: &str, place: &Place, made: bool) {
    if made && let Err(error) = place.root.remove_folder(&place.below) {
        tracing::warn!(%error, path, "the folder of a mount stays");
    }
    if let Err(error) = agent.files.mounted.set(path, None) {
        // Tried again when needs are looked after, and told there.
        tracing::error!(%error, path, "a mount that failed stays recorded");
    }
}

fn unwritten(error: &std::io::Error) -> Status {
    Status::internal(format!("mount: write the record: {error}"))
}

impl Source {
    const fn form(&self) -> &'static str {
        match self {
            Self::Image(_, form) => form.name(),
            Self::Folder(_) => "folder",
        }
    }
}

fn open(agent: &Agent, origin: &Origin, writable: bool) -> Result<Source, Status> {
    let (file, named) = match origin {
        Origin::Blob(_) if writable => {
            return Err(Status::invalid_argument(
                "mount: what is in the store stays what its digest says: copy it to a path first",
            ));
        }
        Origin::Blob(hex) => {
            let wanted = digest(hex);
            let wanted = wanted.ok_or_else(|| Status::invalid_argument("mount: no digest"))?;
            let opened = agent.store.open_verified(&wanted);
            let (file, _) =
                opened.map_err(|error| crate::agent::fileio_service::store_status(&error))?;
            (file, wanted.short())
        }
        Origin::Path(path) => {
            let (root, below) = roots::resolve(agent, path)?;
            if let Ok(folder) = root.folder(&below) {
                return Ok(Source::Folder(folder));
            }
            let file = root.file(&below).map_err(|error| Status::from(&error))?;
            (writing(file, writable)?, path.clone())
        }
    };
    let form = Form::of(&file)
        .map_err(|error| Status::internal(format!("mount: read {named}: {error}")))?
        .ok_or_else(|| {
            Status::invalid_argument(format!(
                "mount: {named} is no image of squashfs, erofs or ext4"
            ))
        })?;
    if writable && !form.writable() {
        return Err(Status::invalid_argument(format!(
            "mount: {} cannot be written to",
            form.name()
        )));
    }
    Ok(Source::Image(file, form))
}

/// The same file again, open for writing too, if that is asked.
fn writing(file: File, writable: bool) -> Result<File, Status> {
    if !writable {
        return Ok(file);
    }
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let opened = File::options().read(true).write(true).open(path);
    opened.map_err(|error| Status::permission_denied(format!("mount: write to it: {error}")))
}

fn attach(agent: &Agent, place: &Place, source: Source, writable: bool) -> Result<(), Status> {
    let empty = place.root.empty_folder(&place.below);
    let (folder, _) = empty.map_err(|error| Status::from(&error))?;
    let attached = match source {
        Source::Image(file, form) => attach::image(&file, form, &folder, writable),
        Source::Folder(source) => attach::folder(&source, &folder, writable),
    };
    forget(agent);
    attached
}

/// Device numbers of loops return with other content.
fn forget(agent: &Agent) {
    agent.files.cache.forget();
    agent.verifier.forget();
}

/// Mounts what is recorded and not there.
fn attach_again(agent: &Agent, path: &str, record: &Record) -> Result<(), Status> {
    let place = Place::of(agent, path)?;
    let stands = place.root.mounted(&place.below);
    if stands.map_err(|error| Status::from(&error))?.is_some() {
        return Ok(());
    }
    let source = open(agent, &record.origin, record.writable)?;
    attach(agent, &place, source, record.writable)
}

/// Unmounts a set and forgets it. Says whether there was one.
///
/// # Errors
/// `FailedPrecondition` while something uses it; it stays then.
///
/// # Cancel safety
/// Goes on to its end.
pub(crate) async fn take_away(agent: &Arc<Agent>, path: &str) -> Result<bool, Status> {
    let working = Arc::clone(&agent.files.mounted.working).lock_owned().await;
    let (agent, path) = (Arc::clone(agent), path.to_owned());
    let ending = tokio::task::spawn_blocking(move || {
        let _working = working;
        let mounted = &agent.files.mounted;
        let Some(record) = mounted.find(&path) else {
            return Ok(false);
        };
        let ending = Record {
            ending: true,
            ..record.clone()
        };
        mounted
            .set(&path, Some(ending))
            .map_err(|error| unwritten(&error))?;
        if let Err(status) = detach(&agent, &path, &record) {
            // It is in use: it stays, as if nobody had asked.
            mounted
                .set(&path, Some(record))
                .map_err(|error| unwritten(&error))?;
            return Err(status);
        }
        Ok(true)
    });
    ending
        .await
        .map_err(|error| Status::internal(error.to_string()))?
}

fn detach(agent: &Agent, path: &str, record: &Record) -> Result<(), Status> {
    let place = Place::of(agent, path)?;
    let stands = place.root.mounted(&place.below);
    if let Some((parent, name)) = stands.map_err(|error| Status::from(&error))? {
        // What was only promised to somebody must not keep it in use.
        let set = place.root.path().join(place.below.as_str());
        let files = &agent.files;
        files
            .offers
            .forget(|offered| offered.root().path().starts_with(&set));
        files
            .places
            .forget(|place| place.root.path().starts_with(&set));
        attach::unmount(&parent, name)?;
        forget(agent);
    }
    if record.made
        && let Err(error) = place.root.remove_folder(&place.below)
    {
        tracing::warn!(%error, path, "the folder of a mount stays");
    }
    let mounted = &agent.files.mounted;
    mounted.set(path, None).map_err(|error| unwritten(&error))?;
    mounted.stands(path, None);
    Ok(())
}

/// Mounts what is recorded and not there, unmounts what is ending; tells what cannot be done, once.
pub(crate) async fn keep(agent: &Arc<Agent>) {
    for (path, record) in agent.files.mounted.all() {
        let working = Arc::clone(&agent.files.mounted.working).lock_owned().await;
        let (keeping, at) = (Arc::clone(agent), path.clone());
        let kept = tokio::task::spawn_blocking(move || {
            let _working = working;
            // It may be gone, or another, since we looked.
            match keeping.files.mounted.find(&at) {
                Some(now) if now == record && now.ending => detach(&keeping, &at, &now),
                Some(now) if now == record => attach_again(&keeping, &at, &now),
                _ => Ok(()),
            }
        })
        .await
        .unwrap_or_else(|error| Err(Status::internal(error.to_string())));
        let reason = kept.err().map(|status| status.message().to_owned());
        if !agent.files.mounted.stands(&path, reason.as_deref()) {
            continue;
        }
        if let Some(reason) = reason {
            agent.tell("file.unmounted", &path, &reason);
            let record = fields! { "path": path.clone(), "reason": reason };
            agent.note("file.unmounted", record).await;
        }
    }
}

/// Of a blob that turned out to be something else.
pub(crate) async fn note_corrupt(agent: &Arc<Agent>, hex: &str, status: &Status) {
    if status.code() == tonic::Code::DataLoss {
        held::found_corrupt(agent, hex, status.message()).await;
    }
}
