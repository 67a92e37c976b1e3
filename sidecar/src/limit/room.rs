//! How much clients may take where nobody has said how much: what fits into memory, and what open files allow.

use std::fmt;

use sidecar_config::{Size, policy};
use sidecar_decide::budget::{self, Budget, UNASKED_MAX, UNBOUNDED};

use super::Bounds;
use crate::limits::PENDING_REQUESTS_DEFAULT_MAX;

/// What this process has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// The memory limit in bytes, if there is one.
    pub memory: Option<u64>,
    /// Connections of clients that there are file descriptors for.
    pub files: u32,
}

impl Default for Room {
    fn default() -> Self {
        Self { memory: None, files: u32::MAX }
    }
}

impl Room {
    fn budget(&self) -> Budget {
        self.memory.map_or(UNBOUNDED, budget::within)
    }

    /// Connections of clients where the configuration does not say how many, and why so many.
    pub fn connections(&self) -> (u32, Why) {
        let fit = self.budget().connections;
        match self.memory {
            _ if self.files < fit => (self.files, Why::Files),
            Some(bytes) if fit < UNASKED_MAX => (fit, Why::Memory(bytes)),
            _ => (fit, Why::Most),
        }
    }

    /// What is wrong with a configuration that asks for more than fits. It is served nonetheless: whoever names a number
    /// may know better, and clients are not refused for a guess.
    pub fn misfits(&self, said: &policy::Limits) -> Vec<String> {
        let Some(memory) = self.memory else { return Vec::new() };
        let fits = self.budget();
        let said = [
            ("maxConnections", said.max_connections.map(|count| count.min(self.files)), fits.connections),
            ("maxStreams", said.max_streams, fits.requests),
        ];
        let misfits = said.into_iter().filter_map(|(name, said, fits)| {
            let said = said.filter(|said| *said > fits)?;
            let size = Size::from_bytes(memory);
            Some(format!(
                "policy.limits.{name}: {said} do not fit the memory limit of {size}, which has room for some {fits}; \
                 raise the memory limit or write less"
            ))
        });
        misfits.collect()
    }
}

/// Why there may be so many connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// What fits into memory of so many bytes.
    Memory(u64),
    /// File descriptors.
    Files,
    /// As many as ever unasked.
    Most,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(bytes) => write!(f, "a memory limit of {}", Size::from_bytes(*bytes)),
            Self::Files => f.write_str("the limit of open files"),
            Self::Most => write!(f, "at most {UNASKED_MAX} unasked"),
        }
    }
}

/// Bounds on what clients may take, as they count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The memory limit in bytes that they are to fit, if there is one.
    pub memory: Option<u64>,
    /// Connections of clients.
    pub connections: usize,
    /// Bytes of a request's body.
    pub request_body_bytes: u64,
    /// Requests whose response's head has not come.
    pub pending: Bounds,
    /// Requests and connections that are passed on.
    pub streams: usize,
    /// Tunnels, and requests that ask for one.
    pub tunnels: usize,
}

impl Limits {
    /// What a configuration says, and what there is room for where it says nothing.
    pub fn of(said: &policy::Limits, room: &Room) -> Self {
        let requests = room.budget().requests;
        let count = |said: Option<u32>, unsaid: u32| usize::try_from(said.unwrap_or(unsaid)).unwrap_or(usize::MAX);
        let connections = said.max_connections.map_or(room.connections().0, |said| said.min(room.files));
        Self {
            memory: room.memory,
            connections: count(Some(connections), connections),
            request_body_bytes: said.max_request_body_size.bytes(),
            pending: Bounds {
                limit: count(said.max_pending_requests, requests.min(PENDING_REQUESTS_DEFAULT_MAX)),
                timeout: said.pending_timeout.as_std(),
            },
            streams: count(said.max_streams, requests),
            tunnels: count(said.max_tunnels, requests),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use sidecar_config::policy;

    use super::{Limits, Room, Why};

    const MEMORY: u64 = 64 << 20;

    fn said(limits: Value) -> policy::Limits {
        serde_json::from_value(limits).unwrap()
    }

    #[test]
    fn what_nobody_has_named_is_what_there_is_room_for() {
        let small = Room { memory: Some(MEMORY), files: 9_936 };
        let rows = [
            ("no limit", Room::default(), json!({}), [10_000, 1024, 10_000, 10_000]),
            ("little memory", small, json!({}), [801, 401, 401, 401]),
            (
                "more than enough",
                Room { memory: Some(64 << 30), ..Room::default() },
                json!({}),
                [10_000, 1024, 10_000, 10_000],
            ),
            ("few files", Room { files: 100, ..small }, json!({}), [100, 401, 401, 401]),
            (
                "named",
                small,
                json!({"maxConnections": 2, "maxPendingRequests": 3, "maxStreams": 4, "maxTunnels": 5}),
                [2, 3, 4, 5],
            ),
            ("named above", small, json!({"maxConnections": 20_000}), [9_936, 401, 401, 401]),
        ];
        for (case, room, limits, expected) in rows {
            let found = Limits::of(&said(limits), &room);
            assert_eq!([found.connections, found.pending.limit, found.streams, found.tunnels], expected, "{case}");
        }
    }

    #[test]
    fn it_is_told_why_and_what_does_not_fit() {
        let small = Room { memory: Some(MEMORY), files: 9_936 };
        let rows = [
            (Room::default(), (10_000, Why::Most), "at most 10000 unasked"),
            (Room { memory: Some(64 << 30), ..small }, (9_936, Why::Files), "the limit of open files"),
            (small, (801, Why::Memory(MEMORY)), "a memory limit of 64Mi"),
        ];
        for (room, expected, words) in rows {
            assert_eq!((room.connections(), room.connections().1.to_string()), (expected, words.to_owned()));
        }
        let more = said(json!({"maxConnections": 1000, "maxStreams": 500, "maxPendingRequests": 5000}));
        let told = |name: &str, said: u32, fits: u32| {
            format!(
                "policy.limits.{name}: {said} do not fit the memory limit of 64Mi, which has room for some {fits}; raise \
                 the memory limit or write less"
            )
        };
        assert_eq!(small.misfits(&more), [told("maxConnections", 1000, 801), told("maxStreams", 500, 401)]);
        assert_eq!(Room { files: 100, ..small }.misfits(&said(json!({"maxConnections": 1000}))), [""; 0]);
        assert_eq!(Room::default().misfits(&more), [""; 0]);
        assert_eq!(small.misfits(&said(json!({"maxConnections": 801, "maxStreams": 401}))), [""; 0]);
    }
}
