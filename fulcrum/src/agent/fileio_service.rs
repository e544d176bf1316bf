//! Files of this rnode by content: whole, verified before they are visible.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;

use crux_core::digest::Digest;
use crux_core::identity::{Principal, Who};
use crux_net::store::{self, Put};
use crux_wire::fileio::v1::file_io_server::FileIo;
use crux_wire::fileio::v1::{
    Chunk, CopyProgress, CopyRequest, DropNeedReply, DropNeedRequest, ExpectReply, ExpectRequest,
    FileInfo, GetRequest, GiveInput, GiveOutput, HaveReply, HaveRequest, ManifestRequest, Missing,
    MountReply, MountRequest, NeedReply, NeedRequest, NeedState, NeedsRequest, OfferReply,
    OfferRequest, Piece, PushRequest, PutChunk, PutReply, ReadRequest, RemoveReply, RemoveRequest,
    ScanRequest, StateNeedReply, StateNeedRequest, SwitchReply, SwitchRequest, UnmountReply,
    UnmountRequest,
};
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::context::{Agent, RADIX, background, fields};
use super::fetch;
use super::files::writing::{self, Writing};
use super::files::{givers, held, mounted};
use super::guard::{caller, covers};
use super::limits::{CHUNK_BYTES, DIGESTS_MAX, FILE_BYTES_MAX, NEED_DEADLINE_MAX, STREAM_CHUNKS};
use super::rexec_service::Replies;
use super::{fileio_copy, fileio_mount};

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct FileIoService(pub(crate) Arc<Agent>);

#[tonic::async_trait]
impl FileIo for FileIoService {
    async fn have(&self, request: Request<HaveRequest>) -> Result<Response<HaveReply>, Status> {
        let caller = caller(&request)?;
        let wanted = request.into_inner().digests;
        bounded(wanted.len())?;
        let allowed = self.allowed(&caller);
        let present = wanted
            .into_iter()
            .filter(|hex| allowed.as_ref().is_none_or(|allowed| allowed.contains(hex)))
            .filter(|hex| hex.parse().is_ok_and(|digest| self.0.store.has(&digest)))
            .collect();
        Ok(Response::new(HaveReply { present }))
    }

