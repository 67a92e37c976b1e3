//! Leaving HTTP on a connection (RFC 9110 §7.8): who asks for it, who has agreed, and what follows.

use std::future::Future;
use std::pin::Pin;

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue, UPGRADE};
use http::{StatusCode, Version};

use super::headers::names;
use crate::duplex::Opened;

/// What follows the response that ends HTTP: it gets the client's stream and runs to the end.
pub type Tunnel = Box<dyn FnOnce(Opened) -> Pin<Box<dyn Future<Output = ()>>>>;

/// Protocols that carry requests again, or hide them, so that they would pass without anybody's decision.
const CARRIERS: [&str; 5] = ["h2", "h2c", "h3", "http", "tls"];

/// The protocol that a client wants to go on with, as it wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade(HeaderValue);

impl Upgrade {
    /// What a request asks for, if it is something that may be passed on: one protocol, on HTTP/1.1. Anybody may leave an
    /// upgrade alone that he does not like; the request is an ordinary one then.
    pub(super) fn asked(version: Version, headers: &HeaderMap) -> Option<Self> {
        let mut fields = headers.get_all(UPGRADE).iter();
        let (Some(protocol), None) = (fields.next(), fields.next()) else { return None };
        let is_asked = version == Version::HTTP_11 && names(headers, &CONNECTION, "upgrade");
        (is_asked && is_tunnelled(protocol.to_str().ok()?)).then(|| Self(protocol.clone()))
    }

    /// Writes it into the head of a request or of a response from which hop-by-hop fields are gone.
    pub fn write(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, self.0.clone());
    }

    /// Whether a response agrees to it, and to nothing else.
    pub fn is_agreed(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let mut fields = headers.get_all(UPGRADE).iter();
        let is_same = fields.next().is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(self.0.as_bytes()));
        status == StatusCode::SWITCHING_PROTOCOLS
            && is_same
            && fields.next().is_none()
            && names(headers, &CONNECTION, "upgrade")
            // Such a response has no body (RFC 9110 §8.6), and whoever says so means something else.
            && !headers.contains_key(CONTENT_LENGTH)
    }
}

/// Whether a protocol is one, with or without its version, and none that carries HTTP.
fn is_tunnelled(protocol: &str) -> bool {
    let is_token = |text: &str| {
        let is_in_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !text.is_empty() && text.bytes().all(is_in_token)
    };
    let (name, version) = protocol.split_once('/').unwrap_or((protocol, "1"));
    is_token(name) && is_token(version) && !CARRIERS.iter().any(|carrier| name.eq_ignore_ascii_case(carrier))
}

#[cfg(test)]
mod tests {
    use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};
    use http::{StatusCode, Version};

    use super::Upgrade;

    fn head(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let fields = fields.iter();
        fields.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    /// The fields, one after the other, of a name that may come more than once.
    fn heads(connection: &[&'static str], upgrade: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in connection {
            headers.append(CONNECTION, HeaderValue::from_static(value));
        }
        for value in upgrade {
            headers.append(UPGRADE, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn what_is_asked() {
        /// Values of `Connection`, values of `Upgrade`, and whether it is passed on.
        type Row = (&'static [&'static str], &'static [&'static str], bool);
        let table: [Row; 22] = [
            (&["Upgrade"], &["websocket"], true),
            (&["upgrade"], &["WebSocket"], true),
            (&["keep-alive, Upgrade"], &["websocket"], true),
            (&["keep-alive", "upgrade"], &["websocket"], true),
            (&["Upgrade"], &["SPDY/3.1"], true),
            (&["Upgrade"], &["tcp"], true),
            (&["Upgrade"], &["h2c2"], true),
            (&[], &["websocket"], false),
            (&["keep-alive"], &["websocket"], false),
            (&["not-upgrade, upgraded"], &["websocket"], false),
            (&["Upgrade"], &[], false),
            (&["Upgrade"], &[""], false),
            (&["Upgrade"], &["websocket, h2c"], false),
            (&["Upgrade"], &["websocket", "websocket"], false),
            (&["Upgrade"], &["web socket"], false),
            (&["Upgrade"], &["websocket/"], false),
            (&["Upgrade"], &["a/b/c"], false),
            (&["Upgrade, HTTP2-Settings"], &["h2c"], false),
            (&["Upgrade"], &["H2C"], false),
            (&["Upgrade"], &["HTTP/2.0"], false),
            (&["Upgrade"], &["TLS/1.2"], false),
            (&["Upgrade"], &["h2"], false),
        ];
        for (connection, upgrade, is_passed) in table {
            let headers = heads(connection, upgrade);
            let asked = Upgrade::asked(Version::HTTP_11, &headers);
            assert_eq!(asked.is_some(), is_passed, "{connection:?} {upgrade:?}");
            for version in [Version::HTTP_10, Version::HTTP_2] {
                assert_eq!(Upgrade::asked(version, &headers), None, "{connection:?} {upgrade:?} {version:?}");
            }
            if let Some(asked) = asked {
                let mut written = HeaderMap::new();
                asked.write(&mut written);
                assert_eq!(written, head(&[("connection", "upgrade"), ("upgrade", upgrade[0])]));
            }
        }
    }

    #[test]
    fn what_is_agreed() {
        let asked = Upgrade(HeaderValue::from_static("websocket"));
        let table: [(&[&'static str], &[&'static str], bool); 7] = [
            (&["Upgrade"], &["websocket"], true),
            (&["upgrade, keep-alive"], &["WebSocket"], true),
            (&["Upgrade"], &["other"], false),
            (&["Upgrade"], &["websocket", "other"], false),
            (&["Upgrade"], &["websocket, other"], false),
            (&["Upgrade"], &[], false),
            (&["close"], &["websocket"], false),
        ];
        for (connection, upgrade, is_agreed) in table {
            let mut headers = heads(connection, upgrade);
            let status = StatusCode::SWITCHING_PROTOCOLS;
            assert_eq!(asked.is_agreed(status, &headers), is_agreed, "{connection:?} {upgrade:?}");
            assert!(!asked.is_agreed(StatusCode::OK, &headers));
            headers.insert("content-length", HeaderValue::from_static("5"));
            assert!(!asked.is_agreed(status, &headers));
        }
    }
}
