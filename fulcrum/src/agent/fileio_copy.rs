//! The rpcs of `FileIo` that copy, need and remove; `fileio_service.rs` has those of blobs.

use std::sync::Arc;

use crux_core::digest::Digest;
use crux_core::identity::Principal;
use crux_net::files::{self, HardLinks, Offered, Relay, Root, give};
use crux_net::store;
use crux_wire::fileio::v1::{
    Chunk, CopyProgress, CopyRequest, DropNeedRequest, ExpectReply, ExpectRequest, GiveInput,
    GiveOutput, NeedState, OfferReply, OfferRequest, Piece, PushRequest, ReadRequest, RemoveReply,
    RemoveRequest, StateNeedReply, StateNeedRequest, SwitchReply, SwitchRequest, Want,
};
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::context::{Agent, background, fields};
use super::files::copy::{self, Place};
use super::files::givers::{self, Giver};
use super::files::needs::Need;
use super::files::service::{self, Service};
use super::files::{Expected, Offer, at_path, held, roots};
use super::limits::{COPY_SOURCES_MAX, RANGES_MAX, STREAM_CHUNKS, TICKET_BYTES_MAX, WANTS_MAX};
use super::rexec_service::Replies;

/// Writes down a refusal that has to do with a path, with its reason.
pub(super) async fn refused(
    agent: &Agent,
    path: &str,
    caller: &Principal,
    status: Status,
) -> Status {
    if matches!(
        status.code(),
        tonic::Code::InvalidArgument | tonic::Code::PermissionDenied
    ) {
        let record = fields! {
            "path": path.escape_debug().to_string(), "reason": status.message(),
            "caller": caller.to_string(),
        };
        // Synced: whoever tries tricks may also try to have them forgotten.
        if let Err(error) = agent.record("file.refused", record).await {
            tracing::error!(%error, "a refusal cannot be written");
        }
    }
    status
}

/// Walks and hashes a path beside the runtime.
async fn walked(agent: &Arc<Agent>, path: &str) -> Result<Offered, Status> {
    let (agent, path) = (Arc::clone(agent), path.to_owned());
    let walk = move || {
        let (root, base) = roots::resolve(&agent, &path)?;
        files::offer::offer(root, &base, HardLinks::Refuse, &agent.files.cache)
            .map_err(|error| Status::from(&error))
    };
    tokio::task::spawn_blocking(walk)
        .await
        .map_err(|error| Status::internal(error.to_string()))?
}

pub(super) async fn offer(
    agent: &Arc<Agent>,
    caller: &Principal,
    request: OfferRequest,
) -> Result<OfferReply, Status> {
    let offered = match walked(agent, &request.path).await {
        Ok(offered) => offered,
        Err(status) => return Err(refused(agent, &request.path, caller, status).await),
    };
    let mut reply = OfferReply {
        ticket: String::new(),
        manifest: offered.digest().to_string(),
        files: offered.manifest().files().count() as u64,
        bytes: offered.manifest().bytes(),
        name: offered.name().to_owned(),
        folder: offered.is_folder(),
    };
    let record = fields! {
        "path": request.path, "manifest": reply.manifest.clone(), "caller": caller.to_string(),
    };
    recorded(agent, "file.offer", record).await?;
    reply.ticket = agent
        .files
        .offers
        .add(Offer::Offered(Arc::new(offered)))
        .map_err(|error| Status::from(&error))?;
    Ok(reply)
}

pub(super) async fn recorded(
    agent: &Agent,
    kind: &str,
    record: crate::memoir::Fields,
) -> Result<(), Status> {
    let written = agent.record(kind, record).await;
    written.map_err(|error| Status::internal(format!("write the memoir: {error}")))
}

fn no_offer() -> Status {
    Status::permission_denied("read an offer: the ticket is for none, or no longer")
}

pub(super) fn manifest(
    agent: &Arc<Agent>,
    caller: &Principal,
    ticket: &str,
) -> Result<Replies<Chunk>, Status> {
    let offer = agent.files.offers.find(ticket).ok_or_else(no_offer)?;
    let giver = agent.files.givers.admit(caller)?;
    let (tx, rx) = mpsc::channel(STREAM_CHUNKS);
    background("manifest", async move {
        let text = match text(&offer, &tx).await {
            Ok(text) => text,
            Err(status) => {
                // Whoever is gone needs no reason.
                let _ = tx.send(Err(status)).await;
                return;
            }
        };
        let total = text.len() as u64;
        for page in give::pages(&text) {
            let chunk = Chunk {
                bytes: page.to_vec(),
                total,
            };
            if tx.send(Ok(chunk)).await.is_err() {
                return;
            }
        }
    });
    Ok(givers::taken(ReceiverStream::new(rx).boxed(), giver))
}

