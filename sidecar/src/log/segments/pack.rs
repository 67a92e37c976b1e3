//! A segment's bytes made small, and whole again. What was damaged on the way is told, never taken for rows.
//!
//! The file is what `zstd -d` reads: a skippable frame with the SHA-256 of what comes after it, and one frame of data.
//! ruzstd, which reads packed identities too, writes it, with a search of our own (repeats.rs): with the rows of
//! `examples/row_cost.rs` 23 bytes a row where its own search comes to 29, in no more time. C's zstd makes it 18 bytes at its
//! first level in a quarter of the time, for 670 KB more of program where ruzstd's encoder takes less than 190.

use std::io::{self, Read};

use ruzstd::decoding::StreamingDecoder;
use ruzstd::encoding::{CompressionLevel, FrameCompressor};
use sha2::{Digest, Sha256};

use super::SIZE_MAX;
use super::repeats::Repeats;

/// A frame that decoders pass over (RFC 8878 §3.1.2), and how long this one is.
const SKIPPABLE: [u8; 8] = [0x50, 0x2a, 0x4d, 0x18, 32, 0, 0, 0];

const HEAD: usize = SKIPPABLE.len() + 32;

/// Makes `image` small. Its reader is asked for some bytes at a time, and may take its time.
pub(super) fn pack(image: impl Read) -> Vec<u8> {
    let mut packed = SKIPPABLE.to_vec();
    packed.resize(HEAD, 0);
    let mut compressor = FrameCompressor::new_with_matcher(Repeats::new(), CompressionLevel::Fastest);
    compressor.set_source(image);
    compressor.set_drain(&mut packed);
    compressor.compress();
    drop(compressor);
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

    /// Numbers that look random, the same at each run.
    fn numbers() -> impl FnMut(usize) -> usize {
        let mut state = 1_u64;
        move |below| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            usize::try_from(state >> 33).unwrap() % below
        }
    }

    fn noise(length: usize, kinds: usize) -> Vec<u8> {
        let mut number = numbers();
        (0..length).map(|_| u8::try_from(number(kinds)).unwrap()).collect()
    }

    #[test]
    fn what_the_block_before_had_is_found() {
        let noise = noise(40_000, 256);
        let image = noise.repeat(10);
        let packed = pack(image.as_slice());
        assert!(packed.len() < noise.len() * 11 / 10, "{}", packed.len());
        assert!(unpack(&packed).unwrap() == image);
    }

    #[test]
    fn whatever_bytes_there_are_come_back() {
        let block = 128 << 10;
        let ones = vec![1; block];
        let mut shapes = vec![
            noise(3 * block, 256),
            noise(3 * block, 2),
            ones.repeat(3),
            [&ones[..], &noise(block, 256), &ones].concat(),
            // A block that only repeats what the one before had, and one of which nothing is left but one kind of byte.
            noise(1000, 256).repeat(600),
            [&noise(block, 200)[..], &ones[..5], &[2]].concat().repeat(4),
            (0..40_000_u32)
                .flat_map(|row| [&ones[..1 + usize::try_from(row % 3).unwrap()], &row.to_be_bytes()].concat())
                .collect(),
        ];
        let mut number = numbers();
        for _ in 0..40 {
            let mut image = noise(1 + number(2000), 1 + number(256));
            while image.len() < 200_000 {
                let from = number(image.len());
                let to = image.len().min(from + 1 + number(3000));
                image.extend_from_within(from..to);
                image.resize(image.len() + number(4), 7);
            }
            shapes.push(image);
        }
        for (which, image) in shapes.iter().enumerate() {
            assert!(unpack(&pack(image.as_slice())).unwrap() == *image, "{which}");
        }
    }

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
