//! The trait over the wire: each call is tried on a living process, and again on the next one if that dies.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::time::Instant;
use tonic::{Status, Streaming};
use underverse::{
    AddressId, Capabilities, Effect, Effective, End, Error, EventId, Generation, HordeName,
    HordePlan, HordeSpec, Keep, Kind, Progress, ProgressStream, Reply, Running, Server, Underverse,
    UnderverseEvent,
};

use super::{ATTEMPTS_MAX, Plugin};
use crate::convert::{self, all, milliseconds, need, outcome};
use crate::session::{Session, lost};
use crate::version::MESSAGE_BYTES_MAX;
use crate::wire;
use crate::wire::underverse_client::UnderverseClient;

type Client = UnderverseClient<tonic::transport::Channel>;

pub(super) fn client(session: &Session) -> Client {
    UnderverseClient::new(session.channel.clone())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// Whether another process may do better: this one broke off, rather than answer.
fn broke_off(status: &Status) -> bool {
    !matches!(
        status.code(),
        tonic::Code::Unimplemented
            | tonic::Code::InvalidArgument
            | tonic::Code::FailedPrecondition
            | tonic::Code::ResourceExhausted
            | tonic::Code::OutOfRange
    )
}

impl Plugin {
    /// Tries a call on one process after the other.
    pub(super) async fn call<T, F>(&self, call: impl Fn(Arc<Session>) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let mut last = None;
        for _ in 0..ATTEMPTS_MAX {
            let session = self.session().await?;
            match self.answered(call(Arc::clone(&session))).await {
                Ok(value) => return Ok(value),
                Err(status) if broke_off(&status) => {
                    last = Some(lost(&self.shared.launch.name, &status));
                    self.discard(&session).await;
                }
                Err(status) => return Err(lost(&self.shared.launch.name, &status)),
            }
        }
        Err(self.gave_up(last))
    }

    /// What a process answers; one that is silent for too long broke off.
    async fn answered<T>(
        &self,
        answer: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let silent = || Status::deadline_exceeded("it is silent");
        let answer = tokio::time::timeout(self.shared.launch.patience, answer).await;
        answer.map_err(|_| silent())?
    }

    /// Follows a pass, and begins it again on another process if the one that has it dies.
    fn pass<'a>(&'a self, request: PassRequest) -> ProgressStream<'a> {
        let passing = Passing {
            plugin: self,
            request,
            session: None,
            stream: None,
            attempts: 0,
            ended: false,
        };
        Box::pin(stream::unfold(passing, |mut passing| async move {
            let item = passing.next().await?;
            passing.ended = matches!(item, Progress::End(_));
            Some((item, passing))
        }))
    }
}

#[derive(Debug, Clone)]
enum PassRequest {
    Realise {
        request: wire::RealiseRequest,
        until: Instant,
    },
    Dissolve(wire::DissolveRequest),
}

/// A pass that is followed.
struct Passing<'a> {
    plugin: &'a Plugin,
    request: PassRequest,
    session: Option<Arc<Session>>,
    stream: Option<Streaming<wire::Progress>>,
    attempts: u32,
    ended: bool,
}

