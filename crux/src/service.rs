//! Service handles: a client's grip on a service by name, which follows its moves.
//!
//! Not for what a request means: that is the service's own `.proto`. Read `service/members.rs` next.

mod members;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crux_net::rpc::{Fate, fate};
use tokio::time::{Instant, timeout_at};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{IntoRequest as _, Status};

use crate::agent::Agent;
use crate::error::Error;
use crate::service::members::{Member, Members};

/// How long a request may take, finding and repeating included, unless said otherwise.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(10);
/// Most times one request is sent.
const ATTEMPTS_MAX: u32 = 16;
/// Pause after every member failed, before the next round; each further one is twice as long.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// Longest pause between rounds.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Whether sending a request twice does no more than sending it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idempotence {
    /// It does no more: it is repeated when nobody knows whether it was done.
    Idempotent,
    /// It might: it is repeated only when it certainly was not done.
    Once,
}

/// A request of a gRPC service, with what answers it.
pub trait Request: prost::Message + Clone + 'static {
    /// What answers it.
    type Reply: prost::Message + Default + 'static;
    /// The method's path: `/package.Service/Method`.
    const METHOD: &'static str;
    /// Whether it may be repeated when nobody knows whether it was done.
    const IDEMPOTENCE: Idempotence = Idempotence::Once;
}

/// A handle on a service by its name. Cheap to clone; clones share connections.
///
/// It finds the members through the agent, follows each change, spreads requests over them in turn, and repeats a
/// request elsewhere when it certainly was not done, or when it is idempotent. Dropping the last clone closes them.
///
/// ```no_run
/// # use std::time::Duration;
/// # use crux::{Idempotence, Service};
/// # async fn ask() -> Result<(), crux::Error> {
/// # async fn time(_channel: tonic::transport::Channel) -> Result<u64, tonic::Status> { Ok(0) }
/// let service = Service::named("ntp").deadline(Duration::from_secs(2));
/// let now = service.call(Idempotence::Idempotent, time).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Service {
    deadline: Duration,
    members: Result<Arc<Members>, Arc<crux_net::error::Error>>,
    name: Arc<str>,
}

impl Service {
    /// A handle on the service called `name`, through the agent that started this process.
    ///
    /// Without such an agent each request answers [`Error::NotArrived`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn named(name: &str) -> Self {
        match Agent::inherited() {
            Ok(agent) => Self::through(&agent, name),
            Err(error) => Self {
                deadline: DEADLINE_DEFAULT,
                members: Err(Arc::new(error)),
                name: name.into(),
            },
        }
    }

    /// A handle on the service called `name`, through `agent`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn through(agent: &Agent, name: &str) -> Self {
        Self {
            deadline: DEADLINE_DEFAULT,
            members: Ok(Arc::new(Members::follow(agent, name))),
            name: name.into(),
        }
    }

    /// The same handle, with another deadline for each request: finding and repeating included.
    #[must_use]
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sends a request and waits for its reply.
    ///
    /// # Errors
    /// By what became of it: see [`Error`].
    ///
    /// # Cancel safety
    /// Dropping it after it was sent leaves open whether it was done.
    pub async fn req<R: Request>(&self, request: R) -> Result<R::Reply, Error> {
        let send = |channel: Channel| {
            let request = request.clone();
            async move {
                let mut client = tonic::client::Grpc::new(channel);
                client
                    .ready()
                    .await
                    .map_err(|error| Status::from_error(Box::new(error)))?;
                let codec = tonic_prost::ProstCodec::<R, R::Reply>::default();
                let path = PathAndQuery::from_static(R::METHOD);
                client
                    .unary(request.into_request(), path, codec)
                    .await
                    .map(tonic::Response::into_inner)
            }
        };
        self.call(R::IDEMPOTENCE, send).await
    }

    /// Calls `send` with a channel to a member, and again with another's while that is right: for generated clients.
    ///
    /// # Errors
    /// By what became of it: see [`Error`].
    ///
    /// # Cancel safety
    /// Dropping it after it was sent leaves open whether it was done.
    pub async fn call<T, F, W>(&self, idempotence: Idempotence, send: F) -> Result<T, Error>
    where
        F: Fn(Channel) -> W,
        W: Future<Output = Result<T, Status>>,
    {
        let members = self
            .members
            .as_ref()
            .map_err(|error| self.not_arrived(error.clone()))?;
        let until = Instant::now() + self.deadline;
        let mut last: Option<Error> = None;
        let mut pause = PAUSE_FIRST;
        let mut failed_in_a_row = 0;
        for _ in 0..ATTEMPTS_MAX {
            let Ok((member, count)) = timeout_at(until, members.next()).await else {
                break;
            };
            let failure = match self
                .attempt(members, &member, (idempotence, until), &send)
                .await
            {
                Ok(reply) => return Ok(reply),
                Err(failure) => failure,
            };
            let repeat = matches!(
                (&failure, idempotence),
                (Error::NotArrived { .. }, _) | (Error::Unknown { .. }, Idempotence::Idempotent)
            );
            if !repeat {
                return Err(failure);
            }
            last = Some(failure);
            failed_in_a_row += 1;
            if failed_in_a_row >= count {
                // Everyone failed: wait for a change among them, but not for long.
                let wake = (Instant::now() + pause).min(until);
                let _ = timeout_at(wake, members.changed()).await;
                (pause, failed_in_a_row) = ((pause * 2).min(PAUSE_MAX), 0);
            }
            if Instant::now() >= until {
                break;
            }
        }
        Err(last.unwrap_or_else(|| Error::NoSuchService {
            service: self.name.to_string(),
        }))
    }

    /// Sends once, to one member.
    async fn attempt<T, F, W>(
        &self,
        members: &Members,
        member: &Member,
        (idempotence, until): (Idempotence, Instant),
        send: &F,
    ) -> Result<T, Error>
    where
        F: Fn(Channel) -> W,
        W: Future<Output = Result<T, Status>>,
    {
        let channel = match timeout_at(until, members.channel(member)).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) if error.refusal().is_some() => return Err(self.refused(error)),
            Ok(Err(error)) => return Err(self.not_arrived(error)),
            Err(late) => return Err(self.not_arrived(late)),
        };
        // A server that hangs must leave time for another, where asking another is right.
        let patience = match idempotence {
            Idempotence::Idempotent => until.min(Instant::now() + self.deadline / 2),
            Idempotence::Once => until,
        };
        let status = match timeout_at(patience, send(channel)).await {
            Ok(Ok(reply)) => return Ok(reply),
            Ok(Err(status)) => status,
            Err(late) => {
                members.forget(member);
                return Err(Error::Unknown {
                    service: self.name.to_string(),
                    source: Box::new(late),
                });
            }
        };
        let fate = fate(&status);
        if fate != Fate::Failed {
            members.forget(member);
        }
        Err(match fate {
            Fate::NotArrived => self.not_arrived(status),
            Fate::Unknown => Error::Unknown {
                service: self.name.to_string(),
                source: Box::new(status),
            },
            Fate::Failed => Error::Failed {
                service: self.name.to_string(),
                source: Box::new(status),
            },
            Fate::Refused => self.refused(status),
        })
    }

    fn not_arrived(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::NotArrived {
            service: self.name.to_string(),
            source: source.into(),
        }
    }

    fn refused(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::Refused {
            service: self.name.to_string(),
            source: source.into(),
        }
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Service")
            .field("name", &self.name)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
