//! What a request is about: known by its head, or found in a body as that passes, which is neither held up nor copied.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderMap};
use sidecar_decide::MessageType;
use sidecar_decide::message_type::{Medium, RootScan};

/// What a row and a metric say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A type that the program knows.
    Known(MessageType),
    /// A method of gRPC that the policy names.
    Call(Arc<str>),
}

impl Message {
    /// The name in rows and metrics.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Known(known) => known.name(),
            Self::Call(name) => name,
        }
    }

    /// Whether it says more than that there was a request: where one is JSON all are, and each rule of the many that serve
    /// nothing else would have a series more.
    #[must_use]
    pub fn is_telling(&self) -> bool {
        *self != Self::Known(MessageType::JSON)
    }
}

/// What is found in a body as it passes. A body without a byte is no message, whatever its head says.
#[derive(Clone, Debug)]
pub enum Reading {
    /// Nothing: it is in no language that is known.
    Nothing,
    /// This, as soon as there is a byte of it.
    Announced(MessageType),
    /// Its root element, which has not come yet.
    Root(RootScan),
    /// This.
    Found(MessageType),
}

impl Reading {
    /// Of a body, by the head before it.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        match headers.get(CONTENT_TYPE).and_then(|content| Medium::of(content.as_bytes())) {
            Some(Medium::Xml) => Self::Root(RootScan::new()),
            Some(Medium::Known(known)) => Self::Announced(known),
            None => Self::Nothing,
        }
    }

    /// Whether there is a message to be expected.
    #[must_use]
    pub fn is_of_something(&self) -> bool {
        !matches!(self, Self::Nothing)
    }

    /// Looks at what passes.
    pub fn feed(&mut self, bytes: &[u8]) {
        let found = match self {
            Self::Nothing | Self::Found(_) => return,
            Self::Announced(known) => (!bytes.is_empty()).then_some(*known),
            Self::Root(scan) => scan.feed(bytes),
        };
        if let Some(found) = found {
            *self = Self::Found(found);
        }
    }

    /// What was found so far, or in all of it where it has ended.
    #[must_use]
    pub fn found(&self, has_ended: bool) -> Option<MessageType> {
        match self {
            Self::Nothing | Self::Announced(_) => None,
            Self::Root(scan) => scan.ended().filter(|_| has_ended),
            Self::Found(found) => Some(*found),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// What is found of a body, before its end and at it.
    fn found(content_type: &'static str, pieces: &[&str]) -> [Option<&'static str>; 2] {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        let mut reading = Reading::of(&headers);
        for piece in pieces {
            reading.feed(piece.as_bytes());
        }
        [false, true].map(|has_ended| reading.found(has_ended).map(MessageType::name))
    }

    #[test]
    fn a_body_is_what_its_first_bytes_say() {
        let table: [(&str, &[&str], _, _); 10] = [
            (
                "application/sep+xml",
                &["<?xml ", "version='1.0'?><EndDe", "", "vice ", "<Time>"],
                Some("EndDevice"),
                Some("EndDevice"),
            ),
            ("application/sep+xml", &["<EndDevice"], None, Some("other")),
            ("application/sep+xml", &["{}"], Some("other"), Some("other")),
            ("application/sep+xml", &[""], None, None),
            ("application/json", &["<Time/>"], Some("json"), Some("json")),
            ("application/json", &[""], None, None),
            ("application/sep-exi", &["\u{80}"], Some("exi"), Some("exi")),
            ("application/xml; charset=utf-16", &["<Time/>"], Some("other"), Some("other")),
            ("text/plain", &["<Time/>"], None, None),
            ("application/grpc", &["<Time/>"], None, None),
        ];
        for (content_type, pieces, before, at_the_end) in table {
            assert_eq!(found(content_type, pieces), [before, at_the_end], "{content_type} {pieces:?}");
        }
        assert!(!Reading::of(&HeaderMap::new()).is_of_something());
        assert!(size_of::<Reading>() <= 16, "{} bytes for each body", size_of::<Reading>());
    }
}
