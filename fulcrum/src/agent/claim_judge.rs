//! What a member does about an invitation that two claimed while a split kept their flocks apart: docs/design/identity.md,
//! section 5. It signs that the one it met first stays, unless a heavier flock has spoken, and tells whoever goes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crux_core::identity::{Refusal, Weight};
use crux_core::names::RnodeId;
use crux_net::identity::{Dispute, Expect};
use crux_wire::document::v1::{Authority, RnodeRecord};
use futures_util::future::join_all;
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
    /// How often a denied one was told so; nothing more is tried after [`PARTING_TRIES`].
    told: BTreeMap<RnodeId, u32>,
    /// Since when we are the one that goes.
    lost: Option<Instant>,
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
        let records: Vec<(String, RnodeRecord)> = agent.shared.messages("rnode");
        for (owner, record) in records {
            let address = service_address(&record);
            if let Ok(id) = owner.parse::<RnodeId>()
                && id != agent.me.id
                && !address.is_empty()
            {
                self.addresses.insert(id, address);
            }
        }
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
            let Some(weight) = weight.filter(|weight| trust.outweighs(&dispute.claim, *weight))
            else {
                continue;
            };
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
