//! Remote execution: only commands of a signed configuration, by digest.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crux_core::identity::{Principal, Who};
use crux_wire::keeper::v1::Execution;
use crux_wire::rexec::v1::rexec_server::Rexec;
use crux_wire::rexec::v1::run_input::Input;
use crux_wire::rexec::v1::run_output::Output;
use crux_wire::rexec::v1::{
    Command, Configuration, ConfigurationsReply, ConfigurationsRequest, Gap, ListReply,
    ListRequest, OutputChunk, OutputRequest, RunInput, RunOutput, SignalReply, SignalRequest,
    StartReply, StartRequest, WaitReply, WaitRequest,
};
use futures_util::{Stream, StreamExt};
use nix::sys::signal::Signal;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::context::{Agent, background, fields};
use super::guard::caller;
use super::launch::{Launch, call_status, may_detach};
use super::limits::{CALL_TIMEOUT, LIST_PREFIXES_MAX, STREAM_CHUNKS, TIMEOUT_GRACE};
use super::output;
use crate::output::{Piece, Stream as Written};

/// A stream of replies.
pub(crate) type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct RexecService(pub(crate) Arc<Agent>);

#[tonic::async_trait]
impl Rexec for RexecService {
    async fn configurations(
        &self,
        _: Request<ConfigurationsRequest>,
    ) -> Result<Response<ConfigurationsReply>, Status> {
        let commands = self.0.commands();
        let generation = commands.first().map_or(0, |command| command.generation);
        let commands = commands
            .into_iter()
            .map(|command| Command {
                name: command.pin.command,
                path: command.pin.path,
                digest: command.pin.digest,
            })
            .collect();
        let configurations = self
            .0
            .configuration()
            .map(|name| Configuration {
                name,
                commands,
                generation,
            })
            .into_iter()
            .collect();
        Ok(Response::new(ConfigurationsReply { configurations }))
    }

    async fn start(&self, request: Request<StartRequest>) -> Result<Response<StartReply>, Status> {
        let caller = caller(&request)?;
        let (execution, existed) = self.start_one(&caller, request.into_inner(), None).await?;
        let execution = Some(Execution::clone(&execution));
        Ok(Response::new(StartReply { execution, existed }))
    }

    type RunStream = Replies<RunOutput>;

