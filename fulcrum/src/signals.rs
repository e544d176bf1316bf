//! Signals of keeper and cell, told by a descriptor instead of by interruption.

use std::io;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Has the end of a child and requests to end told by a descriptor, from now on and for this thread.
///
/// SIGHUP is among them to be ignored: both outlive the terminal they were started from.
pub(crate) fn take() -> io::Result<SignalFd> {
    let mut mask = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
    ] {
        mask.add(signal);
    }
    mask.thread_block()?;
    Ok(SignalFd::with_flags(
        &mask,
        SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK,
    )?)
}

/// Whether one of the signals that came asks us to end; reads all that came.
pub(crate) fn ask_to_end(signals: &SignalFd) -> bool {
    let mut asked = false;
    while let Ok(Some(signal)) = signals.read_signal() {
        let ends = [Signal::SIGTERM, Signal::SIGINT].map(|signal| signal as u32);
        asked |= ends.contains(&signal.ssi_signo);
    }
    asked
}
