-- The request log in Postgres, version 2: what was decided by the minute and by the hour, and views of it (docs/request-log.md).
--
-- Each batch of rows adds its sums to tables `…_new`, in the same transaction, whatever hour its rows are of: what comes late
-- is counted as what comes in time, a row that comes once more is not, and writers never wait for each other. `refresh`
-- moves them into the tables that stay. Views have both, and so are exact whenever it was called last.

-- Not of pods, hosts, paths or addresses: what a client can choose makes no sum of its own.
CREATE TABLE postern.per_minute (
  minute timestamptz NOT NULL,
  namespace text, workload text,
  requests bigint NOT NULL, refused bigint NOT NULL, would_refuse bigint NOT NULL, failed bigint NOT NULL,
  connections bigint NOT NULL, connections_refused bigint NOT NULL
);
CREATE TABLE postern.per_hour (
  hour timestamptz NOT NULL,
  namespace text, workload text,
  kind text NOT NULL,
  route text, rule text, identity text, verdict text, reason text,
  decisions bigint NOT NULL, request_bytes bigint NOT NULL, response_bytes bigint NOT NULL,
  first timestamptz NOT NULL, last timestamptz NOT NULL
);
-- Requests that were passed on, by how long they took: bucket n has those of more than b^(n-1) and at most b^n microseconds,
-- with b = 21/19: b^n * 0.95, which is told for all of them, is within 5 % of each. Buckets of several hours can be added up.
CREATE TABLE postern.latency_per_hour (
  hour timestamptz NOT NULL,
  namespace text, workload text, route text, rule text,
  bucket smallint NOT NULL,
  requests bigint NOT NULL, duration_us bigint NOT NULL
);
-- Who used what, as long as it is kept: of identities alone.
CREATE TABLE postern.uses (
  namespace text, workload text, route text, rule text,
  identity text NOT NULL,
  verdict text,
  decisions bigint NOT NULL,
  first timestamptz NOT NULL, last timestamptz NOT NULL
);
CREATE INDEX per_minute_minute ON postern.per_minute (minute);
CREATE INDEX per_hour_hour ON postern.per_hour (hour);
CREATE INDEX latency_per_hour_hour ON postern.latency_per_hour (hour);
CREATE INDEX uses_identity ON postern.uses (identity);

-- All of their rows are read and deleted at once, which no index helps; and they are to be vacuumed by that and not by size.
CREATE TABLE postern.per_minute_new (LIKE postern.per_minute)
  WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
CREATE TABLE postern.per_hour_new (LIKE postern.per_hour)
  WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
CREATE TABLE postern.latency_per_hour_new (LIKE postern.latency_per_hour)
  WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);

CREATE FUNCTION postern.latency_bucket(duration_us bigint) RETURNS smallint
LANGUAGE sql IMMUTABLE AS $$ SELECT ceil(ln(greatest(duration_us, 1)::float8) / ln(21.0::float8 / 19))::smallint $$;
CREATE FUNCTION postern.latency_of(bucket smallint) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$ SELECT round(power(21.0::float8 / 19, bucket) * 0.95)::bigint $$;

