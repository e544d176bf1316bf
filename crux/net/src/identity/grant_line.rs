//! A grant issued for a key that was shown (`radix ca issue`): nothing secret travels, and it is good for nobody else.

use crux_core::identity::{Charter, PublicKey, Refusal};

use crate::identity::files::{encode_chain, take_chain, take_long, take_short};
use crate::identity::{Error, text};

/// Before a grant's line.
const HEAD: &str = "radixg1";
/// Before a public key's line.
const KEY_HEAD: &str = "radixk1";
const VERSION: u8 = 1;
/// Most hints carried.
const HINTS_MAX: usize = 8;

/// A person's or tool's grant with all that is needed to use it, but the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantLine {
    pub(crate) charter: Charter,
    pub(crate) chain: Vec<Vec<u8>>,
    hints: Vec<String>,
}

impl GrantLine {
    pub(crate) const fn new(charter: Charter, chain: Vec<Vec<u8>>) -> Self {
        Self {
            charter,
            chain,
            hints: Vec::new(),
        }
    }

    /// The same, with addresses (`host:port`) where the base is; at most 8 are kept.
    #[must_use]
    pub fn with_hints(mut self, hints: impl IntoIterator<Item = String>) -> Self {
        let fits = |hint: &String| hint.len() <= usize::from(u8::MAX);
        self.hints = hints.into_iter().filter(fits).take(HINTS_MAX).collect();
        self
    }

    /// Where the base is: `host:port` each.
    #[must_use]
    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    /// Whether a text is meant to be one.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        text.trim().starts_with(HEAD)
    }

    /// The key it is for.
    pub(crate) fn key(&self) -> Result<PublicKey, Error> {
        let der = self.chain.first().ok_or(Refusal::NoCertificate)?;
        Ok(PublicKey::of_certificate(der)?)
    }

    /// The text form: `radixg1` and base64url of version, charter (u16 length), chain and hints as an invitation has them.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = vec![VERSION];
        let charter = self.charter.encoded();
        out.extend_from_slice(
            &u16::try_from(charter.len())
                .unwrap_or(u16::MAX)
                .to_be_bytes(),
        );
        out.extend_from_slice(charter);
        out.extend_from_slice(&encode_chain(&self.chain));
        out.push(u8::try_from(self.hints.len()).unwrap_or(u8::MAX));
        for hint in &self.hints {
            out.push(u8::try_from(hint.len()).unwrap_or(u8::MAX));
            out.extend_from_slice(hint.as_bytes());
        }
        text::seal(HEAD, out)
    }

    /// Reads the text form. Nothing of it is judged.
    ///
    /// # Errors
    /// [`Error::Invitation`] or [`Error::Refused`].
    pub fn decode(line: &str) -> Result<Self, Error> {
        let content = text::open(HEAD, line)?;
        let damaged = Error::Invitation("it is damaged or incomplete");
        let (charter, chain, hints) = read(&content).ok_or(damaged)?;
        Ok(Self {
            charter: Charter::decode(charter)?,
            chain,
            hints,
        })
    }
}

/// The line that shows a public key: `radixk1` and base64url of its SubjectPublicKeyInfo.
#[must_use]
pub fn encode_key(key: &PublicKey) -> String {
    text::seal(KEY_HEAD, key.spki().to_vec())
}

/// Reads what [`encode_key`] wrote.
///
/// # Errors
/// [`Error::Invitation`] or [`Error::Refused`].
pub fn decode_key(line: &str) -> Result<PublicKey, Error> {
    Ok(PublicKey::from_spki(&text::open(KEY_HEAD, line)?)?)
}

type Parts<'a> = (&'a [u8], Vec<Vec<u8>>, Vec<String>);

fn read(content: &[u8]) -> Option<Parts<'_>> {
    let mut bytes = content.strip_prefix(&[VERSION])?;
    let charter = take_long(&mut bytes)?;
    let chain = take_chain(&mut bytes)?;
    let (count, rest) = bytes.split_first()?;
    bytes = rest;
    let hints = (0..usize::from(*count).min(HINTS_MAX + 1)).map(|_| {
        let hint = std::str::from_utf8(take_short(&mut bytes)?).ok()?;
        Some(hint.to_owned())
    });
    let hints: Vec<String> = hints.collect::<Option<_>>()?;
    (bytes.is_empty() && hints.len() <= HINTS_MAX).then_some((charter, chain, hints))
}
