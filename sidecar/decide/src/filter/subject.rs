//! Distinguished names as LDAP writes them (RFC 4514), whole: what is cut short for a row would name somebody else.

use x509_parser::prelude::{FromDer, X509Certificate, X509Name};
use x509_parser::x509::AttributeTypeAndValue;

use crate::hash::hex;

/// Short names of attributes, as OpenSSL has them.
const KNOWN: [(&str, &str); 12] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// Subject and issuer of a DER certificate; `None` where it cannot be read.
pub(super) fn names(der: &[u8]) -> Option<(String, String)> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    Some((written(parsed.subject()), written(parsed.issuer())))
}

fn written(name: &X509Name<'_>) -> String {
    let mut parts = Vec::new();
    for relative in name.iter_rdn() {
        let attributes: Vec<_> = relative.iter().map(attribute).collect();
        parts.push(attributes.join("+"));
    }
    // The most specific one goes first (RFC 4514 §2.1).
    parts.reverse();
    parts.join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let identifier = attribute.attr_type().to_id_string();
    let known = KNOWN.iter().find(|(known, _)| *known == identifier);
    match (known, attribute.as_str()) {
        (Some((_, name)), Ok(text)) => format!("{name}={}", escaped(text)),
        _ => format!("{identifier}=#{}", hex(&encoded(attribute), "")),
    }
}

/// The value in DER again; what cannot be told apart from its neighbours is written so (RFC 4514 §2.4).
fn encoded(attribute: &AttributeTypeAndValue<'_>) -> Vec<u8> {
    let value = attribute.attr_value();
    let constructed = u8::from(value.header.constructed()) << 5;
    // Tags of attribute values are below 31 and universal; the class is kept all the same.
    let tag = u8::try_from(value.header.tag().0 & 31).unwrap_or(0);
    let mut der = vec![(value.header.class() as u8) << 6 | constructed | tag];
    let length = value.data.len();
    match u8::try_from(length) {
        Ok(short @ ..128) => der.push(short),
        _ => {
            let bytes: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
            der.push(0x80 | u8::try_from(bytes.len()).unwrap_or(0));
            der.extend(bytes);
        }
    }
    der.extend_from_slice(value.data);
    der
}

/// Signs that mean something in a distinguished name, in a header field or in quotes are written as their bytes in hex,
/// which RFC 4514 §2.4 allows: so nothing in a name can be read as what stands around it.
fn escaped(text: &str) -> String {
    let last = text.len().saturating_sub(1);
    let mut written = String::with_capacity(text.len());
    for (index, byte) in text.bytes().enumerate() {
        let at_the_edge = (byte == b' ' && (index == 0 || index == last)) || (byte == b'#' && index == 0);
        let is_special = matches!(byte, b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';');
        if at_the_edge || is_special || !matches!(byte, b' '..=b'~') {
            written.push('\\');
            written.push_str(&hex(&[byte], "").to_ascii_uppercase());
        } else {
            written.push(char::from(byte));
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn nothing_in_a_name_reads_as_what_stands_around_it() {
        let table = [
            ("billing", "billing"),
            ("a b", "a b"),
            (" a ", "\\20a\\20"),
            (" ", "\\20"),
            ("#a#", "\\23a#"),
            ("a,CN=b", "a\\2CCN=b"),
            ("a\";URI=x", "a\\22\\3BURI=x"),
            ("a\\", "a\\5C"),
            ("é", "\\C3\\A9"),
            ("a\r\nb", "a\\0D\\0Ab"),
            ("\u{7f}", "\\7F"),
        ];
        for (text, expected) in table {
            assert_eq!(escaped(text), expected, "{text:?}");
        }
    }
}
