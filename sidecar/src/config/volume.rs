//! What a pod's volume has beside documents: the labels of the pod, the policy that all pods of the workload have
//! accepted, and identities in compressed chunks, each of which fits into an object. Bytes in, values out.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};
use zstd::stream::read::Decoder;

use crate::limits::{IDENTITIES_BYTES, IDENTITIES_CHUNKS};

/// The pod's labels, as the downward API writes `metadata.labels`.
pub const LABELS: &str = "labels";
/// A document with the newest policy that every pod of the workload has accepted, for a start with one that is refused.
pub const GOOD_POLICY: &str = "policy.good";
/// SHA-256 of every chunk of identities, a line each, so that chunks of two states are never joined.
pub const IDENTITIES_SUM: &str = "identities.sum";

/// How far back a frame may refer, which is memory while it is read: 2^23 bytes, as every encoder keeps to unless it is told
/// otherwise (RFC 8878 §3.1.1.1.2).
const WINDOW_LOG_MAX: u32 = 23;

/// Whether a folder has any of these.
pub fn is_volume(folder: &Path) -> bool {
    [LABELS, GOOD_POLICY, IDENTITIES_SUM].iter().any(|name| folder.join(name).is_file())
}

/// The file of a chunk of identities.
pub fn chunk_name(index: usize) -> String {
    format!("identities.{index}.zst")
}

/// Labels: `key="value"`, one a line. Their values have nothing that would be escaped.
pub fn labels(text: &str) -> Result<BTreeMap<String, String>, String> {
    let label = |line: &str| {
        let (key, value) = line.split_once('=')?;
        let value = value.strip_prefix('"')?.strip_suffix('"')?;
        let is_plain = !value.contains(['"', '\\']);
        is_plain.then(|| (key.to_owned(), value.to_owned()))
    };
    let lines = text.lines().enumerate();
    lines.map(|(index, line)| label(line).ok_or_else(|| told(index, line, "key=\"value\""))).collect()
}

/// Digests, 64 hex digits a line.
pub fn sums(text: &str) -> Result<Vec<[u8; 32]>, String> {
    let sums = text
        .lines()
        .enumerate()
        .map(|(index, line)| digest(line).ok_or_else(|| told(index, line, "the 64 hex digits of a SHA-256")));
    let sums: Vec<_> = sums.collect::<Result<_, _>>()?;
    if sums.is_empty() || sums.len() > IDENTITIES_CHUNKS {
        return Err(format!("names {} chunks; write 1 to {IDENTITIES_CHUNKS}", sums.len()));
    }
    Ok(sums)
}

fn told(index: usize, line: &str, expected: &str) -> String {
    format!("line {}: `{line}` is not what is expected there: {expected}", index + 1)
}

fn digest(hex: &str) -> Option<[u8; 32]> {
    let digits: Vec<_> = hex.chars().map(|digit| digit.to_digit(16)).collect::<Option<_>>()?;
    let bytes = digits.chunks(2).map(|pair| u8::try_from(pair.iter().fold(0, |byte, digit| byte * 16 + digit)));
    let bytes: Vec<u8> = bytes.collect::<Result<_, _>>().ok()?;
    if hex.len() == 64 { bytes.try_into().ok() } else { None }
}

