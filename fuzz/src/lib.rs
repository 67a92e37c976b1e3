//! What several targets need.

use sidecar_decide::{Certificate, CertificateFacts};

/// A root that is good for everything; its bytes are no certificate.
#[must_use]
pub fn root() -> Certificate {
    let facts = CertificateFacts {
        subject: "CN=root".to_owned(),
        issuer: "CN=root".to_owned(),
        common_name: None,
        serial: "01".to_owned(),
        uris: Vec::new(),
        dns_names: Vec::new(),
        addresses: Vec::new(),
        san: String::new(),
        not_before: 0,
        not_after: i64::MAX,
        sha256: [0; 32],
        spki: Vec::new(),
        self_issued: true,
        is_ca: true,
        signs_crls: false,
    };
    Certificate { der: vec![0], facts }
}
