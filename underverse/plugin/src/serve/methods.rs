//! The services of a plug-in: each method reads its request, calls the trait, and sends what came of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crux_net::task::{self, Policy, Task};
use futures_util::stream::{BoxStream, Stream, StreamExt as _};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};
use underverse::{
    AddressId, Error, EventId, HordeName, HordeSpec, Keep, Reply, StorageExposure, Underverse,
    UnderverseAdmin,
};

use crate::convert::{self, answer, each, need, strengths};
use crate::version::{VERSION_MAX, VERSION_MIN, agree};
use crate::wire::{self, plugin_server, underverse_admin_server, underverse_server};

/// Items of a pass that wait for a slow caller before the pass waits too.
const PROGRESS_BUFFER: usize = 64;

/// One connection's services.
#[derive(Debug, Clone)]
pub(super) struct Methods {
    backend: Arc<dyn Underverse>,
    admin: Option<Arc<dyn UnderverseAdmin>>,
    title: String,
    greeted: Arc<AtomicBool>,
}

impl Methods {
    pub(super) fn new(
        backend: Arc<dyn Underverse>,
        admin: Option<Arc<dyn UnderverseAdmin>>,
        title: String,
    ) -> Self {
        Self {
            backend,
            admin,
            title,
            greeted: Arc::default(),
        }
    }

    /// The backend, once a version was agreed on.
    fn backend(&self) -> Result<&Arc<dyn Underverse>, Status> {
        match self.greeted.load(Ordering::Acquire) {
            true => Ok(&self.backend),
            false => Err(Status::failed_precondition(
                "say hello first: no version of the protocol is agreed on",
            )),
        }
    }

    fn admin(&self) -> Result<&Arc<dyn UnderverseAdmin>, Status> {
        self.backend()?;
        self.admin
            .as_ref()
            .ok_or_else(|| Status::unimplemented("this backend has no administrator's face"))
    }
}

/// A value, or the error beside an empty one.
fn either<T>(result: Result<T, Error>) -> (Option<T>, Option<wire::Error>) {
    match result {
        Ok(value) => (Some(value), None),
        Err(error) => (None, Some((&error).into())),
    }
}

#[tonic::async_trait]
impl plugin_server::Plugin for Methods {
    async fn hello(
        &self,
        request: Request<wire::HelloRequest>,
    ) -> Result<Response<wire::HelloReply>, Status> {
        let request = request.into_inner();
        tracing::debug!(caller = request.caller, "a caller said hello");
        let version = agree(
            (VERSION_MIN, VERSION_MAX),
            (request.version_min, request.version_max),
        );
        self.greeted.store(version.is_some(), Ordering::Release);
        Ok(Response::new(wire::HelloReply {
            version: version.unwrap_or(0),
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            name: self.backend.name().to_owned(),
            program: self.title.clone(),
            capabilities: strengths(&self.backend.capabilities()),
            admin: self.admin.is_some(),
        }))
    }
}

/// A pass that works in a task; dropping the stream stops it where it is.
struct Passing {
    items: mpsc::Receiver<wire::Progress>,
    _task: Task<()>,
}

impl Stream for Passing {
    type Item = Result<wire::Progress, Status>;
    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.items.poll_recv(context).map(|item| item.map(Ok))
    }
}

/// What is asked of a pass.
enum Asked {
    Realise(underverse::Generation, Box<HordeSpec>, Duration),
    Dissolve(underverse::Generation, HordeName, Keep),
}

fn pass(backend: Arc<dyn Underverse>, asked: Result<Asked, Error>) -> Passing {
    let (tx, items) = mpsc::channel(PROGRESS_BUFFER);
    let task = task::spawn("pass", Policy::ABORT, async move {
        let mut stream = match &asked {
            Ok(Asked::Realise(generation, spec, deadline)) => {
                backend.realise(*generation, spec, *deadline)
            }
            Ok(Asked::Dissolve(generation, name, keep)) => {
                backend.dissolve(*generation, name, *keep)
            }
            Err(error) => {
                let how = Some(wire::end::How::Refused(error.into()));
                let item = Some(wire::progress::Item::End(wire::End { how }));
                drop(tx.send(wire::Progress { item }).await);
                return;
            }
        };
        while let Some(item) = stream.next().await {
            if tx.send(wire::Progress::from(&item)).await.is_err() {
                return;
            }
        }
    });
    Passing { items, _task: task }
}