/// The manifest of an offer, which a relay may have to wait for.
async fn text(offer: &Offer, tx: &mpsc::Sender<Result<Chunk, Status>>) -> Result<Arc<str>, Status> {
    let relay = match offer {
        Offer::Offered(offered) => return Ok(offered.text()),
        Offer::Relay(relay) => Arc::clone(relay),
    };
    let listening = tx.clone();
    let waiting = move || relay.text(&|| !listening.is_closed());
    let waited = tokio::task::spawn_blocking(waiting).await;
    let text = waited.map_err(|error| Status::internal(error.to_string()))?;
    text.map_err(|error| Status::from(&error))
}

/// Parts of an offer, or, without a ticket, of blobs that `allowed` lets the caller have.
pub(super) fn read(
    agent: &Arc<Agent>,
    caller: &Principal,
    request: ReadRequest,
    allowed: impl Fn(&str) -> bool,
) -> Result<Replies<Piece>, Status> {
    let ranges: usize = request.wants.iter().map(|want| want.ranges.len()).sum();
    if request.wants.len() > WANTS_MAX || ranges > RANGES_MAX {
        return Err(Status::invalid_argument(format!(
            "read more than {WANTS_MAX} things or {RANGES_MAX} ranges at once"
        )));
    }
    if !request.ticket.is_empty() {
        let offer = agent.files.offers.find(&request.ticket);
        let offer = offer.ok_or_else(no_offer)?;
        let giver = agent.files.givers.admit(caller)?;
        let pieces: Replies<Piece> = match &*offer {
            Offer::Offered(offered) => {
                let pieces = give::pieces(offered, request.wants);
                ReceiverStream::new(pieces).map(Ok).boxed()
            }
            Offer::Relay(relay) => {
                let pieces = ReceiverStream::new(relay.pieces(request.wants));
                let status = |error: files::Error| Status::from(&error);
                pieces.map(move |piece| piece.map_err(status)).boxed()
            }
        };
        return Ok(givers::taken(pieces, giver));
    }
    for want in &request.wants {
        let digest: Digest = want
            .digest
            .parse()
            .map_err(|error| Status::invalid_argument(format!("{error}")))?;
        if !allowed(&want.digest) {
            return Err(Status::permission_denied(format!(
                "get {}: no document that we share pins it",
                digest.short()
            )));
        }
        if !agent.store.has(&digest) {
            return Err(Status::not_found(format!(
                "get {}: it is not in this store",
                digest.short()
            )));
        }
    }
    let giver = agent.files.givers.admit(caller)?;
    let (tx, rx) = mpsc::channel(STREAM_CHUNKS);
    let (agent, giving) = (Arc::clone(agent), Arc::clone(&giver));
    background("read", async move {
        for (index, want) in (0..).zip(request.wants) {
            if give_blob(&agent, (index, want), &giving, &tx)
                .await
                .is_err()
            {
                return;
            }
        }
    });
    Ok(givers::taken(ReceiverStream::new(rx).boxed(), giver))
}

/// Gives parts of a blob that was verified just before; a wrong one is told, and given to nobody.
async fn give_blob(
    agent: &Arc<Agent>,
    (index, want): (u32, Want),
    giver: &Arc<Giver>,
    tx: &mpsc::Sender<Result<Piece, Status>>,
) -> Result<(), ()> {
    let (giving, sending, hex) = (Arc::clone(agent), tx.clone(), want.digest.clone());
    let giver = Arc::clone(giver);
    let given = tokio::task::spawn_blocking(move || {
        // Counts until the hashing ends, even if nobody listens any more.
        let _giver = giver;
        blob(&giving, index, &want, &sending)
    })
    .await;
    let status = match given {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => {
            if error.kind() == store::Kind::Corrupt {
                held::found_corrupt(agent, &hex, &error.to_string()).await;
            }
            super::fileio_service::store_status(&error)
        }
        Err(error) => Status::internal(error.to_string()),
    };
    let _ = tx.send(Err(status)).await;
    Err(())
}

