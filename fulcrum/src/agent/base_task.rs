//! Keeps `backend local` running on a base rnode.

use std::sync::Arc;

use crux_net::boundary;
use crux_net::order::Order;
use crux_wire::keeper::v1::EnvironmentVariable;

use super::context::{Agent, RADIX};
use super::launch::Launch;
use super::limits::BACKEND_RETRY;

/// Name of the one backend that a base starts by itself.
const BACKEND: &str = "local";

/// Runs until the agent ends; at once on a nested rnode.
pub(crate) async fn run(agent: Arc<Agent>) {
    if !agent.is_base() {
        return;
    }
    let mut documents = agent.documents.changes();
    let mut pause = BACKEND_RETRY.0;
    loop {
        documents.mark_unchanged();
        if let Some(running) = running(&agent) {
            let since = tokio::time::Instant::now();
            tokio::select! {
                _ = agent.executions.wait(&running) => {}
                () = agent.shutdown.cancelled() => return,
            }
            if since.elapsed() >= BACKEND_RETRY.1 {
                pause = BACKEND_RETRY.0;
            }
            agent.tell("backend", BACKEND, "ended");
        } else if agent.commands().is_empty() {
            // Nothing may run here before the base's own document has arrived.
            tokio::select! {
                _ = documents.changed() => {}
                () = agent.shutdown.cancelled() => return,
            }
            continue;
        } else {
            match start(&agent).await {
                Ok(()) => agent.trouble.set("backend", Vec::new()),
                Err(reason) => {
                    agent.trouble.set(
                        "backend",
                        vec![format!("the backend {BACKEND} does not start: {reason}")],
                    );
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = agent.shutdown.cancelled() => return,
        }
        pause = (pause * 2).min(BACKEND_RETRY.1);
        if running(&agent).is_some() {
            continue;
        }
    }
}

/// The running execution of the backend.
fn running(agent: &Agent) -> Option<String> {
    let executions = agent.executions.list();
    let found = executions.iter().find(|known| {
        known.configuration == RADIX && known.instance == instance() && known.outcome.is_none()
    });
    found.map(|known| known.execution.clone())
}

fn instance() -> String {
    format!("backend/{BACKEND}")
}

async fn start(agent: &Arc<Agent>) -> Result<(), String> {
    let command = agent
        .resolve(RADIX, RADIX)
        .map_err(|status| status.message().to_owned())?;
    let launch = Launch {
        execution: agent.new_execution(&format!("backend-{BACKEND}")),
        instance: instance(),
        configuration: RADIX.to_owned(),
        command: RADIX.to_owned(),
        args: vec!["backend".to_owned(), BACKEND.to_owned()],
        env: for_tests(),
        caller: "base".to_owned(),
        ..Launch::default()
    };
    let started = agent.launch(launch, &command.pin, None).await;
    started
        .map(|_| ())
        .map_err(|status| status.message().to_owned())
}

/// What lets a test end the backend where it wants and say in which order it starts; nothing otherwise.
fn for_tests() -> Vec<EnvironmentVariable> {
    let directory = boundary::directory().map(|path| path.display().to_string());
    let boundaries = directory.map(|directory| (boundary::VARIABLE, directory));
    let variables = boundaries
        .into_iter()
        .chain(Order::from_environment().variable());
    let variable = |(name, value): (&str, String)| EnvironmentVariable {
        name: name.to_owned(),
        value,
    };
    variables.map(variable).collect()
}
