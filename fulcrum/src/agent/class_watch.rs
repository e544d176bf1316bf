//! Ready instances of a nested namespace's class, for the base's forwarders.
//!
//! The base is no member of a nested flock, so it asks one of its rnodes at least every [`CLASS_POLL`], while anyone
//! watches. It also keeps how many members each forwarder was told: a port is open when its forwarder knows one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crux_core::names::Label;
use crux_net::identity::Expect;
use crux_wire::document::v1::{InstanceState, ServiceRecord};
use crux_wire::fulcrum::v1::fulcrum_client::FulcrumClient;
use crux_wire::fulcrum::v1::{HordeState, StatusReply, StatusRequest};
use crux_wire::process::v1::LookupReply;
use tokio::sync::{mpsc, watch};
use tonic::Status;
use tonic::transport::Channel;

use super::context::{Agent, background};
use super::limits::{CALL_TIMEOUT, CLASS_POLL, CLASS_POLL_MIN, CLASS_WATCHES_MAX};

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
    told: Told,
}

/// How many members each forwarder was told last, by its exposed address.
#[derive(Debug, Clone, Default)]
struct Told(Arc<Mutex<ToldCounts>>);

/// Counts by exposed address, each with the number of the watch that told it.
#[derive(Debug, Default)]
struct ToldCounts {
    watches: u64,
    by_address: BTreeMap<String, (u64, u32)>,
}

/// One forwarder's line in [`Told`], gone when its watch ends.
#[derive(Debug)]
struct Telling {
    told: Told,
    address: String,
    number: u64,
}

impl Told {
    fn lock(&self) -> std::sync::MutexGuard<'_, ToldCounts> {
        // Only whole lines are put in.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, address: String) -> Telling {
        let mut counts = self.lock();
        counts.watches += 1;
        Telling {
            told: self.clone(),
            address,
            number: counts.watches,
        }
    }

    fn members(&self, address: &str) -> Option<u32> {
        self.lock().by_address.get(address).map(|(_, count)| *count)
    }
}

impl Telling {
    fn note(&self, members: usize) {
        let members = u32::try_from(members).unwrap_or(u32::MAX);
        let line = (self.number, members);
        self.told
            .lock()
            .by_address
            .insert(self.address.clone(), line);
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        let mut counts = self.told.lock();
        let held = counts.by_address.get(&self.address);
        // A forwarder that was started anew may have told its own by now.
        if held.is_some_and(|(number, _)| *number == self.number) {
            counts.by_address.remove(&self.address);
        }
    }
}

/// A standing watch of one class.
#[derive(Debug)]
pub(crate) struct Found {
    class: String,
    known: watch::Receiver<Known>,
    telling: Option<Telling>,
}

/// State of a port whose forwarder runs, as a backend tells it.
const OPEN: &str = "open";
/// State of a port at which nobody answers yet.
const WAITING: &str = "waiting";

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

    /// Completes what a backend told of its ports: one is open only when its forwarder knows a ready member.
    pub(crate) fn complete(&self, mut horde: HordeState) -> HordeState {
        for exposure in horde
            .exposures
            .iter_mut()
            .filter(|exposure| exposure.state == OPEN)
        {
            let members = self.told.members(&exposure.address);
            exposure.members = members.unwrap_or(0);
            let why = match members {
                None => "its forwarder has not asked for the members yet",
                Some(0) => "no member is ready",
                Some(_) => continue,
            };
            WAITING.clone_into(&mut exposure.state);
            why.clone_into(&mut exposure.message);
        }
        horde
    }

    /// Watches a class on behalf of whoever serves `exposure`, if that is not empty;
    /// the first watcher of a namespace starts asking.
    ///
    /// # Errors
    /// `ResourceExhausted` if too many namespaces are watched.
    pub(crate) fn watch(
        &self,
        agent: &Arc<Agent>,
        wanted: ClassName,
        exposure: String,
    ) -> Result<Found, Status> {
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
            telling: (!exposure.is_empty()).then(|| self.told.begin(exposure)),
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
                    let members = services.len();
                    if tx.send(Ok(LookupReply { services })).await.is_err() {
                        return;
                    }
                    if let Some(telling) = &self.telling {
                        telling.note(members);
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
    let mut pause = CLASS_POLL_MIN;
    loop {
        // Two senders: ours and the table's, which the next watch drops when nobody listens.
        if known.receiver_count() == 0 || agent.shutdown.is_cancelled() {
            return;
        }
        let asked = ask(&agent, &namespace, &mut channel, &mut next).await;
        let changed = if let Some(status) = asked {
            let news = Some(&status.instances);
            let changed = known.borrow().as_ref().map(|old| &old.instances) != news;
            known.send_replace(Some(Arc::new(status)));
            changed
        } else {
            channel = None;
            false
        };
        pause = if changed {
            CLASS_POLL_MIN
        } else {
            (pause * 2).min(CLASS_POLL)
        };
        tokio::time::sleep(pause).await;
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

#[cfg(test)]
mod tests {
    use crux_wire::fulcrum::v1::Exposure;

    use super::*;

    #[test]
    fn a_port_is_open_while_its_newest_forwarder_knows_a_member() {
        let watches = ClassWatches::default();
        let seen = |backend: &str| {
            let exposure = Exposure {
                address: "127.0.0.1:8080".to_owned(),
                state: backend.to_owned(),
                ..Exposure::default()
            };
            let horde = HordeState {
                exposures: vec![exposure],
                ..HordeState::default()
            };
            let exposure = watches.complete(horde).exposures.remove(0);
            (exposure.state, exposure.members)
        };
        let waiting = (WAITING.to_owned(), 0);
        assert_eq!(seen(OPEN), waiting, "nobody has asked for members");
        let first = watches.told.begin("127.0.0.1:8080".to_owned());
        first.note(0);
        assert_eq!(seen(OPEN), waiting);
        first.note(2);
        assert_eq!(seen(OPEN), (OPEN.to_owned(), 2));
        assert_eq!(seen("refused"), ("refused".to_owned(), 0));
        let second = watches.told.begin("127.0.0.1:8080".to_owned());
        second.note(1);
        drop(first);
        assert_eq!(
            seen(OPEN),
            (OPEN.to_owned(), 1),
            "the old one's end is late"
        );
        drop(second);
        assert_eq!(seen(OPEN), waiting);
    }
}
