//! Keeps a forwarder's members up to date from its agent; the last known ones stay while the agent is away.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crux_wire::document::v1::ServiceRecord;
use crux_wire::process::v1::LookupRequest;
use crux_wire::process::v1::process_client::ProcessClient;
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::network::{At, Carries};

/// First pause before the agent is asked again.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// Longest pause before the agent is asked again.
const RETRY_MAX: Duration = Duration::from_secs(2);

/// What a forwarder follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// Namespace of the horde.
    pub namespace: String,
    /// Class whose ready instances answer; empty for every rnode's.
    pub class: String,
    /// Port they listen on.
    pub port: u16,
    /// Outer address that is forwarded to them.
    pub exposure: SocketAddr,
    /// What comes in there.
    pub carries: Carries,
}

impl Followed {
    /// The name that the base's agent answers with the ready instances.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/class:{}", self.namespace, self.class)
    }

    /// The exposed port as the base knows it.
    fn exposed(&self) -> String {
        let (listen, carries) = (self.exposure, self.carries);
        At { listen, carries }.to_string()
    }

    /// The addresses of those instances; records without an address are passed over.
    #[must_use]
    pub fn addresses(&self, services: &[ServiceRecord]) -> Vec<SocketAddr> {
        let address = |service: &ServiceRecord| {
            let host: IpAddr = service.host.parse().ok()?;
            Some(SocketAddr::new(host, self.port))
        };
        let mut addresses: Vec<SocketAddr> = services.iter().filter_map(address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }
}

/// Follows the members over `channel` until every receiver of `members` is gone.
///
/// # Cancel safety
/// May be dropped at any time.
pub async fn follow(
    channel: Channel,
    followed: &Followed,
    members: &watch::Sender<Vec<SocketAddr>>,
) {
    let mut pause = RETRY_MIN;
    loop {
        tokio::select! {
            () = members.closed() => return,
            heard = once(channel.clone(), followed, members) => {
                pause = if heard { RETRY_MIN } else { (pause * 2).min(RETRY_MAX) };
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// Follows one stream to its end; says whether anything was heard.
async fn once(
    channel: Channel,
    followed: &Followed,
    members: &watch::Sender<Vec<SocketAddr>>,
) -> bool {
    let mut heard = false;
    let request = LookupRequest {
        name: followed.name(),
        exposure: followed.exposed(),
    };
    let mut stream = match ProcessClient::new(channel).watch(request).await {
        Ok(reply) => reply.into_inner(),
        Err(status) => {
            tracing::warn!(class = followed.name(), %status, "the agent does not tell the members");
            return heard;
        }
    };
    while let Ok(Some(reply)) = stream.message().await {
        heard = true;
        let next = followed.addresses(&reply.services);
        members.send_if_modified(|held| {
            let changed = *held != next;
            *held = next;
            changed
        });
    }
    heard
}
