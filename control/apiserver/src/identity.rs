//! Who sends a request.

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

/// An authenticated user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub user: String,
    pub groups: Vec<String>,
}

impl Identity {
    /// The control plane's own components, in this process.
    pub fn in_process() -> Self {
        Self {
            user: "system:seaway".into(),
            groups: vec!["system:masters".into(), "system:authenticated".into()],
        }
    }

    /// Common name and organisations of a verified client certificate, as Kubernetes reads them; none without a name.
    pub(crate) fn of_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let subject = certificate.subject();
        let user = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let organisations = subject
            .iter_organization()
            .filter_map(|group| group.as_str().ok());
        let mut groups: Vec<String> = organisations.map(str::to_owned).collect();
        groups.push("system:authenticated".into());
        Some(Self { user, groups })
    }
}
