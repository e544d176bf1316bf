//! The plug-in's side: one call in an author's `main`.
//!
//! ```text
//! caller ──(socket pair, one end is the plug-in's standard input; HTTP/2, gRPC)──▶ plug-in
//! ```
//!
//! Nobody else can connect: the socket has no name. When the caller dies the connection ends, and the plug-in with it.

mod below;
mod methods;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::process::ExitCode;
use std::sync::Arc;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::UnixStream;
use tonic::service::Routes;
use underverse::{Underverse, UnderverseAdmin};
use underverse_conformance::Below;

use crate::version::{MESSAGE_BYTES_MAX, PLUGIN_VARIABLE, VERSION_MAX, VERSION_MIN};
use crate::wire::plugin_server::PluginServer;
use crate::wire::underverse_admin_server::UnderverseAdminServer;
use crate::wire::underverse_server::UnderverseServer;
pub(crate) use below::{NOBODY, NOT_OFFERED};
use methods::Methods;

/// Exit code of a plug-in that was called wrongly.
const EXIT_USAGE: u8 = 2;

/// Serves `backend` to the caller that started this process, and returns when the caller is gone.
///
/// Started by a person, it says what it is. An author whose backend has an administrator's face, or a ground for
/// the conformance suite, uses [`Served`].
pub fn serve_plugin(backend: impl Underverse + 'static) -> ExitCode {
    Served::new(backend).run()
}

/// What a plug-in serves.
#[derive(Debug)]
pub struct Served {
    backend: Arc<dyn Underverse>,
    admin: Option<Arc<dyn UnderverseAdmin>>,
    below: Option<Box<dyn Below>>,
    version: String,
}

impl Served {
    /// Only the user's face of `backend`.
    #[must_use]
    pub fn new(backend: impl Underverse + 'static) -> Self {
        Self::shared(Arc::new(backend))
    }

    /// As [`Served::new`], for a backend that is shared.
    #[must_use]
    pub fn shared(backend: Arc<dyn Underverse>) -> Self {
        Self {
            backend,
            admin: None,
            below: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// With an administrator's face.
    #[must_use]
    pub fn admin(mut self, admin: Arc<dyn UnderverseAdmin>) -> Self {
        self.admin = Some(admin);
        self
    }

    /// With a ground for the conformance suite: `radix backend check NAME` asks this program for it.
    #[must_use]
    pub fn below(mut self, below: impl Below + 'static) -> Self {
        self.below = Some(Box::new(below));
        self
    }

    /// The program's version, as `--version` prints it.
    #[must_use]
    pub fn version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.version);
        self
    }

    /// Does what the command line says, and returns the exit code.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.run_with(&words)
    }

    /// Answers the suite about the ground, `words` being those after `--ground`, without a backend.
    #[must_use]
    pub fn ground(below: &dyn Below, words: &[&str]) -> ExitCode {
        finish(on_runtime(below::run(Some(below), words)))
    }

    /// Does what `words` say, which a binary of several names took from its command line, and returns the exit code.
    #[must_use]
    pub fn run_with(self, words: &[&str]) -> ExitCode {
        let called = std::env::var_os(PLUGIN_VARIABLE).is_some();
        let result = match words {
            ["--version"] => Ok(format!("{}\n", self.title())),
            ["--describe"] => Ok(self.describe()),
            ["--ground", rest @ ..] => on_runtime(below::run(self.below.as_deref(), rest)),
            [] if called => on_runtime(self.serve()).map(|()| String::new()),
            [] => Err(self.explain()),
            [other, ..] => Err(format!("{other:?} is not understood\n{}", self.explain())),
        };
        finish(result)
    }

    fn title(&self) -> String {
        format!("radix-underverse-{} {}", self.backend.name(), self.version)
    }

    fn describe(&self) -> String {
        let mut text = format!(
            "{}\nprotocol {VERSION_MIN} to {VERSION_MAX}\n",
            self.title()
        );
        for (capability, strength) in self.backend.capabilities().iter() {
            text.push_str(&format!("{:26} {strength}\n", capability.word()));
        }
        text
    }

    fn explain(&self) -> String {
        format!(
            "{} is a backend of Radix and is started by who uses it, for instance `radix backend check {}`.\n\
             --version prints its version, --describe what it can do here.",
            self.title(),
            self.backend.name()
        )
    }

    /// Serves the connection on standard input until it ends.
    async fn serve(&self) -> Result<(), String> {
        let stream = inherited()
            .map_err(|error| format!("standard input is no connection to a caller: {error}"))?;
        self.serve_on(stream)
            .await
            .map_err(|error| format!("the connection failed: {error}"))
    }

    /// Serves one connection until it ends.
    ///
    /// # Errors
    /// What the connection ended with, other than its end.
    ///
    /// # Cancel safety
    /// Dropping it ends the connection; passes stop where they are.
    pub async fn serve_on(
        &self,
        stream: UnixStream,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let methods = Methods::new(Arc::clone(&self.backend), self.admin.clone(), self.title());
        let limited = UnderverseServer::new(methods.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let mut routes = Routes::new(PluginServer::new(methods.clone())).add_service(limited);
        if self.admin.is_some() {
            routes = routes.add_service(UnderverseAdminServer::new(methods));
        }
        let service = TowerToHyperService::new(routes.prepare());
        let builder = auto::Builder::new(TokioExecutor::new()).http2_only();
        builder
            .serve_connection(TokioIo::new(stream), service)
            .await
    }
}

/// Takes the connection off standard input, so that nothing started from here inherits it.
fn inherited() -> io::Result<UnixStream> {
    let socket: OwnedFd = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    rustix::net::sockopt::socket_type(&socket)?;
    let nothing = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    let stream = StdStream::from(socket);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Says what came of it, and turns it into the exit code.
fn finish(result: Result<String, String>) -> ExitCode {
    let (code, done) = match result {
        Ok(text) => (
            ExitCode::SUCCESS,
            io::Write::write_all(&mut io::stdout(), text.as_bytes()),
        ),
        Err(text) => {
            let line = format!("{}\n", text.trim_end());
            (
                ExitCode::from(EXIT_USAGE),
                io::Write::write_all(&mut io::stderr(), line.as_bytes()),
            )
        }
    };
    // Nobody reads it: that is their choice.
    drop(done);
    code
}

/// Runs `work` on a runtime of its own, and leaves without waiting for what else runs there.
fn on_runtime<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| format!("failed to start the runtime: {error}"))?;
    let result = runtime.block_on(work);
    // A pass that is being dropped may hang in a file system call; the process ends all the same.
    runtime.shutdown_background();
    result
}
