//! What fits into so much memory: how many connections and requests a gate takes that nobody has told how many. The
//! operator gives a gate that is to have so many connections its memory by the same arithmetic.
//!
//! Measured on the shipped binary in a control group of its own, what the kernel charges for sockets included: 30 KiB for
//! an idle connection of HTTP/1.1 over TLS, 38 KiB for one of HTTP/2, and 32 KiB more for a request under way with its
//! connection to an upstream.

/// A connection that is open: of HTTP/1.1, with TLS and what the kernel has of it.
const CONNECTION_BYTES: u64 = 30 << 10;
/// A request that is under way, with its own connection to an upstream.
const REQUEST_BYTES: u64 = 32 << 10;
/// Connections for each request that is under way: of most of them nothing is asked at a time, and a gate that had room
/// for a request on each would refuse connections while half of its memory lies idle.
const CONNECTIONS_FOR_A_REQUEST: u64 = 2;
/// What is there without any traffic: 10 MiB of the process with the pages of its program, 5 MiB of a full queue of the
/// log, 5 MiB of a configuration with its state directory, which is in memory.
const FIXED_BYTES: u64 = 20 << 20;
/// The part of the limit that is left alone, one in so many: what the allocator holds between what is used, and pages of
/// the log's file on their way to the disk.
const SPARE: u64 = 8;
/// However little memory there is: somebody has to get in to find out.
const CONNECTIONS_MIN: u64 = 16;
/// However much there is; what is above is for the configuration to name.
pub const UNASKED_MAX: u32 = 10_000;

/// What fits, at most [`UNASKED_MAX`] of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Connections of clients.
    pub connections: u32,
    /// Requests under way, and connections that are passed on.
    pub requests: u32,
}

/// Where memory has no limit.
pub const UNBOUNDED: Budget = Budget { connections: UNASKED_MAX, requests: UNASKED_MAX };

/// What fits into this many bytes.
#[must_use]
pub fn within(memory_bytes: u64) -> Budget {
    let traffic = (memory_bytes - memory_bytes / SPARE).saturating_sub(FIXED_BYTES);
    let most = u64::from(UNASKED_MAX);
    let each = CONNECTION_BYTES + REQUEST_BYTES / CONNECTIONS_FOR_A_REQUEST;
    let connections = (traffic / each).clamp(CONNECTIONS_MIN, most);
    let left = traffic.saturating_sub(connections * CONNECTION_BYTES);
    let requests = (left / REQUEST_BYTES).clamp(CONNECTIONS_MIN / CONNECTIONS_FOR_A_REQUEST, most);
    // Neither is above what fits its type.
    let count = |number: u64| u32::try_from(number).unwrap_or(UNASKED_MAX);
    Budget { connections: count(connections), requests: count(requests) }
}

/// The memory in MiB into which so many connections fit, with half as many requests.
#[must_use]
pub fn mebibytes_for(connections: u64) -> u64 {
    let each = CONNECTION_BYTES + REQUEST_BYTES / CONNECTIONS_FOR_A_REQUEST;
    let traffic = connections.saturating_mul(each);
    let all = (FIXED_BYTES.saturating_add(traffic)).saturating_mul(SPARE).div_ceil(SPARE - 1);
    all.div_ceil(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::{Budget, UNASKED_MAX, mebibytes_for, within};

    #[test]
    fn what_fits_into_so_much_memory() {
        // MiB, connections, requests.
        let rows = [
            (0, 16, 8),
            (16, 16, 8),
            (23, 16, 8),
            (32, 178, 89),
            (64, 801, 401),
            (128, 2048, 1024),
            (256, 4541, 2270),
            (536, 9995, 4997),
            (1024, 10_000, 10_000),
            (u64::MAX >> 20, 10_000, 10_000),
        ];
        for (mebibytes, connections, requests) in rows {
            assert_eq!(within(mebibytes << 20), Budget { connections, requests }, "{mebibytes} MiB");
        }
    }

    #[test]
    fn memory_that_is_given_for_connections_has_room_for_them_and_little_more() {
        for connections in [1, 16, 17, 500, 801, 1024, 4096, 9999, 10_000_u64] {
            let mebibytes = mebibytes_for(connections);
            let wanted = u32::try_from(connections).unwrap_or(UNASKED_MAX);
            assert!(within(mebibytes << 20).connections >= wanted, "{connections}");
            assert!(within((mebibytes - 1) << 20).connections < wanted.max(17), "{connections}");
        }
        assert_eq!([1, 1024, 10_000, 1_000_000].map(mebibytes_for), [23, 76, 537, 51_363]);
        assert_eq!(mebibytes_for(u64::MAX), u64::MAX / 7 / (1 << 20) + 1, "it does not overflow");
    }
}