fn blob(
    agent: &Agent,
    index: u32,
    want: &Want,
    tx: &mpsc::Sender<Result<Piece, Status>>,
) -> Result<(), store::Error> {
    // Refused before.
    let Ok(digest) = want.digest.parse::<Digest>() else {
        return Ok(());
    };
    let (mut file, _) = agent.store.open_verified(&digest)?;
    let executable = agent
        .store
        .info(&digest)
        .is_some_and(|info| info.executable);
    let failed = |source| store::Error::reading(&agent.store.path(&digest), source);
    let (_, groups) = agent.files.cache.hash(&mut file).map_err(failed)?;
    if groups.digest() != digest {
        return Err(agent.store.discard(digest, groups.digest()));
    }
    let given = files::offer::Given {
        file: &file,
        groups: &groups,
        executable,
    };
    given
        .give(index, want, &mut |piece| {
            tx.blocking_send(Ok(piece)).is_ok()
        })
        .map_err(failed)
}

pub(super) async fn expect(
    agent: &Arc<Agent>,
    caller: &Principal,
    request: ExpectRequest,
) -> Result<ExpectReply, Status> {
    let (root, dest) = match roots::resolve(agent, &request.path) {
        Ok(place) => place,
        Err(status) => return Err(refused(agent, &request.path, caller, status).await),
    };
    let record = fields! { "path": request.path.clone(), "caller": caller.to_string() };
    recorded(agent, "file.expect", record).await?;
    let expected = Expected {
        root,
        dest,
        path: request.path,
    };
    let ticket = agent.files.places.add(expected);
    Ok(ExpectReply {
        ticket: ticket.map_err(|error| Status::from(&error))?,
    })
}

fn copying(agent: &Agent) -> Result<OwnedSemaphorePermit, Status> {
    let free = Arc::clone(&agent.files.copies).try_acquire_owned();
    free.map_err(|_| Status::resource_exhausted("copy: this rnode takes part in too many copies"))
}

pub(super) async fn take(
    agent: &Arc<Agent>,
    caller: &Principal,
    mut inputs: Streaming<GiveInput>,
) -> Result<Replies<GiveOutput>, Status> {
    let hello = inputs.message().await?;
    let hello = hello.ok_or_else(|| Status::invalid_argument("give: nothing was sent"))?;
    let place = agent.files.places.find(&hello.ticket);
    let place = place.ok_or_else(|| {
        Status::permission_denied("give: the ticket is for no place, or no longer")
    })?;
    let permit = copying(agent)?;
    let record = fields! { "path": place.path.clone(), "source": caller.to_string() };
    recorded(agent, "file.take", record).await?;
    let (tx, rx) = mpsc::channel(STREAM_CHUNKS);
    let (agent, caller) = (Arc::clone(agent), caller.clone());
    background("take", async move {
        let outputs = tx.clone();
        let taken = tokio::select! {
            taken = copy::take(&agent, &place, &hello.name, inputs, outputs) => taken,
            () = tx.closed() => return,
            () = agent.shutdown.cancelled() => return,
        };
        let output = match taken {
            Ok(tally) => {
                ended(&agent, &place.path, "", &tally).await;
                Ok(GiveOutput {
                    read: None,
                    progress: Some(tally.message(true)),
                })
            }
            Err(error) => {
                if error.kind() == files::Kind::Lied {
                    copy::lied(&agent, &caller.to_string(), &error).await;
                }
                Err(refused(&agent, &place.path, &caller, Status::from(&error)).await)
            }
        };
        let _ = tx.send(output).await;
        drop(permit);
    });
    Ok(ReceiverStream::new(rx).boxed())
}

async fn ended(agent: &Agent, path: &str, need: &str, tally: &files::Tally) {
    let mut record = fields! {
        "path": path, "files": tally.files, "bytes": tally.bytes, "moved": tally.moved,
        "manifest": tally.manifest.map(|digest| digest.to_string()).unwrap_or_default(),
    };
    if !need.is_empty() {
        record.insert("need".to_owned(), need.into());
    }
    agent.note("file.copied", record).await;
}

/// The manifest's digest, if the request tells it; refuses what no request has.
fn asked(request: &CopyRequest) -> Result<Option<Digest>, Status> {
    let refused = |why: String| Status::invalid_argument(format!("copy: {why}"));
    if request.sources.len() > COPY_SOURCES_MAX || request.ticket.len() > TICKET_BYTES_MAX {
        return Err(refused(format!(
            "it names more than {COPY_SOURCES_MAX} sources, or a ticket of more than {TICKET_BYTES_MAX} bytes"
        )));
    }
    if request.relay && request.ticket.is_empty() {
        return Err(refused("what is relayed must have a ticket".to_owned()));
    }
    if request.manifest.is_empty() {
        return match request.relay {
            true => Err(refused("what is relayed must have a manifest".to_owned())),
            false => Ok(None),
        };
    }
    let manifest = request.manifest.parse();
    manifest
        .map(Some)
        .map_err(|error| refused(format!("{error}")))
}

