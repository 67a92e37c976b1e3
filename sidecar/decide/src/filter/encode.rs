//! Bytes and texts as header fields carry them.

/// Base64 (RFC 4648 §4).
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let padded = [group[0], group.get(1).copied().unwrap_or(0), group.get(2).copied().unwrap_or(0)];
        let number = padded.iter().fold(0_usize, |number, byte| number << 8 | usize::from(*byte));
        for place in 0..4 {
            let digit = char::from(DIGITS[number >> (18 - 6 * place) & 63]);
            text.push(if place > group.len() { '=' } else { digit });
        }
    }
    text
}

/// A byte sequence of a structured field (RFC 9651 §3.3.5).
pub(super) fn byte_sequence(bytes: &[u8]) -> String {
    format!(":{}:", base64(bytes))
}

/// A certificate in PEM (RFC 7468), its lines ended and its signs escaped (RFC 3986 §2.1), as nginx and Envoy write it.
pub(super) fn escaped_pem(der: &[u8]) -> String {
    const LINE: usize = 64;
    const BEGIN: &str = "-----BEGIN%20CERTIFICATE-----%0A";
    const END: &str = "-----END%20CERTIFICATE-----%0A";
    let encoded = base64(der);
    let mut text = String::with_capacity(BEGIN.len() + encoded.len() * 9 / 8 + END.len());
    text.push_str(BEGIN);
    for (index, letter) in encoded.chars().enumerate() {
        if index > 0 && index % LINE == 0 {
            text.push_str("%0A");
        }
        match letter {
            '+' => text.push_str("%2B"),
            '/' => text.push_str("%2F"),
            '=' => text.push_str("%3D"),
            letter => text.push(letter),
        }
    }
    text.push_str("%0A");
    text.push_str(END);
    text
}

/// A value of `x-forwarded-client-cert`: in quotes where a sign in it would end it. `None` where nobody could tell where
/// it ends.
pub(super) fn element(value: &str) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    if value.is_empty() || !value.bytes().all(is_plain) {
        return None;
    }
    let needs_quotes = value.contains([',', ';', '=']);
    Some(if needs_quotes { format!("\"{value}\"") } else { value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::{base64, byte_sequence, element, escaped_pem};

    #[test]
    fn base64_is_that_of_the_rfc() {
        // RFC 4648 §10.
        let table = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"];
        for (length, encoded) in table.into_iter().enumerate() {
            assert_eq!(base64(&b"foobar"[..length]), encoded);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
        assert_eq!(byte_sequence(&[0xff, 0xfe]), "://4=:");
    }

    #[test]
    fn lines_end_after_64_letters_and_never_twice() {
        let begin = "-----BEGIN%20CERTIFICATE-----%0A";
        let end = "%0A-----END%20CERTIFICATE-----%0A";
        assert_eq!(escaped_pem(&[0; 48]), format!("{begin}{}{end}", "A".repeat(64)));
        assert_eq!(escaped_pem(&[0; 49]), format!("{begin}{}%0AAA%3D%3D{end}", "A".repeat(64)));
        assert_eq!(escaped_pem(&[0xfb, 0xff, 0xfe]), format!("{begin}%2B%2F%2F%2B{end}"));
    }

    #[test]
    fn a_value_ends_where_it_is_seen_to_end() {
        let table = [
            ("spiffe://demo.local/a", Some("spiffe://demo.local/a")),
            ("urn:a;URI=spiffe://demo.local/b", Some("\"urn:a;URI=spiffe://demo.local/b\"")),
            ("urn:a,b", Some("\"urn:a,b\"")),
            ("urn:a=b", Some("\"urn:a=b\"")),
            ("urn:a\"b", None),
            ("urn:a\\", None),
            ("urn:a b", None),
            ("urn:a\nb", None),
            ("urn:é", None),
            ("", None),
        ];
        for (value, expected) in table {
            assert_eq!(element(value).as_deref(), expected, "{value}");
        }
    }
}
