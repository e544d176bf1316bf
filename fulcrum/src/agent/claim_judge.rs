//! What a member does about an invitation that two claimed while a split kept their flocks apart: docs/design/identity.md,
//! section 5. It signs that the one it met first stays, unless a heavier flock has spoken, and tells whoever goes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crux_core::identity::{Refusal, Weight};
use crux_core::names::RnodeId;
use crux_net::identity::{Dispute, Expect};
use crux_wire::document::v1::{Authority, RnodeRecord};
use futures_util::future::join_all;
use prost::Message as _;
use tokio::time::Instant;

use super::authority_task::{self, denied_members};
use super::context::Agent;
use super::limits::{PARTING_TRIES, STANDING_SAMPLES_MAX, STANDING_SETTLED, VERDICT_GRACE};
use super::status::service_address;

/// What this rnode keeps in mind for it.
#[derive(Debug, Default)]
pub(super) struct ClaimJudge {
    /// How much the flock weighed, from when on; ascending.
    standing: VecDeque<(Instant, Weight)>,
    /// Where members were last seen, those that are denied now too.
    addresses: BTreeMap<RnodeId, String>,
    /// The records that say so.
    records: Records,
    /// How often a denied one was told so; nothing more is tried after [`PARTING_TRIES`].
    told: BTreeMap<RnodeId, u32>,
    /// Since when we are the one that goes.
    lost: Option<Instant>,
}

/// Records of members as last read. Flocks change all the time and records hardly ever, so each is decoded once.
#[derive(Debug, Default)]
struct Records {
    /// By owner, its record's bytes and the address in it; only of those that were there at the last look.
    read: BTreeMap<RnodeId, (Vec<u8>, Option<String>)>,
    #[cfg(test)]
    decoded: usize,
}

impl Records {
    /// Where the services of these members are, as far as their records can be read and say.
    fn addresses<'a>(
        &mut self,
        entries: impl Iterator<Item = (RnodeId, &'a [u8])>,
    ) -> Vec<(RnodeId, String)> {
        let mut before = std::mem::take(&mut self.read);
        let mut addresses = Vec::new();
        for (id, value) in entries {
            let known = before.remove(&id).filter(|(bytes, _)| bytes == value);
            let (bytes, address) = known.unwrap_or_else(|| {
                #[cfg(test)]
                {
                    self.decoded += 1;
                }
                let record = RnodeRecord::decode(value).ok();
                let address = record.map(|record| service_address(&record));
                (
                    value.to_vec(),
                    address.filter(|address| !address.is_empty()),
                )
            });
            addresses.extend(address.clone().map(|address| (id, address)));
            self.read.insert(id, (bytes, address));
        }
        addresses
    }
}

/// Whether this rnode still counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// It does.
    Counts,
    /// A verdict is against it, which a heavier flock may still overturn.
    Doubtful,
    /// It does not, for this reason, and is to end.
    Ended(Refusal),
}

impl ClaimJudge {
    /// Takes a look at the flock; to be called every second at least.
    pub(super) fn look(&mut self, agent: &Agent) {
        let (now, weight) = (Instant::now(), agent.shared.weight());
        if self.standing.back().is_none_or(|(_, last)| *last != weight) {
            self.standing.push_back((now, weight));
        }
        // What was in force when the settled time began is kept, and all after it.
        let settled = |at: Instant| at + STANDING_SETTLED <= now;
        while self.standing.len() > 1 && settled(self.standing[1].0)
            || self.standing.len() > STANDING_SAMPLES_MAX
        {
            self.standing.pop_front();
        }
        let entries = agent.shared.shown("rnode");
        let others = entries.iter().filter(|entry| entry.owner() != agent.me.id);
        let others = others.map(|entry| (entry.owner(), entry.value()));
        self.addresses.extend(self.records.addresses(others));
    }

    /// Whether this rnode counts. Only denials are final at once.
    pub(super) fn judge_self(&mut self, agent: &Agent) -> Standing {
        match agent.credentials.principal() {
            Err(denied @ Refusal::Denied(_)) => Standing::Ended(denied),
            Err(lost @ Refusal::LostClaim { .. }) => {
                let since = *self.lost.get_or_insert_with(Instant::now);
                if since.elapsed() >= VERDICT_GRACE {
                    Standing::Ended(lost)
                } else {
                    Standing::Doubtful
                }
            }
            _ => {
                self.lost = None;
                Standing::Counts
            }
        }
    }

