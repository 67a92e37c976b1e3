//! Part `identities` in pieces: each compressed by itself, and small enough for an object.

use std::fmt;

use sha2::{Digest, Sha256};
use zstd::bulk::compress;

use crate::limits::CHUNKS;

/// What the programs have of Zstandard's levels (.cargo/config.toml).
const LEVEL: i32 = 1;

/// A document in pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// The pieces; at least one.
    pub chunks: Vec<Vec<u8>>,
    /// SHA-256 of each, a line each.
    pub sums: String,
}

/// A document that does not fit into its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// Which part.
    pub what: &'static str,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let advice =
            "what was written last stays; split the workload's routes over several workloads, or allow fewer clients";
        write!(f, "part `{}` of a workload is larger than its objects may be: {advice}", self.what)
    }
}

/// Packs a document into pieces of at most so many bytes. The same bytes are packed in the same way.
///
/// # Errors
/// When it takes more pieces than there may be.
pub fn pack(document: &[u8], limit: usize) -> Result<Packed, TooLarge> {
    for count in 1..=CHUNKS {
        let size = document.len().div_ceil(count).max(1);
        let chunks: Vec<_> = document.chunks(size).map(compressed).collect();
        if chunks.iter().all(|chunk| chunk.len() <= limit) {
            let sums = chunks.iter().map(|chunk| format!("{}\n", hex(&Sha256::digest(chunk)))).collect();
            return Ok(Packed { chunks, sums });
        }
    }
    Err(TooLarge { what: "identities" })
}

#[expect(clippy::expect_used, reason = "where there is no memory for it there is none for the document")]
fn compressed(chunk: &[u8]) -> Vec<u8> {
    compress(chunk, LEVEL).expect("there is room for whatever it is")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use zstd::stream::copy_decode;

    use super::pack;
    use crate::limits::CHUNKS;

    /// Bytes that cannot be made much smaller.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 88_172_645_463_325_252_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            u8::try_from(state >> 56).unwrap_or_default()
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn what_is_packed_can_be_read_again() {
        const LIMIT: usize = 8 << 10;
        for (length, chunks) in [(2, 1), (1000, 1), (LIMIT - 512, 1), (LIMIT + 512, 2), (3 * LIMIT, 4)] {
            let document = noise(length);
            let packed = pack(&document, LIMIT).expect("it fits");
            assert_eq!(Ok(&packed), pack(&document, LIMIT).as_ref(), "the same bytes are packed in the same way");
            let mut read = Vec::new();
            for chunk in &packed.chunks {
                assert!(chunk.len() <= LIMIT);
                copy_decode(chunk.as_slice(), &mut read).expect("a frame");
            }
            assert!(read == document && packed.chunks.len() == chunks, "{length} bytes in {}", packed.chunks.len());
            assert_eq!(packed.sums.lines().count(), packed.chunks.len());
        }
        assert!(pack(&noise(CHUNKS * LIMIT), LIMIT).is_err());
    }
}
