//! Every bound that is not the user's to set, with its reason. What the user sets has its bounds in the contract.

use std::time::Duration;

/// Bytes of one configuration or PEM file: above what a Kubernetes object can hold, far below what hurts.
pub const CONFIG_FILE_BYTES: u64 = 8 << 20;
/// Documents in a configuration folder: five parts, some of them in shards.
pub const CONFIG_FILES: usize = 64;
/// Chunks of identities, 800 KiB each at most: what Kubernetes keeps of one workload's clients has an end.
pub const IDENTITIES_CHUNKS: usize = 4;
/// Bytes of the identities that the chunks hold: ten times what they have at most, and little memory for a moment.
pub const IDENTITIES_BYTES: usize = 32 << 20;
/// Quiet time after a change before the folder is read: one save touches several files.
pub const CONFIG_DEBOUNCE: Duration = Duration::from_millis(50);
/// How often files are compared whatever inotify says: it does not tell everything, and reading them is cheap.
pub const CONFIG_COMPARE: Duration = Duration::from_secs(5);
/// How long a writer of a file is waited for that has paused; one that is stuck must not hold up a revocation.
pub const CONFIG_WRITER: Duration = Duration::from_secs(30);
/// How long files must have rested to be taken by a comparison: nobody says then that their writer is done.
pub const CONFIG_REST: Duration = Duration::from_secs(2);
/// Bytes of one file in the state directory: a document and the certificates of some bundles, with room.
pub const STATE_FILE_BYTES: u64 = 64 << 20;
/// How often the state directory is tried again that could not be written.
pub const STATE_RETRY: Duration = Duration::from_secs(5);
/// Time for the state directory's last write at the end; what was accepted before the stop is there already.
pub const STATE_STOP_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a start waits for a route that selects the pod, where its workload has others: the operator writes one within a
/// second or two of the pod's coming, and until then callers would be answered 404. A pod that is to have none starts after it.
pub const ROUTE_WAIT: Duration = Duration::from_secs(10);
/// How often a listener whose address is taken is tried again.
pub const BIND_RETRY: Duration = Duration::from_secs(1);

/// Worker threads that are started unasked: one gate in front of one pod rarely needs more.
pub const WORKERS_DEFAULT_MAX: usize = 4;
/// Configurations on their way to a worker: it takes each within one turn of its loop.
pub const WORKER_UPDATES: usize = 4;
/// Time for a worker to take a configuration; one that needs longer is stuck, and holds up nobody else's.
pub const WORKER_ANSWER: Duration = Duration::from_secs(5);
/// Connections the kernel holds for a worker until it accepts them.
pub const LISTEN_BACKLOG: i32 = 1024;
/// Pause after accept() failed for want of file descriptors or memory: retrying at once would only spin.
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
/// File descriptors kept for everything but connections: log, configuration, admin, workers.
pub const FILES_RESERVED: u64 = 128;
/// Connections to the status port at once: kubelet, Prometheus, the operator and a person.
pub const ADMIN_CONNECTIONS: usize = 32;

/// Connections to the admin socket at once: a person, a hook and a script. Apart from those of the status port, so that
/// neither can keep the other's out.
pub const ADMIN_SOCKET_CONNECTIONS: usize = 8;
/// Identities in one answer of the admin socket; who wants more asks for the next page.
pub const ADMIN_IDENTITIES: usize = 1000;
/// Routes that are named with an endpoint; of the others their number is told.
pub const ADMIN_ROUTES: usize = 8;
/// Bytes of an answer that a command reads: a configuration as large as one may be.
pub const ADMIN_ANSWER_BYTES: usize = 64 << 20;

/// A connection to the status port or the admin socket, reading and idling included: a few that nobody reads from must not keep probes out.
pub const ADMIN_TIMEOUT: Duration = Duration::from_secs(sidecar_decide::probe::TIMEOUT_SECONDS);
/// Probes under way at once: half of the status port's connections stay for the gate's own.
pub const PROBES_AT_ONCE: usize = 16;

/// Series of metrics about rules, listeners and backends: those of a thousand rules with some reasons each. A page of them
/// is a megabyte, made in some milliseconds; what is new beyond it is counted under `other`.
pub const METRIC_SERIES: usize = 10_000;
/// How often open connections are counted to see whether a burst of them is over.
pub const TRIM_CHECK: Duration = Duration::from_secs(1);
/// How many must have closed for their memory to be worth giving back: some 40 KiB each, below what a quiet gate has.
pub const TRIM_CONNECTIONS: usize = 64;
/// The least time between two times that memory is given back, which takes some 40 ms for each 100 MiB.
pub const TRIM_PAUSE: Duration = Duration::from_secs(10);

