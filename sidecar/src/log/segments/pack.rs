//! A segment's bytes made small, and whole again. What was damaged on the way is told, never taken for rows.
//!
//! The file is what `zstd -d` reads: a skippable frame with the SHA-256 of what comes after it, and one frame of data.
//! ruzstd, which reads packed identities too, makes it: with the rows of `examples/row_cost.rs` 37 bytes a row and 43 with
//! trace ids, in 90 ms of CPU for 8 MiB. C's zstd makes it 31 and 38 bytes in 12 ms at its first level, and 30 and 35 in 120
//! ms at its sixth, for 670 KB more of program where ruzstd's encoder takes less than 190.

use std::io::{self, Read};

use ruzstd::decoding::StreamingDecoder;
use ruzstd::encoding::{CompressionLevel, compress};
use sha2::{Digest, Sha256};

use super::SIZE_MAX;

/// A frame that decoders pass over (RFC 8878 §3.1.2), and how long this one is.
const SKIPPABLE: [u8; 8] = [0x50, 0x2a, 0x4d, 0x18, 32, 0, 0, 0];

const HEAD: usize = SKIPPABLE.len() + 32;

/// Makes `image` small. Its reader is asked for some bytes at a time, and may take its time.
pub(super) fn pack(image: impl Read) -> Vec<u8> {
    let mut packed = SKIPPABLE.to_vec();
    packed.resize(HEAD, 0);
    compress(image, &mut packed, CompressionLevel::Fastest);
    let digest = Sha256::digest(&packed[HEAD..]);
    packed[SKIPPABLE.len()..HEAD].copy_from_slice(&digest);
    packed
}

/// What was packed; an error where it is not that any more.
pub(super) fn unpack(packed: &[u8]) -> io::Result<Vec<u8>> {
    let damaged = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let (head, frame) = packed.split_at_checked(HEAD).ok_or_else(|| damaged("it is too short"))?;
    let digest = head.strip_prefix(&SKIPPABLE).ok_or_else(|| damaged("it does not begin as it should"))?;
    if Sha256::digest(frame)[..] != *digest {
        return Err(damaged("it is not what was written"));
    }
    let decoder = StreamingDecoder::new(frame).map_err(|error| damaged(&error.to_string()))?;
    let mut image = Vec::new();
    // One that is larger was not packed here.
    decoder.take(SIZE_MAX).read_to_end(&mut image).map_err(|error| damaged(&error.to_string()))?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_back_and_what_is_damaged_does_not() {
        let image: Vec<u8> = (0..300_000_u32).flat_map(|number| (number / 7).to_le_bytes()).collect();
        let packed = pack(image.as_slice());
        assert!(packed.len() < image.len() / 2, "{}", packed.len());
        assert!(unpack(&packed).unwrap() == image);
        assert!(unpack(&pack(&[][..])).unwrap().is_empty());
        let mut wrong =
            vec![packed[..packed.len() - 1].to_vec(), packed[..HEAD].to_vec(), packed[..10].to_vec(), vec![]];
        for place in [0, 4, 20, HEAD + 3, packed.len() / 2, packed.len() - 1] {
            let mut flipped = packed.clone();
            flipped[place] ^= 1;
            wrong.push(flipped);
        }
        for damaged in wrong {
            assert_eq!(unpack(&damaged).unwrap_err().kind(), io::ErrorKind::InvalidData, "{} bytes", damaged.len());
        }
    }
}
