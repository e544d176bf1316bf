//! Who someone is and what they may do: grants, charters, chains, claims, and the one function that judges them.
//!
//! Pure: the time is an input, nothing is signed here. Keys, files and TLS are in `crux_net::identity`.
//! The forms and rules stand in `docs/design/identity.md`; the walk down a chain is in `identity/chain.rs`.

mod certificate;
mod chain;
mod charter;
mod claims;
mod closing;
mod codec;
mod denials;
mod document;
mod grant;
mod key;
mod notice;
mod principal;
mod refusal;
mod succession;
mod time;
mod verdicts;
mod vouchers;

#[cfg(test)]
mod tests;

pub use certificate::{CERTIFICATE_BYTES_MAX, is_signed_by, validity_of_certificate};
pub use chain::{CHAIN_LENGTH_MAX, Denied, Denies, Moment, verify, verify_invitation};
pub use charter::{CARRIED_MAX, Charter, ROOT_KEYS_MAX};
pub use claims::{ClaimTable, Novelty};
pub use closing::{CLOSING_CLAIMS_MAX, Closing};
pub use denials::{Denials, Fingerprint, NOTICES_MAX};
pub use document::{
    DOCUMENT_CONTEXT, ENTRY_CONTEXT, Signed, is_as_signed, verify_document, verify_signed,
};
pub use grant::{Enrols, Grant, OID, OID_COMPONENTS, Prefix, Role, Verb, Verbs};
pub use key::PublicKey;
pub use notice::{
    NOTICE_CLOSED_MAX, NOTICE_CONTEXT, NOTICE_DENIED_MAX, Notice, REASON_BYTES_MAX, SignedNotice,
};
pub use principal::{Claim, Enrolment, Principal, Who};
pub use refusal::Refusal;
pub use succession::{RIVALS_MAX, SUCCESSION_MAX, Step, Succession};
pub use time::{
    GRANT_LIFE_MAX_SECONDS, LEAF_BACKDATE_SECONDS, LEAF_LIFE_MAX_SECONDS, LEAF_LIFE_SECONDS, NEVER,
    OPERATOR_LIFE_SECONDS, UnixTime, Window,
};
pub use verdicts::{
    Judged, SignedVerdict, VERDICT_CONTEXT, VERDICTS_MAX, Verdict, Verdicts, Weight,
};
pub use vouchers::{VOUCHERS_MAX, Vouchers};
