//! Secret keys: P-256, made here, shown to nobody.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crux_core::identity::PublicKey;
use rcgen::{KeyPair, PublicKeyData, SigningKey as _};

use crate::identity::{Error, files};

/// A P-256 key that signs. Cloning shares it; `Debug` shows the public key only.
#[derive(Clone)]
pub struct SecretKey {
    pair: Arc<KeyPair>,
    public: PublicKey,
}

impl SecretKey {
    /// Makes a fresh key.
    ///
    /// # Errors
    /// [`Error::Crypto`] when the operating system gives no randomness.
    pub fn generate() -> Result<Self, Error> {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(Error::crypto("make a key"))?;
        Self::from_pair(pair)
    }

    /// Reads PKCS#8 DER.
    ///
    /// # Errors
    /// [`Error::Crypto`] when it is not a P-256 key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, Error> {
        let der = rustls::pki_types::PrivatePkcs8KeyDer::from(der);
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(Error::crypto("read a key"))?;
        Self::from_pair(pair)
    }

    /// The key kept in `path` (0600), made there if it is absent; on disk before it is returned.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Exposed`] or [`Error::Crypto`].
    pub fn open_or_create(path: &Path) -> Result<Self, Error> {
        if let Some(der) = files::read_secret(path)? {
            return Self::from_pkcs8(&der);
        }
        let key = Self::generate()?;
        files::write(path, key.pkcs8())?;
        Ok(key)
    }

    /// Its public key.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs {context, payload}: ECDSA P-256 with SHA-256, ASN.1 DER.
    ///
    /// # Errors
    /// [`Error::Crypto`] when the operating system gives no randomness.
    pub fn sign(&self, context: &[u8], payload: &[u8]) -> Result<Vec<u8>, Error> {
        self.pair
            .sign(&[context, payload].concat())
            .map_err(Error::crypto("sign"))
    }

    pub(crate) fn pkcs8(&self) -> &[u8] {
        self.pair.serialized_der()
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.pair
    }

    fn from_pair(pair: KeyPair) -> Result<Self, Error> {
        let public = PublicKey::from_point(pair.der_bytes())?;
        Ok(Self {
            pair: Arc::new(pair),
            public,
        })
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SecretKey({})", self.public.id().short())
    }
}
