//! Session tickets that are bound to what they were given out under.
//!
//! A resumed session is never verified: its client shows no certificate. So a ticket carries, beside rustls' own state,
//! what the chain rested on and what it was judged by: the listener with its mode and bundles, the trust and the gate's
//! own certificate. Where any of them differs today, or the time is over, it decrypts to nothing, and the client gets a
//! full handshake, never a refusal.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::UnixTime;
use rustls::server::ProducesTickets;

use super::path::{End, Link, Sum, VerifiedPath};
use super::peer::TlsPeer;
use crate::limits::{TICKET_BYTES, TICKET_LIFETIME};

/// Layout of what is encrypted. Tickets do not outlive their keys, nor the keys the process; it guards against mistakes.
const LAYOUT: u8 = 1;

/// The keys that tickets are encrypted with, of the whole process. They are replaced every six hours.
#[derive(Clone)]
pub struct TicketKeys(Option<Arc<dyn ProducesTickets>>);

impl TicketKeys {
    /// New keys; none, and so no tickets, where the system gives no randomness.
    pub fn new() -> Self {
        Self(Ticketer::new().inspect_err(|error| tracing::error!(%error, "no keys for session tickets")).ok())
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKeys")
    }
}

/// What one handshake learns.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Left by the verifier; nothing where it was not asked.
    pub(super) peer: TlsPeer,
    /// The last ticket that could be decrypted: the one that is resumed, if the session is.
    pub(super) resumed: Option<Ticket>,
    /// Whether the client's chain was known from an earlier handshake; `None` where it presented none that verifies.
    pub(super) is_known: Option<bool>,
}

/// Where a handshake's verifier and ticketer leave what they see.
pub(super) type Cell = Arc<Mutex<Seen>>;

/// What a ticket says of its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    /// What the client's chain rests on; `None` without a certificate.
    pub(super) path: Option<Arc<VerifiedPath>>,
    /// The first second since the epoch in which it is worth nothing.
    expires: u64,
}

/// The ticketer of one handshake.
#[derive(Debug)]
pub(super) struct BoundTickets {
    pub(super) keys: TicketKeys,
    /// What tickets are bound to; see [`super::slots::TlsContext`].
    pub(super) binding: Sum,
    pub(super) cell: Cell,
}

impl ProducesTickets for BoundTickets {
    fn enabled(&self) -> bool {
        self.keys.0.is_some()
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(TICKET_LIFETIME.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let ticket = self.ticket();
        let mut bytes = vec![LAYOUT];
        bytes.extend_from_slice(&self.binding);
        ticket.write(&mut bytes);
        bytes.extend_from_slice(plain);
        if bytes.len() > TICKET_BYTES {
            return None;
        }
        self.keys.0.as_ref()?.encrypt(&bytes)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let bytes = self.keys.0.as_ref()?.decrypt(cipher)?;
        let mut input = Input(&bytes);
        if input.byte()? != LAYOUT || input.array()? != self.binding {
            return None;
        }
        let ticket = Ticket::read(&mut input)?;
        if ticket.expires <= UnixTime::now().as_secs() {
            return None;
        }
        self.cell.lock().unwrap_or_else(PoisonError::into_inner).resumed = Some(ticket);
        Some(input.0.to_vec())
    }
}

impl BoundTickets {
    /// What the session of this handshake is worth.
    fn ticket(&self) -> Ticket {
        let seen = self.cell.lock().unwrap_or_else(PoisonError::into_inner);
        let path = seen.peer.path.clone();
        let mut expires = UnixTime::now().as_secs().saturating_add(TICKET_LIFETIME.as_secs());
        match (&path, &seen.resumed) {
            (Some(path), _) => expires = expires.min(path.expires()).min(path.believed_until),
            // Resumed again and again, a session still ends when its first ticket does: then its client shows its
            // certificate, which may be a newer one.
            (None, Some(resumed)) => {
                return Ticket { path: resumed.path.clone(), expires: expires.min(resumed.expires) };
            }
            (None, None) => {}
        }
        Ticket { path, expires }
    }
}

impl Ticket {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.expires.to_be_bytes());
        let Some(path) = &self.path else { return bytes.push(0) };
        bytes.push(1);
        bytes.extend_from_slice(&path.leaf);
        bytes.extend_from_slice(&path.valid_until.to_be_bytes());
        write_length(bytes, path.ends.len());
        for end in &path.ends {
            write_bytes(bytes, end.bundle.as_bytes());
            bytes.extend_from_slice(&end.anchor);
            write_length(bytes, end.links.len());
            for link in &end.links {
                bytes.extend_from_slice(&link.issuer);
                write_bytes(bytes, &link.serial);
            }
        }
    }

    fn read(input: &mut Input<'_>) -> Option<Self> {
        let expires = u64::from_be_bytes(input.array()?);
        if input.byte()? == 0 {
            return Some(Self { path: None, expires });
        }
        let (leaf, valid_until) = (input.array()?, u64::from_be_bytes(input.array()?));
        let ends = (0..input.length()?).map(|_| {
            let bundle = std::str::from_utf8(input.bytes()?).ok()?.into();
            let anchor = input.array()?;
            let links =
                (0..input.length()?).map(|_| Some(Link { issuer: input.array()?, serial: input.bytes()?.into() }));
            Some(End { bundle, anchor, links: links.collect::<Option<_>>()? })
        });
        let ends = ends.collect::<Option<_>>()?;
        // Whatever ends a path ends its ticket: `expires` has it.
        let path = VerifiedPath { leaf, ends, valid_until, believed_until: u64::MAX };
        Some(Self { path: Some(Arc::new(path)), expires })
    }
}

