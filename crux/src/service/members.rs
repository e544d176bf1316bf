//! The members of a service as they come and go, and the channels to them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crux_net::error::Error;
use crux_net::identity::Expect;
use crux_net::rpc::connect;
use crux_net::task::{self, Policy, Task};
use crux_wire::document::v1::ServiceRecord;
use crux_wire::status::Kind;
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::agent::{Agent, parse_principal};

/// One that offers the service: where, and as whom. An execution that moves is another member.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Member {
    address: String,
    principal: String,
    execution: String,
    tls: bool,
}

impl Member {
    fn of(record: ServiceRecord) -> Self {
        let host = if record.host.contains(':') {
            format!("[{}]", record.host)
        } else {
            record.host
        };
        Self {
            address: format!("{host}:{}", record.port),
            principal: record.principal,
            execution: record.execution,
            tls: record.tls,
        }
    }
}

/// Follows the members of one service.
pub(crate) struct Members {
    agent: Agent,
    list: watch::Receiver<Vec<Member>>,
    turn: AtomicUsize,
    channels: Mutex<BTreeMap<Member, Channel>>,
    /// Stops with the last handle.
    _task: Task<()>,
}

impl Members {
    pub(crate) fn follow(agent: &Agent, name: &str) -> Self {
        let (sender, list) = watch::channel(Vec::new());
        let mut changes = agent.watch(name);
        let task = task::spawn("service handle", Policy::ABORT, async move {
            loop {
                let mut members: Vec<Member> =
                    changes.next().await.into_iter().map(Member::of).collect();
                members.sort_unstable();
                members.dedup();
                sender.send_if_modified(|held| {
                    let differ = *held != members;
                    *held = members;
                    differ
                });
            }
        });
        Self {
            agent: agent.clone(),
            list,
            turn: AtomicUsize::new(0),
            channels: Mutex::default(),
            _task: task,
        }
    }

    /// The member whose turn it is, and how many there are; waits while there is none.
    pub(crate) async fn next(&self) -> (Member, usize) {
        let mut list = self.list.clone();
        loop {
            {
                let members = list.borrow_and_update();
                if !members.is_empty() {
                    let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                    return (members[turn % members.len()].clone(), members.len());
                }
            }
            if list.changed().await.is_err() {
                // The task that follows the service only ends with us.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits for the next change among the members.
    pub(crate) async fn changed(&self) {
        let mut list = self.list.clone();
        list.mark_unchanged();
        if list.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// A channel to `member`: the one held, or a new one that proved to be of the class it says.
    pub(crate) async fn channel(&self, member: &Member) -> Result<Channel, Error> {
        if let Some(channel) = self.channels().get(member) {
            return Ok(channel.clone());
        }
        if !member.tls {
            let error = Error::new(Kind::Unsupported, "connect").with("to", &member.address);
            return Err(
                error.because("the service is offered without TLS, which handles do not speak")
            );
        }
        let wrong = || Error::new(Kind::Invalid, "connect").with("to", &member.address);
        let (namespace, application, class) = parse_principal(&member.principal)
            .ok_or_else(|| wrong().because("its principal cannot be read"))?;
        let credentials = self.agent.credentials().await?;
        let expect = Expect::Class {
            namespace,
            application,
            class,
        };
        let channel = connect(&member.address, &credentials, expect).await?;
        let mut channels = self.channels();
        let members = self.list.borrow();
        channels.retain(|held, _| members.contains(held));
        channels.insert(member.clone(), channel.clone());
        Ok(channel)
    }

    /// Lets go of the channel to `member`; the next request makes a new one.
    pub(crate) fn forget(&self, member: &Member) {
        self.channels().remove(member);
    }

    fn channels(&self) -> std::sync::MutexGuard<'_, BTreeMap<Member, Channel>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
