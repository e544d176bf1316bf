//! Ready instances of a nested namespace's class, for the base's forwarders.
//!
//! The base is no member of a nested flock, so it asks one of its rnodes every [`CLASS_POLL`], while anyone watches.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crux_core::names::Label;
use crux_net::identity::Expect;
use crux_wire::document::v1::{InstanceState, ServiceRecord};
use crux_wire::fulcrum::v1::fulcrum_client::FulcrumClient;
use crux_wire::fulcrum::v1::{StatusReply, StatusRequest};
use crux_wire::process::v1::LookupReply;
use tokio::sync::{mpsc, watch};
use tonic::Status;
use tonic::transport::Channel;

use super::context::{Agent, background};
use super::limits::{CALL_TIMEOUT, CLASS_POLL, CLASS_WATCHES_MAX};

/// A class of a nested namespace, written `<namespace>/class:<class>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClassName {
    namespace: String,
    class: String,
}

/// The newest status of a namespace; `None` before the first answer.
type Known = Option<Arc<StatusReply>>;

/// The namespaces that are being watched.
#[derive(Debug, Default)]
pub(crate) struct ClassWatches {
    namespaces: Mutex<BTreeMap<String, watch::Sender<Known>>>,
}

/// A standing watch of one class.
#[derive(Debug)]
pub(crate) struct Found {
    class: String,
    known: watch::Receiver<Known>,
}

impl ClassWatches {
    /// Reads a class name; `None` for an ordinary service, and for everything on a nested rnode.
    #[expect(clippy::unused_self, reason = "reads as a question to the watches")]
    pub(crate) fn parse(&self, agent: &Agent, name: &str) -> Option<ClassName> {
        let (namespace, class) = name.split_once("/class:")?;
        agent.is_base().then(|| ClassName {
            namespace: namespace.to_owned(),
            class: class.to_owned(),
        })
    }

    /// Watches a class; the first watcher of a namespace starts asking.
    ///
    /// # Errors
    /// `ResourceExhausted` if too many namespaces are watched.
    pub(crate) fn watch(&self, agent: &Arc<Agent>, wanted: ClassName) -> Result<Found, Status> {
        let mut namespaces = self
            .namespaces
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        namespaces.retain(|_, known| known.receiver_count() > 0);
        if namespaces.len() >= CLASS_WATCHES_MAX {
            return Err(Status::resource_exhausted(
                "watch a class: too many are watched",
            ));
        }
        let known = namespaces
            .entry(wanted.namespace.clone())
            .or_insert_with(|| {
                let (known, _) = watch::channel(None);
                background(
                    "class-watch",
                    poll(Arc::clone(agent), wanted.namespace, known.clone()),
                );
                known
            });
        Ok(Found {
            class: wanted.class,
            known: known.subscribe(),
        })
    }
}

impl Found {
    /// What is ready, once it is known; empty if nobody tells within the time of a call.
    pub(crate) async fn first(&mut self) -> Vec<ServiceRecord> {
        let told = self.known.wait_for(Option::is_some);
        match tokio::time::timeout(CALL_TIMEOUT, told).await {
            Ok(Ok(known)) => known.as_ref().map(|status| ready(status, &self.class)),
            Ok(Err(_)) | Err(_) => None,
        }
        .unwrap_or_default()
    }

    /// Sends what is ready, now and at each change, until the watcher has gone.
    pub(crate) async fn forward(mut self, tx: mpsc::Sender<Result<LookupReply, Status>>) {
        let mut told: Option<Vec<ServiceRecord>> = None;
        loop {
            let known = self.known.borrow_and_update().clone();
            if let Some(status) = known {
                let services = ready(&status, &self.class);
                if told.as_ref() != Some(&services) {
                    told = Some(services.clone());
                    if tx.send(Ok(LookupReply { services })).await.is_err() {
                        return;
                    }
                }
            }
            tokio::select! {
                changed = self.known.changed() => if changed.is_err() { return },
                () = tx.closed() => return,
            }
        }
    }
}

/// The ready instances of a class, as services without a port: that is the forwarder's to know.
fn ready(status: &StatusReply, class: &str) -> Vec<ServiceRecord> {
    let hosts: BTreeMap<&str, &str> = status
        .rnodes
        .iter()
        .filter_map(|rnode| Some((rnode.id.as_str(), rnode.address.rsplit_once(':')?.0)))
        .collect();
    let instances = status.instances.iter();
    instances
        .filter(|known| known.class == class && known.state() == InstanceState::Ready)
        .filter_map(|known| {
            Some(ServiceRecord {
                name: class.to_owned(),
                namespace: status.namespace.clone(),
                application: status.application.clone(),
                class: class.to_owned(),
                index: known.index,
                host: hosts
                    .get(known.rnode.as_str())?
                    .trim_matches(['[', ']'])
                    .to_owned(),
                rnode: known.rnode.clone(),
                execution: known.execution.clone(),
                ..ServiceRecord::default()
            })
        })
        .collect()
}

/// Asks a rnode of the namespace again and again; another one when it does not answer.
async fn poll(agent: Arc<Agent>, namespace: String, known: watch::Sender<Known>) {
    let mut channel: Option<(String, Channel)> = None;
    let mut next = 0usize;
    loop {
        // Two senders: ours and the table's, which the next watch drops when nobody listens.
        if known.receiver_count() == 0 || agent.shutdown.is_cancelled() {
            return;
        }
        let asked = ask(&agent, &namespace, &mut channel, &mut next).await;
        if let Some(status) = asked {
            known.send_replace(Some(Arc::new(status)));
        } else {
            channel = None;
        }
        tokio::time::sleep(CLASS_POLL).await;
    }
}

async fn ask(
    agent: &Agent,
    namespace: &str,
    channel: &mut Option<(String, Channel)>,
    next: &mut usize,
) -> Option<StatusReply> {
    let rnodes = agent.hordes.rnodes().into_iter();
    let addresses: Vec<String> = rnodes
        .filter(|rnode| rnode.namespace == namespace)
        .map(|rnode| rnode.address)
        .collect();
    if channel
        .as_ref()
        .is_none_or(|(address, _)| !addresses.contains(address))
    {
        let address = addresses.get(*next % addresses.len().max(1))?.clone();
        *next = next.wrapping_add(1);
        let credentials = host_credentials(agent, namespace)?;
        let connecting = crux_net::rpc::connect(&address, &credentials, Expect::Owner).await;
        *channel = Some((address, connecting.ok()?));
    }
    let (_, open) = channel.as_ref()?;
    let mut client = FulcrumClient::new(open.clone());
    let asked = tokio::time::timeout(CALL_TIMEOUT, client.status(StatusRequest {})).await;
    Some(asked.ok()?.ok()?.into_inner())
}

/// Our side of connections to the rnodes of a namespace that we host.
pub(crate) fn host_credentials(
    agent: &Agent,
    namespace: &str,
) -> Option<crux_net::identity::Credentials> {
    let label = Label::new(namespace).ok()?;
    let held = agent.identity.host_credentials(&label).ok().flatten();
    Some(held.unwrap_or_else(|| agent.credentials.clone()))
}
