//! Answers the agent's requests: one packet in, its replies out.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use crux_wire::keeper::v1::{
    Done, Execution, Executions as ExecutionsReply, Exited, FromKeeper, Refused, RefusedKind,
    Spawned, ToKeeper, Welcome, from_keeper::Reply, to_keeper::Action,
};
use prost::Message;

use super::agent_process::Outgoing;
use super::executions::{Executions, Refusal};
use super::packet::{PACKET_FDS_MAX, Packet};

/// The version of the protocol spoken here; 2: executions can be held; 3: and limited in time.
const VERSION: u32 = 3;

/// Size beyond which a list goes on in the next packet; only an execution that is larger by itself has one that is larger.
const LIST_BYTES: usize = 64 * 1024;

/// What the keeper has to do beyond replying.
#[derive(Debug)]
pub(crate) enum Served {
    /// Send these.
    Replies(Vec<Outgoing>),
    /// Send these, then let this execution go if its agent has said so: it hears of the start while the program begins.
    Started(Vec<Outgoing>, String),
    /// Retire, and reply to this request when all have ended.
    Retire { request: u64, grace_ms: u32 },
}

/// Who we are, for the greeting.
#[derive(Debug)]
pub(crate) struct Greeting<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) incarnation: u64,
    pub(crate) retiring: bool,
}

/// Serves one packet.
pub(crate) fn serve(
    packet: Packet,
    executions: &mut Executions,
    greeting: &Greeting<'_>,
) -> Served {
    let message = match ToKeeper::decode(packet.bytes.as_slice()) {
        Ok(message) => message,
        Err(error) => {
            tracing::warn!(%error, "the agent sent a packet that cannot be read");
            return Served::Replies(Vec::new());
        }
    };
    let request = message.request;
    let refusal = |refusal: Refusal| {
        Reply::Refused(Refused {
            reason: refusal.reason,
            kind: refusal.kind.into(),
        })
    };
    let done = |result: Result<(), Refusal>| result.map_or_else(refusal, |()| Reply::Done(Done {}));
    let reply = match message.action {
        Some(_) if packet.fds_cut => refusal(Refusal::new(
            RefusedKind::Limit,
            "the keeper has too many files open",
        )),
        Some(Action::Hello(_)) => Reply::Welcome(welcome(greeting)),
        // One agent at a time has this socket, so the pen is its already.
        Some(Action::Seal(_)) => Reply::Done(Done {}),
        Some(Action::Spawn(_)) if greeting.retiring => {
            refusal(Refusal::new(RefusedKind::Invalid, "the keeper retires"))
        }
        Some(Action::Spawn(spawn)) => match executions.spawn(spawn, packet.fds) {
            Ok((name, existed)) => {
                let replies = spawned(request, executions, &name, existed);
                return Served::Started(replies, name);
            }
            Err(error) => refusal(error),
        },
        Some(Action::Signal(signal)) => {
            done(executions.signal(&signal.execution, signal.signal, signal.group))
        }
        Some(Action::Forget(forget)) => done(executions.forget(&forget.execution)),
        Some(Action::List(_)) => return Served::Replies(list(request, executions)),
        Some(Action::Retire(retire)) => {
            return Served::Retire {
                request,
                grace_ms: retire.grace_ms,
            };
        }
        // A newer agent must bear what an older keeper cannot do.
        None => refusal(Refusal::new(
            RefusedKind::Unsupported,
            "this keeper does not know the request",
        )),
    };
    Served::Replies(vec![outgoing(request, reply, Vec::new())])
}

/// The reply to a request to retire, once all have ended.
pub(crate) fn retired(request: u64) -> Outgoing {
    outgoing(request, Reply::Done(Done {}), Vec::new())
}

/// The news that an execution has ended; `None` if it was forgotten since.
pub(crate) fn exited(executions: &Executions, name: &str) -> Option<Vec<u8>> {
    let (execution, _) = executions.describe(name)?;
    Some(encode(
        0,
        Reply::Exited(Exited {
            execution: Some(execution),
        }),
    ))
}

fn welcome(greeting: &Greeting<'_>) -> Welcome {
    Welcome {
        version: VERSION,
        incarnation: greeting.incarnation,
        directory: greeting.dir.to_string_lossy().into_owned(),
        keeper_pid: nix::unistd::getpid().as_raw(),
    }
}

fn spawned(request: u64, executions: &Executions, name: &str, existed: bool) -> Vec<Outgoing> {
    let Some((execution, socket)) = executions.describe(name) else {
        return Vec::new();
    };
    let reply = Reply::Spawned(Spawned {
        execution: Some(execution),
        existed,
    });
    vec![outgoing(request, reply, socket.into_iter().collect())]
}

fn list(request: u64, executions: &Executions) -> Vec<Outgoing> {
    let names = executions.names();
    pages(
        request,
        names.iter().filter_map(|name| executions.describe(name)),
    )
}

/// A list, cut where the next execution would not fit.
fn pages(
    request: u64,
    executions: impl Iterator<Item = (Execution, Option<Rc<OwnedFd>>)>,
) -> Vec<Outgoing> {
    let mut packets = Vec::new();
    let (mut page, mut fds, mut bytes) = (Vec::<Execution>::new(), Vec::<Rc<OwnedFd>>::new(), 0);
    for (execution, socket) in executions {
        let more = execution.encoded_len();
        let full = bytes + more > LIST_BYTES || fds.len() >= PACKET_FDS_MAX;
        if full && !page.is_empty() {
            let reply = ExecutionsReply {
                executions: std::mem::take(&mut page),
                more: true,
            };
            packets.push(outgoing(
                request,
                Reply::Executions(reply),
                std::mem::take(&mut fds),
            ));
            bytes = 0;
        }
        bytes += more;
        page.push(execution);
        fds.extend(socket);
    }
    let reply = ExecutionsReply {
        executions: page,
        more: false,
    };
    packets.push(outgoing(request, Reply::Executions(reply), fds));
    packets
}

fn outgoing(request: u64, reply: Reply, fds: Vec<Rc<OwnedFd>>) -> Outgoing {
    Outgoing {
        bytes: encode(request, reply),
        fds,
    }
}

fn encode(request: u64, reply: Reply) -> Vec<u8> {
    FromKeeper {
        request,
        reply: Some(reply),
    }
    .encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::packet::PACKET_BYTES_MAX;

    #[test]
    fn a_large_execution_behind_others_has_a_packet_that_can_be_sent() {
        let sizes = [5_000, 5_000, 150_000, 10, 60_000, 10_000];
        let listed = sizes.map(|size| Execution {
            label: vec![7; size],
            ..Execution::default()
        });
        let packets = pages(3, listed.iter().cloned().map(|execution| (execution, None)));
        let mut seen = Vec::new();
        for packet in &packets {
            assert!(packet.bytes.len() <= PACKET_BYTES_MAX);
            let message = FromKeeper::decode(packet.bytes.as_slice()).unwrap();
            let Some(Reply::Executions(reply)) = message.reply else {
                panic!("a list is answered by executions");
            };
            assert!(!reply.executions.is_empty());
            seen.push(reply.more);
            assert_eq!(message.request, 3);
        }
        assert_eq!(seen, [true, true, true, false]);
    }
}
