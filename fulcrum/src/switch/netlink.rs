//! Asks the kernel over netlink: one encoder of messages and attributes, for links as for rules. Synchronous.
//!
//! ```text
//! length:u32  kind:u16  flags:u16  sequence:u32  port:u32  header of the family   (length:u16 kind:u16 value, padded to 4)*
//! ```
//! All in the byte order of the machine. Spec: RFC 3549, section 2.3.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto,
    socket,
};

/// It is a request.
const REQUEST: u16 = 1;
/// The kernel answers with an acknowledgement.
pub(super) const ACK: u16 = 4;
/// Makes something that must not be there.
pub(super) const CREATE: u16 = 0x400 | 0x200;
/// An attribute that holds attributes.
const NESTED: u16 = 0x8000;
/// Kind of an answer that says how a request ended.
const ERROR: u16 = 2;
/// Bytes of a message's header.
const HEADER_BYTES: usize = 16;
/// Bytes read at once; an acknowledgement has at most a few hundred.
const ANSWER_BYTES: usize = 8192;

/// Attributes, one after another.
#[derive(Debug, Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Begins with what is no attribute: the header of a family.
    pub(super) const fn after(header: Vec<u8>) -> Self {
        Self(header)
    }

    pub(super) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(4 + value.len()).expect("attributes of ours are short");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn with_text(self, kind: u16, text: &str) -> Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.with(kind, &bytes)
    }

    pub(super) fn with_nested(self, kind: u16, inner: &Self) -> Self {
        self.with(kind | NESTED, &inner.0)
    }
}

/// One message.
pub(super) fn message(kind: u16, flags: u16, body: Attributes) -> Vec<u8> {
    let length = u32::try_from(HEADER_BYTES + body.0.len()).expect("messages of ours are short");
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.0.len());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((REQUEST | flags).to_ne_bytes());
    bytes.extend(1_u32.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(body.0);
    bytes
}

/// A socket to one part of the kernel, in the network namespace in which it was opened.
#[derive(Debug)]
pub(super) struct Netlink(OwnedFd);

impl Netlink {
    pub(super) fn open(protocol: SockProtocol) -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    pub(super) fn routes() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkRoute)
    }

    /// Sends messages, of which `acknowledged` ask for an answer, and waits for those.
    ///
    /// # Errors
    /// The first that the kernel tells.
    pub(super) fn ask(&self, messages: &[u8], acknowledged: usize) -> io::Result<()> {
        self.fetch(messages, acknowledged).map(drop)
    }

    /// As [`Netlink::ask`], with everything else that the kernel said.
    pub(super) fn fetch(&self, messages: &[u8], acknowledged: usize) -> io::Result<Vec<u8>> {
        let mut said = Vec::new();
        sendto(
            self.0.as_raw_fd(),
            messages,
            &NetlinkAddr::new(0, 0),
            MsgFlags::empty(),
        )?;
        let mut heard = 0;
        while heard < acknowledged {
            let mut buffer = vec![0; ANSWER_BYTES];
            let read = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            heard += answers(&buffer[..read])?;
            said.extend_from_slice(&buffer[..read]);
        }
        Ok(said)
    }
}

/// The value of the attribute `kind` in the first message of `said`, whose family has a header of `header` bytes.
pub(super) fn attribute(said: &[u8], header: usize, kind: u16) -> Option<&[u8]> {
    let length = u32::from_ne_bytes(said.get(..4)?.try_into().ok()?);
    let mut left = said.get(HEADER_BYTES + header..usize::try_from(length).ok()?)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(left.get(..2)?.try_into().ok()?));
        let found = u16::from_ne_bytes(left.get(2..4)?.try_into().ok()?);
        if found & !NESTED == kind {
            return left.get(4..length);
        }
        left = left.get(length.max(4).next_multiple_of(4)..)?;
    }
}

/// How many acknowledgements `bytes` hold.
fn answers(mut bytes: &[u8]) -> io::Result<usize> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is cut");
    let mut count = 0;
    while bytes.len() >= HEADER_BYTES {
        let field = |at: usize| -> io::Result<[u8; 4]> {
            let field = bytes.get(at..at + 4).ok_or_else(malformed)?;
            field.try_into().map_err(|_| malformed())
        };
        let length = usize::try_from(u32::from_ne_bytes(field(0)?)).map_err(|_| malformed())?;
        let [low, high, ..] = field(4)?;
        if u16::from_ne_bytes([low, high]) == ERROR {
            let code = i32::from_ne_bytes(field(HEADER_BYTES)?);
            if code != 0 {
                return Err(io::Error::from_raw_os_error(-code));
            }
            count += 1;
        }
        if length < HEADER_BYTES {
            return Err(malformed());
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested() {
        let inner = Attributes::new().with(1, &[7]);
        let bytes = message(
            16,
            ACK,
            Attributes::after(vec![9; 4]).with_nested(2, &inner),
        );
        assert_eq!(bytes.len(), HEADER_BYTES + 4 + 4 + 8);
        assert_eq!(bytes[0..4], 32_u32.to_ne_bytes());
        assert_eq!(bytes[6..8], 5_u16.to_ne_bytes());
        assert_eq!(bytes[20..22], 12_u16.to_ne_bytes());
        assert_eq!(bytes[22..24], 0x8002_u16.to_ne_bytes());
        assert_eq!(bytes[24..26], 5_u16.to_ne_bytes());
        assert_eq!(bytes[28..32], [7, 0, 0, 0]);
        assert_eq!(attribute(&bytes, 4, 2), Some(&bytes[24..32]));
        for (header, kind) in [(4, 1), (12, 0), (400, 2)] {
            assert_eq!(attribute(&bytes, header, kind), None);
        }
    }

    #[test]
    fn an_answer_is_counted_or_is_the_errno_or_is_cut() {
        let answer = |code: i32| {
            let mut bytes = message(ERROR, 0, Attributes::after(code.to_ne_bytes().to_vec()));
            bytes.resize(36, 0);
            bytes[0..4].copy_from_slice(&36_u32.to_ne_bytes());
            bytes
        };
        let two = [answer(0), answer(0)].concat();
        assert_eq!(answers(&two).unwrap(), 2);
        assert_eq!(answers(&answer(-1)).unwrap_err().raw_os_error(), Some(1));
        assert!(answers(&[0; 17]).is_err());
        assert_eq!(answers(&[]).unwrap(), 0);
    }
}
