//! Packets of `radix.keeper.v1` on a SOCK_SEQPACKET pair, with descriptors beside them.
//!
//! Both ends use this file; neither blocks in it. For the messages see the proto.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

/// The largest packet. 160 KiB: below the kernel's default send buffer of 208 KiB, above which it refuses.
pub(crate) const PACKET_BYTES_MAX: usize = 160 * 1024;

/// The most descriptors beside one packet. 128: the kernel's own limit is 253.
pub(crate) const PACKET_FDS_MAX: usize = 128;

/// The longest instance, configuration, command, digest or label of an execution, each. 4 KiB: what is told of one
/// execution then fits into a packet many times over, and so into every listing.
pub(crate) const TOLD_BYTES_MAX: usize = 4 << 10;

/// One packet as received.
#[derive(Debug)]
pub(crate) struct Packet {
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
    /// The descriptors that came with it, in order, closed on exec.
    pub(crate) fds: Vec<OwnedFd>,
    /// Whether descriptors are missing, because this process has too many open.
    pub(crate) fds_cut: bool,
}

/// Makes a connected pair of packet sockets, closed on exec.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

/// Sends one packet; `WouldBlock` when the other end does not keep up.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if bytes.len() > PACKET_BYTES_MAX || fds.len() > PACKET_FDS_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the packet is too large",
        ));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PACKET_FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "too many descriptors",
        ));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)?;
    Ok(())
}

/// Takes one packet; `None` when the other end is closed, `WouldBlock` when there is none yet.
///
/// # Errors
/// `InvalidData` for a packet larger than we send; it is gone, the next one can be taken.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<Packet>> {
    let mut bytes = vec![0; PACKET_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PACKET_FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let message = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut control,
        flags,
    )?;
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            fds.extend(rights);
        }
    }
    if message.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a packet was cut",
        ));
    }
    if message.bytes == 0 {
        return Ok(None);
    }
    bytes.truncate(message.bytes);
    bytes.shrink_to_fit();
    Ok(Some(Packet {
        bytes,
        fds,
        fds_cut: message.flags.contains(ReturnFlags::CTRUNC),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_packet_carries_bytes_and_descriptors() {
        let (near, far) = pair().unwrap();
        let nothing = receive(far.as_fd()).expect_err("there is no packet yet");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        send(
            near.as_fd(),
            &vec![7; PACKET_BYTES_MAX],
            &[near.as_fd(), far.as_fd()],
        )
        .unwrap();
        let packet = receive(far.as_fd()).unwrap().unwrap();
        assert_eq!(
            (packet.bytes.len(), packet.fds.len()),
            (PACKET_BYTES_MAX, 2)
        );
        let large = send(near.as_fd(), &vec![7; PACKET_BYTES_MAX + 1], &[]);
        assert_eq!(
            large.expect_err("is too large").kind(),
            io::ErrorKind::InvalidInput
        );
        drop(packet);
        drop(near);
        assert!(receive(far.as_fd()).unwrap().is_none());
    }
}
