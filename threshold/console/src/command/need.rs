//! `radix need`: what rnodes must have, stated, listed and taken back.

use std::path::{Path, PathBuf};

use crux_core::digest::Digest;
use crux_net::store;
use crux_wire::fileio::v1::{
    DropNeedRequest, NeedState, NeedsRequest, PutChunk, StateNeedRequest, SwitchRequest,
};
use serde::Serialize;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::args::{List, NeedCommand};
use crate::connection::{Base, RnodeConnection};
use crate::failure::{Failure, Outcome};
use crate::home::Home;
use crate::output::{self, Format};

/// Bytes of a file in one message.
const PIECE_BYTES: usize = 256 * 1024;
/// Messages of a file that wait to be sent.
const PIECES_QUEUED: usize = 8;

#[derive(Debug, Serialize)]
struct Shown {
    rnode: String,
    id: String,
    digest: String,
    name: String,
    met: bool,
    source: String,
    reason: String,
    path: String,
    service: String,
}

/// Runs the command.
pub(crate) async fn run(command: NeedCommand) -> Outcome<()> {
    let base = Base::require(&Home::locate()?).await?;
    match command {
        NeedCommand::Add {
            rnodes,
            what,
            name,
            executable,
            at,
            from,
            list,
        } => {
            let needed = Needed::of(&what, name, executable).await?;
            let request = StateNeedRequest {
                digest: needed.digest.to_string(),
                name: needed.name.clone(),
                executable,
                path: at.unwrap_or_default(),
                service: from,
            };
            add(&base, &rnodes, (&needed, &request), &list).await
        }
        NeedCommand::All { rnode, list } => {
            let namespace = list.running.namespace.as_deref();
            let labels = labels(&base, namespace, rnode.as_deref().unwrap_or("ALL")).await?;
            let mut shown = Vec::new();
            for label in labels {
                let states = states(&base, namespace, &label).await?;
                shown.extend(states.into_iter().map(|state| of(&label, state)));
            }
            print(&shown, list.format)
        }
        NeedCommand::Switch {
            rnode,
            id,
            service,
            running,
        } => {
            let connection = base.rnode(running.namespace.as_deref(), &rnode).await?;
            let request = SwitchRequest { id, service };
            let switched = connection.files().switch(request).await;
            switched
                .map(drop)
                .map_err(|status| Failure::status("switch the need", &status))
        }
        NeedCommand::Drop {
            rnode,
            id,
            remove,
            running,
        } => {
            let connection = base.rnode(running.namespace.as_deref(), &rnode).await?;
            let mut files = connection.files();
            let request = DropNeedRequest {
                id: id.clone(),
                remove,
            };
            let dropped = files
                .drop_need(request)
                .await
                .map_err(|status| Failure::status("drop the need", &status))?;
            if dropped.into_inner().existed {
                return Ok(());
            }
            Err(Failure::usage(format!("{rnode} has no need {id}"))
                .hint("`radix need list` shows the ids"))
        }
    }
}

/// What is needed.
struct Needed {
    digest: Digest,
    name: String,
    executable: bool,
    /// Where it is on this machine.
    file: Option<PathBuf>,
}

impl Needed {
    async fn of(what: &str, name: Option<String>, executable: bool) -> Outcome<Self> {
        if let Ok(digest) = what.parse::<Digest>() {
            let name = name.unwrap_or_else(|| digest.short());
            return Ok(Self {
                digest,
                name,
                executable,
                file: None,
            });
        }
        let path = PathBuf::from(what);
        let own = path.file_name().map(|name| name.to_string_lossy());
        Ok(Self {
            digest: hashed(&path).await?,
            name: name.unwrap_or_else(|| own.unwrap_or_default().into_owned()),
            executable,
            file: Some(path),
        })
    }