/// Bundles, certificates of a path, bytes of a name or number: each far fewer than 65,536, and what were more would only
/// make a ticket that cannot be read.
fn write_length(bytes: &mut Vec<u8>, length: usize) {
    bytes.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
}

fn write_bytes(bytes: &mut Vec<u8>, value: &[u8]) {
    write_length(bytes, value.len());
    bytes.extend_from_slice(value);
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn length(&mut self) -> Option<usize> {
        self.array().map(u16::from_be_bytes).map(usize::from)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(valid_until: u64) -> Arc<VerifiedPath> {
        let link = |number: u8| Link { issuer: [number; 32], serial: vec![number; usize::from(number)].into() };
        let end = |bundle: &str, links| End { bundle: bundle.into(), anchor: [9; 32], links };
        let ends = vec![end("ours", vec![link(1), link(20)]), end("partner", Vec::new())];
        Arc::new(VerifiedPath { leaf: [7; 32], ends, valid_until, believed_until: u64::MAX })
    }

    fn tickets(binding: u8, keys: &TicketKeys) -> BoundTickets {
        BoundTickets { keys: keys.clone(), binding: [binding; 32], cell: Cell::default() }
    }

    fn resumed(tickets: &BoundTickets) -> Option<Ticket> {
        tickets.cell.lock().unwrap().resumed.clone()
    }

    #[test]
    fn a_ticket_gives_back_what_went_in() {
        let keys = TicketKeys::new();
        for path in [None, Some(path(u64::MAX - 1))] {
            let (given, taken) = (tickets(1, &keys), tickets(1, &keys));
            given.cell.lock().unwrap().peer.path.clone_from(&path);
            let ticket = given.encrypt(b"session").unwrap();
            assert_eq!(taken.decrypt(&ticket).unwrap(), b"session");
            assert_eq!(resumed(&taken).unwrap().path, path);
        }
    }

    #[test]
    fn a_ticket_of_something_else_decrypts_to_nothing() {
        let keys = TicketKeys::new();
        let given = tickets(1, &keys);
        let ticket = given.encrypt(b"session").unwrap();
        for (what, other) in [("binding", tickets(2, &keys)), ("keys", tickets(1, &TicketKeys::new()))] {
            assert_eq!(other.decrypt(&ticket), None, "{what}");
            assert_eq!(resumed(&other), None, "{what}");
        }
        let taken = tickets(1, &keys);
        for length in 0..ticket.len() {
            assert_eq!(taken.decrypt(&ticket[..length]), None, "{length}");
        }
        for index in 0..ticket.len() {
            let mut flipped = ticket.clone();
            flipped[index] ^= 1;
            assert_eq!(taken.decrypt(&flipped), None, "{index}");
        }
    }

    #[test]
    fn a_ticket_ends_with_the_certificate_and_is_not_renewed() {
        let keys = TicketKeys::new();
        let now = UnixTime::now().as_secs();
        let given = tickets(1, &keys);
        given.cell.lock().unwrap().peer.path = Some(path(now - 2));
        assert_eq!(tickets(1, &keys).decrypt(&given.encrypt(b"").unwrap()), None, "expired");
        given.cell.lock().unwrap().peer.path = Some(path(now + 50));
        let (first, second) = (tickets(1, &keys), tickets(1, &keys));
        first.decrypt(&given.encrypt(b"").unwrap()).unwrap();
        second.decrypt(&first.encrypt(b"").unwrap()).unwrap();
        assert_eq!(resumed(&first).unwrap().expires, now + 51);
        assert_eq!(resumed(&second), resumed(&first));
    }

    #[test]
    fn a_ticket_that_would_be_too_large_is_none() {
        assert_eq!(tickets(1, &TicketKeys::new()).encrypt(&vec![0; TICKET_BYTES]), None);
    }

    #[test]
    fn what_is_cut_off_is_not_read() {
        let whole = Ticket { path: Some(path(5)), expires: 7 };
        let mut bytes = Vec::new();
        whole.write(&mut bytes);
        assert_eq!(Ticket::read(&mut Input(&bytes)), Some(whole));
        assert!((0..bytes.len()).all(|length| Ticket::read(&mut Input(&bytes[..length])).is_none()));
    }
}
