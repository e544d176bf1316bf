//! `radix exec`: runs an allowed command on a rnode; its output and exit code are ours.

use std::io::Write as _;
use std::time::{Duration, Instant};

use crux_net::task::{Policy, spawn};
use crux_wire::keeper::v1::{Outcome as Ended, OutcomeKind};
use crux_wire::rexec::v1::{RunInput, RunOutput, StartRequest, run_input, run_output};
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc::Sender;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::args;
use crate::connection::{Base, RnodeConnection};
use crate::failure::{Failure, Fault, Outcome};
use crate::home::Home;
use crate::output;

/// Messages to the rnode that wait at most; standard input is read no faster.
const INPUT_QUEUE_MAX: usize = 16;
/// Bytes of standard input sent in one message.
const STDIN_CHUNK_BYTES: usize = 32 * 1024;

/// How long a rnode whose agent died may take to have another.
const ATTACH_WAIT_MAX: Duration = Duration::from_secs(30);
/// Pause between two attempts to find it.
const ATTACH_PAUSE: Duration = Duration::from_millis(100);

/// Runs the command.
pub(crate) async fn run(args: args::Exec) -> Outcome<()> {
    execute(args).await.map_err(|failure| match failure.fault {
        Fault::Code(_) | Fault::Lost => failure,
        Fault::Refused => failure.with_fault(Fault::Code(126)),
        _ => failure.with_fault(Fault::Code(125)),
    })
}

async fn execute(args: args::Exec) -> Outcome<()> {
    let base = Base::require(&Home::locate()?).await?;
    let namespace = args.running.namespace.as_deref();
    let rnode = base.rnode(namespace, &args.rnode).await?;
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
    let mut shown = Shown::default();
    let begun = Instant::now();
    let (stream, sender) = open(&rnode, run_input::Input::Start(start)).await?;
    let feeder = spawn("exec-stdin", Policy::ABORT, feed(sender, args.stdin));
    let mut followed = shown.follow(stream).await;
    feeder.abort();
    while let (Err(broken), Some(execution)) = (&followed, shown.execution.clone()) {
        if !broken.may_attach {
            break;
        }
        // The rnode's keeper has the process and its output: the next agent tells the rest.
        let attach = run_input::Input::Attach(execution);
        match attached(&base, (namespace, &args.rnode), attach).await {
            Ok((stream, _sender)) => followed = shown.follow(stream).await,
            Err(failure) => return Err(lost(&failure.to_string())),
        }
    }
    let outcome = followed.map_err(|broken| broken.failure)?;
    // An older rnode does not say that it was late.
    let late = args.timeout.is_some_and(|limit| begun.elapsed() >= limit);
    end(&outcome, outcome.timed_out || late)
}

/// Opens a stream with its first message; it is open at this end while the sender is held.
async fn open(
    rnode: &RnodeConnection,
    first: run_input::Input,
) -> Outcome<(Streaming<RunOutput>, Sender<RunInput>)> {
    let (sender, receiver) = tokio::sync::mpsc::channel(INPUT_QUEUE_MAX);
    let first = RunInput { input: Some(first) };
    sender
        .send(first)
        .await
        .map_err(|_| Failure::failed("failed to start: the queue is closed"))?;
    let stream = rnode.run(ReceiverStream::new(receiver)).await?;
    Ok((stream, sender))
}

/// Follows an execution that we lost sight of, as soon as its rnode has an agent again.
async fn attached(
    base: &Base,
    (namespace, label): (Option<&str>, &str),
    attach: run_input::Input,
) -> Outcome<(Streaming<RunOutput>, Sender<RunInput>)> {
    let begin = Instant::now();
    loop {
        let opened = match base.rnode(namespace, label).await {
            Ok(rnode) => open(&rnode, attach.clone()).await,
            Err(failure) => Err(failure),
        };
        if opened.is_ok() || begin.elapsed() > ATTACH_WAIT_MAX {
            return opened;
        }
        tokio::time::sleep(ATTACH_PAUSE).await;
    }
}

/// Why a stream ended before its terminal record.
struct Broken {
    failure: Failure,
    /// Whether the execution may be followed in another stream.
    may_attach: bool,
}

/// How much of an execution was passed on; each stream begins at its beginning.
#[derive(Default)]
struct Shown {
    execution: Option<String>,
    stdout: u64,
    stderr: u64,
}