    /// Puts the file into a rnode's store; the others that need it have it from there.
    async fn put(&self, rnode: &RnodeConnection, path: &Path) -> Outcome<()> {
        let mut file = opened(path).await?;
        let total = file
            .metadata()
            .await
            .map_err(|error| unreadable(path, &error))?;
        let first = PutChunk {
            digest: self.digest.to_string(),
            total: total.len(),
            executable: self.executable,
            name: self.name.clone(),
            ..PutChunk::default()
        };
        let (tx, rx) = mpsc::channel(PIECES_QUEUED);
        let reading = async move {
            let mut next = Some(first);
            while let Some(mut chunk) = next.take() {
                let mut bytes = vec![0; PIECE_BYTES];
                let length = file.read(&mut bytes).await?;
                bytes.truncate(length);
                chunk.bytes = bytes;
                // Whoever takes no more says why.
                let sent = tx.send(chunk).await.is_ok();
                next = (length > 0 && sent).then(PutChunk::default);
            }
            Ok::<_, std::io::Error>(())
        };
        let mut files = rnode.files();
        let putting = files.put(ReceiverStream::new(rx));
        let (read, put) = tokio::join!(reading, putting);
        read.map_err(|error| unreadable(path, &error))?;
        put.map_err(|status| Failure::status("put the file into the rnode's store", &status))?;
        Ok(())
    }
}

async fn hashed(path: &Path) -> Outcome<Digest> {
    let mut file = opened(path).await?.into_std().await;
    let hashing = tokio::task::spawn_blocking(move || store::hash(&mut file));
    let hashed = hashing.await.map_err(std::io::Error::other).flatten();
    hashed.map_err(|error| unreadable(path, &error))
}

async fn opened(path: &Path) -> Outcome<tokio::fs::File> {
    let opened = tokio::fs::File::open(path).await;
    opened
        .map_err(|error| unreadable(path, &error).hint("name a file, or a digest of 64 hex digits"))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::usage(format!("{}: {error}", path.display()))
}

async fn add(
    base: &Base,
    rnodes: &str,
    (needed, request): (&Needed, &StateNeedRequest),
    list: &List,
) -> Outcome<()> {
    let namespace = list.running.namespace.as_deref();
    let mut shown = Vec::new();
    for label in labels(base, namespace, rnodes).await? {
        let rnode = base.rnode(namespace, &label).await?;
        if let (Some(file), true) = (&needed.file, shown.is_empty()) {
            needed.put(&rnode, file).await?;
        }
        let mut files = rnode.files();
        let id = files.state_need(request.clone()).await;
        let id = id
            .map_err(|status| Failure::status(&format!("state a need of {label}"), &status))?
            .into_inner()
            .id;
        let states = states(base, namespace, &label).await?;
        let stands = states.into_iter().find(|state| state.id == id);
        shown.extend(stands.map(|state| of(&label, state)));
    }
    print(&shown, list.format)
}

/// The rnodes that a word names.
pub(super) async fn labels(
    base: &Base,
    namespace: Option<&str>,
    word: &str,
) -> Outcome<Vec<String>> {
    if word != "ALL" {
        return Ok(word.split(',').map(str::to_owned).collect());
    }
    let namespace = base.namespace(namespace).await?;
    let rnodes = namespace.horde.rnodes.iter();
    Ok(rnodes.map(|rnode| rnode.label.clone()).collect())
}

async fn states(base: &Base, namespace: Option<&str>, label: &str) -> Outcome<Vec<NeedState>> {
    let failed = |status: &tonic::Status| Failure::status("list needs", status);
    let mut files = base.rnode(namespace, label).await?.files();
    let listed = files.needs(NeedsRequest {}).await;
    let mut listed = listed.map_err(|status| failed(&status))?.into_inner();
    let mut states = Vec::new();
    while let Some(state) = listed.message().await.map_err(|status| failed(&status))? {
        states.push(state);
    }
    Ok(states)
}

fn of(label: &str, state: NeedState) -> Shown {
    Shown {
        rnode: label.to_owned(),
        id: state.id,
        digest: state.digest,
        name: state.name,
        met: state.met,
        source: state.source,
        reason: state.reason,
        path: state.path,
        service: state.service,
    }
}

fn print(shown: &[Shown], format: Format) -> Outcome<()> {
    if format == Format::Json {
        return output::json(&shown);
    }
    let rows: Vec<_> = shown
        .iter()
        .map(|need| {
            vec![
                need.rnode.clone(),
                need.id.clone(),
                need.name.clone(),
                need.digest.chars().take(12).collect(),
                need.path.clone(),
                need.service.clone(),
                if need.met { "met" } else { "unmet" }.to_owned(),
                need.reason.clone(),
            ]
        })
        .collect();
    output::table(
        &[
            "RNODE", "NEED", "NAME", "DIGEST", "AT", "SERVICE", "STATE", "REASON",
        ],
        &rows,
    );
    Ok(())
}
