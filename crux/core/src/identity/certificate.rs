//! One certificate of our profile, read strictly.

use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::asn1_rs::Oid;
use x509_parser::prelude::parse_x509_certificate;

use crate::identity::{Grant, OID, PublicKey, Refusal, UnixTime, Window};

/// Most bytes a certificate may have.
pub const CERTIFICATE_BYTES_MAX: usize = 2_048;
const ECDSA_WITH_SHA256: &str = "1.2.840.10045.4.3.2";

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

/// The signed part, borrowed from `der` itself.
fn signed_part_of<'a>(der: &'a [u8], parsed: &X509Certificate<'_>) -> Result<&'a [u8], Refusal> {
    let part: &[u8] = parsed.tbs_certificate.as_ref();
    // The outer SEQUENCE's header is 2 to 5 bytes long; the signed part follows it.
    (2..=5)
        .find_map(|at| der.get(at..at + part.len()).filter(|bytes| *bytes == part))
        .ok_or(Refusal::Malformed(
            "its signed part is not at its beginning",
        ))
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