/// What ends with its copy.
struct Relaying(Arc<Relay>);

impl Drop for Relaying {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Lets whoever names the ticket read what comes, unless it is the ticket of an offer of ours.
fn relay(agent: &Agent, request: &CopyRequest, root: &Arc<Root>) -> Option<Relaying> {
    if !request.relay {
        return None;
    }
    let relay = Arc::new(Relay::new(Arc::clone(root), Arc::clone(&agent.files.cache)));
    let offer = Offer::Relay(Arc::clone(&relay));
    let own = |there: &Offer| matches!(there, Offer::Offered(_));
    let taken = agent.files.offers.take_over(&request.ticket, offer, own);
    taken.then_some(Relaying(relay))
}

pub(super) async fn pull(
    agent: &Arc<Agent>,
    caller: &Principal,
    request: CopyRequest,
) -> Result<Replies<CopyProgress>, Status> {
    let (root, dest) = match roots::resolve(agent, &request.path) {
        Ok(place) => place,
        Err(status) => return Err(refused(agent, &request.path, caller, status).await),
    };
    let asked = asked(&request)?;
    let permit = copying(agent)?;
    let mut record = fields! {
        "path": request.path.clone(), "sources": request.sources.join(" "),
        "caller": caller.to_string(),
    };
    if !request.need.is_empty() {
        record.insert("need".to_owned(), request.need.clone().into());
    }
    recorded(agent, "file.copy", record).await?;
    // Ordering: before the answer, after which others may be told to read here.
    let relay = relay(agent, &request, &root);
    let (tx, rx) = mpsc::channel(STREAM_CHUNKS);
    let (agent, caller) = (Arc::clone(agent), caller.clone());
    background("copy", async move {
        let place = Place {
            root,
            dest,
            manifest: asked,
            relay: relay.as_ref().map(|relay| Arc::clone(&relay.0)),
        };
        let pulled = tokio::select! {
            pulled = copy::pull(&agent, &request, &place, &tx) => pulled,
            () = tx.closed() => return,
            () = agent.shutdown.cancelled() => return,
        };
        let last = match pulled {
            Ok(tally) => {
                ended(&agent, &request.path, &request.need, &tally).await;
                Ok(tally.message(true))
            }
            Err(error) => Err(refused(&agent, &request.path, &caller, Status::from(&error)).await),
        };
        let _ = tx.send(last).await;
        drop(permit);
    });
    Ok(ReceiverStream::new(rx).boxed())
}

pub(super) async fn push(
    agent: &Arc<Agent>,
    caller: &Principal,
    request: PushRequest,
) -> Result<Replies<CopyProgress>, Status> {
    let permit = copying(agent)?;
    let offered = match walked(agent, &request.path).await {
        Ok(offered) => Arc::new(offered),
        Err(status) => return Err(refused(agent, &request.path, caller, status).await),
    };
    let record = fields! {
        "path": request.path.clone(), "sink": request.sink.clone(), "caller": caller.to_string(),
        "manifest": offered.digest().to_string(),
    };
    recorded(agent, "file.push", record).await?;
    let (tx, rx) = mpsc::channel(STREAM_CHUNKS);
    let agent = Arc::clone(agent);
    background("push", async move {
        let pushed = tokio::select! {
            pushed = copy::push(&agent, &request, &offered, &tx) => pushed,
            () = tx.closed() => return,
            () = agent.shutdown.cancelled() => return,
        };
        let _ = tx.send(pushed.map_err(|error| Status::from(&error))).await;
        drop(permit);
    });
    Ok(ReceiverStream::new(rx).boxed())
}

pub(super) async fn state_need(
    agent: &Arc<Agent>,
    caller: &Principal,
    request: StateNeedRequest,
) -> Result<StateNeedReply, Status> {
    let digest: Digest = request
        .digest
        .parse()
        .map_err(|error| Status::invalid_argument(format!("{error}")))?;
    let need = Need {
        digest: digest.to_string(),
        name: if request.name.is_empty() {
            digest.short()
        } else {
            request.name
        },
        executable: request.executable,
        path: Some(request.path.clone()).filter(|path| !path.is_empty()),
        service: request.service.parse().map_err(Status::invalid_argument)?,
    };
    if let Some(path) = &need.path
        && let Err(status) = roots::resolve(agent, path)
    {
        return Err(refused(agent, path, caller, status).await);
    }
    let record = fields! {
        "need": need.id(), "path": request.path, "service": need.service.to_string(), "digest": need.digest.clone(), "name": need.name.clone(),
        "caller": caller.to_string(),
    };
    recorded(agent, "need.state", record).await?;
    let stated = agent.files.needs.state(need);
    let id = stated.map_err(|error| Status::resource_exhausted(format!("keep a need: {error}")))?;
    Ok(StateNeedReply { id })
}

pub(super) async fn drop_need(
    agent: &Arc<Agent>,
    caller: &Principal,
    request: &DropNeedRequest,
) -> Result<bool, Status> {
    let record = fields! {
        "need": request.id.clone(), "remove": request.remove, "caller": caller.to_string(),
    };
    recorded(agent, "need.drop", record).await?;
    let dropped = agent.files.needs.drop_need(&request.id);
    let dropped = dropped.map_err(|error| Status::internal(format!("drop a need: {error}")))?;
    let existed = dropped.is_some();
    if let Some(need) = dropped.filter(|_| request.remove) {
        let agent = Arc::clone(agent);
        let removing = tokio::task::spawn_blocking(move || {
            let path = need.path.as_deref();
            path.map_or(Ok(()), |path| at_path::remove(&agent, &need, path))
        });
        removing
            .await
            .map_err(|error| Status::internal(error.to_string()))??;
    }
    Ok(existed)
}

/// Has a need served by another data service, once that is known to have the blob. The blob that is here stays.
pub(super) async fn switch(
    agent: &Arc<Agent>,
    caller: &Principal,
    request: SwitchRequest,
) -> Result<SwitchReply, Status> {
    let service: Service = request.service.parse().map_err(Status::invalid_argument)?;
    let unknown = || Status::not_found(format!("switch: there is no need {}", request.id));
    let need = agent.files.needs.all().remove(&request.id);
    let need = need.ok_or_else(unknown)?;
    let wanted: Digest = need
        .digest
        .parse()
        .map_err(|error| Status::internal(format!("{error}")))?;
    service::has(agent, &service, &wanted).await?;
    let record = fields! {
        "need": request.id.clone(), "digest": need.digest, "before": need.service.to_string(),
        "service": service.to_string(), "caller": caller.to_string(),
    };
    recorded(agent, "need.switch", record).await?;
    let before = agent.files.needs.switch(&request.id, service);
    let before = before.map_err(|error| Status::internal(format!("switch a need: {error}")))?;
    let before = before.ok_or_else(unknown)?.to_string();
    Ok(SwitchReply { before })
}

pub(super) fn needs(agent: &Arc<Agent>) -> Replies<NeedState> {
    let states = agent.files.needs.states();
    futures_util::stream::iter(states.into_iter().map(Ok)).boxed()
}

/// Removes a blob that nothing here asks for, or a file of a declared root.
pub(super) async fn remove(
    agent: &Arc<Agent>,
    caller: &Principal,
    request: RemoveRequest,
) -> Result<RemoveReply, Status> {
    let record = fields! {
        "digest": request.digest.clone(), "path": request.path.escape_debug().to_string(),
        "caller": caller.to_string(),
    };
    recorded(agent, "file.remove", record).await?;
    if !request.digest.is_empty() {
        return remove_blob(agent, &request.digest);
    }
    let removed = roots::resolve(agent, &request.path).and_then(|(root, path)| {
        root.remove_file(&path)
            .map_err(|error| Status::from(&error))
    });
    match removed {
        Ok(existed) => Ok(RemoveReply { existed }),
        Err(status) => Err(refused(agent, &request.path, caller, status).await),
    }
}

fn remove_blob(agent: &Agent, hex: &str) -> Result<RemoveReply, Status> {
    let digest: Digest = hex
        .parse()
        .map_err(|error| Status::invalid_argument(format!("{error}")))?;
    let pinned = agent.documents.all().iter().any(|accepted| {
        let mut pins = accepted.document.pins.iter();
        pins.any(|pin| pin.digest == hex)
    });
    let files = &agent.files;
    if pinned || *agent.own_digest() == *hex || files.needs.covers(hex) || files.mounted.covers(hex)
    {
        return Err(Status::failed_precondition(format!(
            "remove {}: a document pins it, a need asks for it, or it is mounted",
            digest.short()
        )));
    }
    let internal = |error: &dyn std::fmt::Display| Status::internal(error.to_string());
    let forgotten = agent.files.held.forget(hex);
    forgotten.map_err(|error| internal(&error))?;
    let existed = agent.store.remove(&digest);
    Ok(RemoveReply {
        existed: existed.map_err(|error| internal(&error))?,
    })
}