/// Appends what a chunk holds: frames of Zstandard (RFC 8878), one after the other.
pub fn unpack(chunk: &[u8], sum: &[u8; 32], document: &mut Vec<u8>) -> Result<(), String> {
    if Sha256::digest(chunk)[..] != sum[..] {
        return Err(format!("is not what {IDENTITIES_SUM} says; what was there before stays until both fit"));
    }
    let no_frame = |error: io::Error| format!("not a frame of zstd: {error}");
    if chunk.is_empty() {
        return Ok(());
    }
    let mut frames = Decoder::with_buffer(chunk).map_err(no_frame)?;
    frames.window_log_max(WINDOW_LOG_MAX).map_err(no_frame)?;
    let room = IDENTITIES_BYTES.saturating_sub(document.len()) as u64 + 1;
    frames.take(room).read_to_end(document).map_err(no_frame)?;
    if document.len() > IDENTITIES_BYTES {
        return Err(format!("the identities are larger than {IDENTITIES_BYTES} bytes"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sha2::{Digest, Sha256};
    use zstd::bulk::{Compressor, compress};
    use zstd::zstd_safe::CParameter;

    use super::{WINDOW_LOG_MAX, labels, sums, unpack};
    use crate::limits::IDENTITIES_BYTES;

    #[test]
    fn labels_are_what_the_downward_api_writes() {
        let table = [
            ("app=\"orders\"\npostern.dev/workload=\"orders.deployment\"", Ok(2)),
            ("app=\"\"\n", Ok(1)),
            ("app=orders", Err("line 1: `app=orders` is not what is expected there: key=\"value\"")),
            ("a=\"b\"\n\nc=\"d\"", Err("line 2: `` is not what is expected there: key=\"value\"")),
            ("a=\"\\\"\"", Err("line 1: `a=\"\\\"\"` is not what is expected there: key=\"value\"")),
        ];
        for (text, expected) in table {
            let read = labels(text);
            assert_eq!(read.as_ref().map(BTreeMap::len).map_err(String::as_str), expected, "{text}");
        }
        assert_eq!(labels(table[0].0).unwrap()["postern.dev/workload"], "orders.deployment");
    }

    #[test]
    fn sums_are_digests_of_a_few_chunks() {
        let line = "a0".repeat(32);
        let told =
            |first: &str| format!("line 1: `{first}` is not what is expected there: the 64 hex digits of a SHA-256");
        let table = [
            (format!("{line}\n{line}\n"), Ok(2)),
            (line.to_uppercase(), Ok(1)),
            (String::new(), Err("names 0 chunks; write 1 to 4".to_owned())),
            ([&*line; 5].join("\n"), Err("names 5 chunks; write 1 to 4".to_owned())),
            ("a0".to_owned(), Err(told("a0"))),
            (line.replace('a', "g"), Err(told(&line.replace('a', "g")))),
        ];
        for (text, expected) in table {
            assert_eq!(sums(&text).map(|sums| sums.len()), expected, "{text}");
        }
        assert_eq!(sums(&line).unwrap(), [[0xa0; 32]]);
    }

    fn unpacked(chunk: &[u8]) -> Result<String, String> {
        let mut document = b"before ".to_vec();
        let sum = Sha256::digest(chunk).into();
        unpack(chunk, &sum, &mut document)?;
        Ok(String::from_utf8_lossy(&document).into_owned())
    }

    #[test]
    fn frames_are_joined() {
        let frame = |text: &str| compress(text.as_bytes(), 1).unwrap();
        let two = [frame("one, "), frame(&"two".repeat(100_000))].concat();
        assert_eq!(unpacked(&two).unwrap(), format!("before one, {}", "two".repeat(100_000)));
        assert_eq!(unpacked(b"").unwrap(), "before ");
        assert!(unpacked(&two[..two.len() - 1]).unwrap_err().starts_with("not a frame of zstd: "));
        assert!(unpacked(b"text").unwrap_err().starts_with("not a frame of zstd: "));
        let advice = "is not what identities.sum says; what was there before stays until both fit";
        assert_eq!(unpack(&two, &[0; 32], &mut Vec::new()).unwrap_err(), advice);
    }

    /// A panic here would end the process, whoever wrote the bytes.
    #[test]
    fn no_damage_of_a_frame_is_worse_than_an_error() {
        let text: String = (0..200).map(|number| format!("{{\"name\":\"shop/client-{number}\"}},")).collect();
        let chunk = compress(text.as_bytes(), 1).unwrap();
        for place in 0..chunk.len() {
            for flipped in [0x01, 0x10, 0x80, 0xff] {
                let mut damaged = chunk.clone();
                damaged[place] ^= flipped;
                let _either = unpacked(&damaged);
            }
            let _either = unpacked(&chunk[..place]);
        }
    }

    #[test]
    fn what_takes_more_memory_than_any_need_take_is_refused() {
        let frame = |log| {
            let mut compressor = Compressor::new(1).unwrap();
            compressor.set_parameter(CParameter::WindowLog(log)).unwrap();
            compressor.compress(&vec![b' '; 20 << 20]).unwrap()
        };
        assert_eq!(unpacked(&frame(WINDOW_LOG_MAX)).unwrap().len(), "before ".len() + (20 << 20));
        let advice = "not a frame of zstd: Frame requires too much memory for decoding";
        assert_eq!(unpacked(&frame(WINDOW_LOG_MAX + 1)).unwrap_err(), advice);
    }

    /// Few bytes can stand for many.
    #[test]
    fn what_is_unpacked_has_an_end() {
        let many = compress(&vec![b' '; IDENTITIES_BYTES], 1).unwrap();
        assert_eq!(unpacked(&many).unwrap_err(), "the identities are larger than 33554432 bytes");
    }
}
