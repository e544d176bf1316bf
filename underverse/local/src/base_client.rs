//! The base rnode over its process socket: [`Base`] by the generated clients.

use async_trait::async_trait;
use crux_net::boundary::{Crossing, asks};
use crux_wire::document::v1::Document;
use crux_wire::fulcrum::v1::fulcrum_client::FulcrumClient;
use crux_wire::fulcrum::v1::{
    DescribeRequest, Event, GetAuthorityRequest, GetDocumentReply, HordeState, InviteRequest,
    PutHordeStateRequest, WatchDocumentsRequest,
};
use crux_wire::keeper::v1::{EnvironmentVariable, Execution, Outcome, OutcomeKind};
use crux_wire::rexec::v1::rexec_client::RexecClient;
use crux_wire::rexec::v1::{ListRequest, SignalRequest, StartRequest, WaitRequest};
use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, FuturesUnordered};
use prost::Message as _;
use std::collections::BTreeSet;
use std::time::Duration;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use underverse::{Effect, Error, Kind, Strength};

use crate::base::{Abilities, Base, BaseView, EndSignal, Ended, ExecutionView, Start};
use crate::config::HostPort;
use crate::label::Label;

/// The reserved configuration of a base, and its one command.
const RADIX: &str = "radix";
/// Time one call may take: a start syncs to disk, and a machine may be loaded.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Why a base rnode runs no other commands.
const SIGNED_ONLY: &str =
    "the base rnode runs signed commands only, and no description signs commands of a horde yet";

/// A base rnode reached over a channel that connects anew by itself.
#[derive(Debug, Clone)]
pub struct BaseClient {
    fulcrum: FulcrumClient<Crossing>,
    rexec: RexecClient<Crossing>,
}

impl BaseClient {
    /// Takes the channel of a process socket.
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        Self {
            fulcrum: FulcrumClient::new(InterceptedService::new(channel.clone(), asks)),
            rexec: RexecClient::new(InterceptedService::new(channel, asks)),
        }
    }
}

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

/// What a refusal of the base means to us; `changes` says whether the call may have done something.
fn refused(operation: &'static str, changes: Effect, status: Status) -> Error {
    let (kind, effect) = match status.code() {
        Code::InvalidArgument | Code::OutOfRange => (Kind::Invalid, Effect::None),
        Code::NotFound => (Kind::NotFound, Effect::None),
        Code::AlreadyExists => (Kind::Taken, Effect::None),
        Code::FailedPrecondition | Code::Aborted => (Kind::Stale, Effect::None),
        Code::PermissionDenied | Code::Unauthenticated => (Kind::Denied, Effect::None),
        Code::ResourceExhausted => (Kind::Limit, Effect::None),
        Code::Unimplemented => (Kind::Unsupported, Effect::None),
        Code::DeadlineExceeded => (Kind::DeadlineExceeded, changes),
        Code::Unavailable | Code::Cancelled | Code::Ok => (Kind::Unavailable, changes),
        Code::Unknown | Code::Internal | Code::DataLoss => (Kind::Unavailable, changes),
    };
    let message = match status.message() {
        "" => status.code().to_string(),
        message => message.to_owned(),
    };
    Error::new(kind, operation, message)
        .effect(effect)
        .caused_by(status)
}

#[async_trait]
impl Base for BaseClient {
    fn abilities(&self) -> Abilities {
        Abilities {
            fulcrums: Strength::Enforced,
            commands: Strength::Absent(SIGNED_ONLY.to_owned()),
            class_doors: Strength::Enforced,
        }
    }

    async fn describe(&self) -> Result<BaseView, Error> {
        let reply = self
            .fulcrum
            .clone()
            .describe(request(DescribeRequest {}))
            .await;
        let reply = reply.map_err(|s| refused("ask the base who it is", Effect::None, s))?;
        let reply = reply.into_inner();
        let service = reply.rnode.iter().flat_map(|rnode| &rnode.addresses);
        let address = service
            .filter(|address| address.service == "fulcrum")
            .find_map(|address| Some((address.host.clone(), u16::try_from(address.port).ok()?)))
            .map(|(host, port)| HostPort { host, port });
        Ok(BaseView {
            owner: reply.owner,
            address,
        })
    }

