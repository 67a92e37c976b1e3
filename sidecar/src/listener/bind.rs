//! Binds listeners: one socket a worker on one address, so that the kernel spreads connections (SO_REUSEPORT).

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};

use crate::config::{Generation, ListenerKey};
use crate::limits::LISTEN_BACKLOG;

/// Sockets for one worker.
pub type Sockets = Vec<(ListenerKey, TcpListener)>;

/// Knows what is bound.
#[derive(Debug)]
pub struct Binder {
    workers: usize,
    bound: BTreeMap<ListenerKey, SocketAddr>,
    /// Why, for those that could not be bound.
    unbound: BTreeMap<ListenerKey, String>,
}

impl Binder {
    /// Nothing bound yet, for that many workers.
    pub fn new(workers: usize) -> Self {
        Self { workers, bound: BTreeMap::new(), unbound: BTreeMap::new() }
    }

    /// Binds what a generation has and did not have before; a list of new sockets for every worker.
    ///
    /// What the generation no longer has is forgotten here and closed by the workers.
    pub fn reconcile(&mut self, generation: &Generation) -> Vec<Sockets> {
        let mut sockets: Vec<Sockets> = (0..self.workers).map(|_| Vec::new()).collect();
        let keys = generation.listening();
        let closing: Vec<_> = self.bound.keys().filter(|key| !keys.contains(key)).map(|key| key.address).collect();
        self.bound.retain(|key, _| keys.contains(key));
        self.unbound.retain(|key, _| keys.contains(key));
        for key in keys {
            if self.bound.contains_key(&key) {
                continue;
            }
            if key.address.port() != 0 && closing.contains(&key.address) {
                tracing::info!(listener = %generation.listener_name(&key), address = %key.address, "listening anew with another protocol");
                self.unbound.insert(key, "its protocol has changed, and it is being opened anew".to_owned());
                continue;
            }
            match bind(key.address, self.workers) {
                Ok((address, bound)) => {
                    tracing::info!(listener = %generation.listener_name(&key), %address, "listening");
                    self.unbound.remove(&key);
                    self.bound.insert(key.clone(), address);
                    let each = sockets.iter_mut().zip(bound);
                    each.for_each(|(list, socket)| list.push((key.clone(), socket)));
                }
                Err(error) => {
                    let error = error.to_string();
                    // Told once, and not at every try.
                    if self.unbound.get(&key) != Some(&error) {
                        let listener = generation.listener_name(&key);
                        tracing::error!(%listener, address = %key.address, error, "cannot listen; trying again");
                    }
                    self.unbound.insert(key, error);
                }
            }
        }
        sockets
    }

    /// Real addresses by listener.
    pub fn bound(&self) -> &BTreeMap<ListenerKey, SocketAddr> {
        &self.bound
    }

    /// Listeners whose address could not be had, and why.
    pub fn unbound(&self) -> &BTreeMap<ListenerKey, String> {
        &self.unbound
    }
}

fn bind(address: SocketAddr, workers: usize) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    // Sockets that share a port would also share it with another process of this user, and half the connections would
    // go there; one that does not share finds out first.
    let probe = socket(address, false)?;
    drop(probe);
    let first = listen(address)?;
    let real = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(listen(real)?);
    }
    Ok((real, sockets))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address, true)?;
    socket.set_nonblocking(true)?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket.into())
}

fn socket(address: SocketAddr, shares_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shares_port)?;
    // Inherited by what is accepted: a client that vanished without a word is found out in the end.
    socket.set_keepalive(true)?;
    if address.is_ipv6() {
        // `[::]` means both families, as it does elsewhere, whatever the machine's default is.
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}
