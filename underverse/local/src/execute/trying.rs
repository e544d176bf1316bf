//! Tries what a horde's network lets through and writes down what was found.

use std::io;
use std::time::Duration;

use underverse::Error;

use super::Pass;
use crate::network::{OUTBOUND_TRIED_MAX, ProbeAsk, ProbeFound};
use crate::record::{Probed, ProbedState};

/// Time that what was just started is given to be there: a cell plugs itself in within milliseconds.
const THERE: Duration = Duration::from_secs(5);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);

impl Pass<'_> {
    /// Tries until what is expected is found or the time is over; that it cannot be tried is written down too.
    pub(super) async fn try_network(&self, of: &ProbedState) -> Result<(), Error> {
        let Some(ask) = self.ask(of) else {
            return Ok(());
        };
        let expected = |found: &ProbeFound| {
            let let_in = match (self.way_out(of), of.network.external_connections_max) {
                (false, _) => 0,
                (true, limit) => limit.unwrap_or(1).min(OUTBOUND_TRIED_MAX),
            };
            found.members && found.outbound >= let_in
        };
        let mut last = Err(io::Error::from(io::ErrorKind::TimedOut));
        let tried = async {
            loop {
                last = self.local.ground().try_network(ask.clone()).await;
                if last.as_ref().is_ok_and(expected) {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        // Without what is expected, what was found last counts.
        let _ = tokio::time::timeout(THERE, tried).await;
        let probed = Probed {
            of: of.clone(),
            found: last.map_err(|error| error.to_string()),
        };
        self.change(|record| record.probed = Some(probed)).await
    }

    fn way_out(&self, of: &ProbedState) -> bool {
        let mut doors = self.wanted.iter().flat_map(|wanted| &wanted.doors);
        doors.any(|door| door.listen == of.switch.out())
    }

    fn ask(&self, of: &ProbedState) -> Option<ProbeAsk> {
        let settings = self.local.settings();
        let outbound = match of.network.external_connections_max {
            // One more than may be, to see it refused.
            Some(limit) if self.way_out(of) => limit.saturating_add(1).min(OUTBOUND_TRIED_MAX),
            _ => 1,
        };
        Some(ProbeAsk {
            radix: settings.executable.path.clone(),
            switch: of.switch.dir(&settings.home, self.horde.as_str()),
            from: of.switch.address(of.from)?,
            to: of.switch.address(of.to)?,
            outbound,
        })
    }
}
