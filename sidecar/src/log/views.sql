-- What users and the `log` command query. Made anew whenever the version changes.

-- `requests` with the two columns that order it without computing ids.
CREATE VIEW entry AS SELECT
  d.seq AS seq,
  d.time AS at,
  -- UUIDv7 (RFC 9562 section 5.7): milliseconds, their fraction in 12 bits, then store and seq in place of chance.
  printf('%08x-%04x-7%03x-%04x-%04x%08x',
    (d.time / 1000) >> 16, (d.time / 1000) & 0xffff, d.time % 1000 * 4096 / 1000,
    0x8000 | ((SELECT value FROM meta WHERE key = 'store') >> 16), (SELECT value FROM meta WHERE key = 'store') & 0xffff,
    d.seq & 0xffffffff) AS id,
  strftime('%Y-%m-%dT%H:%M:%S', d.time / 1000000, 'unixepoch') || printf('.%06dZ', d.time % 1000000) AS time,
  CASE d.kind WHEN 0 THEN 'request' WHEN 1 THEN 'handshake' WHEN 2 THEN 'connection' WHEN 3 THEN 'gap' WHEN 4 THEN 'cut'
    WHEN 5 THEN 'tunnel' END AS kind,
  coalesce(d.repeat, 1) AS repeat,
  d.pod AS pod, d.pod_uid AS pod_uid, d.namespace AS namespace, d.workload AS workload, d.listener AS listener,
  CASE typeof(d.sni) WHEN 'integer' THEN (SELECT text FROM word WHERE id = d.sni) ELSE d.sni END AS sni,
  d.route AS route, d.rule AS rule, d.mode AS mode,
  CASE d.verdict WHEN 0 THEN 'allowed' WHEN 1 THEN 'refused' WHEN 2 THEN 'would_refuse' END AS verdict,
  (SELECT text FROM word WHERE id = d.reason) AS reason,
  (SELECT text FROM word WHERE id = d.limiter) AS limiter,
  d.identity AS identity, d.bundle AS bundle, d.subject AS subject, d.san AS san, d.issuer AS issuer,
  d.serial AS serial, d.fingerprint AS fingerprint, d.spki AS spki, d.lfdi AS lfdi, d.sfdi AS sfdi,
  d.tls_version AS tls_version, d.cipher AS cipher,
  d.resumed AS resumed,
  CASE d.protocol WHEN 0 THEN 'HTTP/1.1' WHEN 1 THEN 'HTTP/2' END AS protocol,
  CASE typeof(d.method) WHEN 'integer' THEN (SELECT text FROM word WHERE id = d.method) ELSE d.method END AS method,
  CASE typeof(d.host) WHEN 'integer' THEN (SELECT text FROM word WHERE id = d.host) ELSE d.host END AS host,
  d.path AS path, d.status AS status, d.grpc_status AS grpc_status,
  d.request_bytes AS request_bytes, d.response_bytes AS response_bytes,
  d.duration_us AS duration_us, d.queue_us AS queue_us, d.connect_us AS connect_us, d.upstream_us AS upstream_us,
  CASE typeof(d.upstream) WHEN 'integer' THEN printf('%d.%d.%d.%d:%d', d.upstream >> 40, d.upstream >> 32 & 255,
    d.upstream >> 24 & 255, d.upstream >> 16 & 255, d.upstream & 65535) ELSE d.upstream END AS upstream,
  d.attempts AS attempts,
  CASE typeof(d.request_id)
    WHEN 'integer' THEN printf('%08x-%04x-7%03x-%04x-%012x', (d.time / 1000) >> 16, (d.time / 1000) & 0xffff,
      d.time % 1000 * 4096 / 1000, 0x8000 | (d.request_id >> 48), d.request_id & 0xffffffffffff)
    WHEN 'blob' THEN CASE length(d.request_id)
      WHEN 16 THEN lower(printf('%s-%s-%s-%s-%s', substr(hex(d.request_id), 1, 8), substr(hex(d.request_id), 9, 4),
        substr(hex(d.request_id), 13, 4), substr(hex(d.request_id), 17, 4), substr(hex(d.request_id), 21)))
      ELSE lower(substr(hex(d.request_id), 3)) END
    ELSE d.request_id END AS request_id,
  lower(nullif(hex(d.trace_id), '')) AS trace_id,
  CASE typeof(d.message_type) WHEN 'integer' THEN (SELECT text FROM word WHERE id = d.message_type)
    ELSE d.message_type END AS message_type,
  CASE typeof(d.client) WHEN 'integer' THEN printf('%d.%d.%d.%d:%d', d.client >> 40, d.client >> 32 & 255,
    d.client >> 24 & 255, d.client >> 16 & 255, d.client & 65535) ELSE d.client END AS client_addr,
  d.policy_revision AS policy_revision,
  lower(nullif(hex(d.chain), '')) AS chain,
  d.captured AS captured,
  -- Bytes as PostgreSQL writes them.
  '\x' || lower(nullif(hex(d.bodies), '')) AS bodies
FROM (
  SELECT d.seq, d.time, d.kind, d.repeat, d.verdict, d.reason, d.sni, d.resumed, d.protocol, d.method, d.host, d.path, d.status,
    d.request_bytes, d.response_bytes, d.duration_us, d.connect_us, d.upstream_us, d.upstream, d.attempts, d.client,
    d.request_id, d.trace_id, d.queue_us, d.grpc_status, d.limiter, d.message_type, d.chain, d.captured, d.bodies,
    s.pod, s.pod_uid, s.namespace, s.workload, s.listener, s.route, s.rule, s.mode, s.policy_revision,
    p.identity, p.bundle, p.subject, p.san, p.issuer, p.serial, p.fingerprint, p.spki, p.lfdi, p.sfdi, p.tls_version, p.cipher
  FROM decision d LEFT JOIN scope s ON s.id = d.scope LEFT JOIN peer p ON p.id = d.peer
  UNION ALL
  SELECT d.seq, d.time, d.kind, d.repeat, d.verdict, d.reason, d.sni, d.resumed, d.protocol, d.method, d.host, d.path, d.status,
    d.request_bytes, d.response_bytes, d.duration_us, d.connect_us, d.upstream_us, d.upstream, d.attempts, d.client,
    d.request_id, d.trace_id, d.queue_us, d.grpc_status, d.limiter, d.message_type, d.chain, d.captured, d.bodies,
    s.pod, s.pod_uid, s.namespace, s.workload, s.listener, s.route, s.rule, s.mode, s.policy_revision,
    d.identity, d.bundle, d.subject, d.san, d.issuer, d.serial, d.fingerprint, d.spki, d.lfdi, d.sfdi, d.tls_version, d.cipher
  FROM refusal d LEFT JOIN refusal_scope s ON s.id = d.scope
) d;

CREATE VIEW requests AS SELECT
  id, time, kind, repeat, pod, pod_uid, namespace, workload, listener, sni, route, rule, mode, verdict, reason, limiter,
  identity, bundle, subject, san, issuer, serial, fingerprint, spki, lfdi, sfdi, tls_version, cipher, resumed, protocol,
  method, host, path, status, grpc_status, request_bytes, response_bytes, duration_us, queue_us, connect_us, upstream_us, upstream,
  attempts, request_id, trace_id, message_type, client_addr, policy_revision, chain, captured, bodies
FROM entry;
