//! A process's own gRPC server: mutual TLS with its leaf, offered when it is ready.

use std::future::Future;
use std::time::Duration;

use crux_net::error::Error;
use crux_net::identity::Credentials;
use crux_net::rpc::{self, Answers};
use crux_net::task::{self, Policy};
use crux_wire::status::Kind;
use tokio::net::TcpListener;

use crate::agent::{Agent, Offer};

/// How often it is checked whether the leaf is due.
const LEAF_CHECK: Duration = Duration::from_secs(30);

/// Serves `answers` on `listener` as service `name`, to whoever our owner vouches for; ends after `shutdown`.
///
/// Bare routes are answered as gRPC; with [`Answers::twins`] every method of a descriptor set as REST too.
/// The caller is ready when it calls this: the service is offered at once. Each request carries its caller's
/// `Principal` in its extensions.
///
/// # Errors
/// [`Kind::Refused`] when the signed document does not offer the service; [`Kind::Unavailable`] when no agent answers.
///
/// # Cancel safety
/// Dropping it cuts every connection; the service stays offered until the process ends.
pub async fn serve(
    agent: &Agent,
    name: &str,
    listener: TcpListener,
    answers: impl Into<Answers>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let credentials = agent.credentials().await?;
    let address = listener
        .local_addr()
        .map_err(|error| Error::new(Kind::Bug, "serve").because(error))?;
    let renewing = task::spawn(
        "leaf",
        Policy::ABORT,
        renew(agent.clone(), credentials.clone()),
    );
    let offer = Offer {
        name: name.to_owned(),
        port: address.port(),
        version: String::new(),
        tls: true,
    };
    let withdrawing = async {
        let registered = agent.register(offer).await;
        if registered.is_ok() {
            shutdown.await;
        }
        registered
    };
    let (registered_in, registered_out) = tokio::sync::oneshot::channel();
    let until = async move {
        // The receiver outlives the server.
        let _ = registered_in.send(withdrawing.await);
    };
    rpc::serve(listener, credentials, answers, until).await?;
    drop(renewing);
    match registered_out.await {
        Ok(Ok(registered)) => registered.withdraw().await,
        Ok(Err(error)) => Err(error),
        Err(_) => Ok(()),
    }
}

/// Takes each next leaf in time.
async fn renew(agent: Agent, credentials: Credentials) {
    loop {
        tokio::time::sleep(LEAF_CHECK).await;
        // Asking renews when it is due; all holders share what is renewed.
        if let Err(error) = agent.credentials().await {
            tracing::warn!(%error, until = %credentials.until(), "the leaf could not be renewed");
        }
    }
}