fn realise(request: wire::RealiseRequest) -> Result<Asked, Error> {
    let spec: HordeSpec = need(request.spec, "the horde")?.try_into()?;
    let generation = need(request.generation, "the generation")?.into();
    Ok(Asked::Realise(
        generation,
        Box::new(spec),
        Duration::from_millis(request.deadline_ms),
    ))
}

fn dissolve(request: wire::DissolveRequest) -> Result<Asked, Error> {
    let generation = need(request.generation, "the generation")?.into();
    Ok(Asked::Dissolve(
        generation,
        HordeName::new(request.horde)?,
        convert::keep(request.keep)?,
    ))
}

fn plan(request: wire::PlanRequest) -> Result<(underverse::Generation, HordeSpec), Error> {
    let spec: HordeSpec = need(request.spec, "the horde")?.try_into()?;
    Ok((need(request.generation, "the generation")?.into(), spec))
}

fn reply(request: wire::ReplyRequest) -> Result<(HordeName, EventId, Reply), Error> {
    let reply = need(request.reply, "the answer")?.try_into()?;
    Ok((
        HordeName::new(request.horde)?,
        EventId(request.event),
        reply,
    ))
}

#[tonic::async_trait]
impl underverse_server::Underverse for Methods {
    type RealiseStream = BoxStream<'static, Result<wire::Progress, Status>>;
    type DissolveStream = BoxStream<'static, Result<wire::Progress, Status>>;
    type EventsStream = BoxStream<'static, Result<wire::Event, Status>>;

    async fn capabilities(
        &self,
        _request: Request<wire::CapabilitiesRequest>,
    ) -> Result<Response<wire::CapabilitiesReply>, Status> {
        let capabilities = strengths(&self.backend()?.capabilities());
        Ok(Response::new(wire::CapabilitiesReply { capabilities }))
    }

    async fn servers(
        &self,
        _request: Request<wire::ServersRequest>,
    ) -> Result<Response<wire::ServersReply>, Status> {
        let (servers, error) = either(self.backend()?.servers().await);
        Ok(Response::new(wire::ServersReply {
            error,
            servers: each(&servers.unwrap_or_default()),
        }))
    }

    async fn acquire_address(
        &self,
        request: Request<wire::AcquireAddressRequest>,
    ) -> Result<Response<wire::AcquireAddressReply>, Status> {
        let (backend, request) = (self.backend()?, request.into_inner());
        let result = match HordeName::new(request.horde) {
            Ok(horde) => backend.acquire_address(&horde, &request.request).await,
            Err(error) => Err(error),
        };
        let (held, error) = either(result);
        let (id, address) = held.map_or_else(Default::default, |(id, at)| {
            (id.to_string(), at.to_string())
        });
        Ok(Response::new(wire::AcquireAddressReply {
            error,
            id,
            address,
        }))
    }

    async fn release_address(
        &self,
        request: Request<wire::ReleaseAddressRequest>,
    ) -> Result<Response<wire::Answer>, Status> {
        let id = AddressId::from_backend(request.into_inner().id);
        Ok(Response::new(answer(
            self.backend()?.release_address(&id).await,
        )))
    }

    async fn plan(
        &self,
        request: Request<wire::PlanRequest>,
    ) -> Result<Response<wire::PlanReply>, Status> {
        let backend = self.backend()?;
        let result = match plan(request.into_inner()) {
            Ok((generation, spec)) => backend.plan(generation, &spec).await,
            Err(error) => Err(error),
        };
        let (plan, error) = either(result);
        Ok(Response::new(wire::PlanReply {
            error,
            steps: each(&plan.unwrap_or_default().steps),
        }))
    }

    async fn realise(
        &self,
        request: Request<wire::RealiseRequest>,
    ) -> Result<Response<Self::RealiseStream>, Status> {
        let backend = Arc::clone(self.backend()?);
        Ok(Response::new(Box::pin(pass(
            backend,
            realise(request.into_inner()),
        ))))
    }

    async fn running(
        &self,
        request: Request<wire::HordeRequest>,
    ) -> Result<Response<wire::RunningReply>, Status> {
        let backend = self.backend()?;
        let result = match HordeName::new(request.into_inner().horde) {
            Ok(horde) => backend.running(&horde).await,
            Err(error) => Err(error),
        };
        let (running, error) = either(result);
        Ok(Response::new(wire::RunningReply {
            error,
            running: each(&running.unwrap_or_default()),
        }))
    }

