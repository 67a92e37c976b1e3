//! The columns of the request log, in one place: what the view in each pod, the table in PostgreSQL and the reference in the
//! documents have comes of it, or a test says where they differ.

/// What a column's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// A UUID; a text in SQLite.
    Uuid,
    /// A moment; a text of RFC 3339 in SQLite.
    Time,
    /// Text.
    Text,
    /// Bytes; in SQLite a text as PostgreSQL writes them, `\x` and hex digits.
    Bytes,
    /// Yes or no; 1 or 0 in SQLite.
    Flag,
    /// A number of 32 bits.
    Integer,
    /// A number of 64 bits.
    Large,
}

impl Values {
    /// The type's name in PostgreSQL.
    #[must_use]
    pub const fn postgres(self) -> &'static str {
        match self {
            Self::Uuid => "uuid",
            Self::Time => "timestamptz",
            Self::Text => "text",
            Self::Bytes => "bytea",
            Self::Flag => "boolean",
            Self::Integer => "integer",
            Self::Large => "bigint",
        }
    }

    /// Whether SQLite has numbers in it.
    #[must_use]
    pub const fn is_number(self) -> bool {
        matches!(self, Self::Flag | Self::Integer | Self::Large)
    }
}

/// One column, as the reference has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub values: Values,
    /// What it says, in Markdown.
    pub meaning: &'static str,
    /// When it is NULL, in Markdown.
    pub null: &'static str,
}

/// Makes the lists of one table. Programs link the one without meanings.
macro_rules! columns {
    ($first:ident: $first_values:ident, $first_meaning:literal, $first_null:literal;
        $($name:ident: $values:ident, $meaning:literal, $null:literal;)+) => {
        /// Their names, in the order of the view.
        pub const NAMES: &str = concat!(stringify!($first), $(", ", stringify!($name)),+);

        /// Their names and values.
        pub const COLUMNS: &[(&str, Values)] = &[
            (stringify!($first), Values::$first_values),
            $((stringify!($name), Values::$values),)+
        ];

        /// The reference.
        pub const REFERENCE: &[Column] = &[
            Column {
                name: stringify!($first), values: Values::$first_values, meaning: $first_meaning, null: $first_null,
            },
            $(Column { name: stringify!($name), values: Values::$values, meaning: $meaning, null: $null },)+
        ];
    };
}

