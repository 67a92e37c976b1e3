//! Methods of gRPC that a rule knows: those that its paths name.

use std::sync::Arc;

use sidecar_config::policy::{Match, PathMatchType};

use crate::path::match_key;

/// A method, or all of a service, that a rule's path names. A client can call any name; these are as many as there are
/// paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What a request's path is, or how it begins.
    path: Box<str>,
    is_service: bool,
    name: Arc<str>,
}

impl Call {
    /// Those of a rule: of `/package.Service/Method` the method, of `/package.Service` as a prefix `package.Service/*`.
    pub(crate) fn all(matches: &[Match]) -> Box<[Self]> {
        let mut calls: Vec<_> = matches.iter().filter_map(Self::of).collect();
        // A method goes before its service.
        calls.sort_by(|one, other| (one.is_service, &one.path).cmp(&(other.is_service, &other.path)));
        calls.dedup();
        calls.into()
    }

    fn of(condition: &Match) -> Option<Self> {
        let path = condition.path.as_ref()?;
        let (service, method) = match (path.kind, path.value.strip_prefix('/')?.split_once('/')) {
            (PathMatchType::Exact, Some((service, method))) => (service, Some(method)),
            (PathMatchType::PathPrefix, None) => (path.value.strip_prefix('/')?, None),
            (PathMatchType::PathPrefix, Some((service, ""))) => (service, None),
            (PathMatchType::Template, Some((service, method))) if method.starts_with('{') => (service, None),
            _ => return None,
        };
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_'))
        };
        if !is_name(service) || !method.is_none_or(is_name) {
            return None;
        }
        let (path, name) = match method {
            Some(method) => (format!("/{service}/{method}"), format!("{service}/{method}")),
            None => (format!("/{service}/"), format!("{service}/*")),
        };
        Some(Self { path: match_key(&path).into(), is_service: method.is_none(), name: name.into() })
    }

    /// What a request of this path, normalised, calls.
    #[must_use]
    pub fn find<'a>(calls: &'a [Self], path: &str) -> Option<&'a Arc<str>> {
        let key = match_key(path);
        let is_it = |call: &&Self| if call.is_service { key.starts_with(&*call.path) } else { *key == *call.path };
        calls.iter().find(is_it).map(|call| &call.name)
    }
}

#[cfg(test)]
mod tests {
    use sidecar_config::policy::PathMatch;

    use super::*;

    /// What each path calls, among rules' paths.
    fn assert_calls(paths: &[(PathMatchType, &str)], expected: &[(&str, Option<&str>)]) {
        let condition = |(kind, value): &(PathMatchType, &str)| Match {
            path: Some(PathMatch { kind: *kind, value: (*value).to_owned() }),
            ..Match::default()
        };
        let calls = Call::all(&paths.iter().map(condition).collect::<Vec<_>>());
        for (path, name) in expected {
            assert_eq!(Call::find(&calls, path).map(|name| &**name), *name, "{path} among {paths:?}");
        }
    }

    #[test]
    fn methods_and_services_that_paths_name_are_known() {
        use PathMatchType::{Exact, PathPrefix, RegularExpression, Template};
        assert_calls(
            &[
                (PathPrefix, "/shop.v1.Stock"),
                (Exact, "/shop.v1.Stock/Count"),
                (Template, "/grpc.health.v1.Health/{m}"),
            ],
            &[
                ("/shop.v1.Stock/Count", Some("shop.v1.Stock/Count")),
                ("/shop.v1.Stock/Anything", Some("shop.v1.Stock/*")),
                ("/shop.v1.Stock/Count/", Some("shop.v1.Stock/*")),
                ("/grpc.health.v1.Health/Check", Some("grpc.health.v1.Health/*")),
                ("/shop.v1.Stocks/Count", None),
                ("/shop.v1.Stock", None),
                ("/", None),
            ],
        );
        assert_calls(&[(PathPrefix, "/a.B/")], &[("/a.B/C", Some("a.B/*"))]);
        let unnamed = [
            (PathPrefix, "/"),
            (PathPrefix, "/a/b"),
            (Exact, "/a"),
            (Exact, "/a/b/c"),
            (Exact, "/a/"),
            (Exact, "/a/b-c"),
            (Template, "/{service}/{method}"),
            (RegularExpression, "/a/.*"),
        ];
        assert_calls(&unnamed, &[("/a/b", None), ("/a", None), ("/a/b/c", None), ("/a/b-c", None)]);
        assert_calls(&[], &[("/a/b", None)]);
    }
}
