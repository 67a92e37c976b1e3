//! What a rule does to requests and responses.

use postern_crds::proxyroute as spec;
use sidecar_config::filters::{
    ClientCertField, Filter, ForwardIdentity, HeaderModifier, HeaderValue, IdentityFact, IdentityHeader, PathModifier,
    PathModifierType, RequestRedirect, Scheme, UrlRewrite,
};

use super::RenderError;

pub(super) fn filter(filter: &spec::Filter, place: &str) -> Result<Filter, RenderError> {
    let spec::Filter {
        forward_identity: forward,
        request_header_modifier: request,
        response_header_modifier: response,
        request_redirect: redirect_to,
        url_rewrite: rewritten,
    } = filter;
    let said = [
        forward.as_ref().map(|one| Ok(Filter::ForwardIdentity(forward_identity(one)))),
        request.as_ref().map(|one| Ok(Filter::RequestHeaderModifier(modifier(one)))),
        response.as_ref().map(|one| Ok(Filter::ResponseHeaderModifier(modifier(one)))),
        redirect_to
            .as_ref()
            .map(|one| Ok(Filter::RequestRedirect(redirect(one, &format!("{place}.requestRedirect"))?))),
        rewritten.as_ref().map(|one| Ok(Filter::UrlRewrite(rewrite(one, &format!("{place}.urlRewrite"))?))),
    ];
    let mut said = said.into_iter().flatten();
    match (said.next(), said.next()) {
        (Some(one), None) => one,
        _ => Err(RenderError::new(place, "write exactly one key in each filter")),
    }
}

fn forward_identity(filter: &spec::ForwardIdentity) -> ForwardIdentity {
    let spec::ForwardIdentity { x_forwarded_client_cert, headers } = filter;
    let field = |field: &spec::ClientCertField| match field {
        spec::ClientCertField::Hash => ClientCertField::Hash,
        spec::ClientCertField::Cert => ClientCertField::Cert,
        spec::ClientCertField::Chain => ClientCertField::Chain,
        spec::ClientCertField::Subject => ClientCertField::Subject,
        spec::ClientCertField::Uri => ClientCertField::Uri,
        spec::ClientCertField::Dns => ClientCertField::Dns,
    };
    let header = |spec::IdentityHeader { name, value }: &spec::IdentityHeader| IdentityHeader {
        name: name.clone(),
        value: fact(*value),
    };
    ForwardIdentity {
        x_forwarded_client_cert: x_forwarded_client_cert.iter().map(field).collect(),
        headers: headers.iter().map(header).collect(),
    }
}

fn fact(fact: spec::IdentityFact) -> IdentityFact {
    match fact {
        spec::IdentityFact::Identity => IdentityFact::Identity,
        spec::IdentityFact::SpiffeId => IdentityFact::SpiffeId,
        spec::IdentityFact::Bundle => IdentityFact::Bundle,
        spec::IdentityFact::Subject => IdentityFact::Subject,
        spec::IdentityFact::Issuer => IdentityFact::Issuer,
        spec::IdentityFact::Sha256 => IdentityFact::Sha256,
        spec::IdentityFact::Lfdi => IdentityFact::Lfdi,
        spec::IdentityFact::Sfdi => IdentityFact::Sfdi,
        spec::IdentityFact::EscapedPem => IdentityFact::EscapedPem,
        spec::IdentityFact::Rfc9440 => IdentityFact::Rfc9440,
        spec::IdentityFact::Rfc9440Chain => IdentityFact::Rfc9440Chain,
    }
}

fn modifier(modifier: &spec::HeaderModifier) -> HeaderModifier {
    let spec::HeaderModifier { set, add, remove } = modifier;
    let field = |spec::Header { name, value }: &spec::Header| HeaderValue { name: name.clone(), value: value.clone() };
    HeaderModifier {
        set: set.iter().map(field).collect(),
        add: add.iter().map(field).collect(),
        remove: remove.clone(),
    }
}

fn redirect(redirect: &spec::RequestRedirect, place: &str) -> Result<RequestRedirect, RenderError> {
    let spec::RequestRedirect { scheme, hostname, port, path, status_code } = redirect;
    Ok(RequestRedirect {
        scheme: scheme.map(|scheme| match scheme {
            spec::Scheme::Http => Scheme::Http,
            spec::Scheme::Https => Scheme::Https,
        }),
        hostname: hostname.clone(),
        port: *port,
        path: path.as_ref().map(|path| path_modifier(path, place)).transpose()?,
        status_code: *status_code,
    })
}

fn rewrite(rewrite: &spec::UrlRewrite, place: &str) -> Result<UrlRewrite, RenderError> {
    let spec::UrlRewrite { hostname, path } = rewrite;
    let path = path.as_ref().map(|path| path_modifier(path, place)).transpose()?;
    Ok(UrlRewrite { hostname: hostname.clone(), path })
}

fn path_modifier(modifier: &spec::PathModifier, place: &str) -> Result<PathModifier, RenderError> {
    let spec::PathModifier { kind, replace_full_path, replace_prefix_match } = modifier;
    let (kind, value) = match kind {
        spec::PathModifierType::ReplaceFullPath => (PathModifierType::ReplaceFullPath, replace_full_path),
        spec::PathModifierType::ReplacePrefixMatch => (PathModifierType::ReplacePrefixMatch, replace_prefix_match),
    };
    let value =
        value.clone().ok_or_else(|| RenderError::new(format!("{place}.path"), "has not what its type names"))?;
    Ok(PathModifier { kind, value })
}
