//! A request's head, kept in one piece in case that it has to be sent once more.
//!
//! Nearly every request has one, and hardly any needs it. A copy of the fields' map would cost two allocations, and an
//! atomic count for each value to take and to give back; this costs one, and the bytes.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri};

use crate::protocol::Head;

/// A head without its target, which whoever asks has anyway.
pub(super) struct KeptHead {
    method: Method,
    /// Of each field the length of its name, the length of its value, whether that is a secret, and both.
    fields: Vec<u8>,
}

/// Bytes of a length; no head is as long as this can tell.
const LENGTH: usize = size_of::<u32>();
/// What stands before a field.
const FRONT: usize = 2 * LENGTH + 1;
/// Room for most heads, of a size that allocators have at hand.
const ROOM: usize = 768;

impl KeptHead {
    /// Of a head that is about to be sent.
    pub(super) fn of(head: &Head) -> Self {
        let length = |text: &[u8]| u32::try_from(text.len()).unwrap_or(u32::MAX).to_ne_bytes();
        let mut fields = Vec::with_capacity(ROOM);
        for (name, value) in &head.headers {
            let (name, value, is_sensitive) = (name.as_str().as_bytes(), value.as_bytes(), value.is_sensitive());
            let mut front = [0; FRONT];
            front[..LENGTH].copy_from_slice(&length(name));
            front[LENGTH..2 * LENGTH].copy_from_slice(&length(value));
            front[2 * LENGTH] = u8::from(is_sensitive);
            fields.extend_from_slice(&front);
            fields.extend_from_slice(name);
            fields.extend_from_slice(value);
        }
        Self { method: head.method.clone(), fields }
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    /// The head again, of a request for this target.
    pub(super) fn head(self, target: &Uri) -> Option<Head> {
        let mut headers = HeaderMap::new();
        let mut rest = self.fields.as_slice();
        while !rest.is_empty() {
            let (name, value) = (piece(&mut rest, LENGTH)?, piece(&mut rest, LENGTH)?);
            let is_sensitive = piece(&mut rest, 1)? != [0];
            let name = HeaderName::from_bytes(piece(&mut rest, length(name)?)?).ok()?;
            let mut value = HeaderValue::from_bytes(piece(&mut rest, length(value)?)?).ok()?;
            value.set_sensitive(is_sensitive);
            headers.append(name, value);
        }
        Some(Head { method: self.method, target: target.clone(), headers })
    }
}

fn length(bytes: &[u8]) -> Option<usize> {
    usize::try_from(u32::from_ne_bytes(bytes.try_into().ok()?)).ok()
}

/// The next so many bytes.
fn piece<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (piece, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(piece)
}

#[cfg(test)]
mod tests {
    use http::header::{ACCEPT, AUTHORIZATION, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue};
    use http::{Method, Uri};

    use super::KeptHead;
    use crate::protocol::Head;

    #[test]
    fn what_is_kept_is_the_same_again() {
        let mut secret = HeaderValue::from_static("Basic b25l");
        secret.set_sensitive(true);
        let fields = [
            (HOST, HeaderValue::from_static("orders.example")),
            (AUTHORIZATION, secret),
            (ACCEPT, HeaderValue::from_static("text/html")),
            (ACCEPT, HeaderValue::from_static("text/plain")),
            (COOKIE, HeaderValue::from_static("")),
            (HeaderName::from_static("x-own"), HeaderValue::from_bytes(&[0xe9, b'\t', b'x']).unwrap()),
            (HeaderName::from_static("x-long"), HeaderValue::from_bytes(&[b'y'; 70_000]).unwrap()),
        ];
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, value);
        }
        for headers in [headers, HeaderMap::new()] {
            let head = Head { method: Method::DELETE, target: Uri::from_static("/a?b=c"), headers };
            let again = KeptHead::of(&head).head(&head.target).unwrap();
            assert_eq!((&again.method, &again.target), (&head.method, &head.target));
            assert_eq!(again.headers, head.headers);
            let secrets = |head: &Head| head.headers.values().map(HeaderValue::is_sensitive).collect::<Vec<_>>();
            assert_eq!(secrets(&again), secrets(&head));
        }
    }
}
