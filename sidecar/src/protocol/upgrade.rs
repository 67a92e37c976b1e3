//! Leaving HTTP on a connection (RFC 9110 §7.8) or on a stream (RFC 8441): who asks for it, who has agreed, and what
//! follows.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::{StatusCode, Version};
use sidecar_decide::filter::base64;

use super::headers::names;
use crate::duplex::Opened;

/// What follows the response that ends HTTP: it gets the client's stream and runs to the end.
pub type Tunnel = Box<dyn FnOnce(Opened) -> Pin<Box<dyn Future<Output = ()>>>>;

/// Protocols that carry requests again, or hide them, so that they would pass without anybody's decision.
const CARRIERS: [&str; 5] = ["h2", "h2c", "h3", "http", "tls"];

/// What a key of a WebSocket is hashed with (RFC 6455 §1.3).
const WEBSOCKET_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const WEBSOCKET: &str = "websocket";
const SEC_WEBSOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const SEC_WEBSOCKET_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

/// The protocol that a client wants to go on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// On its connection of HTTP/1.1, as it wrote it.
    Connection(HeaderValue),
    /// A WebSocket on one stream of HTTP/2 (RFC 8441). The gate asks for it with this key.
    Stream {
        /// The key, in Base64.
        key: String,
    },
    /// Something else on a stream of HTTP/2.
    Unknown,
}

impl Upgrade {
    /// What a request asks for, if it is something that may be passed on: one protocol, on HTTP/1.1. Anybody may leave an
    /// upgrade alone that he does not like; the request is an ordinary one then.
    pub(super) fn asked(version: Version, headers: &HeaderMap) -> Option<Self> {
        let mut fields = headers.get_all(UPGRADE).iter();
        let (Some(protocol), None) = (fields.next(), fields.next()) else { return None };
        let is_asked = version == Version::HTTP_11 && names(headers, &CONNECTION, "upgrade");
        (is_asked && is_tunnelled(protocol.to_str().ok()?)).then(|| Self::Connection(protocol.clone()))
    }

    /// What an extended CONNECT asks for by its `:protocol`.
    pub(super) fn on_stream(protocol: &str) -> Self {
        if !protocol.eq_ignore_ascii_case(WEBSOCKET) {
            return Self::Unknown;
        }
        // A key is no secret: it shows that the server has read this request, and no other.
        let chance = [RandomState::new().hash_one(0), RandomState::new().hash_one(1)];
        let chance: Vec<u8> = chance.into_iter().flat_map(u64::to_be_bytes).collect();
        Self::Stream { key: base64(&chance) }
    }

    /// Writes it into the head of a request from which hop-by-hop fields are gone.
    pub fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, self.protocol());
        if let Self::Stream { key } = self
            && let Ok(key) = HeaderValue::from_str(key)
        {
            headers.insert(SEC_WEBSOCKET_KEY, key);
        }
    }

    /// Writes it into the head of the response that agrees; its status.
    pub fn answer(&self, headers: &mut HeaderMap) -> StatusCode {
        if let Self::Connection(protocol) = self {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, protocol.clone());
            return StatusCode::SWITCHING_PROTOCOLS;
        }
        headers.remove(SEC_WEBSOCKET_ACCEPT);
        StatusCode::OK
    }

    /// Whether a response agrees to it, and to nothing else.
    pub fn is_agreed(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let one = |name: &HeaderName| {
            let mut fields = headers.get_all(name).iter();
            fields.next().filter(|_| fields.next().is_none())
        };
        let is_same = |found: &HeaderValue| found.as_bytes().eq_ignore_ascii_case(self.protocol().as_bytes());
        let is_accepted = match self {
            Self::Stream { key } => one(&SEC_WEBSOCKET_ACCEPT).is_some_and(|accept| *accept == accept_of(key)),
            Self::Connection(_) => true,
            Self::Unknown => false,
        };
        status == StatusCode::SWITCHING_PROTOCOLS
            && one(&UPGRADE).is_some_and(is_same)
            && names(headers, &CONNECTION, "upgrade")
            // Such a response has no body (RFC 9110 §8.6), and whoever says so means something else.
            && !headers.contains_key(CONTENT_LENGTH)
            && is_accepted
    }

    /// Whether a response would tell the client that it has what it asked for, although it does not: on a stream every
    /// status of success does.
    pub fn is_feigned(&self, status: StatusCode) -> bool {
        !matches!(self, Self::Connection(_)) && status.is_success()
    }

    fn protocol(&self) -> HeaderValue {
        match self {
            Self::Connection(protocol) => protocol.clone(),
            Self::Stream { .. } | Self::Unknown => HeaderValue::from_static(WEBSOCKET),
        }
    }
}

/// What a server makes of a WebSocket's key (RFC 6455 §4.2.2).
fn accept_of(key: &str) -> String {
    base64(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{WEBSOCKET_GUID}").as_bytes()).as_ref())
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
                asked.ask(&mut written);
                assert_eq!(written, head(&[("connection", "upgrade"), ("upgrade", upgrade[0])]));
            }
        }
    }

    #[test]
    fn what_is_agreed() {
        let asked = Upgrade::Connection(HeaderValue::from_static("websocket"));
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

    #[test]
    fn what_is_asked_on_a_stream() {
        for protocol in ["connect-udp", "", "websockets"] {
            assert_eq!(Upgrade::on_stream(protocol), Upgrade::Unknown, "{protocol}");
        }
        let (one, other) = (Upgrade::on_stream("websocket"), Upgrade::on_stream("WebSocket"));
        let Upgrade::Stream { key } = &one else { panic!("{one:?}") };
        assert_eq!(key.len(), 24, "16 bytes in Base64");
        assert_ne!(one, other, "a key is of one request only");
        let mut written = head(&[("sec-websocket-key", "theirs")]);
        one.ask(&mut written);
        assert_eq!([&written["sec-websocket-key"], &written["upgrade"]], [key.as_str(), "websocket"]);
    }

    #[test]
    fn what_is_agreed_on_a_stream() {
        // The example of RFC 6455 §1.3.
        let asked = Upgrade::Stream { key: "dGhlIHNhbXBsZSBub25jZQ==".to_owned() };
        let table: [(&[&'static str], bool); 4] = [
            (&["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="], true),
            (&["S3pPLMBiTxaQ9kYGzzhZRbK+xOo="], false),
            (&["s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="], false),
            (&[], false),
        ];
        for (accepts, is_agreed) in table {
            let mut headers = heads(&["Upgrade"], &["websocket"]);
            for accept in accepts {
                headers.append("sec-websocket-accept", HeaderValue::from_static(accept));
            }
            assert_eq!(asked.is_agreed(StatusCode::SWITCHING_PROTOCOLS, &headers), is_agreed, "{accepts:?}");
            assert_eq!(asked.answer(&mut headers), StatusCode::OK);
            assert!(!headers.contains_key("sec-websocket-accept"));
        }
        assert!(asked.is_feigned(StatusCode::OK) && !asked.is_feigned(StatusCode::FORBIDDEN));
    }
}
