//! Opens the sockets at which the names of a horde are asked for, inside its switch.

use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;

use super::{BRIDGE, GATEWAY, Switch, link};
use crate::cell::CellError;

/// The port of names.
const PORT: u16 = 53;

/// Where the names of a horde are asked for, open while this is kept. Neither blocks.
#[derive(Debug)]
pub struct Names {
    /// For datagrams.
    pub socket: UdpSocket,
    /// For connections.
    pub listener: TcpListener,
}

/// Enters the switch in `dir` and opens them for horde `number`, at an address of the bridge that is that horde's.
///
/// This process is in the switch afterwards, and holds it until it ends. It must have one thread.
///
/// # Errors
/// [`CellError`], naming what is not allowed here.
pub fn open(dir: &Path, number: u8) -> Result<Names, CellError> {
    Switch::enter(dir)?;
    opened(number).map_err(|error| CellError::io("answer for names", error))
}

fn opened(number: u8) -> io::Result<Names> {
    let [a, b, c, _] = GATEWAY.octets();
    let address = Ipv4Addr::new(a, b, c, number);
    match link::add_address(BRIDGE, address, 32) {
        // Of one that answered before us.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    let socket = UdpSocket::bind((address, PORT))?;
    let listener = TcpListener::bind((address, PORT))?;
    socket.set_nonblocking(true)?;
    listener.set_nonblocking(true)?;
    Ok(Names { socket, listener })
}
