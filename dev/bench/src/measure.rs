//! How figures are taken: interleaved rounds, medians, CPU beside wall time.

use std::time::{Duration, Instant};

use crate::process;

/// What one round cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Time on the wall.
    pub(crate) wall: Duration,
    /// Processor time of us and of the children that ended meanwhile.
    pub(crate) cpu: Duration,
}

/// Runs `work` and takes its cost; its value is handed through.
///
/// # Errors
///
/// What `work` says.
pub(crate) fn cost<T>(work: impl FnOnce() -> Result<T, String>) -> Result<(T, Cost), String> {
    let cpu = process::cpu_of_children();
    let began = Instant::now();
    let value = work()?;
    let wall = began.elapsed();
    Ok((
        value,
        Cost {
            wall,
            cpu: process::cpu_of_children().saturating_sub(cpu),
        },
    ))
}

/// The middle value; of an even number the lower of the two.
///
/// Zero when there is none.
pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times
        .get(times.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or_default()
}

/// The value below which 99 of 100 lie.
pub(crate) fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times
        .get((times.len() * 99).div_ceil(100).saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

/// The medians of several costs.
pub(crate) fn middle(costs: &[Cost]) -> Cost {
    Cost {
        wall: median(costs.iter().map(|cost| cost.wall).collect()),
        cpu: median(costs.iter().map(|cost| cost.cpu).collect()),
    }
}

/// Today, as the system's clock has it.
pub(crate) fn date() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let days = since.map_or(0, |since| since.as_secs() / 86_400);
    let (year, month, day) = civil(days);
    format!("{year}-{month:02}-{day:02}")
}

/// The Gregorian date that lies `days` after 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    let leap =
        |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let (mut year, mut rest) = (1970, days);
    while rest >= 365 + u64::from(leap(year)) {
        rest -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    for (month, length) in (1..).zip([31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]) {
        if rest < length {
            return (year, month, rest + 1);
        }
        rest -= length;
    }
    (year, 12, 31)
}

/// Processors, model and kernel of this machine, in a few words.
pub(crate) fn machine() -> String {
    let count = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model.trim());
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{count} × {model}, Linux {}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_the_lower() {
        let times = [4, 1, 3, 2].map(Duration::from_secs).to_vec();
        assert_eq!(median(times), Duration::from_secs(2));
        assert_eq!(median(Vec::new()), Duration::ZERO);
    }

    #[test]
    fn p99_of_few_is_the_greatest() {
        let times = [4, 1, 3, 2].map(Duration::from_secs).to_vec();
        assert_eq!(p99(times), Duration::from_secs(4));
        assert_eq!(
            p99((1..=200).map(Duration::from_secs).collect()),
            Duration::from_secs(198)
        );
    }

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(19_782), (2024, 2, 29));
        assert_eq!(civil(20_778), (2026, 11, 21));
    }
}
