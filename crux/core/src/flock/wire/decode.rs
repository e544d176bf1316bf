//! From bytes to messages.

use super::{
    Extent, HEADER_BYTES, Header, Hello, Message, Offer, Row, Subject, Summary, VERSION_MIN,
};
use crate::digest::Digest;
use crate::flock::beacon::{BEACON_BYTES_MAX, Beacon};
use crate::flock::limits::{DOCUMENT_PART_BYTES, MESSAGE_BYTES_MAX, REMEMBERED_MAX};
use crate::ken::codec::{Malformed, Reader};
use crate::ken::{DocumentId, Entry, OwnerMark};
use crate::names::{NamespaceId, RnodeId};

/// Decodes a message. Unknown kinds give no message, so that later versions may add them.
pub(crate) fn decode(bytes: &[u8]) -> Result<(Header, Option<Message>), Malformed> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(Malformed::Long);
    }
    if bytes.len() < HEADER_BYTES {
        return Err(Malformed::Short);
    }
    let mut reader = Reader::new(bytes);
    let (version, kind, _flags) = (reader.u8()?, reader.u8()?, reader.u16()?);
    if version < VERSION_MIN {
        return Err(Malformed::Value);
    }
    let header = Header {
        namespace: reader.array()?,
        sender: reader.array()?,
        incarnation: reader.u64()?,
    };
    Ok((header, message(kind, &mut reader)?))
}

fn message(kind: u8, reader: &mut Reader<'_>) -> Result<Option<Message>, Malformed> {
    let message = match kind {
        1 => Message::Hello(Box::new(hello(reader)?)),
        2 => Message::Probe {
            nonce: reader.u32()?,
            summary: summary(reader)?,
        },
        3 => Message::Ack {
            nonce: reader.u32()?,
            summary: summary(reader)?,
            clock: reader.u32()?,
        },
        4 => Message::Suspect(subject(reader)?),
        5 => Message::Evidence {
            subject: subject(reader)?,
            millinats: reader.u32()?,
        },
        6 => Message::Clear(subject(reader)?),
        7 => Message::Declare(subject(reader)?),
        8 => Message::Accused(subject(reader)?),
        9 => Message::Heartbeat(Beacon::read(reader)?),
        10 => Message::Ask(summary(reader)?),
        11 => Message::Entries(entries(reader)?),
        12 => compare(reader)?,
        13 => Message::Offer(offer(reader)?),
        14 => Message::Want {
            id: id(reader)?,
            offset: reader.u32()?,
        },
        15 => Message::Part {
            offer: offer(reader)?,
            offset: reader.u32()?,
            bytes: reader.bytes32(DOCUMENT_PART_BYTES)?.into(),
        },
        _ => return Ok(None),
    };
    Ok(Some(message))
}

fn hello(reader: &mut Reader<'_>) -> Result<Hello, Malformed> {
    Ok(Hello {
        version_min: reader.u8()?,
        version_max: reader.u8()?,
        answer_wanted: reader.u8()? != 0,
        namespace: NamespaceId::from_bytes(reader.array()?),
        sender: RnodeId::from_bytes(reader.array()?),
        summary: summary(reader)?,
        entries: entries(reader)?,
        beacon: match reader.bytes16(BEACON_BYTES_MAX)? {
            [] => None,
            bytes => Some(Beacon::read(&mut Reader::new(bytes))?),
        },
    })
}

fn summary(reader: &mut Reader<'_>) -> Result<Summary, Malformed> {
    Ok(Summary {
        fingerprint: reader.u64()?,
        term: reader.u64()?,
        leader: reader.array()?,
        heartbeat: reader.u64()?,
    })
}

fn subject(reader: &mut Reader<'_>) -> Result<Subject, Malformed> {
    let rnode = RnodeId::from_bytes(reader.array()?);
    Ok(Subject {
        rnode,
        incarnation: reader.u64()?,
        sequence: reader.u64()?,
    })
}

fn entries(reader: &mut Reader<'_>) -> Result<Vec<Entry>, Malformed> {
    let count = reader.u16()?;
    (0..count).map(|_| Entry::read(reader)).collect()
}

fn compare(reader: &mut Reader<'_>) -> Result<Message, Malformed> {
    let extent = match reader.u8()? {
        0 => Extent::Whole,
        1 => Extent::Wanted,
        _ => return Err(Malformed::Value),
    };
    let count = usize::from(reader.u16()?);
    if count > REMEMBERED_MAX {
        return Err(Malformed::Long);
    }
    let rows = (0..count).map(|_| row(reader)).collect::<Result<_, _>>()?;
    let document = if reader.u8()? == 0 {
        None
    } else {
        Some(offer(reader)?)
    };
    Ok(Message::Compare {
        extent,
        rows,
        document,
    })
}

fn row(reader: &mut Reader<'_>) -> Result<Row, Malformed> {
    let owner = RnodeId::from_bytes(reader.array()?);
    let record = reader.u64()?;
    let mark = OwnerMark {
        generation: reader.u64()?,
        sequence_max: reader.u64()?,
        fingerprint: reader.u64()?,
    };
    Ok(Row {
        owner,
        record,
        mark,
    })
}

fn id(reader: &mut Reader<'_>) -> Result<DocumentId, Malformed> {
    Ok(DocumentId {
        generation: reader.u64()?,
        digest: Digest::from_bytes(reader.array()?),
    })
}

fn offer(reader: &mut Reader<'_>) -> Result<Offer, Malformed> {
    Ok(Offer {
        id: id(reader)?,
        total: reader.u32()?,
    })
}