impl Passing<'_> {
    async fn next(&mut self) -> Option<Progress> {
        while !self.ended {
            if self.stream.is_none() {
                if self.attempts >= ATTEMPTS_MAX {
                    return Some(end(End::Unknown(self.plugin.gave_up(None))));
                }
                self.attempts += 1;
                if let Err(error) = self.begin().await {
                    // On a first attempt nothing was sent, so nothing was changed.
                    let refused = self.attempts == 1;
                    let error = if refused {
                        error
                    } else {
                        error.effect(Effect::Unknown)
                    };
                    return Some(end(if refused {
                        End::Refused(error)
                    } else {
                        End::Unknown(error)
                    }));
                }
            }
            let limit = self.limit();
            let item = match self.stream.as_mut() {
                Some(stream) => tokio::time::timeout_at(limit, stream.message()).await,
                None => Ok(Ok(None)),
            };
            let Ok(item) = item else {
                self.broke().await;
                return Some(end(End::Unknown(self.silent())));
            };
            match item {
                Ok(Some(progress)) => {
                    return Some(progress.try_into().unwrap_or_else(convert::unreadable_end));
                }
                Ok(None) => self.broke().await,
                Err(status) if broke_off(&status) => self.broke().await,
                Err(status) => {
                    let error =
                        lost(&self.plugin.shared.launch.name, &status).effect(Effect::Unknown);
                    return Some(end(End::Unknown(error)));
                }
            }
        }
        None
    }

    /// When a process that has said nothing more is given up.
    fn limit(&self) -> Instant {
        let from = match &self.request {
            PassRequest::Realise { until, .. } => *until,
            PassRequest::Dissolve(_) => Instant::now(),
        };
        from + self.plugin.shared.launch.patience
    }

    fn silent(&self) -> Error {
        let message = "it neither ended the pass nor told of any progress in time";
        Error::new(Kind::Unavailable, "follow a pass of a plug-in", message)
            .with("plug-in", &self.plugin.shared.launch.name)
            .effect(Effect::Unknown)
    }

    async fn broke(&mut self) {
        self.stream = None;
        if let Some(session) = self.session.take() {
            self.plugin.discard(&session).await;
        }
    }

    /// Asks for the pass; a process that dies before it answers leaves no stream, and no error.
    async fn begin(&mut self) -> Result<(), Error> {
        let session = self.plugin.session().await?;
        let mut client = client(&session);
        let answer = match &self.request {
            PassRequest::Realise { request, until } => {
                let left = milliseconds(until.saturating_duration_since(Instant::now()));
                let request = wire::RealiseRequest {
                    deadline_ms: left,
                    ..request.clone()
                };
                self.plugin.answered(client.realise(request)).await
            }
            PassRequest::Dissolve(request) => {
                self.plugin.answered(client.dissolve(request.clone())).await
            }
        };
        self.session = Some(session);
        match answer {
            Ok(stream) => self.stream = Some(stream.into_inner()),
            Err(status) if broke_off(&status) => self.broke().await,
            Err(status) => return Err(lost(&self.plugin.shared.launch.name, &status)),
        }
        Ok(())
    }
}

fn end(end: End) -> Progress {
    Progress::End(Box::new(end))
}

/// Events that are followed over deaths of the process.
struct Following {
    plugin: Plugin,
    horde: String,
    since: Option<u64>,
    stream: Option<(Arc<Session>, Streaming<wire::Event>)>,
    kept: VecDeque<UnderverseEvent>,
}

impl Following {
    async fn next(&mut self) -> Option<UnderverseEvent> {
        loop {
            if let Some(event) = self.kept.pop_front() {
                self.since = Some(event.id.0);
                return Some(event);
            }
            if self.stream.is_none() {
                let session = self.plugin.session().await.ok()?;
                let request = wire::EventsRequest {
                    horde: self.horde.clone(),
                    since: self.since,
                };
                let mut client = client(&session);
                match self.plugin.answered(client.events(request)).await {
                    Ok(stream) => self.stream = Some((session, stream.into_inner())),
                    Err(status) if broke_off(&status) => {
                        self.plugin.discard(&session).await;
                        continue;
                    }
                    Err(_) => return None,
                }
            }
            let (session, stream) = self.stream.as_mut()?;
            match stream.message().await {
                // An event that cannot be read is left out: the next one may be.
                Ok(Some(event)) => self.kept.extend(event.try_into().ok()),
                Ok(None) => return None,
                Err(_) => {
                    let session = Arc::clone(session);
                    self.stream = None;
                    self.plugin.discard(&session).await;
                }
            }
        }
    }
}

#[async_trait]
impl Underverse for Plugin {
    fn name(&self) -> &str {
        &self.shared.launch.name
    }

    fn capabilities(&self) -> Capabilities {
        self.record()
    }

    async fn servers(&self) -> Result<Vec<Server>, Error> {
        let call = |session: Arc<Session>| async move {
            client(&session).servers(wire::ServersRequest {}).await
        };
        let reply = self.call(call).await?.into_inner();
        outcome(reply.error)?;
        all(reply.servers)
    }