-- Adds up the rows that one statement inserted. Whoever inserts needs no right to what it writes.
CREATE FUNCTION postern.add_up() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO postern.per_minute_new
    SELECT date_trunc('minute', time, 'UTC') AS minute, namespace, workload,
      coalesce(sum(repeat) FILTER (WHERE kind IN ('request', 'tunnel')), 0),
      coalesce(sum(repeat) FILTER (WHERE kind IN ('request', 'tunnel') AND verdict = 'refused'), 0),
      coalesce(sum(repeat) FILTER (WHERE kind IN ('request', 'tunnel') AND verdict = 'would_refuse'), 0),
      coalesce(sum(repeat) FILTER (WHERE kind IN ('request', 'tunnel') AND verdict <> 'refused' AND status >= 500), 0),
      coalesce(sum(repeat) FILTER (WHERE kind = 'connection' AND verdict <> 'refused'), 0),
      coalesce(sum(repeat) FILTER (WHERE kind IN ('handshake', 'connection') AND verdict = 'refused'), 0)
    FROM arrived WHERE kind IN ('request', 'tunnel', 'connection', 'handshake')
    GROUP BY minute, namespace, workload;
  INSERT INTO postern.per_hour_new
    SELECT date_trunc('hour', time, 'UTC') AS hour, namespace, workload, kind, route, rule, identity, verdict, reason,
      sum(repeat), coalesce(sum(request_bytes), 0), coalesce(sum(response_bytes), 0), min(time), max(time)
    FROM arrived WHERE kind <> 'gap'
    GROUP BY hour, namespace, workload, kind, route, rule, identity, verdict, reason;
  INSERT INTO postern.latency_per_hour_new
    SELECT date_trunc('hour', time, 'UTC') AS hour, namespace, workload, route, rule,
      postern.latency_bucket(arrived.duration_us) AS bucket, count(*), sum(arrived.duration_us)
    FROM arrived WHERE kind = 'request' AND verdict <> 'refused' AND arrived.duration_us IS NOT NULL
    GROUP BY hour, namespace, workload, route, rule, bucket;
  RETURN NULL;
END $$;
CREATE TRIGGER add_up AFTER INSERT ON postern.requests REFERENCING NEW TABLE AS arrived
  FOR EACH STATEMENT EXECUTE FUNCTION postern.add_up();

-- Rows that are there already, by the same function, a day at a time. Nobody inserts meanwhile, who would wait for the trigger.
DO $$ DECLARE
  day regclass;
BEGIN
  CREATE TEMPORARY TABLE earlier (LIKE postern.requests) ON COMMIT DROP;
  CREATE TRIGGER add_up AFTER INSERT ON earlier REFERENCING NEW TABLE AS arrived
    FOR EACH STATEMENT EXECUTE FUNCTION postern.add_up();
  FOR day IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'postern.requests'::regclass LOOP
    EXECUTE format('INSERT INTO earlier SELECT * FROM %s', day);
    TRUNCATE earlier;
  END LOOP;
END $$;

-- Moves what came since it was called last; how many sums that were. Beside another call it does nothing.
CREATE FUNCTION postern.refresh() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  moved bigint := 0;
  more bigint;
BEGIN
  IF NOT pg_try_advisory_xact_lock(7095770202) THEN
    RETURN 0;
  END IF;
  -- Each is one statement, and so of one moment: what comes meanwhile is the next call's.
  WITH gone AS (DELETE FROM postern.per_minute_new RETURNING *),
    before AS (DELETE FROM postern.per_minute WHERE minute = ANY (ARRAY(SELECT DISTINCT minute FROM gone)) RETURNING *),
    merged AS (INSERT INTO postern.per_minute
      SELECT minute, namespace, workload, sum(requests), sum(refused), sum(would_refuse), sum(failed), sum(connections),
        sum(connections_refused)
      FROM (TABLE gone UNION ALL TABLE before) a GROUP BY minute, namespace, workload)
    SELECT count(*) INTO more FROM gone;
  moved := moved + more;
  WITH gone AS (DELETE FROM postern.per_hour_new RETURNING *),
    before AS (DELETE FROM postern.per_hour WHERE hour = ANY (ARRAY(SELECT DISTINCT hour FROM gone)) RETURNING *),
    merged AS (INSERT INTO postern.per_hour
      SELECT hour, namespace, workload, kind, route, rule, identity, verdict, reason,
        sum(decisions), sum(request_bytes), sum(response_bytes), min(first), max(last)
      FROM (TABLE gone UNION ALL TABLE before) a
      GROUP BY hour, namespace, workload, kind, route, rule, identity, verdict, reason),
    used AS (DELETE FROM postern.uses WHERE identity = ANY (ARRAY(SELECT DISTINCT identity FROM gone)) RETURNING *),
    uses AS (INSERT INTO postern.uses
      SELECT namespace, workload, route, rule, identity, verdict, sum(decisions), min(first), max(last)
      FROM (TABLE used UNION ALL
        SELECT namespace, workload, route, rule, identity, verdict, decisions, first, last FROM gone WHERE identity IS NOT NULL) a
      GROUP BY namespace, workload, route, rule, identity, verdict)
    SELECT count(*) INTO more FROM gone;
  moved := moved + more;
  WITH gone AS (DELETE FROM postern.latency_per_hour_new RETURNING *),
    before AS (DELETE FROM postern.latency_per_hour WHERE hour = ANY (ARRAY(SELECT DISTINCT hour FROM gone)) RETURNING *),
    merged AS (INSERT INTO postern.latency_per_hour
      SELECT hour, namespace, workload, route, rule, bucket, sum(requests), sum(duration_us)
      FROM (TABLE gone UNION ALL TABLE before) a GROUP BY hour, namespace, workload, route, rule, bucket)
    SELECT count(*) INTO more FROM gone;
  RETURN moved + more;
