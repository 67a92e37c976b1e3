//! Every bound that is not a setting, with its reason.

use std::time::Duration;

/// How long a change waits for what belongs to it: `kubectl apply` of a folder sends its objects one by one.
pub const GATHER: Duration = Duration::from_millis(30);

/// How long statuses wait that only count sidecars: a rollout changes the count of every client with every pod.
pub const CALM: Duration = Duration::from_secs(3);
/// So much longer for each client, of whom each status is a write: never more than some seventy a second.
pub const CALM_EACH: Duration = Duration::from_millis(15);

/// Time between two writes of one workload's policy, identities and endpoints: a sidecar makes a generation of each.
pub const BETWEEN_WRITES: Duration = Duration::from_secs(1);

/// First wait after a turn that failed, and the longest.
pub const BACK_OFF_FIRST: Duration = Duration::from_millis(500);
/// A minute: an API server that is back is used soon, and one that is not is left in peace.
pub const BACK_OFF_LONGEST: Duration = Duration::from_secs(60);

/// Longest wait before a watch is begun again. The usual half a minute would let a change wait as long when the API server
/// is back; some ten watches that ask every few seconds are no load to it.
pub const WATCH_AGAIN_LONGEST: Duration = Duration::from_secs(5);

/// Turns under way at once. They wait for the API server and for sidecars, not for a processor.
pub const TURNS: usize = 16;
/// Further turns for what is urgent: all others may be waiting for sidecars that do not answer.
pub const URGENT_TURNS: usize = 4;
/// Further turns for clients: workloads go before them, and may be many.
pub const CLIENT_TURNS: usize = 4;

/// Requests to the API server under way at once, watches aside: each takes a connection, which stays for a minute and a
/// half with 33 KB of buffers. A namespace whose trust changes has hundreds of pods to touch, and all namespaces do at once.
pub const REQUESTS: usize = 32;
/// Of these one turn's that touches many pods, so that what is urgent waits for few of them.
pub const TOUCHES: usize = 16;

/// Sidecars asked at once, of all workloads.
pub const ASKS: usize = 64;
/// How long a sidecar may take to answer, connection included. It is near, and answers from memory.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest `/status` that is read: a workload has some hundred routes of some hundred bytes.
pub const STATUS_BYTES: usize = 1 << 20;
/// How soon a sidecar is asked again that has not loaded what was written; twice as late each time, up to the longest.
pub const ASK_AGAIN_FIRST: Duration = Duration::from_millis(100);
/// Longest wait before asking again somebody who lags behind.
pub const ASK_AGAIN_LONGEST: Duration = Duration::from_secs(5);
/// How often sidecars are asked that have loaded everything: they may lose it by a restart that nobody is told of.
pub const ASK_SETTLED: Duration = Duration::from_secs(30);
/// How long a sidecar may be silent before it counts as unreachable: longer than a restart, or a busy moment.
pub const UNREACHABLE_AFTER: Duration = Duration::from_secs(30);

/// Workloads in a route's status; beyond it there are totals. An object has to stay small.
pub const STATUS_WORKLOADS: usize = 16;
/// Longest message of a workload in a status: what its definition takes.
pub const WORKLOAD_MESSAGE_BYTES: usize = 256;

/// Largest identities document of one ConfigMap, compressed. An object of the API server is at most 1 MiB as etcd takes
/// it, of which keys, labels and base64 need some.
pub const CHUNK_BYTES: usize = 700 << 10;
/// ConfigMaps of identities that a workload may have: the projected volume names them beforehand.
pub const CHUNKS: usize = 4;
/// Most bytes that are written of where bundles are: all annotations of an object take 256 KiB.
pub const BUNDLES_BYTES: usize = 128 << 10;
/// How long what was written for a workload stays when its last pod is gone: a workload that is scaled to nothing over
/// the weekend starts with it, though the operator may be down.
pub const UNUSED_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Certificates of users that the listeners of a workload show: what a sidecar takes.
pub const CERTIFICATES: usize = 64;
/// Largest certificate of a user with its key: ten in a chain, of the largest keys.
pub const CERTIFICATE_BYTES: usize = 64 << 10;
/// Most bytes of all of a workload's: a Secret takes 1 MiB, as base64 in a request of 1.5 MiB.
pub const CERTIFICATES_BYTES: usize = 768 << 10;
/// Largest document that a ConfigMap takes as text.
pub const DOCUMENT_BYTES: usize = 1000 << 10;

/// Longest message of why a route is refused where more is to be said: a condition takes 1024.
pub const REFUSED_MESSAGE_BYTES: usize = 900;

/// How often memory is given back: a look at the heap takes some milliseconds.
pub const HEAP_TRIM: Duration = Duration::from_secs(10);
/// Heaps of the process. Its two threads seldom meet there, and what one has freed the other can use.
pub const HEAP_ARENAS: i32 = 1;
/// Blocks of so many bytes are mappings of their own, which go back when they are freed, and leave no hole in which
/// something small would hold them up. glibc would raise this with each that is freed.
pub const HEAP_BLOCK_BYTES: i32 = 64 << 10;

/// Objects that a list asks for at once: of Secrets they are some megabytes, as bytes and as objects, which the heap keeps
/// for long after a start.
pub const LISTED_AT_ONCE: u32 = 100;