/// From accept to a finished handshake; a phone on a bad network needs some seconds, an attacker gets no more.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a worker judges its open connections at a stretch after trust has changed; requests wait that long at most.
pub const REVIEW_SLICE: Duration = Duration::from_micros(500);
/// Over how long connections are spread that move to a new certificate of the gate: all at once they would be a burst of
/// handshakes. Half the old certificate's time where that is less.
pub const MOVE_WINDOW: Duration = Duration::from_secs(300);
/// Time for connections that are cut at the end to write their rows.
pub const CUT_TIMEOUT: Duration = Duration::from_millis(100);
/// How often the wall clock is looked at while certificates of open connections are waited for: it may be set.
pub const CLOCK_CHECK: Duration = Duration::from_secs(10);

/// How long a session can be resumed after its certificate was shown. A client that renews its certificate is known by
/// the new one after that at the latest; one that polls every few minutes still saves most handshakes.
pub const TICKET_LIFETIME: Duration = Duration::from_secs(3600);
/// Bytes of a session ticket. Most of it is the client's chain; one with a longer chain is verified in full each time.
pub const TICKET_BYTES: usize = 16 << 10;

/// Handshakes of a worker under way at once, from the client's first byte on; the others wait their turn. Some 25 KiB each,
/// and at a round trip of 200 ms still more than a processor can do in that time.
pub const HANDSHAKES_PER_WORKER: usize = 512;

/// How long one waits for its turn: half of a handshake's time, so that what is left is worth having.
pub const HANDSHAKE_TURN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client is listened to that sends nothing more, after the gate is done with its request or its connection.
pub const LINGER_STALL_TIMEOUT: Duration = Duration::from_secs(1);
/// How long it is listened to while it goes on sending: a client at 1 Mbit/s sends what [`LINGER_BYTES`] allows in that.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes it may send in that time: what is on its way in a connection's buffers.
pub const LINGER_BYTES: usize = 1 << 20;
/// Verified chains that a worker knows for a listener, about 2 KiB each: the clients that one gate has at a time.
pub const KNOWN_CHAINS: usize = 512;
/// Handshake configurations a worker keeps for the next handshakes on a listener, about 1 KiB each.
pub const HANDSHAKE_SLOTS: usize = 64;

/// Requests whose response's head has not come, unless the configuration says how many: Envoy's default. An application
/// that owes so many answers has stopped giving them, or needs to be told apart from one that has by whoever knows it.
pub const PENDING_REQUESTS_DEFAULT_MAX: u32 = 1024;
/// Bytes of a request's head, as other servers have it by default.
pub const REQUEST_HEAD_BYTES: usize = 64 << 10;
/// Bytes that an HTTP/1.1 connection holds of what the other side has yet to take, in each direction: one reading of a
/// head as large as one may be. hyper's own bound is 408 KiB, of which a slow receiver has both ends' in the gate.
pub const HTTP1_BUFFER_BYTES: usize = 64 << 10;
/// From the end of one request (or the handshake) to the end of the next one's head. Hyper has one timer for both.
pub const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for the first request of a connection that was accepted just before its listener closed.
pub const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);
/// How long the first bytes of a request's body may take where its rule depends on them, as long as a handshake may.
pub const MESSAGE_WAIT: Duration = Duration::from_secs(10);
/// Pieces of it that are looked at, each of which is kept until the request is decided.
pub const MESSAGE_PIECES: usize = 128;
/// Bytes read from an upstream at once for a connection that is passed on as it is: one TLS record (RFC 8446 §5.1). One
/// buffer a worker.
pub const RELAY_BUFFER_BYTES: usize = 16 << 10;
/// Pieces passed on in one direction before the other direction and other connections have their turn.
pub const RELAY_ROUNDS: usize = 16;
/// How long a connection that is passed on may be quiet: databases and message brokers keep theirs for long, and TCP's
/// keep-alive finds those whose client has vanished. Envoy has the same hour.
pub const RELAY_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// The same once the upstream has ended and the client was told so: it has nothing to wait for any more.
pub const RELAY_ENDING_TIMEOUT: Duration = Duration::from_secs(60);

/// How often it is looked whether the client of a tunnel on HTTP/2 is still there, once it has ended its own direction.
pub const STREAM_CHECK: Duration = Duration::from_secs(1);

/// Streams open at once on one HTTP/2 connection (RFC 9113 §6.5.2 recommends no fewer than 100).
pub const STREAMS_PER_CONNECTION: u32 = 128;