    async fn start(&self, start: Start) -> Result<(), Error> {
        let env = start.env.into_iter();
        let message = StartRequest {
            execution: start.label.execution(),
            configuration: RADIX.to_owned(),
            command: RADIX.to_owned(),
            args: start.args,
            env: env
                .map(|(name, value)| EnvironmentVariable { name, value })
                .collect(),
            detached: true,
            label: start.label.encode(),
            instance: String::new(),
            timeout_ms: 0,
        };
        let execution = message.execution.clone();
        let reply = self.rexec.clone().start(request(message)).await;
        reply.map(drop).map_err(|status| {
            refused("start an execution on the base", Effect::Unknown, status)
                .with("execution", execution)
        })
    }

    async fn list(&self, of: Option<&str>) -> Result<Vec<ExecutionView>, Error> {
        let prefixes = of.map(|namespace| Label::execution_prefixes(namespace).to_vec());
        let message = ListRequest {
            configuration: RADIX.to_owned(),
            finished: true,
            prefixes: prefixes.unwrap_or_default(),
        };
        let reply = self.rexec.clone().list(request(message)).await;
        let reply = reply.map_err(|s| refused("list the base's executions", Effect::None, s))?;
        Ok(reply
            .into_inner()
            .executions
            .into_iter()
            .filter_map(view)
            .filter(|view| of.is_none_or(|namespace| view.label.namespace == namespace))
            .collect())
    }

    async fn until_ended(&self, executions: &[String]) {
        let wait = |execution: &String| {
            let request = WaitRequest {
                execution: execution.clone(),
            };
            let mut rexec = self.rexec.clone();
            // No time-out: a rnode may live for years.
            async move { drop(rexec.wait(request).await) }
        };
        let mut waits: FuturesUnordered<_> = executions.iter().map(wait).collect();
        waits.next().await;
    }

    async fn signal(&self, execution: &str, signal: EndSignal) -> Result<(), Error> {
        let (signal, group) = match signal {
            EndSignal::Ask => (rustix::process::Signal::TERM, false),
            EndSignal::Force => (rustix::process::Signal::KILL, true),
        };
        let message = SignalRequest {
            execution: execution.to_owned(),
            signal: signal.as_raw(),
            group,
        };
        let reply = self.rexec.clone().signal(request(message)).await;
        reply.map(drop).map_err(|status| {
            refused("signal an execution of the base", Effect::Unknown, status)
                .with("execution", execution)
        })
    }

    async fn forget(&self, _namespace: &str) -> Result<(), Error> {
        // The base keeps a number of ended executions and lets go of the oldest by itself.
        Ok(())
    }

    async fn invite(&self, namespace: &str, label: &str) -> Result<String, Error> {
        let message = InviteRequest {
            namespace: namespace.to_owned(),
            label: label.to_owned(),
        };
        let reply = self.fulcrum.clone().invite(request(message)).await;
        let reply = reply.map_err(|status| {
            refused("get an invitation from the base", Effect::Unknown, status)
                .with("rnode", format!("{namespace}/{label}"))
        })?;
        Ok(reply.into_inner().invitation)
    }

    async fn denied(&self, namespace: &str) -> Result<BTreeSet<String>, Error> {
        let mut fulcrum = self.fulcrum.clone();
        let reply = fulcrum
            .get_authority(request(GetAuthorityRequest::default()))
            .await
            .map_err(|status| refused("ask the base whom it denies", Effect::None, status))?;
        let within = |name: &String| {
            let (of, label) = name.split_once('/')?;
            (of == namespace).then(|| label.to_owned())
        };
        let denied = reply.into_inner().denied_rnodes;
        Ok(denied.iter().filter_map(within).collect())
    }

