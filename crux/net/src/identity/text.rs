//! One printable line around bytes: a head, base64url, and a check against damage.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::identity::Error;

/// Longest text read.
const TEXT_BYTES_MAX: usize = 16_384;
const CHECK_BYTES: usize = 4;

/// `head` and `content` as one line.
pub(crate) fn seal(head: &str, mut content: Vec<u8>) -> String {
    let check = blake3::hash(&content);
    content.extend_from_slice(&check.as_bytes()[..CHECK_BYTES]);
    format!("{head}{}", URL_SAFE_NO_PAD.encode(content))
}

/// What [`seal`] was given; white space around the line is ignored.
pub(crate) fn open(head: &'static str, text: &str) -> Result<Vec<u8>, Error> {
    let text = text.trim();
    if text.len() > TEXT_BYTES_MAX {
        return Err(Error::Invitation("it is too long"));
    }
    let text = text
        .strip_prefix(head)
        .ok_or(Error::Invitation("it does not begin with what it should"))?;
    let mut bytes = URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| Error::Invitation("it has characters that do not belong there"))?;
    let damaged = || Error::Invitation("it is damaged or incomplete");
    let (content, check) = bytes
        .split_at_checked(bytes.len().saturating_sub(CHECK_BYTES))
        .ok_or_else(damaged)?;
    if blake3::hash(content).as_bytes()[..CHECK_BYTES] != *check {
        return Err(damaged());
    }
    bytes.truncate(bytes.len() - CHECK_BYTES);
    Ok(bytes)
}
