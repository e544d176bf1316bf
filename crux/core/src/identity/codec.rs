//! Reading and writing of our own binary forms: big-endian, length before content, nothing left over.

use crate::identity::Refusal;
use crate::names::Label;

/// Takes fields from the front of a slice.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    malformed: Refusal,
}

impl<'a> Reader<'a> {
    /// A reader that answers `malformed` when a field is not there or not valid.
    pub(crate) const fn new(bytes: &'a [u8], malformed: Refusal) -> Self {
        Self {
            rest: bytes,
            malformed,
        }
    }

    pub(crate) fn malformed(&self) -> Refusal {
        self.malformed.clone()
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Refusal> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or_else(|| self.malformed())?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        self.bytes(N)?.try_into().map_err(|_| self.malformed())
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Refusal> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Refusal> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Refusal> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Refusal> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A label, or `None` for an empty text.
    pub(crate) fn label_or_none(&mut self) -> Result<Option<Label>, Refusal> {
        let count = self.u8()?;
        if count == 0 {
            return Ok(None);
        }
        let text =
            std::str::from_utf8(self.bytes(usize::from(count))?).map_err(|_| self.malformed())?;
        Label::new(text).map(Some).map_err(|_| self.malformed())
    }

    pub(crate) fn label(&mut self) -> Result<Label, Refusal> {
        self.label_or_none()?.ok_or_else(|| self.malformed())
    }

    /// Refuses anything left over.
    pub(crate) fn end(self) -> Result<(), Refusal> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.malformed)
        }
    }
}

/// Appends a label, or the empty text for `None`.
pub(crate) fn put_label(out: &mut Vec<u8>, label: Option<&Label>) {
    let text = label.map_or("", Label::as_str);
    // A label has at most 64 bytes.
    out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(text.as_bytes());
}