    async fn effective(
        &self,
        request: Request<wire::HordeRequest>,
    ) -> Result<Response<wire::EffectiveReply>, Status> {
        let backend = self.backend()?;
        let result = match HordeName::new(request.into_inner().horde) {
            Ok(horde) => backend.effective(&horde).await,
            Err(error) => Err(error),
        };
        let (effective, error) = either(result);
        Ok(Response::new(wire::EffectiveReply {
            error,
            effective: effective.as_ref().map(Into::into),
        }))
    }

    async fn dissolve(
        &self,
        request: Request<wire::DissolveRequest>,
    ) -> Result<Response<Self::DissolveStream>, Status> {
        let backend = Arc::clone(self.backend()?);
        Ok(Response::new(Box::pin(pass(
            backend,
            dissolve(request.into_inner()),
        ))))
    }

    async fn events(
        &self,
        request: Request<wire::EventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        let (backend, request) = (self.backend()?, request.into_inner());
        let horde = HordeName::new(request.horde)
            .map_err(|error| Status::invalid_argument(error.chain()))?;
        let events = backend.events(&horde, request.since.map(EventId));
        Ok(Response::new(Box::pin(
            events.map(|event| Ok(wire::Event::from(&event))),
        )))
    }

    async fn reply(
        &self,
        request: Request<wire::ReplyRequest>,
    ) -> Result<Response<wire::Answer>, Status> {
        let backend = self.backend()?;
        let result = match reply(request.into_inner()) {
            Ok((horde, event, reply)) => backend.answer(&horde, event, reply).await,
            Err(error) => Err(error),
        };
        Ok(Response::new(answer(result)))
    }

    async fn list(
        &self,
        _request: Request<wire::ListRequest>,
    ) -> Result<Response<wire::ListReply>, Status> {
        let (hordes, error) = either(self.backend()?.list().await);
        Ok(Response::new(wire::ListReply {
            error,
            hordes: convert::texts(&hordes.unwrap_or_default()),
        }))
    }
}

#[tonic::async_trait]
impl underverse_admin_server::UnderverseAdmin for Methods {
    async fn expose(
        &self,
        request: Request<wire::ExposeRequest>,
    ) -> Result<Response<wire::Answer>, Status> {
        let admin = self.admin()?;
        let exposure = need(request.into_inner().exposure, "what is offered")
            .and_then(StorageExposure::try_from);
        let result = match exposure {
            Ok(exposure) => admin.expose(exposure).await,
            Err(error) => Err(error),
        };
        Ok(Response::new(answer(result)))
    }

    async fn unexpose(
        &self,
        request: Request<wire::UnexposeRequest>,
    ) -> Result<Response<wire::Answer>, Status> {
        let request = request.into_inner();
        Ok(Response::new(answer(
            self.admin()?
                .unexpose(&request.server, &request.source)
                .await,
        )))
    }

    async fn exposures(
        &self,
        _request: Request<wire::ExposuresRequest>,
    ) -> Result<Response<wire::ExposuresReply>, Status> {
        let (exposures, error) = either(self.admin()?.exposures().await);
        Ok(Response::new(wire::ExposuresReply {
            error,
            exposures: each(&exposures.unwrap_or_default()),
        }))
    }

    async fn tag(
        &self,
        request: Request<wire::TagRequest>,
    ) -> Result<Response<wire::Answer>, Status> {
        let (admin, request) = (self.admin()?, request.into_inner());
        let result = match (
            convert::tag_list(request.add),
            convert::tag_list(request.remove),
        ) {
            (Ok(add), Ok(remove)) => admin.tag(&request.server, &add, &remove).await,
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
        Ok(Response::new(answer(result)))
    }

    async fn change_server(
        &self,
        request: Request<wire::ChangeServerRequest>,
    ) -> Result<Response<wire::Answer>, Status> {
        let (admin, request) = (self.admin()?, request.into_inner());
        let result = match convert::change(request.change) {
            Ok(change) => admin.change_server(&request.server, change).await,
            Err(error) => Err(error),
        };
        Ok(Response::new(answer(result)))
    }
}