    async fn run(
        &self,
        request: Request<Streaming<RunInput>>,
    ) -> Result<Response<Self::RunStream>, Status> {
        let caller = caller(&request)?;
        let mut inputs = request.into_inner();
        let first = inputs.message().await?.and_then(|first| first.input);
        let (execution, stdin) = match first {
            Some(Input::Start(start)) => {
                let (tx, rx) = pipe::pipe().map_err(|error| Status::internal(error.to_string()))?;
                let rx = rx
                    .into_blocking_fd()
                    .map_err(|error| Status::internal(error.to_string()))?;
                let (execution, existed) = self.start_one(&caller, start, Some(rx)).await?;
                (execution, (!existed).then_some(tx))
            }
            Some(Input::Attach(id)) => {
                let known = self.0.executions.get(&id);
                (
                    known.ok_or_else(|| Status::not_found(format!("find execution {id}")))?,
                    None,
                )
            }
            _ => {
                return Err(Status::invalid_argument(
                    "run: the first input is start or attach",
                ));
            }
        };
        let (tx, rx) = mpsc::channel(STREAM_CHUNKS);
        let id = execution.execution.clone();
        let agent = Arc::clone(&self.0);
        background("run", follow(Arc::clone(&agent), execution, tx));
        background("run-input", feed(agent, caller, id, inputs, stdin));
        Ok(Response::new(ReceiverStream::new(rx).boxed()))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListReply>, Status> {
        let wanted = request.into_inner();
        if wanted.prefixes.len() > LIST_PREFIXES_MAX {
            let asked = wanted.prefixes.len();
            return Err(Status::invalid_argument(format!(
                "list executions: {asked} prefixes are more than {LIST_PREFIXES_MAX}"
            )));
        }
        let settled = tokio::time::timeout(CALL_TIMEOUT, self.0.executions.settled()).await;
        settled.map_err(|_| Status::unavailable("list executions: one is still being started"))?;
        let executions = self
            .0
            .executions
            .beginning_with(&wanted.prefixes)
            .iter()
            .filter(|known| wanted.finished || known.outcome.is_none())
            .filter(|known| {
                wanted.configuration.is_empty() || known.configuration == wanted.configuration
            })
            .map(|known| Execution::clone(known))
            .collect();
        Ok(Response::new(ListReply { executions }))
    }

    async fn signal(
        &self,
        request: Request<SignalRequest>,
    ) -> Result<Response<SignalReply>, Status> {
        let caller = caller(&request)?;
        let wanted = request.into_inner();
        signal(&self.0, &caller, &wanted).await?;
        Ok(Response::new(SignalReply {}))
    }

    async fn wait(&self, request: Request<WaitRequest>) -> Result<Response<WaitReply>, Status> {
        let id = request.into_inner().execution;
        let ended = self.0.executions.wait(&id).await;
        let ended = ended.ok_or_else(|| Status::not_found(format!("find execution {id}")))?;
        Ok(Response::new(WaitReply {
            execution: Some(Execution::clone(&ended)),
        }))
    }

    type OutputStream = Replies<OutputChunk>;

    async fn output(
        &self,
        request: Request<OutputRequest>,
    ) -> Result<Response<Self::OutputStream>, Status> {
        let wanted = request.into_inner();
        let id = &wanted.execution;
        let known = self.0.executions.get(id);
        let known = known.ok_or_else(|| Status::not_found(format!("find execution {id}")))?;
        let which = if wanted.stderr {
            Written::Stderr
        } else {
            Written::Stdout
        };
        let (tx, rx) = mpsc::channel(STREAM_CHUNKS);
        let agent = Arc::clone(&self.0);
        background("output", async move {
            let from = output::From {
                offset: wanted.offset,
                tail_bytes: wanted.tail_bytes,
                follow: wanted.follow,
            };
            let piece = |piece| match piece {
                Piece::Data { offset, bytes, .. } => Some(Ok(OutputChunk {
                    offset,
                    bytes,
                    end: false,
                })),
                // The next one's offset tells.
                Piece::Gap { .. } | Piece::Ended(_) => None,
            };
            let read = output::read(&agent.executions, &known, (which, from), &tx, piece);
            let last = match read.await {
                Ok(offset) => Ok(OutputChunk {
                    offset,
                    bytes: Vec::new(),
                    end: true,
                }),
                Err(error) => Err(Status::internal(format!("read the output: {error}"))),
            };
            // A reader that has gone needs no end.
            let _ = tx.send(last).await;
        });
        Ok(Response::new(ReceiverStream::new(rx).boxed()))
    }
}

impl RexecService {
    async fn start_one(
        &self,
        caller: &Principal,
        start: StartRequest,
        stdin: Option<std::os::fd::OwnedFd>,
    ) -> Result<(Arc<Execution>, bool), Status> {
        let agent = &self.0;
        refuse_environment(agent, caller, &start)?;
        if let Some(known) = agent.executions.get(&start.execution) {
            let same = known.configuration == start.configuration && known.command == start.command;
            return if same {
                Ok((known, true))
            } else {
                Err(Status::already_exists(format!(
                    "start {}: the id is taken",
                    start.execution
                )))
            };
        }
        let found = agent.resolve(&start.configuration, &start.command);
        let found = found.and_then(|command| {
            let before = agent.words_before(&command, &start.args)?;
            Ok((command, before))
        });
        let (command, mut args) = match found {
            Ok(found) => found,
            Err(status) => {
                agent.memoir.refused(
                    &caller.to_string(),
                    &format!("rexec/{}/{}", start.configuration, start.command),
                );
                return Err(status);
            }
        };
        if start.detached && !may_detach(agent, &start.configuration) {
            return Err(Status::permission_denied(
                "detach: only the base's own executions may be",
            ));
        }
        let execution = if start.execution.is_empty() {
            agent.new_execution(&start.command)
        } else {
            start.execution
        };
        agent.wait_for(&command.pin).await?;
        args.extend(start.args);
        // Only assignments make instances; elsewhere the name is the backends' to choose.
        let instance = if agent.is_base() {
            start.instance
        } else {
            String::new()
        };
        let launch = Launch {
            execution,
            instance,
            configuration: start.configuration,
            command: start.command,
            args,
            env: start.env,
            detached: start.detached,
            label: start.label,
            time_limit_ms: start.timeout_ms.into(),
            caller: caller.to_string(),
            ..Launch::default()
        };
        let execution = agent.launch(launch, &command.pin, stdin).await?;
        // A keeper of an older version leaves it to us, for as long as we live.
        if start.timeout_ms > 0 && !agent.executions.keeper_limits() {
            let after = Duration::from_millis(start.timeout_ms.into());
            let (agent, id) = (Arc::clone(agent), execution.execution.clone());
            background("timeout", end_after(agent, id, after));
        }
        Ok((execution, false))
    }
}

/// A tool starts what the description allows, and nothing else: a variable such as `LD_PRELOAD` or `PATH` makes another
/// program of a command, whatever its digest and arguments are.
fn refuse_environment(
    agent: &Agent,
    caller: &Principal,
    start: &StartRequest,
) -> Result<(), Status> {
    let (Who::Tool { .. }, Some(variable)) = (&caller.who, start.env.first()) else {
        return Ok(());
    };
    let what = format!("rexec/{}/{}", start.configuration, start.command);
    agent.memoir.refused(&caller.to_string(), &what);
    Err(Status::permission_denied(format!(
        "start {}: a tool may not set environment variables, and it sets {:?}; those of a command stand in its description",
        start.command, variable.name
    )))
}

async fn signal(agent: &Agent, caller: &Principal, wanted: &SignalRequest) -> Result<(), Status> {
    Signal::try_from(wanted.signal)
        .map_err(|_| Status::invalid_argument(format!("send signal {}", wanted.signal)))?;
    let (execution, signal) = (wanted.execution.as_str(), wanted.signal);
    agent
        .record(
            "exec.signal",
            fields! { "execution": execution, "signal": signal, "caller": caller.to_string() },
        )
        .await
        .map_err(|error| Status::internal(format!("write the memoir: {error}")))?;
    let sent = agent
        .executions
        .signal(execution, signal, wanted.group)
        .await;
    sent.map_err(|error| call_status(&error))
}

/// Ends an execution whose time is over, where its keeper cannot.
async fn end_after(agent: Arc<Agent>, id: String, after: Duration) {
    for (signal, wait) in [(Signal::SIGTERM, after), (Signal::SIGKILL, TIMEOUT_GRACE)] {
        if tokio::time::timeout(wait, agent.executions.wait(&id))
            .await
            .is_ok()
        {
            return;
        }
        agent
            .note(
                "exec.timeout",
                fields! { "execution": id.clone(), "signal": signal as i32 },
            )
            .await;
        if let Err(error) = agent.executions.signal(&id, signal as i32, true).await {
            tracing::debug!(%error, execution = id, "a timed-out execution was not signalled");
        }
    }
}

/// Passes a caller's input on; its end closes the standard input.
async fn feed(
    agent: Arc<Agent>,
    caller: Principal,
    id: String,
    mut inputs: Streaming<RunInput>,
    mut stdin: Option<pipe::Sender>,
) {
    use tokio::io::AsyncWriteExt;
    while let Ok(Some(message)) = inputs.message().await {
        match message.input {
            Some(Input::Stdin(bytes)) => {
                if let Some(pipe) = &mut stdin
                    && pipe.write_all(&bytes).await.is_err()
                {
                    stdin = None;
                }
            }
            Some(Input::StdinEnd(_)) => stdin = None,
            Some(Input::Signal(number)) => {
                let wanted = SignalRequest {
                    execution: id.clone(),
                    signal: number,
                    group: true,
                };
                if let Err(status) = signal(&agent, &caller, &wanted).await {
                    tracing::debug!(%status, execution = id, "a signal was not sent");
                }
            }
            Some(Input::Start(_) | Input::Attach(_)) | None => {}
        }
    }
}

/// Streams an execution to its one outcome.
async fn follow(
    agent: Arc<Agent>,
    execution: Arc<Execution>,
    tx: mpsc::Sender<Result<RunOutput, Status>>,
) {
    let started = Output::Started(Execution::clone(&execution));
    if tx
        .send(Ok(RunOutput {
            output: Some(started),
        }))
        .await
        .is_err()
    {
        return;
    }
    let from = output::From {
        offset: 0,
        tail_bytes: 0,
        follow: true,
    };
    let read = async |stream| {
        let part = |piece| run_output(piece).map(Ok);
        output::read(&agent.executions, &execution, (stream, from), &tx, part).await
    };
    let (stdout, stderr) = tokio::join!(read(Written::Stdout), read(Written::Stderr));
    if tx.is_closed() {
        return;
    }
    let ended = agent.executions.wait(&execution.execution).await;
    let last = match (
        stdout.and(stderr),
        ended.and_then(|ended| ended.outcome.clone()),
    ) {
        (Ok(_), Some(outcome)) => Ok(RunOutput {
            output: Some(Output::Outcome(outcome)),
        }),
        (Err(error), _) => Err(Status::internal(format!("read the output: {error}"))),
        (Ok(_), None) => Err(Status::unavailable("learn the outcome: its record is gone")),
    };
    // A caller that has gone needs no end.
    let _ = tx.send(last).await;
}

/// A piece of output as `Run` tells it.
fn run_output(piece: Piece) -> Option<RunOutput> {
    let output = match piece {
        Piece::Data { stream, bytes, .. } => match stream {
            Written::Stdout => Output::Stdout(bytes),
            Written::Stderr => Output::Stderr(bytes),
        },
        Piece::Gap { stream, from, to } => Output::Gap(Gap {
            stderr: stream == Written::Stderr,
            from,
            to,
        }),
        Piece::Ended(_) => return None,
    };
    Some(RunOutput {
        output: Some(output),
    })
}
