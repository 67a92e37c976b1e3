//! The messages of gRPC's health service, `grpc.health.v1.Health/Check`, and how they lie in a body: so few that writing
//! them here is less than a library for all of them.

use bytes::Bytes;

/// The field of the request that names the service, and of the response that says how it is: both are number 1.
const FIELD: u64 = 1;
/// Wire types of protobuf.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;
/// `ServingStatus.SERVING`.
const SERVING: u64 = 1;
/// Before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// The body that asks for a service; an empty name is the whole server.
pub(super) fn request(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(u8::try_from(FIELD << 3 | BYTES).unwrap_or_default());
        put_varint(&mut message, service.len() as u64);
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0], &length.to_be_bytes()[..], &message].concat().into()
}

/// What a body says: `None` where it is no such message, else whether the service is served.
pub(super) fn is_serving(body: &[u8]) -> Option<bool> {
    let (prefix, rest) = body.split_at_checked(PREFIX_BYTES)?;
    let (is_compressed, length) = prefix.split_first()?;
    let length = usize::try_from(u32::from_be_bytes(length.try_into().ok()?)).ok()?;
    // Nothing was said to be accepted compressed.
    if *is_compressed != 0 || rest.len() != length {
        return None;
    }
    let (mut message, mut status) = (rest, 0);
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match (tag >> 3, tag & 7) {
            // The last of several counts.
            (FIELD, VARINT) => status = varint(&mut message)?,
            (_, VARINT) => drop(varint(&mut message)?),
            (_, FIXED64) => message = message.get(8..)?,
            (_, FIXED32) => message = message.get(4..)?,
            (_, BYTES) => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            _ => return None,
        }
    }
    Some(status == SERVING)
}

fn put_varint(message: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        message.push(u8::try_from(number & 0x7f).unwrap_or_default() | 0x80);
        number >>= 7;
    }
    message.push(u8::try_from(number).unwrap_or_default());
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for index in 0..10 {
        let (first, rest) = message.split_first()?;
        *message = rest;
        number |= u64::from(first & 0x7f).checked_shl(7 * index)?;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{is_serving, request};

    #[test]
    fn a_request_names_its_service() {
        assert_eq!(request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(request("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = "x".repeat(300);
        assert_eq!(request(&long)[..8], [0, 0, 0, 0x01, 0x2f, 0x0a, 0xac, 0x02]);
    }

    #[test]
    fn a_response_says_whether_it_is_served() {
        let table: [(&[u8], Option<bool>); 15] = [
            (&[0, 0, 0, 0, 2, 8, 1], Some(true)),
            (&[0, 0, 0, 0, 2, 8, 2], Some(false)),
            (&[0, 0, 0, 0, 2, 8, 3], Some(false)),
            // Absent is 0: unknown.
            (&[0, 0, 0, 0, 0], Some(false)),
            (&[0, 0, 0, 0, 4, 8, 2, 8, 1], Some(true)),
            // What a later version may say besides is passed over.
            (&[0, 0, 0, 0, 7, 0x12, 3, 1, 2, 3, 8, 1], Some(true)),
            (&[0, 0, 0, 0, 7, 0x1d, 1, 2, 3, 4, 8, 1], Some(true)),
            (&[], None),
            (&[0, 0, 0, 0], None),
            (&[1, 0, 0, 0, 2, 8, 1], None),
            (&[0, 0, 0, 0, 3, 8, 1], None),
            (&[0, 0, 0, 0, 2, 8, 1, 0], None),
            (&[0, 0, 0, 0, 1, 8], None),
            (&[0, 0, 0, 0, 2, 0x12, 9], None),
            (&[0, 0, 0, 0, 2, 0x0b, 1], None),
        ];
        for (body, expected) in table {
            assert_eq!(is_serving(body), expected, "{body:?}");
        }
        let endless = [&[0, 0, 0, 0, 12, 8][..], &[0x80; 11]].concat();
        assert_eq!(is_serving(&endless), None);
    }
}
