//! Leaves for the processes a rnode runs.

use crux_core::identity::{Grant, Prefix, PublicKey, Role, UnixTime, Verb, Verbs};
use crux_core::names::Label;

use crate::identity::credentials::leaf_window;
use crate::identity::issue::issue;
use crate::identity::{Error, SecretKey, WallClock};

/// A process's short-lived certificate with all above it.
#[derive(Debug, Clone)]
pub struct AppLeaf {
    /// DER, the leaf first.
    pub chain: Vec<Vec<u8>>,
    /// When it ends.
    pub until: UnixTime,
}

/// Issues leaves to the processes of one rnode. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct LeafIssuer {
    key: SecretKey,
    chain: Vec<Vec<u8>>,
    namespace: Label,
    clock: WallClock,
}

impl LeafIssuer {
    pub(crate) const fn new(
        key: SecretKey,
        chain: Vec<Vec<u8>>,
        namespace: Label,
        clock: WallClock,
    ) -> Self {
        Self {
            key,
            chain,
            namespace,
            clock,
        }
    }

    /// Certifies `public_key_der` (SubjectPublicKeyInfo) as instance `index` of `application`'s `class`, for an hour.
    ///
    /// The caller knows from the process socket that whoever asks is that instance.
    ///
    /// # Errors
    /// [`Error::Refused`] when the key is not P-256.
    pub fn issue(
        &self,
        application: &Label,
        class: &Label,
        index: u32,
        public_key_der: &[u8],
    ) -> Result<AppLeaf, Error> {
        let key = PublicKey::from_spki(public_key_der)?;
        let role = Role::App {
            application: application.clone(),
            class: class.clone(),
            index,
        };
        let grant = Grant::new(
            role,
            Verbs::of(&[Verb::App]),
            Prefix::namespace(self.namespace.clone()),
        );
        let validity = leaf_window(self.clock.now());
        let mut chain = vec![issue(&grant, validity, &key, &self.key)?];
        chain.extend(self.chain.iter().cloned());
        Ok(AppLeaf {
            chain,
            until: validity.until,
        })
    }
}
