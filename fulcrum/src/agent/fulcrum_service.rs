//! The control service: what this rnode is, what it holds, and the few ways to change it.

use std::sync::Arc;

use crux_core::identity::Who;
use crux_core::names::Label;
use crux_wire::fulcrum::v1::fulcrum_server::Fulcrum;
use crux_wire::fulcrum::v1::{
    AccessReply, AccessRequest, DescribeReply, DescribeRequest, EntriesReply, EntriesRequest,
    Event, EventsRequest, ExitReply, ExitRequest, FlockReply, FlockRequest, GetAuthorityReply,
    GetAuthorityRequest, GetDocumentReply, GetDocumentRequest, HintReply, HintRequest, HordeState,
    HordesReply, HordesRequest, InviteReply, InviteRequest, MemoirLine, MemoirRequest,
    MetricsReply, MetricsRequest, PutAuthorityReply, PutAuthorityRequest, PutDocumentReply,
    PutDocumentRequest, PutHordeStateReply, PutHordeStateRequest, ServicesReply, ServicesRequest,
    StatusReply, StatusRequest, TunnelBytes, WatchDocumentsRequest,
};
use tonic::{Request, Response, Status, Streaming};

use super::context::{Agent, background, fields};
use super::documents::Accepting;
use super::guard::{caller, covers};
use super::limits::RETIRE_GRACE;
use super::rexec_service::Replies;
use super::{accept, access, authority_task, base, describe, invitations, streams, tunnel};

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct FulcrumService(pub(crate) Arc<Agent>);

#[tonic::async_trait]
impl Fulcrum for FulcrumService {
    async fn describe(
        &self,
        _: Request<DescribeRequest>,
    ) -> Result<Response<DescribeReply>, Status> {
        Ok(Response::new(describe::describe(&self.0)))
    }

    async fn flock(&self, _: Request<FlockRequest>) -> Result<Response<FlockReply>, Status> {
        Ok(Response::new(self.0.shared.flock(&self.0)))
    }

    async fn services(
        &self,
        request: Request<ServicesRequest>,
    ) -> Result<Response<ServicesReply>, Status> {
        let name = request.into_inner().name;
        Ok(Response::new(describe::services(&self.0, &name)))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        Ok(Response::new(describe::status(&self.0)))
    }

    async fn entries(
        &self,
        request: Request<EntriesRequest>,
    ) -> Result<Response<EntriesReply>, Status> {
        let entries = self.0.shared.entries(&request.into_inner().prefix);
        Ok(Response::new(EntriesReply { entries }))
    }

    async fn put_document(
        &self,
        request: Request<PutDocumentRequest>,
    ) -> Result<Response<PutDocumentReply>, Status> {
        let caller = caller(&request)?;
        accept::put_document(&self.0, &caller, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn get_document(
        &self,
        request: Request<GetDocumentRequest>,
    ) -> Result<Response<GetDocumentReply>, Status> {
        let caller = caller(&request)?;
        let mut namespace = request.into_inner().namespace;
        if namespace.is_empty() {
            namespace = self.0.me.namespace.to_string();
        }
        let foreign = caller
            .namespace()
            .is_some_and(|own| *own != *namespace && *own != *super::context::BASE);
        if foreign || !covers(&caller, &namespace) {
            return Err(Status::permission_denied(
                "read the document of another namespace",
            ));
        }
        let held = self.0.documents.newest(&namespace);
        let found = held.is_some();
        let document = held.map(|accepted| accepted.signed.clone());
        let held_back = found && self.0.documents.acting(&namespace).is_none();
        let hosts = Label::new(&namespace).is_ok_and(|label| {
            let held = self.0.identity.host_credentials(&label);
            held.is_ok_and(|held| held.is_some())
        });
        Ok(Response::new(GetDocumentReply {
            document,
            found,
            held_back,
            hosts,
        }))
    }

    type WatchDocumentsStream = Replies<GetDocumentReply>;

    async fn watch_documents(
        &self,
        request: Request<WatchDocumentsRequest>,
    ) -> Result<Response<Self::WatchDocumentsStream>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(streams::documents(&self.0, caller)))
    }

    async fn invite(
        &self,
        request: Request<InviteRequest>,
    ) -> Result<Response<InviteReply>, Status> {
        let caller = caller(&request)?;
        base::invite(&self.0, &caller, &request.into_inner())
            .await
            .map(Response::new)
    }

    type EventsStream = Replies<Event>;

    async fn events(
        &self,
        request: Request<EventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        let caller = caller(&request)?;
        let events = streams::events(&self.0, caller, request.into_inner());
        Ok(Response::new(events))
    }

    type MemoirStream = Replies<MemoirLine>;

    async fn memoir(
        &self,
        request: Request<MemoirRequest>,
    ) -> Result<Response<Self::MemoirStream>, Status> {
        streams::memoir(&self.0, request.into_inner()).map(Response::new)
    }

