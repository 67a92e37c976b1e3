//! A segment's bytes made small, and whole again. What was damaged on the way is told, never taken for rows.
//!
//! The file is what `zstd -d` reads: a skippable frame with the SHA-256 of what comes after it, and one frame of data.

use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};
use zstd::stream::{read::Decoder, write::Encoder};

use super::SIZE_MAX;

/// A frame that decoders pass over (RFC 8878 §3.1.2), and how long this one is.
const SKIPPABLE: [u8; 8] = [0x50, 0x2a, 0x4d, 0x18, 32, 0, 0, 0];

const HEAD: usize = SKIPPABLE.len() + 32;

/// Of the levels the one that makes these bytes smallest: rows are alike from their beginning on, which is what it looks for.
/// Of what others look for the program has nothing (.cargo/config.toml).
const LEVEL: i32 = 1;

/// How far back it looks, and what is kept to read it: 2^18 bytes, some thousand rows. More is no better.
const WINDOW_LOG: u32 = 18;

/// Bytes that are made small at once.
pub(super) const PIECE: usize = 128 << 10;

/// Makes small what `image` has, which is asked for [`PIECE`] at a time, and may take its time.
///
/// # Errors
/// Those of `image`.
pub(super) fn pack(mut image: impl Read) -> io::Result<Vec<u8>> {
    let mut packed = SKIPPABLE.to_vec();
    packed.resize(HEAD, 0);
    let mut encoder = Encoder::new(packed, LEVEL)?;
    encoder.window_log(WINDOW_LOG)?;
    let mut piece = vec![0; PIECE];
    loop {
        match image.read(&mut piece)? {
            0 => break,
            length => encoder.write_all(&piece[..length])?,
        }
    }
    let mut packed = encoder.finish()?;
    let digest = Sha256::digest(&packed[HEAD..]);
    packed[SKIPPABLE.len()..HEAD].copy_from_slice(&digest);
    Ok(packed)
}

/// What was packed; an error where it is not that any more.
pub(super) fn unpack(packed: &[u8]) -> io::Result<Vec<u8>> {
    let damaged = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let (head, frame) = packed.split_at_checked(HEAD).ok_or_else(|| damaged("it is too short"))?;
    let digest = head.strip_prefix(&SKIPPABLE).ok_or_else(|| damaged("it does not begin as it should"))?;
    if Sha256::digest(frame)[..] != *digest {
        return Err(damaged("it is not what was written"));
    }
    let mut decoder = Decoder::with_buffer(frame)?;
    decoder.window_log_max(WINDOW_LOG)?;
    let mut image = Vec::new();
    // One that is larger was not packed here.
    decoder.take(SIZE_MAX).read_to_end(&mut image).map_err(|error| damaged(&error.to_string()))?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(image: &[u8]) -> Vec<u8> {
        pack(image).unwrap()
    }

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
        let packed = whole(&image);
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
            assert!(unpack(&whole(image)).unwrap() == *image, "{which}");
        }
    }

    #[test]
    fn what_is_packed_comes_back_and_what_is_damaged_does_not() {
        let image: Vec<u8> = (0..300_000_u32).flat_map(|number| (number / 7).to_le_bytes()).collect();
        let packed = whole(&image);
        assert!(packed.len() < image.len() / 2, "{}", packed.len());
        assert!(unpack(&packed).unwrap() == image);
        assert!(unpack(&whole(&[])).unwrap().is_empty());
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
    /// Versions before wrote with ruzstd, whose frames have the same window.
    #[test]
    fn what_an_earlier_version_packed_is_read() {
        let frame = b"\x28\xb5\x2f\xfd\x00\x40\xb5\x01\x00\x0c\x02\x00a row is like the one before; a \x01\xa8\x10\xe3\xff\xfd\x10\x63\x3e\
            \x10\xe3\xff\xff\x7f\x3f\x58\x87\x31\x46";
        let packed = [&SKIPPABLE[..], &Sha256::digest(frame), frame].concat();
        assert_eq!(unpack(&packed).unwrap(), "a row is like the one before; ".repeat(9).into_bytes());
    }

    /// What asks for more memory than any that was packed here was not; its sum says only that nothing happened to it since.
    #[test]
    fn what_would_take_more_memory_is_not_unpacked() {
        for (log, is_read) in [(WINDOW_LOG, true), (WINDOW_LOG + 1, false)] {
            let mut encoder = Encoder::new(Vec::new(), LEVEL).unwrap();
            encoder.window_log(log).unwrap();
            encoder.write_all(&[1; 1 << 20]).unwrap();
            let frame = encoder.finish().unwrap();
            let packed = [&SKIPPABLE[..], &Sha256::digest(&frame), &frame].concat();
            assert_eq!(unpack(&packed).is_ok(), is_read, "2^{log} bytes");
        }
    }
}
