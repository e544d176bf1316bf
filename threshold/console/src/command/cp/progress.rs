//! A bar for people who watch; nobody else sees it.

use std::sync::{Mutex, PoisonError};

use crux_wire::fileio::v1::CopyProgress;
use tokio::time::Instant;

use crate::output::Progress;

/// Cells of the bar.
const WIDTH: u64 = 24;

/// How far a copy is, on a terminal.
#[derive(Debug, Default)]
pub(super) struct Bar {
    state: Mutex<(Progress, Option<Instant>)>,
}

impl Bar {
    /// Shows how far it is.
    pub(super) fn show(&self, progress: &CopyProgress) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (line, began) = &mut *state;
        let seconds = began
            .get_or_insert_with(Instant::now)
            .elapsed()
            .as_secs_f64();
        line.show(&text(progress, seconds));
    }

    /// Removes it.
    pub(super) fn clear(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0.clear();
    }
}

fn text(progress: &CopyProgress, seconds: f64) -> String {
    let here = (progress.bytes_moved + progress.bytes_kept).min(progress.bytes);
    let filled = if progress.bytes == 0 {
        WIDTH
    } else {
        u64::try_from(u128::from(here) * u128::from(WIDTH) / u128::from(progress.bytes))
            .unwrap_or(WIDTH)
    };
    let rate = if seconds > 0.2 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a rate for people"
        )]
        let rate = (progress.bytes_moved as f64 / seconds) as u64;
        format!(", {}/s", size(rate))
    } else {
        String::new()
    };
    let cells: String = (0..WIDTH)
        .map(|cell| if cell < filled { '#' } else { '.' })
        .collect();
    format!(
        "[{cells}] {} of {}, {} of {} files{rate}",
        size(here),
        size(progress.bytes),
        progress.files_done,
        progress.files,
    )
}

/// A number of bytes for people, in powers of 1024.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut tenths = u128::from(bytes) * 10;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths = (tenths + 512) / 1024;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_says_how_far_it_is() {
        let progress = CopyProgress {
            files: 2,
            bytes: 4 << 20,
            files_done: 1,
            bytes_moved: 1 << 20,
            bytes_kept: 1 << 20,
            ..CopyProgress::default()
        };
        assert_eq!(
            text(&progress, 1.0),
            "[############............] 2.0 MiB of 4.0 MiB, 1 of 2 files, 1.0 MiB/s"
        );
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(u64::MAX), "16777216.0 TiB");
    }
}
