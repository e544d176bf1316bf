//! Making certificates of our profile.

use std::time::Duration;

use crux_core::identity::{Grant, NEVER, OID_COMPONENTS, PublicKey, UnixTime, Window};
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, Issuer, PublicKeyData,
    SerialNumber,
};

use crate::identity::{Error, SecretKey};

/// A public key as the generator wants it.
struct Subject<'a>(&'a PublicKey);

impl PublicKeyData for Subject<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.point()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

/// Certifies with `issuer` that `subject` holds `grant` in `validity`.
pub(crate) fn issue(
    grant: &Grant,
    validity: Window,
    subject: &PublicKey,
    issuer: &SecretKey,
) -> Result<Vec<u8>, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(&format!(
        "radix {} {}",
        grant.role.name(),
        subject.id().short()
    ));
    let moment = |time: UnixTime| {
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(time.min(NEVER).seconds())
    };
    params.not_before = moment(validity.from);
    params.not_after = moment(validity.until);
    params.serial_number = Some(serial(subject, validity));
    let mut extension = CustomExtension::from_oid_content(&OID_COMPONENTS, grant.encode());
    extension.set_criticality(true);
    params.custom_extensions = vec![extension];
    let mut above = CertificateParams::default();
    above.distinguished_name = name(&format!("radix key {}", issuer.public().id().short()));
    let certificate = params
        .signed_by(&Subject(subject), &Issuer::new(above, issuer.pair()))
        .map_err(Error::crypto("make a certificate"))?;
    Ok(certificate.der().to_vec())
}

/// Names are for people: nothing is decided by them.
fn name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

/// Differs for each key and moment, as tools that look at certificates expect.
fn serial(subject: &PublicKey, validity: Window) -> SerialNumber {
    let mut bytes = vec![1];
    bytes.extend_from_slice(&subject.id().as_bytes()[..8]);
    bytes.extend_from_slice(&validity.from.seconds().to_be_bytes());
    SerialNumber::from(bytes)
}
