-- Refusals of clients that nothing vouches for. Tables of their own, so that they are pruned by themselves and never
-- displace what known clients did. What such a client shows is in the row and goes with it: a stranger can have a new
-- certificate each time. Otherwise as `decision`.

CREATE TABLE refusal_scope (
  id INTEGER PRIMARY KEY, hash INTEGER NOT NULL, last INTEGER NOT NULL,
  pod TEXT, pod_uid TEXT, namespace TEXT, workload TEXT,
  listener TEXT, route TEXT, rule TEXT, mode TEXT, policy_revision TEXT
);
CREATE INDEX refusal_scope_hash ON refusal_scope (hash);
CREATE INDEX refusal_scope_last ON refusal_scope (last);

-- `seq` counts on with that of `decision`.
CREATE TABLE refusal (
  seq INTEGER PRIMARY KEY, time INTEGER NOT NULL, kind INTEGER NOT NULL, repeat INTEGER, verdict INTEGER, reason INTEGER,
  scope INTEGER, sni, resumed INTEGER, protocol INTEGER, method, host, path TEXT, status INTEGER,
  request_bytes INTEGER, response_bytes INTEGER, duration_us INTEGER, connect_us INTEGER, upstream_us INTEGER,
  upstream, attempts INTEGER, client,
  identity TEXT, bundle TEXT, subject TEXT, san TEXT, issuer TEXT, serial TEXT, fingerprint TEXT, spki TEXT, lfdi TEXT,
  sfdi TEXT, tls_version TEXT, cipher TEXT, request_id, trace_id BLOB, queue_us INTEGER, grpc_status INTEGER,
  limiter INTEGER, message_type, chain BLOB, captured TEXT, bodies BLOB
);

-- Pages that `refusal` takes: SQLite can tell it for the whole file only.
INSERT INTO meta VALUES ('refusal_pages', 0);