END $$;

-- A reader who takes his time keeps a day from being dropped, and whoever waits to drop one keeps all writers waiting: this
-- one gives up, and comes again. Days of rows go whole; those that no partition was made for go one by one.
CREATE OR REPLACE FUNCTION postern.drop_before(day date) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $$
DECLARE
  name text;
  dropped integer := 0;
BEGIN
  FOR name IN SELECT relname FROM pg_class WHERE relnamespace = 'postern'::regnamespace AND relkind = 'r'
    AND relname ~ '^requests_[0-9]{8}$' AND relname < 'requests_' || to_char(day, 'YYYYMMDD') LOOP
    EXECUTE format('DROP TABLE postern.%I', name);
    dropped := dropped + 1;
  END LOOP;
  DELETE FROM postern.requests_other WHERE time < day::timestamp AT TIME ZONE 'UTC';
  RETURN dropped;
END $$;

-- Once a day: keeps rows, and sums by the minute, of that many days before this one, and all other sums of `summed_days`.
-- How many days were dropped.
CREATE FUNCTION postern.keep(days integer, summed_days integer DEFAULT 400) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  today date := (now() AT TIME ZONE 'UTC')::date;
  dropped integer;
  oldest timestamptz := (today - days)::timestamp AT TIME ZONE 'UTC';
  oldest_sum timestamptz := (today - summed_days)::timestamp AT TIME ZONE 'UTC';
BEGIN
  IF days < 1 OR summed_days < 1 THEN
    RAISE invalid_parameter_value USING MESSAGE = 'a day is to be kept at least';
  END IF;
  dropped := postern.drop_before(today - days);
  PERFORM postern.refresh();
  DELETE FROM postern.per_minute WHERE minute < oldest;
  DELETE FROM postern.per_hour WHERE hour < oldest_sum;
  DELETE FROM postern.latency_per_hour WHERE hour < oldest_sum;
  DELETE FROM postern.uses WHERE last < oldest_sum;
  RETURN dropped;
END $$;

-- Views: what was moved, and what was not yet.
CREATE VIEW postern.requests_per_minute AS
  SELECT minute, namespace, workload, sum(requests)::bigint AS requests, sum(refused)::bigint AS refused,
    sum(would_refuse)::bigint AS would_refuse, sum(failed)::bigint AS failed, sum(connections)::bigint AS connections,
    sum(connections_refused)::bigint AS connections_refused
  FROM (TABLE postern.per_minute UNION ALL TABLE postern.per_minute_new) a
  GROUP BY minute, namespace, workload;

CREATE VIEW postern.requests_per_hour AS
  SELECT hour, namespace, workload, kind, route, rule, identity, verdict, reason, sum(decisions)::bigint AS decisions,
    sum(request_bytes)::bigint AS request_bytes, sum(response_bytes)::bigint AS response_bytes, min(first) AS first, max(last) AS last
  FROM (TABLE postern.per_hour UNION ALL TABLE postern.per_hour_new) a
  GROUP BY hour, namespace, workload, kind, route, rule, identity, verdict, reason;