    async fn documents(&self) -> Result<BoxStream<'static, Result<Document, Error>>, Error> {
        let operation = "watch the base's documents";
        let reply = self
            .fulcrum
            .clone()
            .watch_documents(WatchDocumentsRequest {})
            .await;
        let stream = reply
            .map_err(|s| refused(operation, Effect::None, s))?
            .into_inner();
        let read = move |item: Result<GetDocumentReply, Status>| async move {
            match item {
                Err(status) => Some(Err(refused(operation, Effect::None, status))),
                Ok(reply) => document(reply),
            }
        };
        Ok(Box::pin(stream.filter_map(read)))
    }

    async fn report(&self, state: HordeState, events: Vec<Event>) -> Result<(), Error> {
        let message = PutHordeStateRequest {
            state: Some(state),
            events,
        };
        let reply = self.fulcrum.clone().put_horde_state(request(message)).await;
        reply
            .map(drop)
            .map_err(|s| refused("tell the base of a horde", Effect::Unknown, s))
    }
}

/// The document in a reply; `None` where there is none. The base has judged its signature.
fn document(reply: GetDocumentReply) -> Option<Result<Document, Error>> {
    let signed = reply.document.filter(|_| reply.found)?;
    let decoded = Document::decode(signed.payload.as_slice());
    Some(decoded.map_err(|error| {
        Error::new(
            Kind::Bug,
            "read a document",
            "the base sent one that cannot be read",
        )
        .caused_by(error)
    }))
}

/// An execution of ours; `None` for those of others, such as the backend itself.
fn view(execution: Execution) -> Option<ExecutionView> {
    let label = Label::decode(&execution.label)?;
    Some(ExecutionView {
        id: execution.execution,
        label,
        pid: execution.pid,
        started_unix_ms: execution.started_unix_ms,
        linked: execution.has_socket,
        ended: execution.outcome.map(|outcome| Ended {
            how: how(&outcome),
            unix_ms: outcome.ended_unix_ms,
        }),
    })
}

fn how(outcome: &Outcome) -> String {
    let ended = match outcome.kind() {
        OutcomeKind::Exited => format!("exited with code {}", outcome.code),
        OutcomeKind::Signalled => format!("was ended by signal {}", outcome.code),
        OutcomeKind::NotStarted => "could not be started".to_owned(),
        OutcomeKind::Lost => "ended while nobody could see how".to_owned(),
        OutcomeKind::Unspecified => "ended".to_owned(),
    };
    match outcome.reason.as_str() {
        "" => ended,
        reason => format!("{ended}: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::label::Subject;

    #[test]
    fn only_executions_that_carry_our_label_are_seen() {
        let label = Label {
            namespace: "stix".to_owned(),
            generation: (1, 0),
            attempt: 1,
            subject: Subject::Cell { ordinal: 1 },
        };
        let outcome = Outcome {
            code: 9,
            reason: "killed".to_owned(),
            ..Outcome::default()
        };
        let outcome = Outcome {
            kind: OutcomeKind::Signalled.into(),
            ..outcome
        };
        let ours = Execution {
            label: label.encode(),
            outcome: Some(outcome),
            ..Default::default()
        };
        let seen = view(ours).unwrap();
        assert_eq!(seen.ended.unwrap().how, "was ended by signal 9: killed");
        assert_eq!(seen.label, label);
        assert_eq!(view(Execution::default()), None);
    }

    #[test]
    fn a_lost_answer_to_a_start_is_unknown_and_a_refusal_is_not() {
        let lost = refused("start", Effect::Unknown, Status::unavailable("gone"));
        assert_eq!(
            (lost.kind(), lost.what_changed()),
            (Kind::Unavailable, Effect::Unknown)
        );
        let denied = refused("start", Effect::Unknown, Status::permission_denied("no"));
        assert_eq!(
            (denied.kind(), denied.what_changed()),
            (Kind::Denied, Effect::None)
        );
    }
}
