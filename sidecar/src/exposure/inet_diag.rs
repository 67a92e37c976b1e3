//! Listening sockets from the kernel itself: `sock_diag(7)`, with the filter for their state, so that open connections cost
//! nothing however many they are.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};

use crate::limits::EXPOSURE_BYTES;

// As in linux/netlink.h, linux/sock_diag.h and linux/inet_diag.h.
const HEADER_BYTES: usize = 16;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const REQUEST_AND_DUMP: u16 = 0x301;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const TCP: u8 = 6;
const STATE_LISTEN: u32 = 1 << 10;
/// Family and socket of what is asked for, which is any.
const REQUEST_BYTES: usize = 56;
const SOURCE_PORT: usize = 4;
const SOURCE_ADDRESS: usize = 8;
/// A reply is a page or some; the kernel fits them to what the reader has room for.
const BUFFER_BYTES: usize = 32 << 10;

/// All of them, of both families.
pub(super) fn listening() -> io::Result<Vec<SocketAddr>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(netlink::SOCK_DIAG))?;
    let mut found = Vec::new();
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        dump(&socket, family, &mut found)?;
    }
    Ok(found)
}

fn dump(socket: &OwnedFd, family: AddressFamily, found: &mut Vec<SocketAddr>) -> io::Result<()> {
    send(socket.as_fd(), &request(family), SendFlags::empty())?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut left = EXPOSURE_BYTES;
    loop {
        // The kernel answers within the call: what is not there does not come.
        let (_, length) = recv(socket.as_fd(), buffer.as_mut_slice(), RecvFlags::TRUNC)?;
        let datagram = buffer.get(..length).ok_or_else(|| io::Error::other("a reply larger than its buffer"))?;
        left = left.checked_sub(length).ok_or_else(|| io::Error::other("too many sockets listen"))?;
        if length == 0 || read(datagram, found)? {
            return Ok(());
        }
    }
}

fn request(family: AddressFamily) -> [u8; HEADER_BYTES + REQUEST_BYTES] {
    let mut request = [0; HEADER_BYTES + REQUEST_BYTES];
    let length = u32::try_from(request.len()).unwrap_or_default();
    request[..4].copy_from_slice(&length.to_ne_bytes());
    request[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request[6..8].copy_from_slice(&REQUEST_AND_DUMP.to_ne_bytes());
    // Families of sockets are small numbers.
    request[HEADER_BYTES] = u8::try_from(family.as_raw()).unwrap_or_default();
    request[HEADER_BYTES + 1] = TCP;
    request[HEADER_BYTES + 4..HEADER_BYTES + 8].copy_from_slice(&STATE_LISTEN.to_ne_bytes());
    request
}

/// Reads the messages of a datagram; whether it was the last.
fn read(mut datagram: &[u8], found: &mut Vec<SocketAddr>) -> io::Result<bool> {
    let malformed = || io::Error::other("a reply of another form");
    while !datagram.is_empty() {
        let length = u32::from_ne_bytes(bytes(datagram, 0).ok_or_else(malformed)?);
        let length = usize::try_from(length).map_err(|_| malformed())?;
        let message = datagram.get(..length).filter(|_| length >= HEADER_BYTES).ok_or_else(malformed)?;
        let body = &message[HEADER_BYTES..];
        match u16::from_ne_bytes(bytes(message, 4).ok_or_else(malformed)?) {
            DONE => return Ok(true),
            ERROR => {
                let code = i32::from_ne_bytes(bytes(body, 0).ok_or_else(malformed)?);
                return Err(io::Error::from_raw_os_error(code.wrapping_neg()));
            }
            SOCK_DIAG_BY_FAMILY => found.push(address(body).ok_or_else(malformed)?),
            _ => {}
        }
        // Messages begin at multiples of four.
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// Where a socket listens.
fn address(body: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(bytes(body, SOURCE_PORT)?);
    let address = match u16::from(*body.first()?) {
        family if family == AddressFamily::INET.as_raw() => {
            IpAddr::from(Ipv4Addr::from(bytes::<4>(body, SOURCE_ADDRESS)?))
        }
        family if family == AddressFamily::INET6.as_raw() => {
            IpAddr::from(Ipv6Addr::from(bytes::<16>(body, SOURCE_ADDRESS)?))
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

fn bytes<const COUNT: usize>(from: &[u8], at: usize) -> Option<[u8; COUNT]> {
    from.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn what_is_no_reply_is_an_error_and_never_a_panic() {
        let message = |kind: u16, body: &[u8]| {
            let length = u32::try_from(16 + body.len()).unwrap();
            let mut all = length.to_ne_bytes().to_vec();
            all.extend(kind.to_ne_bytes());
            all.extend([0; 10]);
            all.extend(body);
            all
        };
        let mut listener = vec![2, 10, 0, 0, 0x1f, 0x90, 0, 0, 10, 0, 0, 7];
        listener.resize(72, 0);
        let good = [message(20, &listener), message(3, &[0; 4])].concat();
        let mut found = Vec::new();
        assert!(read(&good, &mut found).unwrap());
        assert_eq!(found, ["10.0.0.7:8080".parse().unwrap()]);
        assert_eq!(read(&message(2, &(-13_i32).to_ne_bytes()), &mut found).unwrap_err().raw_os_error(), Some(13));
        for length in 1..good.len() {
            let mut found = Vec::new();
            // Cut anywhere it is either an error or what is whole of it.
            let _ = read(&good[..length], &mut found);
            assert!(found.len() <= 1);
        }
        for bad in [&[0; 4][..], &[0xff; 20], &message(20, &[2]), &message(20, &[99; 72])] {
            assert!(read(bad, &mut Vec::new()).is_err(), "{bad:?}");
        }
    }
}
