//! A notice: what its signer denies from now on, and why.

use crate::identity::codec::Reader;
use crate::identity::{Closing, Denied, Refusal, UnixTime};
use crate::names::{InvitationId, KeyId, OwnerId, RnodeId};

/// Stands before a notice's payload in what is signed.
pub const NOTICE_CONTEXT: &[u8] = b"radix-deny/1\n";
/// Most that one notice may deny.
pub const NOTICE_DENIED_MAX: usize = 64;
/// Longest reason of a notice, in bytes.
pub const REASON_BYTES_MAX: usize = 256;

/// Most invitations that one notice may close.
pub const NOTICE_CLOSED_MAX: usize = 64;

const VERSION: u8 = 1;
const VERSION_WITH_CLOSINGS: u8 = 2;
const MALFORMED: Refusal = Refusal::Malformed("a deny notice cannot be read");

/// What a notice says. One value has one encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Whose flocks it is for.
    pub owner: OwnerId,
    /// When it was signed; for people.
    pub at: UnixTime,
    /// What is denied: at most [`NOTICE_DENIED_MAX`], and at least 1 where nothing is closed.
    pub denied: Vec<Denied>,
    /// Which invitations are closed: at most [`NOTICE_CLOSED_MAX`].
    pub closed: Vec<Closing>,
    /// Why; for people. At most [`REASON_BYTES_MAX`] bytes.
    pub reason: String,
}

/// A notice as it travels and lies on disk, byte for byte as signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedNotice {
    /// An encoded [`Notice`].
    pub payload: Vec<u8>,
    /// Over [`NOTICE_CONTEXT`] and the payload.
    pub signature: Vec<u8>,
    /// The signer's chain, the operator's grant first; empty: a root key signed.
    pub chain: Vec<Vec<u8>>,
}

impl Notice {
    /// Its bytes: version, owner, moment (u64), {kind u8, id 32} each after their number (u8), reason (u16 length);
    /// in version 2 the closings after their number (u8).
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let version = if self.closed.is_empty() {
            VERSION
        } else {
            VERSION_WITH_CLOSINGS
        };
        let mut out = vec![version];
        out.extend_from_slice(self.owner.as_bytes());
        out.extend_from_slice(&self.at.seconds().to_be_bytes());
        out.push(u8::try_from(self.denied.len()).unwrap_or(u8::MAX));
        for denied in &self.denied {
            let (kind, id) = match denied {
                Denied::Key(id) => (1, id.as_bytes()),
                Denied::Rnode(id) => (2, id.as_bytes()),
                Denied::Invitation(id) => (3, id.as_bytes()),
            };
            out.push(kind);
            out.extend_from_slice(id);
        }
        let length = u16::try_from(self.reason.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(self.reason.as_bytes());
        if version == VERSION_WITH_CLOSINGS {
            out.push(u8::try_from(self.closed.len()).unwrap_or(u8::MAX));
            self.closed.iter().for_each(|closing| closing.put(&mut out));
        }
        out
    }

    /// What it denies and closes, a line each, for people.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let denied = self.denied.iter().map(ToString::to_string);
        let closed = self.closed.iter().map(ToString::to_string);
        denied.chain(closed).collect()
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`Refusal::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut reader = Reader::new(bytes, MALFORMED);
        let version = reader.u8()?;
        if version != VERSION && version != VERSION_WITH_CLOSINGS {
            return Err(Refusal::Malformed(
                "a deny notice has a version this release does not know",
            ));
        }
        let owner = OwnerId::from_bytes(reader.array()?);
        let at = UnixTime::from_seconds(reader.u64()?);
        let count = usize::from(reader.u8()?);
        if (count == 0 && version == VERSION) || count > NOTICE_DENIED_MAX {
            return Err(MALFORMED);
        }
        let denied = (0..count)
            .map(|_| {
                let kind = reader.u8()?;
                let id = reader.array()?;
                match kind {
                    1 => Ok(Denied::Key(KeyId::from_bytes(id))),
                    2 => Ok(Denied::Rnode(RnodeId::from_bytes(id))),
                    3 => Ok(Denied::Invitation(InvitationId::from_bytes(id))),
                    _ => Err(MALFORMED),
                }
            })
            .collect::<Result<_, _>>()?;
        let length = usize::from(reader.u16()?);
        if length > REASON_BYTES_MAX {
            return Err(MALFORMED);
        }
        let reason = std::str::from_utf8(reader.bytes(length)?).map_err(|_| MALFORMED)?;
        let reason = reason.to_owned();
        let closed = match version {
            VERSION => Vec::new(),
            _ => read_closings(&mut reader)?,
        };
        reader.end()?;
        Ok(Self {
            owner,
            at,
            denied,
            closed,
            reason,
        })
    }
}

fn read_closings(reader: &mut Reader<'_>) -> Result<Vec<Closing>, Refusal> {
    let count = usize::from(reader.u8()?);
    if count == 0 || count > NOTICE_CLOSED_MAX {
        return Err(MALFORMED);
    }
    (0..count).map(|_| Closing::read(reader)).collect()
}
