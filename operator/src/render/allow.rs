//! Who may call.

use postern_crds::proxyroute::{self as spec, AllowedIdentity, AllowedServiceAccount, Caller, Selector, Verified};
use sidecar_config::policy::{Allow, Anyone, IdentitySelector, ServiceAccount};

use super::{Context, RenderError};
use crate::identity::trust::OUR_BUNDLE;
use crate::index::ObjectName;

pub(super) fn allow(entry: &spec::Allow, place: &str, context: &mut Context<'_>) -> Result<Allow, RenderError> {
    let Some(caller) = entry.caller() else {
        return Err(RenderError::new(place, "write exactly one key in each entry"));
    };
    Ok(match caller {
        Caller::Identity(AllowedIdentity { name, namespace }) => {
            let namespace = namespace.as_deref().unwrap_or(context.namespace);
            let name = ObjectName::new(namespace, name).to_string();
            context.needs.identities.insert(name.clone());
            Allow::Identity(name)
        }
        Caller::IdentitySelector(Selector { match_labels }) => {
            context.needs.selectors.push((context.namespace.to_owned(), match_labels.clone()));
            Allow::IdentitySelector(IdentitySelector { match_labels: match_labels.clone() })
        }
        Caller::ServiceAccount(AllowedServiceAccount { namespace, name, trust_domain }) => {
            Allow::ServiceAccount(ServiceAccount {
                namespace: namespace.clone().unwrap_or_else(|| context.namespace.to_owned()),
                name: name.clone(),
                trust_domain: Some(trust_domain.clone().unwrap_or_else(|| context.trust_domain.to_owned())),
            })
        }
        Caller::Spiffe(pattern) => Allow::Spiffe(pattern.to_owned()),
        Caller::Verified(Verified { trust: None }) => Allow::Verified(OUR_BUNDLE.to_owned()),
        Caller::Verified(Verified { trust: Some(name) }) => {
            let bundle = context.trust.get(name).ok_or_else(|| {
                let detail = format!("`{name}` is not among spec.listener.tls.trust of this route; define it there");
                RenderError::new(format!("{place}.verified.trust"), detail)
            })?;
            Allow::Verified(bundle.clone())
        }
        Caller::Anyone => Allow::Anyone(Anyone {}),
    })
}
