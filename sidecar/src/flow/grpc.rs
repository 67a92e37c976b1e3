//! gRPC: which requests are, what their responses say of how they ended, and how the gate's own answers look to them
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use sidecar_decide::Reason;

static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
static GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

const CONTENT: &str = "application/grpc";

/// Of a reason without one of its own: none that a request can have.
const UNKNOWN: u8 = 2;

/// Whether a request is one: its content is `application/grpc`, or that with `+` and a format. `application/grpc-web` is
/// another protocol.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let content = headers.get(CONTENT_TYPE).and_then(|content| content.as_bytes().split_at_checked(CONTENT.len()));
    content.is_some_and(|(start, rest)| {
        start.eq_ignore_ascii_case(CONTENT.as_bytes()) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
    })
}

/// What a response's trailers say of how it ended, or its head where that is all there is.
pub(super) fn status(fields: &HeaderMap) -> Option<u8> {
    fields.get(&GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

/// How a reason is told.
pub(super) fn status_of(reason: Reason) -> u8 {
    reason.facts().grpc.unwrap_or(UNKNOWN)
}

/// The head of the gate's own answer, which is all of it; its status is 200.
pub(super) fn refuse(headers: &mut HeaderMap, reason: Reason) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT));
    tell(headers, reason);
}

/// Trailers for a response that has begun and breaks off.
pub(super) fn trailers(reason: Reason) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    tell(&mut trailers, reason);
    trailers
}

fn tell(fields: &mut HeaderMap, reason: Reason) {
    fields.insert(&GRPC_STATUS, HeaderValue::from(u16::from(status_of(reason))));
    // Letters and underscores: nothing that had to be escaped.
    fields.insert(&GRPC_MESSAGE, HeaderValue::from_static(reason.code()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_told_by_its_content() {
        let table = [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/gRPC; charset=x", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/grp", false),
            ("application/json", false),
            ("", false),
        ];
        for (content, expected) in table {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content))]);
            assert_eq!(is_grpc(&headers), expected, "{content}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn a_status_is_a_small_number() {
        let table = [("0", Some(0)), ("16", Some(16)), ("255", Some(255)), ("256", None), ("-1", None), ("x", None)];
        for (text, expected) in table {
            let fields = HeaderMap::from_iter([(GRPC_STATUS.clone(), HeaderValue::from_static(text))]);
            assert_eq!(status(&fields), expected, "{text}");
        }
    }
}