/// From a request's last byte to its response's head.
pub const RESPONSE_HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How often one request goes to the same endpoint again because a connection takes no more requests: those that many
/// share may end one after the other.
pub const REFUSALS: u32 = 8;
/// Requests at once on one HTTP/2 connection to an upstream, where that takes as many: as from clients, so that what one
/// brings fits into one.
pub const UPSTREAM_STREAMS: u32 = 128;
/// Bytes of a response that an upstream may send ahead of its client on one HTTP/2 stream: 64 MB/s at a round trip of a
/// millisecond. All streams of a connection together may hold 8 MiB, which only clients that do not read bring about.
pub const UPSTREAM_STREAM_WINDOW: u32 = 64 << 10;
/// Bytes of a request's body that are taken from the client and not yet sent on an HTTP/2 stream.
pub const UPSTREAM_SEND_BUFFER: usize = 64 << 10;
/// Bytes of a request's body that are kept on HTTP/2 until there is a response, so that a request that the upstream has
/// not begun can be sent again: nearly every gRPC call. Larger ones are not.
pub const REPLAY_BYTES: usize = 16 << 10;
/// TLS sessions that are kept for one way of speaking to a backend: each is used once, and a server gives out two or so
/// with every handshake.
pub const UPSTREAM_SESSIONS: usize = 8;
/// Endpoints tried for one request while none of its bytes were sent.
pub const ATTEMPTS: usize = 3;
/// How often idle upstream connections are looked at, at most; each look goes through all of them.
pub const IDLE_SWEEP_MIN: Duration = Duration::from_millis(10);
/// Health checks under way at once: each is a connection of those that are reserved.
pub const HEALTH_CHECKS_AT_ONCE: usize = 16;
/// Bytes of a page that are read to its end after its status has said that all is well.
pub const HEALTH_BODY_BYTES: usize = 64 << 10;
/// Shortest time that an answer of a DNS server counts, also one that says 0: each change is a generation.
pub const DNS_TTL_MIN: Duration = Duration::from_secs(1);
/// Longest time that it does: whoever wrote a day into a record still moves his application within minutes.
pub const DNS_TTL_MAX: Duration = Duration::from_secs(300);
/// Longest time that "there is none" counts: somebody waits for it to be otherwise.
pub const DNS_NEGATIVE_TTL_MAX: Duration = Duration::from_secs(30);
/// How long a name's addresses are used that no server confirms, because none answers. The least that RFC 8767 suggests.
pub const DNS_STALE_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long after a failed lookup the next is made.
pub const DNS_RETRY: Duration = Duration::from_secs(5);
/// How long what `/etc/hosts` says counts.
pub const DNS_HOSTS_TTL: Duration = Duration::from_secs(5);
/// How long a configuration waits for the first addresses of new names. A revocation in it waits as long.
pub const DNS_FIRST_WAIT: Duration = Duration::from_millis(500);
/// How long a change of addresses rests: names change together, and each change is a generation.
pub const DNS_REST: Duration = Duration::from_millis(100);
/// The least time between two generations for names alone: a server that answers otherwise each time costs one a second.
pub const DNS_PAUSE: Duration = Duration::from_secs(1);
/// Lookups under way at once.
pub const DNS_LOOKUPS_AT_ONCE: usize = 8;
/// Addresses of one family of a name, the lowest: each is an endpoint.
pub const DNS_ADDRESSES: usize = 256;
/// Size of `/etc/hosts` and `/etc/resolv.conf`: above it they are not read.
pub const DNS_SYSTEM_FILE_BYTES: u64 = 1 << 20;
/// Time for a connection whose response has ended to take the next request. A turn of the worker is enough, but an
/// upstream that has answered and never takes the rest of what it was sent stays as it is for ever.
pub const UPSTREAM_READY_TIME: Duration = Duration::from_millis(100);
/// Time for an HTTP/2 connection that nobody wants any more to say so to its upstream: a millisecond, but for one that
/// does not read. It counts in no bound meanwhile.
pub const UPSTREAM_LEAVE_TIME: Duration = Duration::from_secs(1);
/// Requests of one worker that a connection goes to directly while those of other workers wait for the same upstream.
pub const HANDOVERS: u8 = 8;

/// Time to send rows to Postgres at the end, where draining and writing them took all there was.
pub const SHIP_STOP_MIN: Duration = Duration::from_millis(500);

/// Time for the last rows to be written at the end.
pub const LOG_STOP_TIMEOUT: Duration = Duration::from_secs(4);

/// How often it is looked at most whether the application can be reached around the gate, where nothing has changed. It is
/// asked for by whoever asks for the status.
pub const EXPOSURE_LOOK_EVERY: Duration = Duration::from_secs(30);
/// What is read at most to find out who listens, of each family: some ten thousand sockets.
pub const EXPOSURE_BYTES: usize = 1 << 20;
