//! What a connection needs: a leaf that renews itself, and the trust to judge the other side.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use crux_core::identity::{
    Grant, LEAF_BACKDATE_SECONDS, LEAF_LIFE_SECONDS, Principal, Refusal, Role, UnixTime, Verbs,
    Window,
};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig};

use crate::identity::issue::issue;
use crate::identity::{Error, Expect, OwnerStore, SecretKey, Trust, WallClock, files, tls};

/// What gRPC connections negotiate; HTTP/1.1 is for the REST twins.
pub const ALPN_GRPC: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Someone's side of connections. Cheap to clone; clones share the leaf.
///
/// Each handshake takes the current leaf; a leaf past half its life is replaced first, in memory,
/// so that renewal needs nobody and touches no open session.
#[derive(Clone)]
pub struct Credentials(Arc<Inner>);

struct Inner {
    trust: Trust,
    signer: Option<Signer>,
    leaf: Mutex<Arc<Leaf>>,
}

/// How leaves are made: with a key that never leaves, for the grant above it.
struct Signer {
    key: SecretKey,
    chain: Vec<Vec<u8>>,
    grant: Grant,
}

/// A leaf with its key and chain.
struct Leaf {
    certified: Arc<CertifiedKey>,
    renew_at: UnixTime,
    until: UnixTime,
}

impl Credentials {
    /// The operator of `owner`.
    ///
    /// # Errors
    /// [`Error::Crypto`], or [`Error::Refused`] when the grant has ended.
    pub fn for_operator(owner: &OwnerStore) -> Result<Self, Error> {
        owner.credentials()
    }

    /// A process, with the leaf its agent issued over `key`; [`renew`](Self::renew) takes the next one.
    ///
    /// # Errors
    /// [`Error::Refused`] when `chain` is not good under `charter`.
    pub fn for_app(chain: &[Vec<u8>], key: &SecretKey, charter: &[u8]) -> Result<Self, Error> {
        let charter = crux_core::identity::Charter::decode(charter)?;
        let trust = Trust::new(charter, WallClock::system());
        let leaf = given_leaf(chain, key, &trust)?;
        Ok(Self(Arc::new(Inner {
            trust,
            signer: None,
            leaf: Mutex::new(Arc::new(leaf)),
        })))
    }

    /// Takes the next leaf of a process.
    ///
    /// # Errors
    /// [`Error::Refused`]; the old leaf stays.
    pub fn renew(&self, chain: &[Vec<u8>], key: &SecretKey) -> Result<(), Error> {
        let leaf = given_leaf(chain, key, &self.0.trust)?;
        *self.0.leaf.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(leaf);
        Ok(())
    }

    /// A holder of `key`, certified by `chain`, that signs its own leaves.
    pub(crate) fn self_renewing(
        trust: Trust,
        key: SecretKey,
        chain: Vec<Vec<u8>>,
    ) -> Result<Self, Error> {
        let grant = {
            let above = chain.first().ok_or(Refusal::NoCertificate)?;
            leaf_grant(&Grant::of_certificate(above)?)
        };
        let signer = Signer { key, chain, grant };
        let leaf = signer.make(trust.clock().now())?;
        let credentials = Self(Arc::new(Inner {
            trust,
            signer: Some(signer),
            leaf: Mutex::new(Arc::new(leaf)),
        }));
        credentials.principal()?;
        Ok(credentials)
    }

    /// What these credentials believe.
    #[must_use]
    pub fn trust(&self) -> &Trust {
        &self.0.trust
    }

    /// Who they say we are.
    ///
    /// # Errors
    /// Why others would refuse us now.
    pub fn principal(&self) -> Result<Principal, Refusal> {
        let leaf = self.leaf().ok_or(Refusal::NoCertificate)?;
        self.0.trust.verify(&leaf.certified.cert)
    }

    /// What we show at the next handshake: the leaf first; `None`: it has ended and cannot be renewed.
    #[must_use]
    pub fn chain(&self) -> Option<Vec<Vec<u8>>> {
        self.leaf().map(|leaf| {
            leaf.certified
                .cert
                .iter()
                .map(|certificate| certificate.to_vec())
                .collect()
        })
    }

    /// When the current leaf ends.
    #[must_use]
    pub fn until(&self) -> UnixTime {
        self.leaf()
            .map_or(UnixTime::from_seconds(0), |leaf| leaf.until)
    }

    /// When the current leaf should be replaced: at half its life.
    #[must_use]
    pub fn renew_at(&self) -> UnixTime {
        self.0
            .leaf
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .renew_at
    }

    /// Writes a fresh leaf with its own key and all above it to `path` (0600), as PEM, for programs that are not ours.
    ///
    /// Whoever has the file is us until the moment that is returned; the key that signed the leaf stays where it is.
    ///
    /// # Errors
    /// [`Error::Refused`] when nothing here signs leaves (a process's); [`Error::Crypto`]; [`Error::Io`].
    pub fn export_leaf(&self, path: &Path) -> Result<UnixTime, Error> {
        let signer = self.0.signer.as_ref().ok_or(Refusal::NoCertificate)?;
        let now = self.0.trust.clock().now();
        let (chain, key) = signer.sign(now)?;
        let mut text = pem("PRIVATE KEY", key.pkcs8());
        for certificate in &chain {
            text.push_str(&pem("CERTIFICATE", certificate));
        }
        files::write(path, text.as_bytes())?;
        Ok(leaf_window(now).until)
    }

