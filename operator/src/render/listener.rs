//! Where the gate listens.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use postern_crds::proxyroute::{self as spec, Address, CertificateKind, CertificateRef};
use postern_crds::trust::NamedTrust;
use sidecar_config::policy::{ClientAuth, Listener, ListenerTls, Protocol, TlsVersion, UnknownServerName};

use super::Context;
use crate::identity::trust::OUR_BUNDLE;
use crate::index::ObjectName;

/// A listener's name in documents and rows.
#[must_use]
pub fn listener_name(port: u16) -> String {
    format!("port-{port}")
}

pub(super) fn listener(listener: &spec::Listener, context: &mut Context<'_>) -> Listener {
    let spec::Listener { port, address, protocol, tls } = listener;
    let protocol = match protocol.unwrap_or_default() {
        spec::Protocol::Https => Protocol::Https,
        spec::Protocol::Http => Protocol::Http,
        spec::Protocol::Tls => Protocol::Tls,
    };
    let address = match address.unwrap_or_default() {
        Address::All => Ipv4Addr::UNSPECIFIED,
        Address::Loopback => Ipv4Addr::LOCALHOST,
    };
    let tls = tls.clone().unwrap_or_default();
    Listener {
        name: listener_name(*port),
        address: SocketAddr::new(IpAddr::V4(address), *port),
        protocol,
        tls: (protocol != Protocol::Http).then(|| listener_tls(&tls, context)),
    }
}

fn listener_tls(tls: &spec::ListenerTls, context: &mut Context<'_>) -> ListenerTls {
    let spec::ListenerTls { client_auth, min_version, trust, certificate_refs, unknown_server_name } = tls;
    let mut bundles = vec![OUR_BUNDLE.to_owned()];
    for NamedTrust { name, ca_certificate_refs, vouches_for } in trust {
        let bundle = context.needs.bundle(context.namespace, ca_certificate_refs, vouches_for.as_ref());
        context.trust.insert(name.clone(), bundle.clone());
        if !bundles.contains(&bundle) {
            bundles.push(bundle);
        }
    }
    let client_auth = match client_auth {
        spec::ClientAuth::Required => ClientAuth::Required,
        spec::ClientAuth::Optional => ClientAuth::Optional,
        spec::ClientAuth::None => ClientAuth::None,
    };
    ListenerTls {
        client_auth,
        min_version: match min_version {
            spec::TlsVersion::V1_2 => TlsVersion::V1_2,
            spec::TlsVersion::V1_3 => TlsVersion::V1_3,
        },
        // Where no certificate is asked for none can be verified.
        trust: if client_auth == ClientAuth::None { Vec::new() } else { bundles },
        unknown_server_name: match unknown_server_name {
            spec::UnknownServerName::Default => UnknownServerName::Default,
            spec::UnknownServerName::Refuse => UnknownServerName::Refuse,
        },
        certificates: certificate_refs.iter().map(|reference| certificate_name(reference, context.namespace)).collect(),
    }
}

/// A certificate's name in documents: that of its Secret.
fn certificate_name(reference: &CertificateRef, own: &str) -> String {
    let CertificateRef { kind: CertificateKind::Secret, name, namespace } = reference;
    ObjectName::new(namespace.as_deref().unwrap_or(own), name).to_string()
}
