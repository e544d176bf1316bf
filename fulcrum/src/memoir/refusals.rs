//! Refusals of strangers, summed per source and minute, so that a flood of them cannot fill the disk.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Fields;

/// The most (source, what) pairs of one minute. 256: further ones are counted together.
const SOURCES_MAX: usize = 256;

/// How long refusals are summed before they are written.
pub(super) const MINUTE_MS: u64 = 60_000;

/// The longest text kept of a stranger's name, in characters.
const TEXT_CHARACTERS_MAX: usize = 256;

/// What was refused in the current minute.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    since_unix_ms: u64,
    counts: BTreeMap<(String, String), u64>,
}

impl Refusals {
    /// Counts one refusal; true if it is the first of a minute.
    pub(super) fn count(&mut self, now_unix_ms: u64, source: &str, what: &str) -> bool {
        let first = self.counts.is_empty();
        if first {
            self.since_unix_ms = now_unix_ms;
        }
        let cut = |text: &str| text.chars().take(TEXT_CHARACTERS_MAX).collect::<String>();
        let mut key = (cut(source), cut(what));
        if self.counts.len() >= SOURCES_MAX && !self.counts.contains_key(&key) {
            key = ("(others)".to_owned(), String::new());
        }
        *self.counts.entry(key).or_default() += 1;
        first
    }

    /// Takes the sums if their minute is over, or the clock went backwards.
    pub(super) fn take_due(&mut self, now_unix_ms: u64) -> Vec<Fields> {
        let age = now_unix_ms.checked_sub(self.since_unix_ms);
        if age.is_none_or(|age| age >= MINUTE_MS) {
            self.take()
        } else {
            Vec::new()
        }
    }

    /// Takes the sums as they are.
    pub(super) fn take(&mut self) -> Vec<Fields> {
        let since = self.since_unix_ms;
        let fields = |((source, what), count): ((String, String), u64)| {
            Fields::from_iter([
                ("source".to_owned(), Value::from(source)),
                ("what".to_owned(), Value::from(what)),
                ("count".to_owned(), Value::from(count)),
                ("since".to_owned(), Value::from(since)),
            ])
        };
        std::mem::take(&mut self.counts)
            .into_iter()
            .map(fields)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_summed_per_source_until_the_minute_is_over() {
        let mut refusals = Refusals::default();
        assert!(refusals.count(1_000, "127.0.0.9", "Rexec/Start"));
        assert!(!refusals.count(2_000, "127.0.0.9", "Rexec/Start"));
        assert!(!refusals.count(2_000, "127.0.0.8", "Rexec/Start"));
        assert!(refusals.take_due(60_999).is_empty());
        let sums = refusals.take_due(61_000);
        assert_eq!(sums.len(), 2);
        assert_eq!(
            (&sums[1]["source"], &sums[1]["count"]),
            (&Value::from("127.0.0.9"), &Value::from(2))
        );
        assert!(refusals.count(62_000, "127.0.0.9", "Rexec/Start"));
    }

    #[test]
    fn a_flood_of_sources_is_counted_together_beyond_the_limit() {
        let mut refusals = Refusals::default();
        for source in 0..10 * SOURCES_MAX {
            refusals.count(0, &source.to_string(), "");
        }
        let sums = refusals.take();
        assert_eq!(sums.len(), SOURCES_MAX + 1);
        let total: u64 = sums.iter().filter_map(|sum| sum["count"].as_u64()).sum();
        assert_eq!(total, 10 * SOURCES_MAX as u64);
    }
}