    type GetStream = Replies<Chunk>;

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Self::GetStream>, Status> {
        let caller = caller(&request)?;
        let wanted = request.into_inner();
        let digest = parse(&wanted.digest)?;
        if self
            .allowed(&caller)
            .is_some_and(|allowed| !allowed.contains(&wanted.digest))
        {
            self.0.memoir.refused(&caller.to_string(), "fileio/get");
            return Err(Status::permission_denied(format!(
                "get {}: no document that we share pins it",
                digest.short()
            )));
        }
        let giver = self.0.files.givers.admit(&caller)?;
        let (store, hashing) = (Arc::clone(&self.0.store), Arc::clone(&giver));
        let opened = tokio::task::spawn_blocking(move || {
            // Counts until the hashing ends, even if nobody listens any more.
            let _giver = hashing;
            store.open_verified(&digest)
        })
        .await;
        let opened = opened.map_err(|error| Status::internal(error.to_string()))?;
        if let Err(error) = &opened
            && error.kind() == store::Kind::Corrupt
        {
            held::found_corrupt(&self.0, &wanted.digest, &error.to_string()).await;
        }
        let (mut file, total) = opened.map_err(|error| store_status(&error))?;
        if wanted.offset > total {
            return Err(Status::out_of_range(format!(
                "get {}: it has {total} bytes",
                digest.short()
            )));
        }
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(wanted.offset))
            .map_err(|error| Status::internal(error.to_string()))?;
        let (tx, rx) = mpsc::channel(STREAM_CHUNKS);
        background("get", async move {
            loop {
                let mut bytes = vec![0; CHUNK_BYTES];
                let piece = match file.read(&mut bytes) {
                    Ok(length) => {
                        bytes.truncate(length);
                        Ok(Chunk { bytes, total })
                    }
                    Err(error) => Err(Status::internal(format!("read a blob: {error}"))),
                };
                let last = piece.as_ref().map_or(true, |chunk| chunk.bytes.is_empty());
                // The total is told even of an empty file.
                let told = last && total != wanted.offset;
                if told && piece.is_ok() || tx.send(piece).await.is_err() || last {
                    return;
                }
            }
        });
        let chunks = givers::taken(ReceiverStream::new(rx).boxed(), giver);
        Ok(Response::new(chunks))
    }

    async fn put(
        &self,
        request: Request<Streaming<PutChunk>>,
    ) -> Result<Response<PutReply>, Status> {
        let caller = caller(&request)?;
        let mut chunks = request.into_inner();
        let first = chunks.message().await?;
        let mut chunk = first.ok_or_else(|| Status::invalid_argument("put: nothing was sent"))?;
        let digest = parse(&chunk.digest)?;
        let total = chunk.total;
        if total > FILE_BYTES_MAX {
            return Err(Status::invalid_argument(format!(
                "put: more than {FILE_BYTES_MAX} bytes"
            )));
        }
        let named = (chunk.name.clone(), chunk.persistent);
        let allowed = self.allowed(&caller);
        if allowed.is_some() && (!named.0.is_empty() || named.1) {
            return Err(Status::permission_denied(
                "put: only an operator of this rnode names what is in its store, or keeps it",
            ));
        }
        // Whether a blob is there is told only to those who may read it.
        let told = allowed.is_none_or(|allowed| allowed.contains(&chunk.digest));
        if told && self.verified(digest).await {
            self.hold(&chunk.digest, &named)?;
            return Ok(Response::new(PutReply { existed: true }));
        }
        let hex = chunk.digest.clone();
        let record = fields! {
            "digest": digest.to_string(), "bytes": total, "caller": caller.to_string(),
        };
        let recorded = self.0.record("file.put", record).await;
        recorded.map_err(|error| Status::internal(format!("write the memoir: {error}")))?;
        let put = Put {
            expected: Some(digest),
            executable: chunk.executable,
        };
        let store = &self.0.store;
        let writing = Writing::begin(store, put).await;
        let mut writing = writing.map_err(|error| store_status(&error))?;
        let mut seen = 0u64;
        loop {
            seen += chunk.bytes.len() as u64;
            if seen > total {
                return Err(Status::invalid_argument("put: more bytes than announced"));
            }
            let appended = writing.append(store, chunk.bytes).await;
            writing = appended.map_err(|error| store_status(&error))?;
            match chunks.message().await? {
                Some(next) => chunk = next,
                None => break,
            }
        }
        let committed = writing.commit(store).await;
        committed.map_err(|error| put_status(&error))?;
        self.hold(&hex, &named)?;
        Ok(Response::new(PutReply { existed: false }))
    }

    async fn need(&self, request: Request<NeedRequest>) -> Result<Response<NeedReply>, Status> {
        let wanted = request.into_inner();
        bounded(wanted.digests.len())?;
        let deadline = match wanted.deadline_ms {
            0 => NEED_DEADLINE_MAX,
            ms => std::time::Duration::from_millis(ms.into()).min(NEED_DEADLINE_MAX),
        };
        let mut sources = wanted.sources;
        sources.extend(fetch::sources(&self.0));
        let until = tokio::time::Instant::now() + deadline;
        let (mut present, mut missing) = (Vec::new(), Vec::new());
        for hex in wanted.digests {
            let digest = parse(&hex)?;
            let fetched = fetch::fetch(&self.0, &digest, false, &sources);
            let reason = match tokio::time::timeout_at(until, fetched).await {
                Ok(Ok(_)) => {
                    present.push(hex);
                    continue;
                }
                Ok(Err(reason)) => reason,
                Err(_) => "not yet present at the deadline".to_owned(),
            };
            missing.push(Missing {
                digest: hex,
                reason,
            });
        }
        Ok(Response::new(NeedReply { present, missing }))
    }

    type ScanStream = Replies<FileInfo>;

    async fn scan(
        &self,
        request: Request<ScanRequest>,
    ) -> Result<Response<Self::ScanStream>, Status> {
        let prefix = request.into_inner().prefix;
        let (tx, rx) = mpsc::channel(STREAM_CHUNKS);
        let agent = Arc::clone(&self.0);
        background("scan", async move {
            let mut found = files(&agent);
            // Walks and hashes.
            match tokio::task::spawn_blocking(move || mounted::infos(&agent)).await {
                Ok(infos) => found.extend(infos),
                Err(error) => tracing::error!(%error, "mounted sets cannot be told"),
            }
            for info in found
                .into_iter()
                .filter(|info| info.name.starts_with(&prefix))
            {
                if tx.send(Ok(info)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(rx).boxed()))
    }

    async fn offer(&self, request: Request<OfferRequest>) -> Result<Response<OfferReply>, Status> {
        let caller = caller(&request)?;
        let offer = fileio_copy::offer(&self.0, &caller, request.into_inner()).await;
        offer.map(Response::new)
    }

    type ManifestStream = Replies<Chunk>;

    async fn manifest(
        &self,
        request: Request<ManifestRequest>,
    ) -> Result<Response<Self::ManifestStream>, Status> {
        let caller = caller(&request)?;
        let ticket = request.into_inner().ticket;
        fileio_copy::manifest(&self.0, &caller, &ticket).map(Response::new)
    }

    type ReadStream = Replies<Piece>;

    async fn read(
        &self,
        request: Request<ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let caller = caller(&request)?;
        let all = self.allowed(&caller);
        let allowed = |hex: &str| {
            let allowed = all.as_ref().is_none_or(|all| all.contains(hex));
            if !allowed {
                self.0.memoir.refused(&caller.to_string(), "fileio/get");
            }
            allowed
        };
        let pieces = fileio_copy::read(&self.0, &caller, request.into_inner(), allowed);
        pieces.map(Response::new)
    }

    async fn expect(
        &self,
        request: Request<ExpectRequest>,
    ) -> Result<Response<ExpectReply>, Status> {
        let caller = caller(&request)?;
        let expect = fileio_copy::expect(&self.0, &caller, request.into_inner()).await;
        expect.map(Response::new)
    }

    type GiveStream = Replies<GiveOutput>;

    async fn give(
        &self,
        request: Request<Streaming<GiveInput>>,
    ) -> Result<Response<Self::GiveStream>, Status> {
        let caller = caller(&request)?;
        let taking = fileio_copy::take(&self.0, &caller, request.into_inner()).await;
        taking.map(Response::new)
    }

    type CopyStream = Replies<CopyProgress>;

    async fn copy(
        &self,
        request: Request<CopyRequest>,
    ) -> Result<Response<Self::CopyStream>, Status> {
        let caller = caller(&request)?;
        let copying = fileio_copy::pull(&self.0, &caller, request.into_inner()).await;
        copying.map(Response::new)
    }

    type PushStream = Replies<CopyProgress>;

    async fn push(
        &self,
        request: Request<PushRequest>,
    ) -> Result<Response<Self::PushStream>, Status> {
        let caller = caller(&request)?;
        let pushing = fileio_copy::push(&self.0, &caller, request.into_inner()).await;
        pushing.map(Response::new)
    }

    async fn state_need(
        &self,
        request: Request<StateNeedRequest>,
    ) -> Result<Response<StateNeedReply>, Status> {
        let caller = caller(&request)?;
        let stated = fileio_copy::state_need(&self.0, &caller, request.into_inner()).await;
        stated.map(Response::new)
    }

    async fn drop_need(
        &self,
        request: Request<DropNeedRequest>,
    ) -> Result<Response<DropNeedReply>, Status> {
        let caller = caller(&request)?;
        let existed = fileio_copy::drop_need(&self.0, &caller, &request.into_inner()).await?;
        Ok(Response::new(DropNeedReply { existed }))
    }

    type NeedsStream = Replies<NeedState>;

    async fn needs(&self, _: Request<NeedsRequest>) -> Result<Response<Self::NeedsStream>, Status> {
        Ok(Response::new(fileio_copy::needs(&self.0)))
    }

    async fn remove(
        &self,
        request: Request<RemoveRequest>,
    ) -> Result<Response<RemoveReply>, Status> {
        let caller = caller(&request)?;
        let removed = fileio_copy::remove(&self.0, &caller, request.into_inner()).await;
        removed.map(Response::new)
    }

    async fn mount(&self, request: Request<MountRequest>) -> Result<Response<MountReply>, Status> {
        let caller = caller(&request)?;
        let shown = fileio_mount::mount(&self.0, &caller, request.into_inner()).await;
        shown.map(Response::new)
    }

    async fn switch(
        &self,
        request: Request<SwitchRequest>,
    ) -> Result<Response<SwitchReply>, Status> {
        let caller = caller(&request)?;
        let switched = fileio_copy::switch(&self.0, &caller, request.into_inner()).await;
        switched.map(Response::new)
    }

    async fn unmount(
        &self,
        request: Request<UnmountRequest>,
    ) -> Result<Response<UnmountReply>, Status> {
        let caller = caller(&request)?;
        let path = request.into_inner().path;
        let existed = fileio_mount::unmount(&self.0, &caller, &path).await?;
        Ok(Response::new(UnmountReply { existed }))
    }
}

impl FileIoService {
    /// Whether a blob is here, and what its name says.
    async fn verified(&self, digest: Digest) -> bool {
        let store = Arc::clone(&self.0.store);
        let verify = move || store.open_verified(&digest).map(drop);
        self.0.store.has(&digest) && writing::off(&self.0.store, verify).await.is_ok()
    }

    /// Remembers what was put by name or to be kept.
    fn hold(&self, hex: &str, (name, persistent): &(String, bool)) -> Result<(), Status> {
        if name.is_empty() && !persistent {
            return Ok(());
        }
        let noted = self.0.files.held.note(hex, name, *persistent);
        noted.map_err(|error| Status::internal(format!("keep the name of a blob: {error}")))
    }

    /// Digests the caller may read; `None`: all. Rnodes get what a document pins that they share with us, a narrow
    /// operator or tool what one pins of the namespaces it is for.
    fn allowed(&self, caller: &Principal) -> Option<BTreeSet<String>> {
        let agent = &self.0;
        match &caller.who {
            Who::Operator { .. } | Who::Tool { .. }
                if !covers(caller, agent.me.namespace.as_str()) =>
            {
                let held = agent.documents.all().into_iter();
                let namespaces = held.map(|accepted| accepted.document.namespace.clone());
                let covered = namespaces.filter(|namespace| covers(caller, namespace));
                Some(
                    covered
                        .flat_map(|namespace| agent.documents.pinned(&namespace))
                        .collect(),
                )
            }
            Who::Operator { .. } | Who::Tool { .. } | Who::Backend { .. } => None,
            Who::Host { .. } | Who::App { .. } => {
                Some(agent.documents.pinned(agent.me.namespace.as_str()))
            }
            Who::Rnode { namespace, .. } => {
                let mut allowed = agent.documents.pinned(namespace.as_str());
                if !agent.is_base() {
                    allowed.extend(agent.documents.pinned(agent.me.namespace.as_str()));
                }
                allowed.insert(agent.config.executable.digest.to_string());
                // What the operator wants on several rnodes, they may have from each other.
                if *namespace == agent.me.namespace {
                    let needs = agent.files.needs.all();
                    allowed.extend(needs.into_values().map(|need| need.digest));
                }
                Some(allowed)
            }
        }
    }
}

/// Named files first (pinned ones, with the name the application uses), then blobs without a name.
fn files(agent: &Agent) -> Vec<FileInfo> {
    let mut files = Vec::new();
    let (mut named, mut pinned) = (BTreeSet::new(), BTreeSet::new());
    for accepted in agent.documents.all() {
        for pin in &accepted.document.pins {
            let present = parse(&pin.digest).is_ok_and(|digest| agent.store.has(&digest));
            let radix = accepted.document.application == RADIX;
            named.insert(pin.digest.clone());
            // Several commands may stand for one file.
            if !pinned.insert((pin.path.clone(), pin.digest.clone())) {
                continue;
            }
            files.push(FileInfo {
                name: pin.path.clone(),
                size: pin.size,
                digest: pin.digest.clone(),
                kind: if present { "local" } else { "remote" }.to_owned(),
                persistent: present && (radix || agent.is_base()),
                service: "rnodes".to_owned(),
                executable: pin.executable,
                ..FileInfo::default()
            });
        }
    }
    for (digest, kept) in agent.files.held.all() {
        let info = parse(&digest)
            .ok()
            .and_then(|digest| agent.store.info(&digest));
        named.insert(digest.clone());
        files.push(FileInfo {
            name: kept.name,
            size: info.map_or(0, |info| info.size),
            digest,
            kind: if info.is_some() { "local" } else { "absent" }.to_owned(),
            persistent: kept.persistent,
            executable: info.is_some_and(|info| info.executable),
            corrupt: kept.corrupt,
            ..FileInfo::default()
        });
    }
    for need in agent.files.needs.all().into_values() {
        let info = parse(&need.digest)
            .ok()
            .and_then(|digest| agent.store.info(&digest));
        named.insert(need.digest.clone());
        let name = need.path.unwrap_or(need.name);
        let known = |file: &&mut FileInfo| file.digest == need.digest && file.name == name;
        if let Some(known) = files.iter_mut().find(known) {
            known.persistent = true;
            known.service = need.service.to_string();
            continue;
        }
        files.push(FileInfo {
            name,
            size: info.map_or(0, |info| info.size),
            digest: need.digest,
            kind: if info.is_some() { "local" } else { "remote" }.to_owned(),
            persistent: true,
            executable: need.executable,
            service: need.service.to_string(),
            ..FileInfo::default()
        });
    }
    let Ok(blobs) = agent.store.list() else {
        return files;
    };
    files.extend(
        blobs
            .filter(|blob| !named.contains(&blob.digest.to_string()))
            .map(|blob| FileInfo {
                name: String::new(),
                size: blob.size,
                digest: blob.digest.to_string(),
                kind: "local".to_owned(),
                persistent: agent.is_base(),
                executable: blob.executable,
                ..FileInfo::default()
            }),
    );
    files
}

fn bounded(count: usize) -> Result<(), Status> {
    if count > DIGESTS_MAX {
        return Err(Status::invalid_argument(format!(
            "take more than {DIGESTS_MAX} digests"
        )));
    }
    Ok(())
}

fn parse(hex: &str) -> Result<Digest, Status> {
    hex.parse()
        .map_err(|error| Status::invalid_argument(format!("{error}")))
}

/// What whoever put something is told: bytes that are not what they were announced to be are its own mistake.
fn put_status(error: &store::Error) -> Status {
    match error.kind() {
        store::Kind::Mismatch => Status::invalid_argument(error.to_string()),
        _ => store_status(error),
    }
}

pub(super) fn store_status(error: &store::Error) -> Status {
    let text = error.to_string();
    match error.kind() {
        store::Kind::NotFound => Status::not_found(text),
        store::Kind::TooLarge | store::Kind::Full => Status::resource_exhausted(text),
        store::Kind::Mismatch | store::Kind::Corrupt => Status::data_loss(text),
        _ => Status::internal(text),
    }
}