    /// Signs verdicts on what is disputed, and says what stays open.
    pub(super) fn judge_claims(&self, agent: &Agent) {
        let trust = agent.identity.trust();
        // As it was before the flocks met: sizes and names change in the meeting.
        let weight = self.standing.front().map(|(_, weight)| *weight);
        for dispute in trust.disputes() {
            let Some(weight) = weight else { continue };
            if !trust.outweighs(&dispute.claim, weight) {
                trust.concede(&dispute.claim);
                continue;
            }
            let taken = agent.identity.sign_verdict(&dispute, weight);
            let taken = taken.and_then(|verdict| {
                let authority = Authority {
                    verdicts: verdict.into_iter().collect(),
                    ..Authority::default()
                };
                trust.take_authority(&authority)
            });
            match taken {
                Ok(taken) if taken.refused.is_empty() => {}
                Ok(taken) => tracing::warn!(reasons = ?taken.refused, "a verdict does not count"),
                Err(error) => tracing::error!(%error, "a verdict cannot be given"),
            }
        }
        let judged: BTreeSet<_> = trust.verdicts().iter().map(|on| on.claim).collect();
        let disputes = trust.disputes().into_iter();
        let open = disputes.filter(|dispute| !judged.contains(&dispute.claim));
        agent
            .trouble
            .set("claims", open.map(|of| text(&of)).collect());
    }

    /// Tells members that are denied now, and may not know, why nobody talks to them any more.
    pub(super) async fn part(&mut self, agent: &Agent) {
        let denied = denied_members(agent);
        self.addresses
            .retain(|id, _| denied.contains(id) || agent.shared.knows(id));
        self.told.retain(|id, _| denied.contains(id));
        let due: Vec<(RnodeId, String)> = self
            .addresses
            .iter()
            .filter(|(id, _)| {
                denied.contains(id) && self.told.get(id).copied().unwrap_or(0) < PARTING_TRIES
            })
            .map(|(id, address)| (*id, address.clone()))
            .collect();
        if due.is_empty() {
            return;
        }
        let credentials = match agent.identity.parting_credentials() {
            Ok(credentials) => credentials,
            Err(error) => return tracing::warn!(%error, "denied members are not told"),
        };
        let told = due.into_iter().map(|(id, address)| {
            let (credentials, authority) = (&credentials, agent.identity.trust().authority());
            async move {
                let expect = Expect::Rnode(id);
                let told = authority_task::put_at(credentials, &address, expect, authority).await;
                (id, told.is_ok())
            }
        });
        for (id, done) in join_all(told).await {
            let tries = self.told.entry(id).or_default();
            *tries = if done { PARTING_TRIES } else { *tries + 1 };
        }
    }

    /// Whether time alone made something due: our end, or another try to tell somebody.
    pub(super) fn is_due(&self, agent: &Agent) -> bool {
        let over = self
            .lost
            .is_some_and(|since| since.elapsed() >= VERDICT_GRACE);
        let mut untold = self
            .told
            .iter()
            .filter(|(id, tries)| **tries < PARTING_TRIES && self.addresses.contains_key(id));
        over || (untold.next().is_some() && !agent.shutdown.is_cancelled())
    }
}

/// How much a flock of so many members weighs.
pub(super) fn weight(members: usize, latched: bool, flock: [u8; 16]) -> Weight {
    let class = members.max(1).ilog2();
    Weight {
        class: u8::try_from(class).unwrap_or(u8::MAX),
        latched,
        flock: Reverse(flock),
    }
}

fn text(dispute: &Dispute) -> String {
    format!(
        "invitation {} was claimed by rnode {} and by rnode {}, of whom the first is let in here; \
         no other member has met both yet, so deny one: `radix ca deny`",
        dispute.claim, dispute.holder, dispute.rival
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crux_wire::document::v1::Address;

    fn record(port: u32) -> Vec<u8> {
        let address = Address {
            service: "fulcrum".to_owned(),
            host: "127.0.0.1".to_owned(),
            port,
            ..Address::default()
        };
        let record = RnodeRecord {
            addresses: vec![address],
            ..RnodeRecord::default()
        };
        record.encode_to_vec()
    }

    #[test]
    fn a_record_is_decoded_once_and_again_when_it_differs() {
        let id = |number: u8| RnodeId::from_bytes([number; 32]);
        let mut records = Records::default();
        let mut look = |entries: &[(RnodeId, &[u8])], decoded: usize| {
            let found = records.addresses(entries.iter().copied());
            assert_eq!(records.decoded, decoded);
            found
        };
        let (one, other) = (record(1), record(2));
        let at = |number: u8, port: u32| (id(number), format!("127.0.0.1:{port}"));
        let all = [(id(1), one.as_slice()), (id(2), b"\xff"), (id(3), &one)];
        for _ in 0..3 {
            assert_eq!(look(&all, 3), [at(1, 1), at(3, 1)]);
        }
        let moved = [(id(1), other.as_slice()), (id(3), &one)];
        assert_eq!(look(&moved, 4), [at(1, 2), at(3, 1)]);
        // Who was gone is read anew: what is remembered is no more than what there is.
        assert_eq!(look(&[], 4), []);
        assert_eq!(look(&moved, 6), [at(1, 2), at(3, 1)]);
    }
}
