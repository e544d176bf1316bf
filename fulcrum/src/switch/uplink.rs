//! Opens the way out of a switch: a listener in there, and a rule that leads a horde's connections to it.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{GATEWAY, Switch, nft};
use crate::cell::CellError;
use crate::keeper::packet;
use crate::keeper::raw;

/// Time the process inside is given to open the listener.
const OPEN: Duration = Duration::from_secs(10);

/// Port of the first horde's listener inside a switch; the others' follow.
const PORT: u16 = 20_000;

/// A way out of a switch, open while this is kept.
#[derive(Debug)]
pub struct Uplink {
    /// Takes the horde's connections; the address each wanted is its `SO_ORIGINAL_DST`. Not blocking.
    pub listener: TcpListener,
    /// Hangs up when the process that holds the switch for us has died; nothing is ever sent.
    pub held: UnixStream,
}

/// Opens the way out for horde `number` of the switch in `dir`; this process stays outside.
///
/// A child of ours holds the switch; it goes with this process. The process must have one thread.
///
/// # Errors
/// [`CellError`], naming what is not allowed here.
pub fn open(dir: &Path, number: u8) -> Result<Uplink, CellError> {
    let failed = |error| CellError::io("open the way out of the switch", error);
    let (near, far) = packet::pair().map_err(failed)?;
    let (held, theirs) = UnixStream::pair().map_err(failed)?;
    held.set_nonblocking(true).map_err(failed)?;
    let outer = [near.as_raw_fd(), held.as_raw_fd()];
    let pid = raw::fork(|| {
        // Ordering: our copies of the parent's ends are closed first, else its death would not be seen.
        for end in outer {
            let _ = nix::unistd::close(end);
        }
        hold(dir, number, (&far, &theirs))
    })
    .map_err(failed)?;
    drop((far, theirs));
    match received(near.as_fd()) {
        Ok(listener) => Ok(Uplink { listener, held }),
        Err(error) => {
            // It ends by itself once our end is closed.
            drop(held);
            raw::reap(pid.as_raw()).map_err(failed)?;
            Err(failed(error))
        }
    }
}

/// In the child: sends the listener, or why there is none, and stays until the parent is gone.
fn hold(dir: &Path, number: u8, (far, parent): (&OwnedFd, &UnixStream)) -> Infallible {
    let sent = match listen(dir, number) {
        Ok((listener, _)) => packet::send(far.as_fd(), b"open", &[listener.as_fd()]),
        Err(error) => packet::send(far.as_fd(), error.chain().as_bytes(), &[]),
    };
    if sent.is_ok() {
        let _ = hung_up(parent.as_fd(), None);
    }
    raw::exit_now(0)
}

fn listen(dir: &Path, number: u8) -> Result<(TcpListener, Switch), CellError> {
    let switch = Switch::enter(dir)?;
    let opened = || -> io::Result<TcpListener> {
        // A port that was asked for by number stays bound while the listener is shut.
        let port = PORT + u16::from(number);
        let listener = TcpListener::bind((GATEWAY, port))?;
        listener.set_nonblocking(true)?;
        nft::redirect(number, port)?;
        Ok(listener)
    };
    let listener = opened().map_err(|error| CellError::io("send connections out", error))?;
    Ok((listener, switch))
}

/// Waits until there is something to read or the other end is closed.
fn hung_up(socket: BorrowedFd<'_>, within: Option<Duration>) -> io::Result<()> {
    let timeout = within.map(|within| Timespec {
        tv_sec: within.as_secs().cast_signed(),
        tv_nsec: 0,
    });
    let mut fds = [PollFd::from_borrowed_fd(socket, PollFlags::IN)];
    loop {
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn received(near: BorrowedFd<'_>) -> io::Result<TcpListener> {
    hung_up(near, Some(OPEN))?;
    let packet = packet::receive(near)?;
    let packet = packet.ok_or_else(|| io::Error::other("the process inside has died"))?;
    let reason = String::from_utf8_lossy(&packet.bytes).into_owned();
    let listener = packet.fds.into_iter().next();
    listener
        .map(TcpListener::from)
        .ok_or_else(|| io::Error::other(reason))
}