    async fn acquire_address(
        &self,
        horde: &HordeName,
        request: &str,
    ) -> Result<(AddressId, IpAddr), Error> {
        let call = |session: Arc<Session>| async move {
            let request = wire::AcquireAddressRequest {
                horde: horde.to_string(),
                request: request.to_owned(),
            };
            client(&session).acquire_address(request).await
        };
        let reply = self.call(call).await?.into_inner();
        outcome(reply.error)?;
        let address = reply
            .address
            .parse()
            .map_err(|_| convert::unreadable("the external address"))?;
        Ok((AddressId::from_backend(reply.id), address))
    }

    async fn release_address(&self, id: &AddressId) -> Result<(), Error> {
        let call = |session: Arc<Session>| async move {
            client(&session)
                .release_address(wire::ReleaseAddressRequest { id: id.to_string() })
                .await
        };
        outcome(self.call(call).await?.into_inner().error)
    }

    async fn plan(&self, generation: Generation, spec: &HordeSpec) -> Result<HordePlan, Error> {
        let call = |session: Arc<Session>| async move {
            let request = wire::PlanRequest {
                generation: Some(generation.into()),
                spec: Some(spec.into()),
            };
            client(&session).plan(request).await
        };
        let reply = self.call(call).await?.into_inner();
        outcome(reply.error)?;
        Ok(HordePlan {
            steps: reply.steps.into_iter().map(Into::into).collect(),
        })
    }

    fn realise<'a>(
        &'a self,
        generation: Generation,
        spec: &'a HordeSpec,
        deadline: Duration,
    ) -> ProgressStream<'a> {
        let request = wire::RealiseRequest {
            generation: Some(generation.into()),
            spec: Some(spec.into()),
            deadline_ms: milliseconds(deadline),
        };
        let now = Instant::now();
        // A deadline beyond what the clock can tell is as good as a year.
        let until = now
            .checked_add(deadline)
            .unwrap_or(now + Duration::from_secs(31_536_000));
        self.pass(PassRequest::Realise { request, until })
    }

    async fn running(&self, name: &HordeName) -> Result<Vec<Running>, Error> {
        let call = |session: Arc<Session>| async move {
            client(&session)
                .running(wire::HordeRequest {
                    horde: name.to_string(),
                })
                .await
        };
        let reply = self.call(call).await?.into_inner();
        outcome(reply.error)?;
        all(reply.running)
    }

    async fn effective(&self, name: &HordeName) -> Result<Effective, Error> {
        let call = |session: Arc<Session>| async move {
            client(&session)
                .effective(wire::HordeRequest {
                    horde: name.to_string(),
                })
                .await
        };
        let reply = self.call(call).await?.into_inner();
        outcome(reply.error)?;
        need(reply.effective, "what was obtained")?.try_into()
    }

    fn dissolve<'a>(
        &'a self,
        generation: Generation,
        name: &'a HordeName,
        keep: Keep,
    ) -> ProgressStream<'a> {
        let request = wire::DissolveRequest {
            generation: Some(generation.into()),
            horde: name.to_string(),
            keep: wire::Keep::from(keep).into(),
        };
        self.pass(PassRequest::Dissolve(request))
    }

    fn events(
        &self,
        horde: &HordeName,
        since: Option<EventId>,
    ) -> BoxStream<'static, UnderverseEvent> {
        let following = Following {
            plugin: self.clone(),
            horde: horde.to_string(),
            since: since.map(|id| id.0),
            stream: None,
            kept: VecDeque::new(),
        };
        stream::unfold(following, |mut following| async move {
            let event = following.next().await?;
            Some((event, following))
        })
        .boxed()
    }

    async fn answer(&self, horde: &HordeName, event: EventId, reply: Reply) -> Result<(), Error> {
        let reply = &reply;
        let call = |session: Arc<Session>| async move {
            let request = wire::ReplyRequest {
                horde: horde.to_string(),
                event: event.0,
                reply: Some(reply.into()),
            };
            client(&session).reply(request).await
        };
        outcome(self.call(call).await?.into_inner().error)
    }

    async fn list(&self) -> Result<Vec<HordeName>, Error> {
        let call = |session: Arc<Session>| async move {
            client(&session).list(wire::ListRequest {}).await
        };
        let reply = self.call(call).await?.into_inner();
        outcome(reply.error)?;
        reply.hordes.into_iter().map(HordeName::new).collect()
    }
}
