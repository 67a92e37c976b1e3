//! Whether there is a way around the gate: ports of backends on loopback at which somebody listens on other addresses too.
//!
//! The kernel is asked, in the network namespace that the application shares with the gate. It is asked when somebody wants
//! to know, and not more often than every now and then, on the control thread.

mod inet_diag;
mod procfs;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::limits::EXPOSURE_LOOK_EVERY;

/// What was seen last.
#[derive(Debug, Default)]
pub struct Exposure {
    last: Mutex<Option<Look>>,
}

/// What was seen once.
#[derive(Debug)]
struct Look {
    at: Instant,
    /// Ports of backends at that time.
    local: BTreeSet<u16>,
    exposed: Option<Vec<u16>>,
}

impl Exposure {
    /// Those of the ports of backends that can be reached around the gate, in their order; `None` where nobody can tell.
    /// Another set of ports is looked at at once. The gate's own addresses are no ways around it.
    pub fn ports(&self, local: BTreeSet<u16>, own: &[SocketAddr]) -> Option<Vec<u16>> {
        // A panic of somebody else leaves what was seen before.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(look) = last.as_ref()
            && look.local == local
            && look.at.elapsed() < EXPOSURE_LOOK_EVERY
        {
            return look.exposed.clone();
        }
        let exposed = if local.is_empty() { Some(Vec::new()) } else { look(&local, own) };
        *last = Some(Look { at: Instant::now(), local, exposed: exposed.clone() });
        exposed
    }
}

fn look(local: &BTreeSet<u16>, own: &[SocketAddr]) -> Option<Vec<u16>> {
    match listening() {
        Ok(listening) => Some(exposed(&listening, local, own)),
        Err(error) => {
            tracing::warn!(%error, "cannot see who listens beside the gate");
            None
        }
    }
}

/// Where anybody listens, of either family.
fn listening() -> io::Result<Vec<SocketAddr>> {
    inet_diag::listening().or_else(|error| {
        tracing::debug!(%error, "the kernel does not tell about sockets; reading /proc/net instead");
        procfs::listening()
    })
}

/// The ports at which somebody but the gate listens on an address that is not loopback.
fn exposed(listening: &[SocketAddr], local: &BTreeSet<u16>, own: &[SocketAddr]) -> Vec<u16> {
    let others = listening.iter().filter(|address| !own.contains(address));
    let open = others.filter(|address| !address.ip().to_canonical().is_loopback());
    let ports: BTreeSet<_> = open.map(SocketAddr::port).filter(|port| local.contains(port)).collect();
    ports.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use super::{Exposure, exposed, inet_diag, procfs};

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn whoever_listens_beyond_loopback_is_a_way_around() {
        type Row = (&'static [&'static str], &'static [u16], &'static [&'static str], &'static [u16]);
        let rows: &[Row] = &[
            (&[], &[8080], &[], &[]),
            (&["0.0.0.0:8080"], &[8080], &[], &[8080]),
            (&["[::]:8080"], &[8080], &[], &[8080]),
            (&["10.0.0.7:8080"], &[8080], &[], &[8080]),
            (&["127.0.0.1:8080", "127.3.2.1:8080", "[::1]:8080"], &[8080], &[], &[]),
            (&["[::ffff:127.0.0.1]:8080"], &[8080], &[], &[]),
            (&["[::ffff:10.0.0.7]:8080"], &[8080], &[], &[8080]),
            (&["0.0.0.0:9090"], &[8080], &[], &[]),
            (&["0.0.0.0:9090", "[::]:8080", "0.0.0.0:8080"], &[8080, 9090], &[], &[8080, 9090]),
            // A gate in front of a port of the same number, at another address.
            (&["10.0.0.7:8080", "127.0.0.1:8080"], &[8080], &["10.0.0.7:8080"], &[]),
        ];
        for (listening, local, own, expected) in rows {
            let local = local.iter().copied().collect();
            assert_eq!(exposed(&addresses(listening), &local, &addresses(own)), *expected, "{listening:?}");
        }
    }

    #[test]
    fn both_ways_to_look_see_the_same_sockets() {
        let listeners = ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"].map(TcpListener::bind);
        let listeners: Vec<_> = listeners.into_iter().flatten().collect();
        assert!(listeners.len() >= 2, "at least the two of IPv4");
        let open = TcpStream::connect(listeners[0].local_addr().unwrap()).unwrap();
        for seen in [inet_diag::listening().unwrap(), procfs::listening().unwrap()] {
            for listener in &listeners {
                assert!(seen.contains(&listener.local_addr().unwrap()), "{listener:?} in {seen:?}");
            }
            assert!(!seen.contains(&open.local_addr().unwrap()), "a connection is no listener");
        }
    }

    #[test]
    fn other_ports_are_looked_at_at_once_and_the_same_ones_later() {
        let exposure = Exposure::default();
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let local = |ports: &[u16]| ports.iter().copied().collect::<BTreeSet<_>>();
        assert_eq!(exposure.ports(local(&[]), &[]), Some(vec![]));
        assert_eq!(exposure.ports(local(&[port]), &[]), Some(vec![port]));
        drop(listener);
        assert_eq!(exposure.ports(local(&[port]), &[]), Some(vec![port]), "as seen a moment ago");
        assert_eq!(exposure.ports(local(&[port, 1]), &[]), Some(vec![]));
    }
}
