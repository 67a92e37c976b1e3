-- The tables of the request log (schema.rs says which version). Users query the view `requests`, see views.sql; these
-- may change with any version.

CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
-- `store`: 30 random bits that tell this store's ids from another's. `clean`: 1 while no process has it open.
INSERT INTO meta VALUES ('store', random() & 0x3fffffff), ('clean', 1);

-- Text that repeats: reasons, limiters, methods, types of messages, hosts of known routes. Bounded, so never cleaned.
CREATE TABLE word (id INTEGER PRIMARY KEY, text TEXT NOT NULL);

-- `last` is at least the last decision that refers to the row, less TOUCH_ROWS (ids.rs): pruning needs no scan.
CREATE TABLE scope (
  id INTEGER PRIMARY KEY, hash INTEGER NOT NULL, last INTEGER NOT NULL,
  pod TEXT, pod_uid TEXT, namespace TEXT, workload TEXT,
  listener TEXT, route TEXT, rule TEXT, mode TEXT, policy_revision TEXT
);
CREATE INDEX scope_hash ON scope (hash);
CREATE INDEX scope_last ON scope (last);

CREATE TABLE peer (
  id INTEGER PRIMARY KEY, hash INTEGER NOT NULL, last INTEGER NOT NULL,
  identity TEXT, bundle TEXT, subject TEXT, san TEXT, issuer TEXT, serial TEXT, fingerprint TEXT, spki TEXT, lfdi TEXT,
  tls_version TEXT, cipher TEXT, sfdi TEXT
);
CREATE INDEX peer_hash ON peer (hash);
CREATE INDEX peer_last ON peer (last);

-- Columns without a type keep integers and text apart: an integer in `sni`, `method`, `host` or `message_type` is a word's id; in
-- `upstream` and `client` it is an IPv4 address and port. `repeat` NULL is 1, the usual value at no cost.
-- What differs from row to row stands together: what repeats in between is longer then, and packs better. What most rows do
-- not have comes last, where it takes no byte (SQLITE_ENABLE_NULL_TRIM).
CREATE TABLE decision (
  seq INTEGER PRIMARY KEY, time INTEGER NOT NULL, scope INTEGER, path TEXT, response_bytes INTEGER, duration_us INTEGER,
  upstream_us INTEGER, peer INTEGER, client,
  -- An integer is the chance of a UUIDv7 that begins with `time`, 16 bytes a UUID, 17 bytes a mark and 32 hex digits.
  request_id,
  kind INTEGER NOT NULL, verdict INTEGER, sni, resumed INTEGER, protocol INTEGER, method, host, status INTEGER,
  request_bytes INTEGER, attempts INTEGER, upstream,
  trace_id BLOB, chain BLOB, connect_us INTEGER, message_type, grpc_status INTEGER, queue_us INTEGER, reason INTEGER,
  limiter INTEGER, repeat INTEGER, captured TEXT, bodies BLOB
);
