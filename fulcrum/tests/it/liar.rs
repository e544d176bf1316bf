//! A rnode of the owner that gives other bytes than it says.

use std::net::SocketAddr;
use std::pin::Pin;

use crux_core::digest::GroupHasher;
use crux_net::identity::{Invitation, RnodeIdentity};
use crux_net::rpc::Server;
use crux_net::task::{Policy, Task, spawn};
use crux_wire::fileio::v1::file_io_server::{FileIo, FileIoServer};
use crux_wire::fileio::v1::*;
use futures_util::{Stream, StreamExt, stream};
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use crate::agent_rig::{APP, Base};

/// What it lies about.
#[derive(Debug, Clone)]
pub(crate) struct Liar {
    pub(crate) manifest: String,
    pub(crate) bytes: Vec<u8>,
    /// The piece of 64 KiB in which a byte is wrong.
    pub(crate) wrong_group: usize,
    pub(crate) lie: Lie,
}

/// What it does about its wrong byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Nothing: its seals are right.
    Group,
    /// Its seals are of the wrong bytes, too.
    Seals,
    /// All is right, but the first group comes twice.
    Again,
    /// All is right, but a message without seals comes before them.
    NoSeals,
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Serves as a rnode of the base's owner until the task is dropped.
pub(crate) async fn serve(base: &Base, label: &str, liar: Liar) -> (SocketAddr, Task<()>) {
    let (namespace, name) = (APP.parse().unwrap(), label.parse().unwrap());
    let invitation = base.owner.invite_named(&namespace, &name).unwrap();
    let invitation = Invitation::decode(&invitation.encode()).unwrap();
    let identity = RnodeIdentity::claim(&base.home.join(label), &invitation, None).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = Routes::new(FileIoServer::new(liar));
    let server = Server::new(identity.credentials().unwrap(), routes);
    let serving = spawn("liar", Policy::ABORT, async move {
        let _identity = identity;
        server
            .serve(listener, std::future::pending())
            .await
            .unwrap();
    });
    (address, serving)
}

impl Liar {
    fn pieces(&self, index: u32, want: &Want) -> Vec<Piece> {
        let total = self.bytes.len() as u64;
        let mut wrong = self.bytes.clone();
        let wrongs = matches!(self.lie, Lie::Group | Lie::Seals);
        wrong[self.wrong_group * 65_536] ^= u8::from(wrongs);
        if want.seals_only {
            let mut hasher = GroupHasher::new();
            hasher.update(if self.lie == Lie::Seals {
                &wrong
            } else {
                &self.bytes
            });
            let seals = hasher.finish().seals().as_flattened().to_vec();
            let piece = |seals| Piece {
                want: index,
                seals,
                total,
                ..Piece::default()
            };
            let none = (self.lie == Lie::NoSeals).then(|| piece(Vec::new()));
            return none.into_iter().chain([piece(seals)]).collect();
        }
        let groups = want
            .ranges
            .iter()
            .flat_map(|range| (range.offset..range.offset + range.length).step_by(65_536));
        let piece = |offset: u64| {
            let at = usize::try_from(offset).unwrap();
            Piece {
                want: index,
                offset,
                bytes: wrong[at..(at + 65_536).min(wrong.len())].to_vec(),
                total,
                ..Piece::default()
            }
        };
        let mut pieces: Vec<Piece> = groups.map(piece).collect();
        if self.lie == Lie::Again {
            pieces.insert(1, pieces[0].clone());
        }
        pieces
    }
}

fn no<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("it only lies"))
}

#[tonic::async_trait]
impl FileIo for Liar {
    type ManifestStream = Replies<Chunk>;
    async fn manifest(
        &self,
        _: Request<ManifestRequest>,
    ) -> Result<Response<Self::ManifestStream>, Status> {
        let chunk = Chunk {
            bytes: self.manifest.clone().into_bytes(),
            total: self.manifest.len() as u64,
        };
        Ok(Response::new(stream::iter([Ok(chunk)]).boxed()))
    }

    type ReadStream = Replies<Piece>;
    async fn read(
        &self,
        request: Request<ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let wants = request.into_inner().wants;
        let pieces: Vec<_> = (0..)
            .zip(&wants)
            .flat_map(|(index, want)| self.pieces(index, want))
            .map(Ok)
            .collect();
        Ok(Response::new(stream::iter(pieces).boxed()))
    }

    async fn have(&self, _: Request<HaveRequest>) -> Result<Response<HaveReply>, Status> {
        no()
    }
    type GetStream = Replies<Chunk>;
    async fn get(&self, _: Request<GetRequest>) -> Result<Response<Self::GetStream>, Status> {
        no()
    }
    async fn put(&self, _: Request<Streaming<PutChunk>>) -> Result<Response<PutReply>, Status> {
        no()
    }
    async fn need(&self, _: Request<NeedRequest>) -> Result<Response<NeedReply>, Status> {
        no()
    }
    type ScanStream = Replies<FileInfo>;
    async fn scan(&self, _: Request<ScanRequest>) -> Result<Response<Self::ScanStream>, Status> {
        no()
    }
    async fn offer(&self, _: Request<OfferRequest>) -> Result<Response<OfferReply>, Status> {
        no()
    }
    async fn expect(&self, _: Request<ExpectRequest>) -> Result<Response<ExpectReply>, Status> {
        no()
    }
    type GiveStream = Replies<GiveOutput>;
    async fn give(
        &self,
        _: Request<Streaming<GiveInput>>,
    ) -> Result<Response<Self::GiveStream>, Status> {
        no()
    }
    type CopyStream = Replies<CopyProgress>;
    async fn copy(&self, _: Request<CopyRequest>) -> Result<Response<Self::CopyStream>, Status> {
        no()
    }
    type PushStream = Replies<CopyProgress>;
    async fn push(&self, _: Request<PushRequest>) -> Result<Response<Self::PushStream>, Status> {
        no()
    }
    async fn state_need(
        &self,
        _: Request<StateNeedRequest>,
    ) -> Result<Response<StateNeedReply>, Status> {
        no()
    }
    async fn drop_need(
        &self,
        _: Request<DropNeedRequest>,
    ) -> Result<Response<DropNeedReply>, Status> {
        no()
    }
    type NeedsStream = Replies<NeedState>;
    async fn needs(&self, _: Request<NeedsRequest>) -> Result<Response<Self::NeedsStream>, Status> {
        no()
    }
    async fn remove(&self, _: Request<RemoveRequest>) -> Result<Response<RemoveReply>, Status> {
        no()
    }
    async fn mount(&self, _: Request<MountRequest>) -> Result<Response<MountReply>, Status> {
        no()
    }
    async fn switch(&self, _: Request<SwitchRequest>) -> Result<Response<SwitchReply>, Status> {
        no()
    }
    async fn unmount(&self, _: Request<UnmountRequest>) -> Result<Response<UnmountReply>, Status> {
        no()
    }
}