    async fn metrics(&self, _: Request<MetricsRequest>) -> Result<Response<MetricsReply>, Status> {
        Ok(Response::new(MetricsReply {
            text: describe::metrics(&self.0),
        }))
    }

    async fn hint(&self, request: Request<HintRequest>) -> Result<Response<HintReply>, Status> {
        let caller = caller(&request)?;
        let address = request.into_inner().address;
        let hint: std::net::SocketAddr = address
            .parse()
            .map_err(|_| Status::invalid_argument(format!("read the address {address}")))?;
        let record = fields! { "address": address, "caller": caller.to_string() };
        let recorded = self.0.record("hint", record).await;
        recorded.map_err(|error| Status::internal(format!("write the memoir: {error}")))?;
        self.0.shared.hint(hint);
        Ok(Response::new(HintReply {}))
    }

    async fn hordes(
        &self,
        request: Request<HordesRequest>,
    ) -> Result<Response<HordesReply>, Status> {
        let caller = caller(&request)?;
        let namespace = request.into_inner().namespace;
        let asked = |horde: &HordeState| namespace.is_empty() || horde.namespace == namespace;
        let covered = |horde: &HordeState| covers(&caller, &horde.namespace);
        let complete = |horde| self.0.class_watches.complete(horde);
        let hordes = describe::hordes(&self.0).into_iter();
        let hordes = hordes.filter(asked).filter(covered).map(complete).collect();
        Ok(Response::new(HordesReply { hordes }))
    }

    async fn put_horde_state(
        &self,
        request: Request<PutHordeStateRequest>,
    ) -> Result<Response<PutHordeStateReply>, Status> {
        base::put_horde_state(&self.0, request.into_inner())
            .await
            .map(Response::new)
    }

    type TunnelStream = Replies<TunnelBytes>;

    async fn tunnel(
        &self,
        request: Request<Streaming<TunnelBytes>>,
    ) -> Result<Response<Self::TunnelStream>, Status> {
        let caller = caller(&request)?;
        tunnel::open(&self.0, &caller, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn exit(&self, request: Request<ExitRequest>) -> Result<Response<ExitReply>, Status> {
        let caller = caller(&request)?;
        let ExitRequest {
            end_rnode,
            only_idle,
        } = request.into_inner();
        let record = fields! { "end_rnode": end_rnode, "caller": caller.to_string() };
        let mut accepting = self.0.accepting.lock().await;
        // Ordering: in turn with documents, so none is accepted between this look and the end.
        if only_idle {
            accept::refuse_occupied(&self.0, &caller)?;
        }
        let recorded = self.0.record("exit", record).await;
        recorded.map_err(|error| Status::internal(format!("write the memoir: {error}")))?;
        if end_rnode {
            *accepting = Accepting::Nothing;
        }
        drop(accepting);
        let agent = Arc::clone(&self.0);
        background("exit", async move {
            if !end_rnode {
                // Our keeper starts another agent; what runs goes on.
                agent.shutdown.cancel();
                return;
            }
            agent.shared.leave().await;
            if let Err(error) = agent.keeper.retire(RETIRE_GRACE).await {
                tracing::error!(%error, "the keeper did not retire");
            }
            agent.shutdown.cancel();
        });
        Ok(Response::new(ExitReply {}))
    }

    async fn access(
        &self,
        request: Request<AccessRequest>,
    ) -> Result<Response<AccessReply>, Status> {
        let reply = access::answer(&self.0, request.into_inner()).await?;
        Ok(Response::new(reply))
    }

    async fn get_authority(
        &self,
        request: Request<GetAuthorityRequest>,
    ) -> Result<Response<GetAuthorityReply>, Status> {
        let who = caller(&request)?.who;
        let backend = matches!(who, Who::Backend { .. });
        let trust = self.0.identity.trust();
        Ok(Response::new(GetAuthorityReply {
            authority: Some(trust.authority()),
            mark: Some(trust.authority_mark()),
            denied_rnodes: if backend {
                authority_task::denied_rnodes(&self.0)
            } else {
                Vec::new()
            },
            claims: if request.get_ref().with_claims {
                invitations::claims_for(&self.0, &who)
            } else {
                Vec::new()
            },
        }))
    }

    async fn put_authority(
        &self,
        request: Request<PutAuthorityRequest>,
    ) -> Result<Response<PutAuthorityReply>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        if matches!(caller.who, Who::Rnode { .. }) && !request.invitations.is_empty() {
            return Err(Status::permission_denied(
                "take invitations: a rnode hands over none",
            ));
        }
        let offered = request.authority.unwrap_or_default();
        let mut reply = authority_task::put(&self.0, &caller, &offered).await?;
        // Its own rights make an invitation count: who hands it over does not matter.
        let kept = invitations::take(&self.0, &request.invitations)?;
        reply.refused.extend(kept);
        Ok(Response::new(reply))
    }
}