impl Shown {
    /// Passes on what is new in a stream, to the terminal record.
    async fn follow(&mut self, mut stream: Streaming<RunOutput>) -> Result<Ended, Broken> {
        let (mut stdout, mut stderr) = (0, 0);
        loop {
            let part = match stream.message().await {
                Ok(Some(RunOutput { output })) => output,
                Ok(None) => return Err(broken(lost("the stream ended without an outcome"), true)),
                Err(status) => return Err(of_status(&status)),
            };
            match part {
                Some(run_output::Output::Started(started)) => {
                    self.execution = Some(started.execution);
                }
                Some(run_output::Output::Stdout(bytes)) => {
                    output::bytes(unseen(&bytes, &mut stdout, &mut self.stdout));
                }
                Some(run_output::Output::Stderr(bytes)) => {
                    let bytes = unseen(&bytes, &mut stderr, &mut self.stderr);
                    let _ = std::io::stderr().lock().write_all(bytes);
                }
                Some(run_output::Output::Gap(gap)) => {
                    let (at, shown, which) = match gap.stderr {
                        false => (&mut stdout, &mut self.stdout, "standard output"),
                        true => (&mut stderr, &mut self.stderr, "standard error"),
                    };
                    if let Some(missing) = missing(gap.to, at, shown) {
                        output::talk(&output::missing("radix exec: ", missing, which));
                    }
                }
                Some(run_output::Output::Outcome(outcome)) => return Ok(outcome),
                None => {}
            }
        }
    }
}

/// The part of `bytes` that was not shown before; `at` is where they begin and becomes where they end.
fn unseen<'b>(bytes: &'b [u8], at: &mut u64, shown: &mut u64) -> &'b [u8] {
    let known = usize::try_from(shown.saturating_sub(*at)).unwrap_or(usize::MAX);
    *at += bytes.len() as u64;
    *shown = (*shown).max(*at);
    &bytes[known.min(bytes.len())..]
}

/// How many bytes are missing up to `to` that were not shown before they went; `at` becomes `to`.
fn missing(to: u64, at: &mut u64, shown: &mut u64) -> Option<u64> {
    let missing = to.saturating_sub((*shown).max(*at));
    *at = to;
    *shown = (*shown).max(to);
    (missing > 0).then_some(missing)
}

const fn broken(failure: Failure, may_attach: bool) -> Broken {
    Broken {
        failure,
        may_attach,
    }
}

/// A stream that broke, or a refusal.
fn of_status(status: &tonic::Status) -> Broken {
    use tonic::Code;
    let failure = Failure::status("run the command", status);
    match status.code() {
        Code::NotFound => broken(failure.with_fault(Fault::Code(127)), false),
        Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled => {
            broken(lost(status.message()), true)
        }
        _ => broken(failure, false),
    }
}

fn lost(why: &str) -> Failure {
    Failure::new(Fault::Lost, format!("the outcome is unknown: {why}"))
        .hint("the command may have run; `radix events` and the rnode's memoir tell")
}

/// Sends standard input, or its end at once, and keeps the stream open.
async fn feed(sender: Sender<RunInput>, stdin: bool) {
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

/// Turns the terminal record into our own exit; `late`: its time was over when it ended.
fn end(outcome: &Ended, late: bool) -> Outcome<()> {
    let code = |code: i32| Fault::Code(u8::try_from(code).unwrap_or(u8::MAX));
    match outcome.kind() {
        OutcomeKind::Exited if outcome.code == 0 => Ok(()),
        OutcomeKind::Exited => Err(Failure::new(code(outcome.code), String::new())),
        // The keeper ends what is late by TERM, and by KILL what does not heed it.
        OutcomeKind::Signalled if late && matches!(outcome.code, 9 | 15) => Err(Failure::new(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_stream_shows_only_what_the_first_did_not() {
        let mut shown = 0;
        let mut at = 0;
        assert_eq!(unseen(b"abc", &mut at, &mut shown), b"abc");
        assert_eq!(unseen(b"de", &mut at, &mut shown), b"de");
        let mut at = 0;
        assert_eq!(unseen(b"ab", &mut at, &mut shown), b"");
        assert_eq!(unseen(b"cdefg", &mut at, &mut shown), b"fg");
        assert_eq!(unseen(b"h", &mut at, &mut shown), b"h");
    }
    #[test]
    fn what_went_before_it_was_shown_is_missing_and_nothing_else() {
        let (mut at, mut shown) = (0, 0);
        unseen(b"abc", &mut at, &mut shown);
        assert_eq!(missing(10, &mut at, &mut shown), Some(7));
        assert_eq!(unseen(b"kl", &mut at, &mut shown), b"kl");
        // In another stream more is gone, part of which was shown.
        let mut at = 0;
        unseen(b"a", &mut at, &mut shown);
        assert_eq!(missing(11, &mut at, &mut shown), None);
        assert_eq!(unseen(b"lm", &mut at, &mut shown), b"m");
        let mut at = 1;
        assert_eq!(missing(15, &mut at, &mut shown), Some(2));
    }
}
