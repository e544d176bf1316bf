//! rustls under our rules: TLS 1.3, both sides with certificates, judged by `crux_core::identity`, nothing resumed.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crux_core::identity::{Principal, PublicKey, Refusal, Who};
use crux_core::names::{Label, RnodeId};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, ResolvesClientCert, Resumption};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, PeerMisbehaved,
    SignatureScheme,
};

use crate::identity::{Credentials, Error};

/// Whom a client wants to meet. Addresses and DNS names prove nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// This rnode, whatever it is called.
    Rnode(RnodeId),
    /// A rnode with this label in this namespace.
    Label {
        /// The namespace's label.
        namespace: Label,
        /// The rnode's label.
        label: Label,
    },
    /// A process of this application and class, of any index.
    Class {
        /// The namespace's label.
        namespace: Label,
        /// Its application.
        application: Label,
        /// Its class.
        class: Label,
    },
    /// Anyone of our owner.
    Owner,
}

impl Expect {
    /// Compares with who was met.
    ///
    /// # Errors
    /// [`Refusal::Unexpected`].
    pub fn check(&self, met: &Principal) -> Result<(), Refusal> {
        let same = match (self, &met.who) {
            (Self::Owner, _) => true,
            (Self::Rnode(expected), Who::Rnode { id, .. }) => expected == id,
            (
                Self::Label { namespace, label },
                Who::Rnode {
                    namespace: in_namespace,
                    label: called,
                    ..
                },
            ) => namespace == in_namespace && label == called,
            (
                Self::Class {
                    namespace,
                    application,
                    class,
                },
                Who::App {
                    namespace: n,
                    application: a,
                    class: c,
                    ..
                },
            ) => namespace == n && application == a && class == c,
            _ => false,
        };
        if same {
            Ok(())
        } else {
            Err(Refusal::Unexpected {
                expected: self.to_string(),
                met: met.to_string(),
            })
        }
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rnode(id) => write!(formatter, "rnode {}", id.short()),
            Self::Label { namespace, label } => write!(formatter, "rnode {namespace}/{label}"),
            Self::Class {
                namespace,
                application,
                class,
            } => write!(formatter, "process {namespace}/{application}/{class}"),
            Self::Owner => formatter.write_str("anyone of our owner"),
        }
    }
}

/// The refusal that made a handshake fail, if that was why.
#[must_use]
pub fn refusal_in<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Refusal> {
    let mut at = Some(error);
    while let Some(error) = at {
        if let Some(refusal) = error.downcast_ref::<Refusal>() {
            return Some(refusal);
        }
        if let Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner)))) =
            error.downcast_ref()
        {
            return inner.downcast_ref::<Refusal>();
        }
        at = match error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
        {
            // An I/O error shows its content's source, never its content.
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

pub(crate) fn server_config(
    credentials: &Credentials,
    alpn: &[&[u8]],
) -> Result<ServerConfig, Error> {
    let verifier = Arc::new(Verifier::new(credentials.clone(), Expect::Owner));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(Error::crypto("prepare TLS"))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Resolver(credentials.clone())));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    // A resumed session would skip the verifier.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

pub(crate) fn client_config(
    credentials: &Credentials,
    expect: Expect,
    alpn: &[&[u8]],
) -> Result<ClientConfig, Error> {
    let verifier = Arc::new(Verifier::new(credentials.clone(), expect));
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(Error::crypto("prepare TLS"))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(Resolver(credentials.clone())));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    Ok(config)
}

/// The one stack of cryptography that TLS is built on here.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Gives the newest leaf to each handshake.
#[derive(Debug)]
struct Resolver(Credentials);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.certified_key()
    }
}

impl ResolvesClientCert for Resolver {
    fn resolve(&self, _roots: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.certified_key()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// One verifier for both sides.
#[derive(Debug)]
struct Verifier {
    credentials: Credentials,
    expect: Expect,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn new(credentials: Credentials, expect: Expect) -> Self {
        Self {
            credentials,
            expect,
            algorithms: ring::default_provider().signature_verification_algorithms,
        }
    }

    fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
    ) -> Result<(), rustls::Error> {
        let chain: Vec<&[u8]> = std::iter::once(end_entity)
            .chain(above)
            .map(AsRef::as_ref)
            .collect();
        self.credentials
            .trust()
            .verify(&chain)
            .and_then(|principal| self.expect.check(&principal))
            .map_err(|refusal| CertificateError::Other(OtherError(Arc::new(refusal))).into())
    }

    /// Checks that the peer holds the leaf's key. The certificate itself was judged before.
    fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if signature.scheme != SignatureScheme::ECDSA_NISTP256_SHA256 {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        let key = PublicKey::of_certificate(certificate).map_err(|refusal| {
            rustls::Error::from(CertificateError::Other(OtherError(Arc::new(refusal))))
        })?;
        let spki = key.spki();
        verify_tls13_signature_with_raw_key(
            message,
            &SubjectPublicKeyInfoDer::from(spki.as_slice()),
            signature,
            &self.algorithms,
        )
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(end_entity, intermediates)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge(end_entity, intermediates)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
