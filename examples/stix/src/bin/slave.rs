//! Asks workers for one row after the other, and puts the answers on the blackboard.

use std::process::ExitCode;
use std::time::Duration;

use crux::Service;
use stix::answer::Answer;
use stix::flags::Flags;
use stix::program::{Failure, Me, asked_to_end, chain, finish, say};
use stix::results::Results;
use stix::wire::prods_client::ProdsClient;
use stix::wire::{LookupReply, LookupRequest};
use tokio::time::MissedTickBehavior;
use tonic::transport::Channel;

/// The class of the workers, which is also the name of their service.
const WORKERS: &str = "prog1";
/// Between two questions.
const PACE: Duration = Duration::from_millis(500);
/// How long a question may take, finding another worker included.
const PATIENCE: Duration = Duration::from_secs(3);
/// Rows between the questions of neighbours and of one instance; primes, so that all rows are met.
const STRIDE: u64 = 7;
const OFFSET: u64 = 53;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    finish(run().await)
}

async fn run() -> Result<(), Failure> {
    let flags = Flags::parse(std::env::args().skip(1), &["worker"])
        .map_err(|reason| Failure::Usage(format!("slave: {reason}")))?;
    let me = Me::learn(&flags).await?;
    let workers = Workers::of(&me, &flags)?;
    say(format_args!(
        "{} on {}: asking {WORKERS}",
        me.instance, me.rnode
    ));
    tokio::select! {
        ended = asked_to_end() => ended,
        never = work(&me, &workers) => match never {},
    }
}

/// Asks for ever. No failure ends it: the next question may find a worker again.
async fn work(me: &Me, workers: &Workers) -> std::convert::Infallible {
    let mut results = Results::of(me);
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for count in 1_u64.. {
        pace.tick().await;
        let nth = u64::from(me.index) * OFFSET + count * STRIDE;
        match workers.ask(nth).await {
            Ok(reply) => {
                let answer = answer(me, count, reply);
                say(answer.line());
                if let Err(failure) = results.add(answer).await {
                    say(failure);
                }
            }
            Err(failure) => say(format_args!("{} #{count}: {failure}", me.instance)),
        }
    }
    std::future::pending().await
}

fn answer(me: &Me, count: u64, reply: LookupReply) -> Answer {
    let LookupReply {
        row,
        columns,
        worker,
        rnode,
        csv,
        ..
    } = reply;
    let key = columns.get("id").cloned().unwrap_or_default();
    let asked_by = me.instance.clone();
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let at_unix_ms = since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    });
    Answer {
        key,
        row_number: row,
        row: columns,
        worker,
        rnode,
        csv,
        asked_by,
        count,
        at_unix_ms,
    }
}

/// The grip on the workers: a handle by name, or one address when it runs alone.
enum Workers {
    Named(Service),
    At(Channel),
}

impl Workers {
    fn of(me: &Me, flags: &Flags) -> Result<Self, Failure> {
        if let Some(agent) = &me.agent {
            return Ok(Self::Named(
                Service::through(agent, WORKERS).deadline(PATIENCE),
            ));
        }
        let usage = |reason: &str| Failure::Usage(format!("slave: {reason}"));
        let address = flags
            .get("worker")
            .ok_or_else(|| usage("--no-agent needs -worker HOST:PORT"))?;
        let endpoint = Channel::from_shared(format!("http://{address}"));
        let endpoint = endpoint
            .map_err(|_| usage("-worker is no HOST:PORT"))?
            .timeout(PATIENCE);
        Ok(Self::At(endpoint.connect_lazy()))
    }

    async fn ask(&self, nth: u64) -> Result<LookupReply, Failure> {
        let request = LookupRequest {
            key: String::new(),
            nth,
        };
        let failed = |error: &dyn std::error::Error| {
            Failure::Failed(format!("no worker answers: failed to {}", chain(error)))
        };
        match self {
            Self::Named(service) => service.req(request).await.map_err(|error| failed(&error)),
            Self::At(channel) => {
                let reply = ProdsClient::new(channel.clone()).lookup(request).await;
                reply
                    .map(tonic::Response::into_inner)
                    .map_err(|error| failed(&error))
            }
        }
    }
}
