//! Keys, certificates and files of identity, and the TLS made of them.
//!
//! Not for judging: that is `crux_core::identity`. Start with [`OwnerStore`] (people), [`RnodeIdentity`] (rnodes) and
//! [`Credentials`] (what a connection needs). `docs/design/identity.md` has the forms and rules.

mod carried;
mod clock;
mod credentials;
mod dispute;
mod error;
mod files;
mod grant_line;
mod invitation;
mod issue;
mod issued;
mod issuing;
mod key;
mod leaf;
pub mod owner;
mod report;
mod rnode;
mod succession;
mod text;
mod tls;
mod trust;

pub use clock::WallClock;
pub use credentials::{ALPN_GRPC, Credentials};
pub use dispute::Dispute;
pub use error::Error;
pub use grant_line::{GrantLine, decode_key, encode_key};
pub use invitation::{
    BaseInviter, GrantTerms, INVITATION_LIFE_SECONDS, INVITATION_LIFE_SECONDS_MAX, Invitation,
};
pub use issued::{IssuedCertificate, SETTLE_GRACE_SECONDS_MAX};
pub use key::SecretKey;
pub use leaf::{AppLeaf, LeafIssuer};
pub use owner::OwnerStore;
pub use report::Report;
pub use rnode::{Place, RnodeIdentity, enrolled_chain};
pub use succession::Rotated;
pub(crate) use tls::provider;
pub use tls::{Expect, refusal_in};
pub use trust::{AUTHORITY_BYTES_MAX, Acceptance, Taken, Trust};
