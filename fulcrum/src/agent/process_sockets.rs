//! The sockets that executions inherited: what comes over one is that execution, nobody else.

use std::sync::Arc;

use crux_core::identity::{Principal, Who};
use crux_core::names::Label;
use crux_net::rpc::{Answers, ProcessListener, serve_stream};
use crux_wire::fileio::v1::file_io_server::FileIoServer;
use crux_wire::fulcrum::v1::fulcrum_server::FulcrumServer;
use crux_wire::keeper::v1::Execution;
use crux_wire::process::v1::process_server::ProcessServer;
use crux_wire::rest::Api;
use crux_wire::rexec::v1::rexec_server::RexecServer;
use tokio::sync::{Semaphore, mpsc};
use tonic::service::Routes;

use super::context::{Agent, RADIX, background};
use super::executions::Socket;
use super::fileio_service::FileIoService;
use super::fulcrum_service::FulcrumService;
use super::guard::Guard;
use super::label::InstanceLabel;
use super::limits::PROCESS_STREAMS_MAX;
use super::process_service::ProcessService;
use super::rexec_service::RexecService;

/// Serves every socket that arrives, each in a task of its own, until the agent ends.
pub(crate) async fn run(agent: Arc<Agent>, mut sockets: mpsc::Receiver<Socket>) {
    while let Some((execution, socket)) = sockets.recv().await {
        match ProcessListener::new(socket) {
            Ok(listener) => {
                background(
                    "process-socket",
                    serve(Arc::clone(&agent), execution, listener),
                );
            }
            Err(error) => tracing::warn!(%error, execution, "a process socket is not served"),
        }
    }
}

async fn serve(agent: Arc<Agent>, id: String, listener: ProcessListener) {
    let Some(execution) = agent.executions.get(&id) else {
        return;
    };
    let Some(principal) = principal(&agent, &execution) else {
        return;
    };
    let answers = Answers::new(routes(&agent, &execution, &principal)).twins(Api::radix);
    let places = Arc::new(Semaphore::new(PROCESS_STREAMS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = agent.shutdown.cancelled() => return,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return,
            Err(error) => {
                tracing::warn!(%error, execution = id, "a process socket failed");
                return;
            }
        };
        // A process beyond the limit finds its stream closed.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        let (principal, answers) = (principal.clone(), answers.clone());
        background("process-stream", async move {
            serve_stream(stream, principal, answers).await;
            drop(place);
        });
    }
}

/// Who an execution is: an instance of the application, or the base's own.
fn principal(agent: &Agent, execution: &Execution) -> Option<Principal> {
    if agent.is_base() && execution.configuration == RADIX {
        let name = Label::new(&execution.command).ok()?;
        return Some(Principal::backend(agent.me.owner, name));
    }
    let (application, class, index) = match InstanceLabel::of(execution) {
        Some(label) => (label.application, label.class, label.index),
        // A one-off command of the application is not an instance of any class.
        None => (
            execution.configuration.clone(),
            execution.command.clone(),
            u32::MAX,
        ),
    };
    let who = Who::App {
        namespace: agent.me.namespace.clone(),
        application: Label::new(&application).ok()?,
        class: Label::new(&class).ok()?,
        index,
        rnode: agent.me.id,
    };
    Some(Principal::local_app(agent.me.owner, who))
}

fn routes(agent: &Arc<Agent>, execution: &Arc<Execution>, principal: &Principal) -> Routes {
    let process = ProcessService::new(agent, execution);
    let routes = Routes::new(Guard::new(ProcessServer::new(process), agent));
    if !matches!(principal.who, Who::Backend { .. }) {
        return routes;
    }
    add_services(routes, agent)
}

/// The three services of a rnode, behind the table.
pub(crate) fn add_services(routes: Routes, agent: &Arc<Agent>) -> Routes {
    routes
        .add_service(Guard::new(
            FulcrumServer::new(FulcrumService(Arc::clone(agent))),
            agent,
        ))
        .add_service(Guard::new(
            RexecServer::new(RexecService(Arc::clone(agent))),
            agent,
        ))
        .add_service(Guard::new(
            FileIoServer::new(FileIoService(Arc::clone(agent))),
            agent,
        ))
}
