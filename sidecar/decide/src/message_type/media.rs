//! What a body is, by its media type.

use super::MessageType;

/// Encodings in which a byte of ASCII is never anything else, so that markup is found by its bytes. In UTF-7, for one, a
/// comment may end where none is seen to.
pub(super) const ENCODINGS: [&str; 6] = ["iso-8859-1", "iso-8859-15", "us-ascii", "utf-8", "utf8", "windows-1252"];

/// How the type of a body's message is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// Known by the media type alone.
    Known(MessageType),
    /// By its first bytes.
    Xml,
}

impl Medium {
    /// Of a `Content-Type` (RFC 9110 §8.3); `None` for what is in no language that is known.
    #[must_use]
    pub fn of(content_type: &[u8]) -> Option<Self> {
        let mut parts = content_type.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let essence = parts.next()?;
        let is = |names: [&str; 2], suffix: &str| {
            let end = essence.len().checked_sub(suffix.len()).and_then(|at| essence.get(at..));
            names.iter().any(|name| essence.eq_ignore_ascii_case(name.as_bytes()))
                || end.is_some_and(|end| end.eq_ignore_ascii_case(suffix.as_bytes()))
        };
        // Most of what is none of them is told by one byte.
        match essence.last()?.to_ascii_lowercase() {
            b'l' if is(["application/xml", "text/xml"], "+xml") => {
                Some(if parts.all(is_readable) { Self::Xml } else { Self::Known(MessageType::OTHER) })
            }
            b'i' if is(["application/sep-exi", "application/exi"], "+exi") => Some(Self::Known(MessageType::EXI)),
            b'n' if is(["application/json", "text/json"], "+json") => Some(Self::Known(MessageType::JSON)),
            _ => None,
        }
    }
}

/// Whether a parameter leaves markup where its bytes are.
fn is_readable(parameter: &[u8]) -> bool {
    const NAME: &[u8] = b"charset";
    match parameter.split_at_checked(NAME.len()) {
        Some((name, value)) if name.eq_ignore_ascii_case(NAME) => {
            let value = value.strip_prefix(b"=").unwrap_or_default();
            let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
            ENCODINGS.iter().any(|known| value.eq_ignore_ascii_case(known.as_bytes()))
        }
        _ => true,
    }
}
