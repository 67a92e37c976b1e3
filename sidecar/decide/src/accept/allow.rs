//! Accepts who may use a rule: what can be said about an entry without the other parts.

use sidecar_config::policy::{Allow, ServiceAccount};

use crate::problem::Problems;
use crate::spiffe::{Pattern, is_segment, is_trust_domain};

pub(super) fn check_allow(entry: &Allow, place: &str, problems: &mut Problems) {
    match entry {
        Allow::IdentitySelector(selector) if selector.match_labels.is_empty() => {
            let advice = "is empty, which would choose every identity; write a label";
            problems.add(format_args!("{place}.identitySelector.matchLabels"), advice);
        }
        Allow::ServiceAccount(account) => check_service_account(account, place, problems),
        Allow::Spiffe(pattern) if Pattern::parse(pattern).is_none() => {
            let advice = "is not a SPIFFE ID; write one such as `spiffe://demo.local/ns/shop/sa/front`, \
                          or end it in `/*` for all below it";
            problems.add(format_args!("{place}.spiffe"), format_args!("`{pattern}` {advice}"));
        }
        _ => {}
    }
}

fn check_service_account(account: &ServiceAccount, place: &str, problems: &mut Problems) {
    let place = format!("{place}.serviceAccount");
    for (field, value) in [("namespace", &account.namespace), ("name", &account.name)] {
        if !is_segment(value) {
            let advice = "cannot be in a SPIFFE ID; write letters, digits, `-`, `_` and `.`";
            problems.add(format_args!("{place}.{field}"), format_args!("`{value}` {advice}"));
        }
    }
    if let Some(domain) = account.trust_domain.as_ref().filter(|domain| !is_trust_domain(domain)) {
        let advice = "is not a trust domain; write its name alone and in lower case, such as `demo.local`";
        problems.add(format_args!("{place}.trustDomain"), format_args!("`{domain}` {advice}"));
    }
}
