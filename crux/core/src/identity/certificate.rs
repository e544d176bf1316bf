//! One certificate of our profile, read strictly.

use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::asn1_rs::Oid;
use x509_parser::prelude::parse_x509_certificate;

use crate::identity::{Grant, OID, PublicKey, Refusal, UnixTime, Window};

/// Most bytes a certificate may have.
pub const CERTIFICATE_BYTES_MAX: usize = 2_048;
const ECDSA_WITH_SHA256: &str = "1.2.840.10045.4.3.2";
/// The algorithm identifier of the same, as DER.
const ECDSA_WITH_SHA256_DER: [u8; 12] = [
    0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02,
];

/// What we use of a certificate. Its signature is not checked yet.
pub(crate) struct Certificate<'a> {
    signed_part: &'a [u8],
    signature: &'a [u8],
    pub(crate) key: PublicKey,
    pub(crate) grant: Grant,
    pub(crate) validity: Window,
}

impl<'a> Certificate<'a> {
    /// Reads DER.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] or [`Refusal::NotP256`].
    pub(crate) fn parse(der: &'a [u8]) -> Result<Self, Refusal> {
        if der.len() > CERTIFICATE_BYTES_MAX {
            return Err(Refusal::Malformed("it is longer than 2048 bytes"));
        }
        let (rest, parsed) = parse_x509_certificate(der)
            .map_err(|_| Refusal::Malformed("it is not an X.509 certificate"))?;
        if !rest.is_empty() {
            return Err(Refusal::Malformed("bytes follow it"));
        }
        let algorithm = &parsed.tbs_certificate.signature;
        if algorithm.algorithm.to_id_string() != ECDSA_WITH_SHA256
            || parsed.signature_algorithm != *algorithm
        {
            return Err(Refusal::Malformed(
                "it is not signed with ECDSA and SHA-256",
            ));
        }
        if parsed.signature_value.unused_bits != 0 {
            return Err(Refusal::Malformed("its signature has stray bits"));
        }
        let key = PublicKey::from_spki(parsed.tbs_certificate.subject_pki.raw)?;
        let grant = grant_of(&parsed)?;
        let validity = validity_of(&parsed)?;
        let signature = match der.len().checked_sub(parsed.signature_value.data.len()) {
            // The signature's bit string is the last thing in a certificate.
            Some(at) if der[at..] == parsed.signature_value.data[..] => &der[at..],
            _ => return Err(Refusal::Malformed("its signature is not at its end")),
        };
        let signed_part = signed_part_of(der, &parsed)?;
        Ok(Self {
            signed_part,
            signature,
            key,
            grant,
            validity,
        })
    }

    /// Checks that `issuer` signed it.
    pub(crate) fn signed_by(&self, issuer: &PublicKey) -> Result<(), Refusal> {
        issuer.verify(self.signed_part, self.signature)
    }
}

impl PublicKey {
    /// The key in a certificate of our profile; who vouches for it is not judged here.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] or [`Refusal::NotP256`].
    pub fn of_certificate(der: &[u8]) -> Result<Self, Refusal> {
        Certificate::parse(der).map(|certificate| certificate.key)
    }
}

impl Grant {
    /// The grant in a certificate of our profile; who vouches for it is not judged here.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] or [`Refusal::NotP256`].
    pub fn of_certificate(der: &[u8]) -> Result<Self, Refusal> {
        Certificate::parse(der).map(|certificate| certificate.grant)
    }
}

/// The validity a certificate of our profile states; who vouches for it is not judged here.
///
/// # Errors
/// [`Refusal::Malformed`] or [`Refusal::NotP256`].
pub fn validity_of_certificate(der: &[u8]) -> Result<Window, Refusal> {
    Certificate::parse(der).map(|certificate| certificate.validity)
}

/// The signed part, borrowed from `der` itself, once everything around it is as it must be to the bit.
///
/// What is not signed could otherwise be changed without anyone noticing: the outer header, the
/// repeated algorithm, the header of the signature.
fn signed_part_of<'a>(der: &'a [u8], parsed: &X509Certificate<'_>) -> Result<&'a [u8], Refusal> {
    let wrong = || Refusal::Malformed("it is not in its one canonical form");
    let part: &[u8] = parsed.tbs_certificate.as_ref();
    let signature = &parsed.signature_value.data;
    let mut tail = ECDSA_WITH_SHA256_DER.to_vec();
    tail.extend_from_slice(&header(0x03, signature.len() + 1));
    tail.push(0);
    tail.extend_from_slice(signature);
    let head = header(0x30, part.len() + tail.len());
    let body = der.strip_prefix(head.as_slice()).ok_or_else(wrong)?;
    let (signed, rest) = body.split_at_checked(part.len()).ok_or_else(wrong)?;
    if signed == part && rest == tail {
        Ok(signed)
    } else {
        Err(wrong())
    }
}

/// Whether `issuer` signed this certificate; nothing else of it is judged.
#[must_use]
pub fn is_signed_by(der: &[u8], issuer: &PublicKey) -> bool {
    Certificate::parse(der).is_ok_and(|certificate| certificate.signed_by(issuer).is_ok())
}

/// Tag and length of a DER value of `length` bytes; certificates are far below 64 KiB.
fn header(tag: u8, length: usize) -> Vec<u8> {
    let [.., high, low] = length.to_be_bytes();
    match length {
        0..0x80 => vec![tag, low],
        0x80..0x100 => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    }
}

fn grant_of(parsed: &X509Certificate<'_>) -> Result<Grant, Refusal> {
    let ours: Oid<'_> = OID
        .parse()
        .map_err(|_| Refusal::Malformed("its grant cannot be found"))?;
    let mut grant = None;
    for extension in parsed.extensions() {
        if extension.oid != ours {
            if extension.critical {
                return Err(Refusal::Malformed(
                    "it has a critical extension that is not ours",
                ));
            }
            continue;
        }
        if grant.is_some() || !extension.critical {
            return Err(Refusal::Malformed("its grant is repeated or not critical"));
        }
        grant = Some(Grant::decode(extension.value)?);
    }
    grant.ok_or(Refusal::Malformed("it has no grant"))
}

fn validity_of(parsed: &X509Certificate<'_>) -> Result<Window, Refusal> {
    let seconds = |stamp: i64| {
        u64::try_from(stamp).map_err(|_| Refusal::Malformed("it is dated before 1970"))
    };
    let validity = parsed.validity();
    Ok(Window {
        from: UnixTime::from_seconds(seconds(validity.not_before.timestamp())?),
        until: UnixTime::from_seconds(seconds(validity.not_after.timestamp())?),
    })
}