    /// Judges the certificates a peer showed.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn principal_of(&self, certificates: &[CertificateDer<'_>]) -> Result<Principal, Refusal> {
        self.0.trust.verify(certificates)
    }

    /// Judges the peer of a QUIC connection.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn principal_of_connection(
        &self,
        connection: &quinn::Connection,
    ) -> Result<Principal, Refusal> {
        self.principal_of(&certificates_of(connection)?)
    }

    /// Judges the peer of a standing QUIC connection again: charter, denies and claims.
    ///
    /// # Errors
    /// Why it is refused now.
    pub fn recheck(&self, connection: &quinn::Connection) -> Result<Principal, Refusal> {
        self.0.trust.recheck(&certificates_of(connection)?)
    }

    /// The accepting side of TLS. It takes each new leaf by itself.
    ///
    /// # Errors
    /// [`Error::Crypto`].
    pub fn server_config(&self, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, Error> {
        tls::server_config(self, alpn).map(Arc::new)
    }

    /// The dialling side of TLS, towards `expect`. It takes each new leaf by itself.
    ///
    /// # Errors
    /// [`Error::Crypto`].
    pub fn client_config(
        &self,
        expect: Expect,
        alpn: &[&[u8]],
    ) -> Result<Arc<ClientConfig>, Error> {
        tls::client_config(self, expect, alpn).map(Arc::new)
    }

    /// The accepting side of QUIC, for one protocol name.
    ///
    /// # Errors
    /// [`Error::Crypto`].
    pub fn quic_server_config(&self, alpn: &[u8]) -> Result<Arc<QuicServerConfig>, Error> {
        let config = tls::server_config(self, &[alpn])?;
        QuicServerConfig::try_from(config)
            .map(Arc::new)
            .map_err(Error::crypto("prepare QUIC"))
    }

    /// The dialling side of QUIC, towards `expect`, for one protocol name.
    ///
    /// # Errors
    /// [`Error::Crypto`].
    pub fn quic_client_config(
        &self,
        expect: Expect,
        alpn: &[u8],
    ) -> Result<Arc<QuicClientConfig>, Error> {
        let config = tls::client_config(self, expect, &[alpn])?;
        QuicClientConfig::try_from(config)
            .map(Arc::new)
            .map_err(Error::crypto("prepare QUIC"))
    }

    pub(crate) fn certified_key(&self) -> Option<Arc<CertifiedKey>> {
        self.leaf().map(|leaf| leaf.certified.clone())
    }

    /// The current leaf, renewed first when it is due; the old one when that fails and it still holds.
    fn leaf(&self) -> Option<Arc<Leaf>> {
        let mut leaf = self.0.leaf.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(signer) = &self.0.signer else {
            return Some(leaf.clone());
        };
        let now = self.0.trust.clock().now();
        if now >= leaf.renew_at {
            match signer.make(now) {
                Ok(fresh) => *leaf = Arc::new(fresh),
                Err(error) => tracing::warn!(%error, "a leaf could not be renewed"),
            }
        }
        (now <= leaf.until).then(|| leaf.clone())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Credentials")
            .field("until", &self.until())
            .finish_non_exhaustive()
    }
}

impl Signer {
    fn make(&self, now: UnixTime) -> Result<Leaf, Error> {
        let (chain, key) = self.sign(now)?;
        let certified = certified(&chain, &key)?;
        Ok(Leaf {
            certified,
            renew_at: now.plus(LEAF_LIFE_SECONDS / 2),
            until: leaf_window(now).until,
        })
    }

    /// A leaf for a key of its own, with all above it.
    fn sign(&self, now: UnixTime) -> Result<(Vec<Vec<u8>>, SecretKey), Error> {
        let key = SecretKey::generate()?;
        let leaf = issue(&self.grant, leaf_window(now), key.public(), &self.key)?;
        let mut chain = vec![leaf];
        chain.extend(self.chain.iter().cloned());
        Ok((chain, key))
    }
}

/// DER as PEM. Source: RFC 7468, lines of 64 letters.
fn pem(label: &str, der: &[u8]) -> String {
    let base64 = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, next) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = next;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// When a leaf made now is good.
pub(crate) fn leaf_window(now: UnixTime) -> Window {
    Window {
        from: now.minus(LEAF_BACKDATE_SECONDS),
        until: now.plus(LEAF_LIFE_SECONDS),
    }
}

/// What the leaf of someone with `above` may do: the same, and pass on nothing.
fn leaf_grant(above: &Grant) -> Grant {
    Grant::new(Role::Leaf, above.verbs, above.prefix.clone()).may_grant(Verbs::NONE)
}

fn given_leaf(chain: &[Vec<u8>], key: &SecretKey, trust: &Trust) -> Result<Leaf, Error> {
    let until = trust.verify(chain)?.valid.until;
    let now = trust.clock().now();
    let half = until.seconds().saturating_sub(now.seconds()) / 2;
    Ok(Leaf {
        certified: certified(chain, key)?,
        renew_at: now.plus(half),
        until,
    })
}

fn certified(chain: &[Vec<u8>], key: &SecretKey) -> Result<Arc<CertifiedKey>, Error> {
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.pkcs8().to_vec()));
    let signing = rustls::crypto::ring::sign::any_ecdsa_type(&der)
        .map_err(Error::crypto("prepare a leaf"))?;
    let chain = chain
        .iter()
        .map(|der| CertificateDer::from(der.clone()))
        .collect();
    Ok(Arc::new(CertifiedKey::new(chain, signing)))
}

fn certificates_of(
    connection: &quinn::Connection,
) -> Result<Vec<CertificateDer<'static>>, Refusal> {
    connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .map(|certificates| *certificates)
        .ok_or(Refusal::NoCertificate)
}
