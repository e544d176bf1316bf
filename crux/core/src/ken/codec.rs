//! Reading and writing bytes by hand: every length is checked, nothing panics, all integers are big-endian.

/// Why bytes are not what they should be. Nothing was taken from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// They end too early.
    #[error("read a message: it ends too early")]
    Short,
    /// A length is above its limit.
    #[error("read a message: a length is above its limit")]
    Long,
    /// A field has a value that it may not have.
    #[error("read a message: a field has a value it may not have")]
    Value,
}

/// Takes fields off the front of bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// A length of two bytes, at most `max`, and so many bytes.
    pub(crate) fn bytes16(&mut self, max: usize) -> Result<&'a [u8], Malformed> {
        let length = usize::from(self.u16()?);
        if length > max {
            Err(Malformed::Long)
        } else {
            self.take(length)
        }
    }

    /// A length of four bytes, at most `max`, and so many bytes.
    pub(crate) fn bytes32(&mut self, max: usize) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(self.u32()?).map_err(|_| Malformed::Long)?;
        if length > max {
            Err(Malformed::Long)
        } else {
            self.take(length)
        }
    }
}

/// Appends fields to bytes.
pub(crate) trait Put {
    fn put(&mut self, bytes: &[u8]) -> &mut Self;

    fn put_u8(&mut self, value: u8) -> &mut Self {
        self.put(&[value])
    }

    fn put_u16(&mut self, value: u16) -> &mut Self {
        self.put(&value.to_be_bytes())
    }

    fn put_u32(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_be_bytes())
    }

    fn put_u64(&mut self, value: u64) -> &mut Self {
        self.put(&value.to_be_bytes())
    }

    /// Writes a length of two bytes and `bytes`, cut to what the length can say.
    fn put_bytes16(&mut self, bytes: &[u8]) -> &mut Self {
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.put_u16(length).put(&bytes[..usize::from(length)])
    }

    /// Writes a length of four bytes and `bytes`, cut to what the length can say.
    fn put_bytes32(&mut self, bytes: &[u8]) -> &mut Self {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.put_u32(length).put(bytes)
    }
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.extend_from_slice(bytes);
        self
    }
}
