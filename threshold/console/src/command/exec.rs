//! `radix exec`: runs an allowed command on a rnode; its output and exit code are ours.

use std::io::Write as _;

use crux_net::task::{Policy, spawn};
use crux_wire::keeper::v1::{Outcome as Ended, OutcomeKind};
use crux_wire::rexec::v1::{RunInput, RunOutput, StartRequest, run_input, run_output};
use tokio::io::AsyncReadExt as _;
use tokio_stream::wrappers::ReceiverStream;

use crate::args;
use crate::connection::{Base, RnodeConnection};
use crate::failure::{Failure, Fault, Outcome};
use crate::home::Home;
use crate::output;

/// Messages to the rnode that wait at most; standard input is read no faster.
const INPUT_QUEUE_MAX: usize = 16;
/// Bytes of standard input sent in one message.
const STDIN_CHUNK_BYTES: usize = 32 * 1024;

/// Runs the command.
pub(crate) async fn run(args: args::Exec) -> Outcome<()> {
    execute(args).await.map_err(|failure| match failure.fault {
        Fault::Code(_) | Fault::Usage | Fault::Lost => failure,
        Fault::Refused => failure.with_fault(Fault::Code(126)),
        _ => failure.with_fault(Fault::Code(125)),
    })
}

async fn execute(args: args::Exec) -> Outcome<()> {
    let base = Base::require(&Home::locate()?).await?;
    let rnode = base
        .rnode(args.running.namespace.as_deref(), &args.rnode)
        .await?;
    let (configuration, command) = resolve(&rnode, &args.command).await?;
    let start = StartRequest {
        execution: String::new(),
        configuration,
        command,
        args: args.args,
        timeout_ms: args.timeout.map_or(0, |time| {
            u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
        }),
        ..StartRequest::default()
    };
    let (sender, receiver) = tokio::sync::mpsc::channel(INPUT_QUEUE_MAX);
    let first = RunInput {
        input: Some(run_input::Input::Start(start)),
    };
    sender
        .send(first)
        .await
        .map_err(|_| Failure::failed("failed to start: the queue is closed"))?;
    let mut replies = rnode.run(ReceiverStream::new(receiver)).await?;
    let feeder = spawn("exec-stdin", Policy::ABORT, feed(sender, args.stdin));
    let outcome = loop {
        match replies.message().await {
            Ok(Some(RunOutput { output: Some(part) })) => {
                if let Some(outcome) = pass_on(part) {
                    break outcome;
                }
            }
            Ok(Some(RunOutput { output: None })) => {}
            Ok(None) => return Err(lost("the stream ended without a terminal record")),
            Err(status) if status.code() == tonic::Code::Unavailable => {
                return Err(lost(status.message()));
            }
            Err(status) if status.code() == tonic::Code::NotFound => {
                return Err(
                    Failure::status("run the command", &status).with_fault(Fault::Code(127))
                );
            }
            Err(status) => return Err(Failure::status("run the command", &status)),
        }
    };
    feeder.abort();
    end(&outcome, args.timeout.is_some())
}

fn lost(why: &str) -> Failure {
    Failure::new(Fault::Lost, format!("the outcome is unknown: {why}"))
        .hint("the command may have run; `radix events` and the rnode's memoir tell")
}

/// Prints output; returns the terminal record when it comes.
fn pass_on(part: run_output::Output) -> Option<Ended> {
    match part {
        run_output::Output::Started(_) => None,
        run_output::Output::Stdout(bytes) => {
            output::bytes(&bytes);
            None
        }
        run_output::Output::Stderr(bytes) => {
            let _ = std::io::stderr().lock().write_all(&bytes);
            None
        }
        run_output::Output::Outcome(outcome) => Some(outcome),
    }
}

/// Sends standard input, or its end at once, and keeps the stream open.
async fn feed(sender: tokio::sync::mpsc::Sender<RunInput>, stdin: bool) {
    if stdin {
        let mut input = tokio::io::stdin();
        let mut buffer = vec![0; STDIN_CHUNK_BYTES];
        while let Ok(read) = input.read(&mut buffer).await {
            if read == 0 {
                break;
            }
            let bytes = run_input::Input::Stdin(buffer[..read].to_vec());
            if sender.send(RunInput { input: Some(bytes) }).await.is_err() {
                return;
            }
        }
    }
    let end = RunInput {
        input: Some(run_input::Input::StdinEnd(true)),
    };
    let _ = sender.send(end).await;
    sender.closed().await;
}

/// `configuration/command`, or a command of the only configuration that has it.
async fn resolve(rnode: &RnodeConnection, word: &str) -> Outcome<(String, String)> {
    let configurations = rnode.configurations().await?;
    if let Some((configuration, command)) = word.split_once('/') {
        return Ok((configuration.to_owned(), command.to_owned()));
    }
    let mut having = configurations.iter().filter(|configuration| {
        configuration
            .commands
            .iter()
            .any(|command| command.name == word)
    });
    match (having.next(), having.next()) {
        (Some(one), None) => Ok((one.name.clone(), word.to_owned())),
        (Some(_), Some(_)) => Err(Failure::usage(format!(
            "several configurations have a command `{word}`"
        ))
        .hint("write CONFIGURATION/COMMAND")),
        (None, _) => {
            let known: Vec<_> = configurations
                .iter()
                .flat_map(|configuration| {
                    configuration
                        .commands
                        .iter()
                        .map(move |command| format!("{}/{}", configuration.name, command.name))
                })
                .collect();
            Err(Failure::new(
                Fault::Code(127),
                format!("no command `{word}` may run there"),
            )
            .hint(format!("commands: {}", known.join(", "))))
        }
    }
}

/// Turns the terminal record into our own exit.
fn end(outcome: &Ended, limited: bool) -> Outcome<()> {
    let code = |code: i32| Fault::Code(u8::try_from(code).unwrap_or(u8::MAX));
    match outcome.kind() {
        OutcomeKind::Exited if outcome.code == 0 => Ok(()),
        OutcomeKind::Exited => Err(Failure::new(code(outcome.code), String::new())),
        OutcomeKind::Signalled if limited && outcome.reason == "timeout" => Err(Failure::new(
            Fault::Code(124),
            "the command ran out of time and was ended",
        )),
        OutcomeKind::Signalled => Err(Failure::new(
            code(128 + outcome.code),
            format!("the command was ended by signal {}", outcome.code),
        )),
        OutcomeKind::NotStarted => Err(Failure::new(
            Fault::Code(126),
            format!("failed to start: {}", outcome.reason),
        )),
        OutcomeKind::Lost | OutcomeKind::Unspecified => Err(lost(&outcome.reason)),
    }
}