columns! {
    id: Uuid,
        "identifier of the row, shaped as a UUIDv7: time, log, number. Stable, and ascending with the row's time",
        "never";
    time: Time,
        "RFC 3339 in UTC with microseconds: when the request's head had arrived, or when a refused connection was \
         accepted",
        "never";
    kind: Text, "see above", "never";
    repeat: Large,
        "decisions this row stands for: 1, 0 for a gap, and more where [refusals share a \
         row](#refusals-that-share-a-row). `sum(repeat)` counts decisions",
        "never";
    pod: Text, "setting `pod.name`", "where it is empty";
    pod_uid: Text, "setting `pod.uid`", "where it is empty";
    namespace: Text, "setting `pod.namespace`", "where it is empty";
    workload: Text, "setting `pod.workload`", "where it is empty";
    listener: Text, "name of the listener", "gap; a listener that is no longer configured";
    sni: Text, "server name the client asked for", "where it asked for none, or the handshake did not come that far";
    route: Text, "name of the route", "unless a rule matched";
    rule: Text, "name of the rule", "unless a rule matched";
    mode: Text, "`Enforce` or `Audit`", "unless a rule matched";
    verdict: Text, "see above", "gap";
    reason: Text, "[reason code](#reason-codes)", "where there is nothing to say";
    limiter: Text,
        "the [limit](#limiters) that refused it, by its name in the configuration",
        "unless the reason is a limit";
    identity: Text,
        "the known identity, revoked ones included",
        "where the certificate is nobody's or two identities', or there is none";
    bundle: Text,
        "bundle that the certificate's chain ends in; the first in the listener's order, where it ends in several",
        "unless the chain was verified";
    subject: Text,
        "the certificate's subject, such as `CN=billing, O=Example`",
        "without a certificate, or where it is empty";
    san: Text, "its subject alternative names: `URI:…, DNS:…, IP:…`", "as `subject`";
    issuer: Text, "its issuer", "as `subject`";
    serial: Text, "its serial number: lower-case hex bytes with colons, `5a:01`", "as `subject`";
    fingerprint: Text,
        "`sha256:` and 64 hex digits over the certificate; as recognisers write it",
        "without a certificate";
    spki: Text,
        "the same over its public key, which stays when a certificate is renewed with the same key",
        "without a certificate";
    lfdi: Text, "40 hex digits, the first 20 bytes of the fingerprint (IEEE 2030.5)", "without a certificate";
    sfdi: Text,
        "12 digits, the first 36 bits of the fingerprint and a check digit (IEEE 2030.5). 36 bits are few: two \
         certificates may share one",
        "as `lfdi`";
    tls_version: Text, "`TLSv1.3` or `TLSv1.2`", "unless the handshake succeeded";
    cipher: Text, "cipher suite by its IANA name, such as `TLS_AES_256_GCM_SHA384`", "unless the handshake succeeded";
    resumed: Flag,
        "1 where the TLS session was resumed: the certificate's columns are those of the certificate that was shown \
         when it began",
        "never";
    protocol: Text, "`HTTP/1.1` (1.0 too) or `HTTP/2`", "not a request";
    method: Text, "the request's method", "not a request, or none could be read";
    host: Text,
        "the host it is for, as the client wrote it, port included",
        "as `method`; without exactly one valid host";
    path: Text,
        "its path, normalised where that was possible, as the client asked and not as a filter rewrites it; never \
         its query",
        "as `method`";
    status: Integer,
        "HTTP status of the answer. 499 where the client left before there was one; 408 where it sent no request and \
         got no answer",
        "not a request";
    grpc_status: Integer,
        "how a gRPC request ended: what the upstream's trailers say, or the gate's own answer (the `status` is 200 \
         then)",
        "for other requests, and where the response had no such trailers";
    request_bytes: Large,
        "bytes of the request's body that were passed on; of a connection, all that the client sent inside TLS; of a \
         tunnel, all that came after its request",
        "never";
    response_bytes: Large,
        "bytes of the response's body; of a connection, all that the application sent; of a tunnel, all that came \
         after its answer",
        "never";
    duration_us: Large,
        "request: from its head to the end of its response, or of its tunnel. Handshake: from accept to refusal. \
         Connection: from accept to its end or refusal. Gap: since the row before it",
        "never";
    queue_us: Large,
        "of a request: how long it waited for its turn, for a place among those without a response's head \
         (`maxPendingRequests`) and for a connection to the upstream (`backendPolicy.pool`)",
        "where it did not have to wait";
    connect_us: Large,
        "time to connect to the upstream, without the wait before it",
        "where a pooled connection was used, or none";
    upstream_us: Large, "from sending to the upstream until its response's head", "where there was no response";
    upstream: Text, "address that was tried last", "where none was tried";
    attempts: Integer, "how often a connection to an upstream was tried for this request", "never";
    request_id: Text,
        "the request's id, as the application got it in `x-request-id` and the client in a refusal; [how it comes \
         about](configuration.md#how-the-request-came). The gate's own begins like `id`, with the request's time",
        "not a request, or none could be read; rows from before this column";
    trace_id: Text, "32 hex digits: the trace that a valid `traceparent` names (W3C Trace Context)", "without one";
    message_type: Text,
        "what the request is about: [the type of its message](#types-of-messages)",
        "not a request; a request without a message in a known language; refused before its body came; rows from \
         before this column";
    client_addr: Text,
        "the client's address and port; the network where refusals share a row, such as `192.0.2.0/24`, and everywhere \
         with `log.clientAddress` `Network`",
        "gap; refusals of several networks in one row; `log.clientAddress` is `None`";
    policy_revision: Text,
        "revision of part `policy` that decided; `/status` has the current one",
        "gap; as `listener`";
    chain: Text,
        "the hash of the row and the one before, 32 hex digits: [the chain](#the-chain)",
        "without `log.chain`; rows from before it";
    captured: Text,
        "JSON, as its route asks for it: [what is captured](#what-is-captured) of header fields, query and cookies",
        "where its route asks for nothing, or nothing of it came; no route; rows from before this column";
    bodies: Bytes,
        "what its route asks to be kept of [bodies](#bodies), encrypted",
        "where its route asks for none, or none came; where it could not be kept; rows from before this column";
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::Path;
    use std::{env, fs};

    use super::*;

    #[test]
    fn the_reference_in_the_documents_is_generated() {
        let mut table = "| column | type | meaning | NULL |\n|---|---|---|---|\n".to_owned();
        for Column { name, values, meaning, null } in REFERENCE {
            writeln!(table, "| `{name}` | {} | {meaning} | {null} |", values.postgres()).expect("a string");
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/request-log.md");
        let page = fs::read_to_string(&path).expect("the page");
        let start = page.find("| column | ").expect("a table of columns");
        let end = start + page[start..].find("\n\n").expect("something after the table") + 1;
        if env::var_os("UPDATE").is_some() {
            fs::write(&path, [&page[..start], &table, &page[end..]].concat()).expect("the page is written");
        } else {
            assert_eq!(page[start..end], table, "generated anew by `make generate`");
        }
    }
}
