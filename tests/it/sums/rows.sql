-- Rows of every kind, made where they are kept: numbers `first` to `last`, each `step` before the one of the number below it.
-- The same number at the same `newest` and `step` is the same row.
CREATE FUNCTION public.make_rows(first bigint, last bigint, newest timestamptz, step interval) RETURNS void
LANGUAGE sql AS $$
INSERT INTO postern.requests (id, time, kind, repeat, pod, pod_uid, namespace, workload, listener, route, rule, mode, verdict, reason,
  identity, bundle, subject, san, issuer, serial, fingerprint, spki, tls_version, cipher, resumed, protocol, method, host, path, status,
  request_bytes, response_bytes, duration_us, upstream_us, upstream, attempts, request_id, client_addr, policy_revision)
SELECT
  (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(md5(n::text), 1, 19))::uuid, at, kind,
  CASE kind WHEN 'gap' THEN 0 WHEN 'handshake' THEN 5 ELSE 1 END,
  'shop-' || n % 200, 'uid-' || n % 200,
  CASE WHEN n % 20 < 19 THEN 'demo' END, 'shop-' || n % 20, 'gate',
  CASE WHEN is_known THEN 'demo/route-' || n % 40 END, CASE WHEN is_known THEN 'rule-' || n % 500 % 3 END, 'Enforce',
  verdict, CASE WHEN verdict <> 'allowed' THEN (ARRAY['policy_not_allowed', 'policy_identity_suspended', 'limit_pending'])[1 + n / 100 % 3] END,
  CASE WHEN is_known THEN 'demo/client-' || n % 500 END, 'clients', 'CN=client,O=Example', 'URI:spiffe://example/client-' || n % 500,
  'CN=Authority', '5a:01', 'sha256:' || md5((n % 500)::text) || md5((n % 500)::text), 'sha256:' || md5((n % 500)::text),
  'TLSv1.3', 'TLS_AES_256_GCM_SHA384', true, 'HTTP/1.1', 'GET', 'shop.example.com', '/orders/' || n,
  CASE WHEN kind = 'request' THEN CASE WHEN verdict = 'refused' THEN 403 WHEN n / 100 % 50 = 0 THEN 502 ELSE 200 END END,
  n % 70, n % 3000, exp(3 + (n * 7919 % 99991) / 9000.0)::bigint, 300, '10.0.0.7:8080', 1, md5(n::text), '10.1.2.3:4567', 'sha256:abcdef'
FROM (
  SELECT n, at, kind, kind IN ('request', 'tunnel', 'connection', 'cut') AS is_known,
    CASE WHEN kind = 'gap' THEN NULL WHEN kind IN ('handshake', 'cut') OR n / 100 % 37 = 0 THEN 'refused'
      WHEN n / 100 % 41 = 0 THEN 'would_refuse' ELSE 'allowed' END AS verdict
  FROM (
    SELECT n, newest - n * step AS at,
      coalesce((ARRAY['handshake', 'connection', 'tunnel', 'cut', 'gap'])[1 + n * 7919 % 1000], 'request') AS kind
    FROM generate_series(last, first, -1) n) numbered) of_kind
ON CONFLICT DO NOTHING
$$;
