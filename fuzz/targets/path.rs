//! Any path: normalised to one spelling, with nothing in it that can be read in two ways, or refused.
#![no_main]

use std::borrow::Cow;

use libfuzzer_sys::fuzz_target;
use sidecar_decide::path::{normalise, without_parameters};

fuzz_target!(|path: &str| {
    let Ok(normal) = normalise(path) else { return };
    assert_normal(&normal);
    assert_eq!(decoded(&normal), resolved(path), "it names the same segments");
    if matches!(normal, Cow::Borrowed(_)) {
        assert_eq!(normal, path);
    }
    if let Some(bare) = without_parameters(&normal) {
        assert_normal(&bare);
        assert!(!bare.contains(';') && !bare.contains("%3B"), "{bare}");
        assert_eq!(without_parameters(&bare), None);
    }
});

fn assert_normal(path: &str) {
    assert!(matches!(normalise(path), Ok(Cow::Borrowed(same)) if same == path), "{path} is normal");
    let segments: Vec<_> = path.strip_prefix('/').expect("absolute").split('/').collect();
    for (index, segment) in segments.iter().enumerate() {
        assert!(!segment.is_empty() || index + 1 == segments.len(), "{path} has an empty segment");
        let bytes = decode(segment);
        let dots = bytes.split(|byte| *byte == b';').next().expect("a first part");
        assert!(dots != b"." && dots != b"..", "{path} has a dot segment");
        assert!(!bytes.contains(&b'/') && !bytes.contains(&b'\\') && !bytes.contains(&0), "{path} hides a separator");
        assert!(segment.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\\".contains(&byte)), "{path}");
        for (at, _) in segment.match_indices('%') {
            let escape = &segment[at + 1..at + 3];
            assert!(escape.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'A'..=b'F')), "{path}");
            let byte = u8::from_str_radix(escape, 16).expect("two digits");
            assert!(!byte.is_ascii_alphanumeric() && !b"-._~".contains(&byte), "{path} escapes what needs none");
        }
    }
}

fn decoded(path: &str) -> Vec<Vec<u8>> {
    path[1..].split('/').map(decode).collect()
}

/// RFC 3986 section 5.2.4 by segments, and without empty ones in between.
fn resolved(path: &str) -> Vec<Vec<u8>> {
    let mut kept = Vec::new();
    let segments: Vec<_> = path[1..].split('/').collect();
    for segment in &segments {
        match *segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            other => kept.push(decode(other)),
        }
    }
    if matches!(segments.last(), Some(&("" | "." | ".."))) {
        kept.push(Vec::new());
    }
    kept
}

fn decode(segment: &str) -> Vec<u8> {
    let mut bytes = segment.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next().expect("a digit"), bytes.next().expect("another")];
            let text = std::str::from_utf8(&digits).expect("ASCII");
            out.push(u8::from_str_radix(text, 16).expect("hex"));
        } else {
            out.push(byte);
        }
    }
    out
}