CREATE VIEW postern.refusals_by_identity AS
  SELECT hour, namespace, workload, identity, verdict, reason, sum(decisions)::bigint AS decisions, min(first) AS first, max(last) AS last
  FROM (TABLE postern.per_hour UNION ALL TABLE postern.per_hour_new) a
  WHERE verdict IN ('refused', 'would_refuse')
  GROUP BY hour, namespace, workload, identity, verdict, reason;

CREATE VIEW postern.latency_by_route AS
  WITH buckets AS (
    SELECT hour, namespace, workload, route, rule, bucket, sum(requests) AS requests, sum(duration_us) AS duration_us
    FROM (TABLE postern.latency_per_hour UNION ALL TABLE postern.latency_per_hour_new) a
    GROUP BY hour, namespace, workload, route, rule, bucket),
  ranked AS (
    SELECT *, sum(requests) OVER (PARTITION BY hour, namespace, workload, route, rule ORDER BY bucket) AS up_to,
      sum(requests) OVER (PARTITION BY hour, namespace, workload, route, rule) AS all_of_it
    FROM buckets)
  SELECT hour, namespace, workload, route, rule, sum(requests)::bigint AS requests,
    round(sum(duration_us) / sum(requests))::bigint AS mean_us,
    postern.latency_of(min(bucket) FILTER (WHERE up_to >= 0.50 * all_of_it)) AS p50_us,
    postern.latency_of(min(bucket) FILTER (WHERE up_to >= 0.95 * all_of_it)) AS p95_us,
    postern.latency_of(min(bucket) FILTER (WHERE up_to >= 0.99 * all_of_it)) AS p99_us
  FROM ranked GROUP BY hour, namespace, workload, route, rule;

CREATE VIEW postern.grants AS
  SELECT namespace, workload, route, rule, identity, sum(decisions)::bigint AS decisions, min(first) AS first_used, max(last) AS last_used
  FROM (TABLE postern.uses UNION ALL
    SELECT namespace, workload, route, rule, identity, verdict, decisions, first, last FROM postern.per_hour_new WHERE identity IS NOT NULL) a
  WHERE verdict = 'allowed' AND route IS NOT NULL
  GROUP BY namespace, workload, route, rule, identity;

-- Compared with the newest row and not with the clock: where rows have stopped coming, nothing seems unused.
CREATE VIEW postern.unused_grants AS
  SELECT *, newest - last_used AS unused_for FROM (SELECT *, max(last_used) OVER () AS newest FROM postern.grants) g
  WHERE last_used < newest - interval '30 days';

CREATE VIEW postern.identities_last_seen AS
  SELECT identity, min(first) AS first_seen, max(last) AS last_seen, max(last) FILTER (WHERE verdict = 'allowed') AS last_allowed,
    sum(decisions)::bigint AS decisions, coalesce(sum(decisions) FILTER (WHERE verdict = 'refused'), 0)::bigint AS refused
  FROM (TABLE postern.uses UNION ALL
    SELECT namespace, workload, route, rule, identity, verdict, decisions, first, last FROM postern.per_hour_new WHERE identity IS NOT NULL) a
  GROUP BY identity;

-- For whoever calls `refresh` and `keep` by the clock, and needs no other right.
DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'postern_keeper') THEN
    CREATE ROLE postern_keeper NOLOGIN;
  END IF;
END $$;
GRANT USAGE ON SCHEMA postern TO postern_keeper;
GRANT SELECT ON postern.meta TO postern_keeper;
REVOKE EXECUTE ON FUNCTION postern.add_up(), postern.refresh(), postern.keep(integer, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION postern.refresh(), postern.keep(integer, integer) TO postern_keeper;
GRANT SELECT ON postern.requests_per_minute, postern.requests_per_hour, postern.refusals_by_identity, postern.latency_by_route,
  postern.grants, postern.unused_grants, postern.identities_last_seen TO postern_reader;

UPDATE postern.meta SET value = 2 WHERE key = 'version';
