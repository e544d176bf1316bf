//! One printable line around bytes: a head, base64url, and a check against damage.

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::{DecodeError, Engine as _};

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
    let wrong = |reason| Error::Line { head, reason };
    let text = text.trim();
    if text.len() > TEXT_BYTES_MAX {
        return Err(wrong("it is too long"));
    }
    let text = text
        .strip_prefix(head)
        .ok_or_else(|| wrong("it begins otherwise"))?;
    let damaged = || wrong("it is damaged or incomplete");
    let mut bytes = URL_SAFE_NO_PAD.decode(text).map_err(|error| match error {
        DecodeError::InvalidByte(..) => wrong("it has characters that do not belong there"),
        _ => damaged(),
    })?;
    let (content, check) = bytes
        .split_at_checked(bytes.len().saturating_sub(CHECK_BYTES))
        .ok_or_else(damaged)?;
    if blake3::hash(content).as_bytes()[..CHECK_BYTES] != *check {
        return Err(damaged());
    }
    bytes.truncate(bytes.len() - CHECK_BYTES);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_back_and_of_any_other_it_is_told_how_it_should_begin() {
        let line = seal("radixk1", vec![1, 2, 3]);
        assert_eq!(
            open("radixk1", &format!(" {line}\n")).ok(),
            Some(vec![1, 2, 3])
        );
        let told = |text: &str| open("radixk1", text).map_err(|error| error.to_string());
        let expected = "read a line that begins with radixk1: ";
        for (text, reason) in [
            ("xyz", "it begins otherwise"),
            ("radixk1*", "it has characters that do not belong there"),
            (&line[..line.len() - 1], "it is damaged or incomplete"),
            (&"r".repeat(TEXT_BYTES_MAX + 1), "it is too long"),
        ] {
            assert_eq!(told(text), Err(format!("{expected}{reason}")));
        }
    }
}
