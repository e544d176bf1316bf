//! One line of docs/numbers.md.

use std::time::Duration;

/// The table's head, as it stands in docs/numbers.md.
pub(crate) const HEAD: &str = "\
| date | machine | bench | ours | peer | ratio | command |
|---|---|---|---|---|---|---|";

/// One measured thing beside its peer.
#[derive(Debug)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// Our figure, with its unit.
    pub(crate) ours: String,
    /// The peer's name and figure, or why there is none.
    pub(crate) peer: String,
    /// Ours over theirs; `None` without a peer.
    pub(crate) ratio: Option<f64>,
}

impl Row {
    /// Two times beside each other.
    pub(crate) fn times(what: &str, ours: Duration, peer: &str, theirs: Duration) -> Self {
        Self {
            what: what.to_owned(),
            ours: show(ours),
            peer: format!("{peer}: {}", show(theirs)),
            ratio: Some(ours.as_secs_f64() / theirs.as_secs_f64()),
        }
    }

    /// A figure that stands alone.
    pub(crate) fn alone(what: &str, ours: String) -> Self {
        Self {
            what: what.to_owned(),
            ours,
            peer: "–".to_owned(),
            ratio: None,
        }
    }

    /// A figure whose peer is not on this machine.
    pub(crate) fn missing(what: &str, ours: String, peer: &str, bring: &str) -> Self {
        let peer = format!("{peer}: missing ({bring})");
        Self {
            what: what.to_owned(),
            ours,
            peer,
            ratio: None,
        }
    }

    /// The row with its date, its machine and the command that repeats it.
    pub(crate) fn markdown(&self, scenario: &str) -> String {
        let ratio = self
            .ratio
            .map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"));
        format!(
            "| {} | {} | {} | {} | {} | {ratio} | `cargo xtask bench {scenario}` |",
            crate::measure::date(),
            crate::measure::machine(),
            self.what,
            self.ours,
            self.peer,
        )
    }
}

/// A duration with three digits that matter.
pub(crate) fn show(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        0.0..0.001 => format!("{:.0} µs", seconds * 1e6),
        0.001..1.0 => format!("{:.1} ms", seconds * 1e3),
        1.0..100.0 => format!("{seconds:.2} s"),
        _ => format!("{seconds:.0} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_with_their_unit() {
        let check = |micros, expected: &str| {
            assert_eq!(show(Duration::from_micros(micros)), expected);
        };
        check(250, "250 µs");
        check(2_500, "2.5 ms");
        check(2_500_000, "2.50 s");
        check(250_000_000, "250 s");
    }

    #[test]
    fn a_ratio_is_ours_over_theirs() {
        let row = Row::times("x", Duration::from_secs(3), "y", Duration::from_secs(2));
        assert_eq!(row.ratio, Some(1.5));
    }
}
