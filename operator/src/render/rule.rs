//! Some requests, who may make them, and where they go.

use postern_crds::proxyroute as spec;
use sidecar_config::backend::Timeouts;
use sidecar_config::policy::{Match, Mode, PathMatch, PathMatchType, Rule, ValueMatch, ValueMatchType};

use super::{Context, RenderError, allow, backend, filter, some_duration};

pub(super) fn rule(rule: &spec::RouteRule, place: &str, context: &mut Context<'_>) -> Result<Rule, RenderError> {
    let spec::RouteRule { name, matches, allow, mode, filters, backend_refs, timeouts } = rule;
    let allow = allow.iter().enumerate();
    let allow = allow.map(|(index, entry)| allow::allow(entry, &format!("{place}.allow[{index}]"), context));
    let allow = allow.collect::<Result<_, _>>()?;
    let filters = filters.iter().enumerate();
    let filters = filters.map(|(index, one)| filter::filter(one, &format!("{place}.filters[{index}]")));
    let filters = filters.collect::<Result<_, _>>()?;
    let backends = backend_refs.iter().enumerate();
    let backends =
        backends.map(|(index, one)| backend::backend(one, &format!("{place}.backendRefs[{index}]"), context));
    Ok(Rule {
        name: name.clone(),
        matches: matches.iter().map(condition).collect(),
        allow,
        mode: match mode {
            spec::Mode::Enforce => Mode::Enforce,
            spec::Mode::Audit => Mode::Audit,
        },
        filters,
        backends: backends.collect::<Result<_, _>>()?,
        timeouts: timeouts.as_ref().map(|one| self::timeouts(one, place)).transpose()?.unwrap_or_default(),
    })
}

fn condition(condition: &spec::Match) -> Match {
    let spec::Match { path, method, headers, query_params, message_type } = condition;
    Match {
        path: path.as_ref().map(|spec::PathMatch { kind, value }| PathMatch {
            kind: match kind {
                spec::PathMatchType::Exact => PathMatchType::Exact,
                spec::PathMatchType::PathPrefix => PathMatchType::PathPrefix,
                spec::PathMatchType::Template => PathMatchType::Template,
                spec::PathMatchType::RegularExpression => PathMatchType::RegularExpression,
            },
            value: value.clone(),
        }),
        method: method.clone(),
        headers: headers.iter().map(value).collect(),
        query_params: query_params.iter().map(value).collect(),
        message_type: message_type.clone(),
    }
}

fn value(condition: &spec::ValueMatch) -> ValueMatch {
    let spec::ValueMatch { name, kind, value } = condition;
    ValueMatch {
        name: name.clone(),
        kind: match kind {
            spec::ValueMatchType::Exact => ValueMatchType::Exact,
            spec::ValueMatchType::RegularExpression => ValueMatchType::RegularExpression,
        },
        value: value.clone(),
    }
}

fn timeouts(timeouts: &spec::Timeouts, place: &str) -> Result<Timeouts, RenderError> {
    let spec::Timeouts { request, backend_request } = timeouts;
    Ok(Timeouts {
        request: some_duration(request.as_ref(), &format!("{place}.timeouts.request"))?,
        backend_request: some_duration(backend_request.as_ref(), &format!("{place}.timeouts.backendRequest"))?,
    })
}
