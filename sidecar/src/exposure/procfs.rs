//! Listening sockets from `/proc/net/tcp` and `tcp6`, where asking the kernel directly is not allowed. These list every
//! connection too, so that it is read up to a bound, and else nobody can tell.

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::limits::EXPOSURE_BYTES;

const STATE_LISTEN: &str = "0A";

/// All of them, of both families.
pub(super) fn listening() -> io::Result<Vec<SocketAddr>> {
    let mut found = read("/proc/net/tcp")?;
    match read("/proc/net/tcp6") {
        Ok(more) => found.extend(more),
        // A kernel without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(found)
}

fn read(path: &str) -> io::Result<Vec<SocketAddr>> {
    let mut text = String::new();
    let bound = u64::try_from(EXPOSURE_BYTES).unwrap_or(u64::MAX);
    let length = File::open(path)?.take(bound).read_to_string(&mut text)?;
    if length >= EXPOSURE_BYTES {
        return Err(io::Error::other("too many connections to look for listeners among them"));
    }
    Ok(text.lines().skip(1).filter_map(listener).collect())
}

/// Where the socket of a line listens, if it does.
fn listener(line: &str) -> Option<SocketAddr> {
    let mut columns = line.split_ascii_whitespace();
    let (_, local, _, state) = (columns.next()?, columns.next()?, columns.next()?, columns.next()?);
    let (address, port) = local.split_once(':').filter(|_| state == STATE_LISTEN)?;
    Some(SocketAddr::new(self::address(address)?, u16::from_str_radix(port, 16).ok()?))
}

/// An address as it is printed there: words of four bytes, each a number of the machine.
fn address(digits: &str) -> Option<IpAddr> {
    let mut bytes = [0; 16];
    let words = digits.len() / 8;
    for word in 0..words {
        let number = u32::from_str_radix(digits.get(word * 8..word * 8 + 8)?, 16).ok()?;
        bytes.get_mut(word * 4..word * 4 + 4)?.copy_from_slice(&number.to_ne_bytes());
    }
    match (words, bytes) {
        (1, [a, b, c, d, ..]) => Some(Ipv4Addr::new(a, b, c, d).into()),
        (4, bytes) => Some(Ipv6Addr::from(bytes).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::listener;

    #[test]
    #[cfg(target_endian = "little")]
    fn lines_of_listeners_are_read() {
        let rows = [
            ("   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000", Some("127.0.0.1:8080")),
            ("   1: 00000000:0050 00000000:0000 0A 0", Some("0.0.0.0:80")),
            ("   2: 0100007F:1F90 0100007F:C001 01 0", None),
            (
                "   3: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 0",
                Some("[::1]:8080"),
            ),
            ("   4: 0000000000000000FFFF00000700000A:1F90 0:0 0A 0", Some("[::ffff:10.0.0.7]:8080")),
            ("  sl  local_address rem_address   st", None),
            ("   5: 0100007F 0 0A", None),
            ("   6: 01:1F90 0 0A 0", None),
            ("", None),
        ];
        for (line, expected) in rows {
            assert_eq!(listener(line).map(|address| address.to_string()).as_deref(), expected, "{line}");
        }
    }
}
