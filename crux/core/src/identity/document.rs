//! Signatures on things that are kept and passed on: documents and entries.

use crate::identity::certificate::Certificate;
use crate::identity::chain::verify_signer;
use crate::identity::{Charter, Denies, Moment, Principal, Refusal};

/// Stands before a document's payload in what is signed.
pub const DOCUMENT_CONTEXT: &[u8] = b"radix-document/1\n";
/// Stands before an entry of shared data in what is signed.
pub const ENTRY_CONTEXT: &[u8] = b"radix-entry/1\n";

/// Something signed, with the chain of who signed it: the signer's own certificate first.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a, C> {
    /// What stands before the payload in what is signed: one for each kind of thing.
    pub context: &'a [u8],
    /// The thing itself.
    pub payload: &'a [u8],
    /// ECDSA P-256 with SHA-256, ASN.1 DER.
    pub signature: &'a [u8],
    /// DER certificates, below a root key of the charter.
    pub chain: &'a [C],
}

/// Judges a signature and its signer. What the signer may do with it is the caller's question ([`Principal::may`]).
///
/// # Errors
/// The first rule that is broken.
pub fn verify_signed<C: AsRef<[u8]>>(
    signed: &Signed<'_, C>,
    charter: &Charter,
    denies: &Denies,
    moment: Moment,
) -> Result<Principal, Refusal> {
    let (principal, key) = verify_signer(signed.chain, charter, denies, moment)?;
    key.verify(&[signed.context, signed.payload].concat(), signed.signature)?;
    Ok(principal)
}

/// Whether the payload is as whoever the chain begins with signed it; who that is, and whether it counts, is not asked.
///
/// # Errors
/// [`Refusal::NoCertificate`], [`Refusal::BadSignature`], or that the certificate cannot be read.
pub fn is_as_signed<C: AsRef<[u8]>>(signed: &Signed<'_, C>) -> Result<(), Refusal> {
    let signer = signed.chain.first().ok_or(Refusal::NoCertificate)?;
    let key = Certificate::parse(signer.as_ref())?.key;
    key.verify(&[signed.context, signed.payload].concat(), signed.signature)
}

/// Judges a document's signature: [`verify_signed`] with its context.
///
/// # Errors
/// The first rule that is broken.
pub fn verify_document<C: AsRef<[u8]>>(
    (payload, signature): (&[u8], &[u8]),
    chain: &[C],
    charter: &Charter,
    denies: &Denies,
    moment: Moment,
) -> Result<Principal, Refusal> {
    verify_signed(
        &Signed {
            context: DOCUMENT_CONTEXT,
            payload,
            signature,
            chain,
        },
        charter,
        denies,
        moment,
    )
}