/// How often it is asked whether a kind is served by now that was not: whoever installs Gateway API waits that long.
pub const OPTIONAL_AGAIN: Duration = Duration::from_secs(10);

/// Time for turns under way to end after SIGTERM.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Objects of which it is remembered in which version they went, until all of that is forgotten.
pub const GONE_KNOWN: usize = 4096;

/// Trust documents of a namespace that are remembered: a sidecar that is a few behind may know what it has to of a client.
pub const TRUSTS_KNOWN: usize = 16;

/// How long a turn may take. A request that is never answered would else hold its key for as long as a watch may last.
pub const TURN_TIMEOUT: Duration = Duration::from_secs(30);

/// When certificates of others are read again that could not be: the last ones stay meanwhile.
pub const AUTHORITIES_AGAIN: Duration = Duration::from_secs(5);

/// How long after the start clients wait for the first word of all sidecars, so that a restart tells nobody less than
/// before.
pub const FIRST_WORD: Duration = Duration::from_secs(10);
/// How often they look whether it has come.
pub const FIRST_WORD_AGAIN: Duration = Duration::from_millis(100);

/// How often it is looked who signs, beside the changes of Secrets of ours: authorities that were brought are not watched.
pub const AUTHORITY_AGAIN: Duration = Duration::from_secs(3600);

/// Connections to `/livez`, `/readyz` and `/metrics` at once: the kubelet and some Prometheus have one each for a moment.
pub const MONITOR_CONNECTIONS: usize = 32;
/// How long a request's head may take there. The kubelet and Prometheus send it at once.
pub const MONITOR_HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long such a connection may take in all; Prometheus gives up after 10 s.
pub const MONITOR_TIMEOUT: Duration = Duration::from_secs(10);
/// Wait after a connection could not be accepted.
pub const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// How often it is noted that tasks run.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long none may run before the process counts as stuck: longer than a machine that is busy makes it wait.
pub const HEARTBEAT_LATE: Duration = Duration::from_secs(30);
/// How long a turn may be under way before the process counts as stuck. Its own timeout ends it long before, unless it
/// gives nobody else a chance to run.
pub const TURN_STUCK: Duration = Duration::from_secs(90);

/// Routes whose changes are timed on their way to all sidecars; of more there is no time.
pub const CHANGES_KNOWN: usize = 4096;
/// Largest review of the webhook: the API server takes requests of 3 MiB, and a review says a little more.
pub const REVIEW_BYTES: usize = 4 << 20;
/// Reviews at once; others wait. What they hold is bounded by this and by their size.
pub const REVIEWS: usize = 16;
/// How long a review may take to come: as long as the API server waits for the answer.
pub const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections to the webhook at once, and as many to its probes. API servers keep some.
pub const SERVED_CONNECTIONS: usize = 256;
/// How long a handshake with the webhook may take.
pub const SERVED_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection to it may be idle: API servers end theirs after 90 s, and a request must not meet a close.
pub const SERVED_IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Largest file of the webhook's certificate.
pub const SERVING_FILE_BYTES: u64 = 1 << 20;
/// How often the webhook looks for another certificate: a change is there long before the old one ends.
pub const CERTIFICATE_LOOK: Duration = Duration::from_secs(2);

/// How often it is looked whether the webhook's certificate, and who API servers trust in it, are as they should be:
/// neither is watched, and while they are not, no pod is made.
pub const WEBHOOK_AGAIN: Duration = Duration::from_secs(30);
/// How soon the webhook's certificate is made after API servers were told of a new authority: they hear of it within a
/// second, and who does not trust the webhook makes no pod.
pub const WEBHOOK_SOON: Duration = Duration::from_secs(5);
/// How long API servers go on trusting the authority of before: the kubelets bring a new certificate to the webhook within
/// some minutes, and a webhook that has not got it yet shows the old one.
pub const WEBHOOK_OVERLAP: Duration = Duration::from_secs(3600);
/// Authorities of before that they are told of at most.
pub const WEBHOOK_AUTHORITIES: usize = 4;

/// Events that wait to be written; what is more is lost, and counted. A start with 2,000 clients has as many.
pub const EVENTS_WAITING: usize = 2048;
/// Time between two events: they are the first thing that an API server can do without, and the recorder remembers all of
/// the last six minutes.
pub const EVENT_EVERY: Duration = Duration::from_millis(50);
/// How long events may take to be written at the end.
pub const EVENTS_STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// How often it is looked for pods without the sidecar that they should have: one request for each namespace that asks,
/// and one for each that is served.
pub const AUDIT_AGAIN: Duration = Duration::from_secs(60);
/// Pods of one namespace that are told of; whoever has more has one cause for all.
pub const AUDITED_PODS: usize = 100;
/// Pods that are listed at once for that: a page is some hundred kilobytes.
pub const AUDITED_PAGE: u32 = 50;
/// Namespaces that are listed at once.
pub const AUDITED_NAMESPACES: u32 = 500;

/// How long `check` waits for one answer, and between two tries.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(10);
/// The other.
pub const CHECK_PAUSE: Duration = Duration::from_secs(1);
