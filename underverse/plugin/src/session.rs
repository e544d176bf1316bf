//! One process of a plug-in: started, greeted, listened to; it ends with its session.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crux_net::task::{self, Policy, Task};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tonic::transport::{Channel, Endpoint};
use underverse::{Capabilities, Effect, Error, Kind};

use crate::convert;
use crate::launch::Launch;
use crate::version::{PLUGIN_VARIABLE, VERSION_MAX, VERSION_MIN, agree, hello};
use crate::wire;
use crate::wire::plugin_client::PluginClient;

/// Time in which a plug-in that was started must say hello: 20 s, of which a loaded machine needs two.
pub const HELLO_TIME_MAX: Duration = Duration::from_secs(20);
/// Longest line of a plug-in's output that is passed on, in bytes; the rest of it is cut off.
pub const LOG_LINE_BYTES_MAX: usize = 4_096;

/// Time in which a plug-in that hung up is seen to have ended, if it has.
const FATE_TIME_MAX: Duration = Duration::from_millis(500);

/// How a plug-in that hung up ended, for people; empty if it lives.
async fn fate(child: &mut Child) -> String {
    match tokio::time::timeout(FATE_TIME_MAX, child.wait()).await {
        Ok(Ok(status)) => format!("; it ended with {status}"),
        Ok(Err(_)) | Err(_) => String::new(),
    }
}

/// A process of a plug-in that was greeted. Dropping it ends the process.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) channel: Channel,
    pub(crate) capabilities: Capabilities,
    pub(crate) program: String,
    pub(crate) admin: bool,
    pub(crate) pid: Option<u32>,
    child: Mutex<Child>,
    broken: AtomicBool,
    _logs: [Task<()>; 2],
}

impl Session {
    /// Starts the program, and greets it.
    ///
    /// # Errors
    /// `NotFound` if it cannot be started, `Unsupported` if no version is common to both, `Unavailable` if it does not answer.
    pub(crate) async fn start(launch: &Launch) -> Result<Self, Error> {
        let failed = |kind, message: String| {
            Error::new(kind, "start a plug-in", message).with("plug-in", &launch.name)
        };
        let io = |error: std::io::Error| failed(Kind::Io, error.to_string());
        let (ours, theirs) = StdStream::pair().map_err(io)?;
        ours.set_nonblocking(true).map_err(io)?;
        let mut child = Command::new(&launch.program)
            .args(&launch.args)
            .envs(launch.env.iter().map(|(name, value)| (name, value)))
            .env(PLUGIN_VARIABLE, "1")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                failed(
                    Kind::NotFound,
                    format!("{}: {error}", launch.program.display()),
                )
            })?;
        let stdout = child.stdout.take().map(|pipe| pass_on(launch, pipe));
        let stderr = child.stderr.take().map(|pipe| pass_on(launch, pipe));
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            return Err(failed(Kind::Bug, "its output was not to be had".to_owned()));
        };
        let channel = match connect(UnixStream::from_std(ours).map_err(io)?).await {
            Ok(channel) => channel,
            Err(error) => {
                let why = format!("no connection: {error}{}", fate(&mut child).await);
                return Err(failed(Kind::Unavailable, why));
            }
        };
        let mut client = PluginClient::new(channel.clone());
        let greeting = client.hello(hello());
        let told = match tokio::time::timeout(HELLO_TIME_MAX, greet(greeting)).await {
            Ok(Ok(told)) => told,
            Ok(Err(status)) => {
                return Err(failed(
                    Kind::Unavailable,
                    format!(
                        "it did not say hello: {}{}",
                        status.message(),
                        fate(&mut child).await
                    ),
                ));
            }
            Err(_) => {
                return Err(failed(
                    Kind::Unavailable,
                    format!("no hello in {} s", HELLO_TIME_MAX.as_secs()),
                ));
            }
        };
        let theirs = (told.version_min, told.version_max);
        if agree((VERSION_MIN, VERSION_MAX), theirs) != Some(told.version) {
            let ranges = format!(
                "it speaks versions {} to {} of the protocol, and radix {VERSION_MIN} to {VERSION_MAX}",
                theirs.0, theirs.1
            );
            return Err(failed(Kind::Unsupported, ranges));
        }
        if told.name != launch.name {
            return Err(failed(
                Kind::Invalid,
                format!("it says that its name is {:?}", told.name),
            ));
        }
        Ok(Self {
            channel,
            capabilities: convert::capabilities(told.capabilities),
            program: told.program,
            admin: told.admin,
            pid: child.id(),
            child: Mutex::new(child),
            broken: AtomicBool::new(false),
            _logs: [stdout, stderr],
        })
    }

    /// Ends the process: its connection broke, and nothing more is to be had of it.
    pub(crate) fn end(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = child.start_kill() {
            tracing::debug!(%error, "a plug-in had ended already");
        }
        self.broken.store(true, Ordering::Release);
    }

    /// Whether the process has ended, or is not to be talked to any more.
    pub(crate) fn has_ended(&self) -> bool {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        self.broken.load(Ordering::Acquire) || !matches!(child.try_wait(), Ok(None))
    }
}

async fn greet(
    greeting: impl Future<Output = Result<tonic::Response<wire::HelloReply>, tonic::Status>>,
) -> Result<wire::HelloReply, tonic::Status> {
    greeting.await.map(tonic::Response::into_inner)
}

/// A channel over `stream` and no other: when it breaks, the session is over.
async fn connect(stream: UnixStream) -> Result<Channel, tonic::transport::Error> {
    let once = Arc::new(Mutex::new(Some(stream)));
    let connector = tower::service_fn(move |_| {
        let stream = once.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move {
            let gone =
                || std::io::Error::new(std::io::ErrorKind::BrokenPipe, "the plug-in is gone");
            stream.map(TokioIo::new).ok_or_else(gone)
        }
    });
    // The address is never resolved: the connector has the stream already.
    Endpoint::from_static("http://plugin")
        .connect_with_connector(connector)
        .await
}

/// Passes on what a plug-in writes, line by line.
fn pass_on(launch: &Launch, pipe: impl AsyncRead + Send + Unpin + 'static) -> Task<()> {
    let (name, log) = (launch.name.clone(), Arc::clone(&launch.log));
    task::spawn("plug-in's output", Policy::ABORT, async move {
        let mut pipe = pipe;
        let (mut line, mut chunk) = (Vec::new(), [0_u8; 1_024]);
        while let Ok(count) = pipe.read(&mut chunk).await {
            if count == 0 {
                break;
            }
            for &byte in &chunk[..count] {
                match byte {
                    b'\n' => log(&name, &String::from_utf8_lossy(&std::mem::take(&mut line))),
                    _ if line.len() < LOG_LINE_BYTES_MAX => line.push(byte),
                    _ => {}
                }
            }
        }
        if !line.is_empty() {
            log(&name, &String::from_utf8_lossy(&line));
        }
    })
}

/// A call whose answer did not come: nobody knows what it did.
pub(crate) fn lost(name: &str, status: &tonic::Status) -> Error {
    let kind = match status.code() {
        tonic::Code::Unimplemented => Kind::Unsupported,
        tonic::Code::InvalidArgument => Kind::Invalid,
        tonic::Code::ResourceExhausted | tonic::Code::OutOfRange => Kind::Limit,
        _ => Kind::Unavailable,
    };
    let effect = if kind == Kind::Unavailable {
        Effect::Unknown
    } else {
        Effect::None
    };
    Error::new(kind, "call a plug-in", status.message())
        .with("plug-in", name)
        .effect(effect)
}
