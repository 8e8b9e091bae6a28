//! The cluster's certificate authority and what it signs.

mod kubeconfig;

use std::fs::OpenOptions;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub(crate) use kubeconfig::render as render_kubeconfig;
pub use kubeconfig::{KubeconfigRequest, issue_kubeconfig};

use crate::files::{self, FileError};

const CA_DAYS: u64 = 3650;
const LEAF_DAYS: u64 = 365;

/// Certificates could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the certificate authority in {} is not usable: {reason}", dir.display())]
    Authority { dir: PathBuf, reason: String },
    #[error("cannot sign a certificate for {subject:?}: {cause}")]
    Sign {
        subject: String,
        cause: rcgen::Error,
    },
    #[error("{0:?} is neither an IP address nor a DNS name")]
    Name(String),
    #[error("a certificate carries at most two groups; {0:?} was given more")]
    Groups(String),
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

/// What a leaf certificate says and is good for.
#[derive(Debug, Clone, Default)]
pub struct Subject {
    /// Common name: the user.
    pub user: String,
    /// Organisations: the groups.
    pub groups: Vec<String>,
    /// IP addresses and DNS names under which the holder serves.
    pub names: Vec<String>,
    /// Extended key usages.
    pub client: bool,
    pub server: bool,
}

/// A certificate with its private key, both PEM.
#[derive(Debug, Clone)]
pub struct Leaf {
    pub certificate: String,
    pub key: String,
}

impl Leaf {
    /// In the form that rustls takes.
    pub(crate) fn to_rustls(
        &self,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), PkiError> {
        let tls = |error: rustls::pki_types::pem::Error| PkiError::Tls(error.to_string());
        let certificate =
            CertificateDer::from_pem_slice(self.certificate.as_bytes()).map_err(tls)?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(tls)?;
        Ok((vec![certificate], key))
    }
}

/// The certificate authority, ECDSA P-256, in `<data dir>/pki`.
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Reads the authority of a data directory; the first caller makes it.
    pub fn open(data_dir: &Path) -> Result<Self, PkiError> {
        let dir = data_dir.join("pki");
        files::create_private_dir(&dir)?;
        // Two processes may start together (server and `seaway kubeconfig`): one makes the authority, the other waits.
        let lock = dir.join("lock");
        let guard = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock)
            .map_err(FileError::on("open", &lock))?;
        guard.lock().map_err(FileError::on("lock", &lock))?;
        let (certificate_file, key_file) = (dir.join("ca.crt"), dir.join("ca.key"));
        let certificate = match files::read(&certificate_file) {
            Ok(certificate) => certificate,
            // The certificate is written last: without it no authority is in use yet.
            Err(error) if error.is_absent() => {
                let made = make_authority()?;
                files::write_private(&key_file, made.key.as_bytes())?;
                files::write_private(&certificate_file, made.certificate.as_bytes())?;
                made.certificate
            }
            Err(error) => return Err(error.into()),
        };
        files::warn_unless_private(&key_file)?;
        let key = files::read(&key_file)?;
        let unusable = |error: rcgen::Error| PkiError::Authority {
            dir: dir.clone(),
            reason: error.to_string(),
        };
        let key = KeyPair::from_pem(&key).map_err(unusable)?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, key).map_err(unusable)?;
        Ok(Self {
            certificate,
            issuer,
        })
    }

    /// The authority's certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// For TLS that trusts the authority and nobody else.
    pub(crate) fn roots(&self) -> Result<RootCertStore, PkiError> {
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes())
            .map_err(|error| PkiError::Tls(error.to_string()))?;
        let mut roots = RootCertStore::empty();
        roots
            .add(certificate)
            .map_err(|error| PkiError::Tls(error.to_string()))?;
        Ok(roots)
    }

    /// Makes a key and signs a certificate for it, good for a year.
    pub fn issue(&self, subject: &Subject) -> Result<Leaf, PkiError> {
        let sign = |cause| PkiError::Sign {
            subject: subject.user.clone(),
            cause,
        };
        if subject.groups.len() > organisations().len() {
            return Err(PkiError::Groups(subject.user.clone()));
        }
        if let Some(name) = subject.names.iter().find(|name| !is_name(name)) {
            return Err(PkiError::Name(name.clone()));
        }
        let mut params = CertificateParams::new(subject.names.clone()).map_err(sign)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (group, kind) in subject.groups.iter().zip(organisations()) {
            params.distinguished_name.push(kind, group.as_str());
        }
        params
            .distinguished_name
            .push(DnType::CommonName, subject.user.as_str());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if subject.client {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        if subject.server {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        validity(&mut params, LEAF_DAYS);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(sign)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(sign)?;
        Ok(Leaf {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// The certificate builder keeps one value per attribute type; the organisation spelled as a bare OID counts as a second
/// type, and on the wire both are 2.5.4.10.
fn organisations() -> [DnType; 2] {
    [
        DnType::OrganizationName,
        DnType::CustomDnType(vec![2, 5, 4, 10]),
    ]
}

fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.parse::<IpAddr>().is_ok() || name.split('.').all(label)
}

fn make_authority() -> Result<Leaf, PkiError> {
    let subject = "seaway-ca";
    let sign = |cause| PkiError::Sign {
        subject: subject.into(),
        cause,
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    validity(&mut params, CA_DAYS);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(sign)?;
    let certificate = params.self_signed(&key).map_err(sign)?;
    Ok(Leaf {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

fn validity(params: &mut CertificateParams, days: u64) {
    let now = SystemTime::now();
    // Clocks of two machines differ by a little.
    params.not_before = (now - Duration::from_secs(5 * 60)).into();
    params.not_after = (now + Duration::from_secs(days * 24 * 60 * 60)).into();
}

#[cfg(test)]
mod tests;
