-- The request log in Postgres, version 1. Everything is in schema `postern`; users query `postern.requests`, which has the
-- columns of the view of the same name in each pod, by the same names and with the same meanings (docs/request-log.md).

CREATE SCHEMA postern;

CREATE TABLE postern.meta (key text PRIMARY KEY, value bigint NOT NULL);
-- `version`: of this schema. `writers_from`: the oldest version that a writer may have been made for.
INSERT INTO postern.meta VALUES ('version', 1), ('writers_from', 1);

-- The key finds a row that comes once more, and rows by time: ids begin with it, so that both grow at their end.
CREATE TABLE postern.requests (
  id uuid NOT NULL,
  time timestamptz NOT NULL,
  kind text NOT NULL,
  repeat bigint NOT NULL,
  pod text, pod_uid text, namespace text, workload text,
  listener text, sni text, route text, rule text, mode text,
  verdict text, reason text, limiter text,
  identity text, bundle text, subject text, san text, issuer text, serial text, fingerprint text, spki text, lfdi text,
  sfdi text, tls_version text, cipher text, resumed boolean,
  protocol text, method text, host text, path text,
  status integer, grpc_status integer,
  request_bytes bigint, response_bytes bigint,
  duration_us bigint, queue_us bigint, connect_us bigint, upstream_us bigint,
  upstream text, attempts integer,
  request_id text, trace_id text, message_type text,
  client_addr text, policy_revision text,
  PRIMARY KEY (time, id)
) PARTITION BY RANGE (time);
CREATE INDEX requests_identity ON postern.requests (identity, time) WHERE identity IS NOT NULL;
CREATE INDEX requests_reason ON postern.requests (reason, time) WHERE reason IS NOT NULL;

-- What comes from a day that has no partition: a clock that is wrong, a backlog of more than a month.
CREATE TABLE postern.requests_other PARTITION OF postern.requests DEFAULT;

-- Makes the partition of a day of UTC, if it is near enough to today to be meant; whether it is there afterwards. Whoever
-- writes may call it and needs no right to make tables. Attaching, in place of CREATE … PARTITION OF, holds nobody up who
-- writes into other days.
CREATE FUNCTION postern.prepare(day date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  today date := (now() AT TIME ZONE 'UTC')::date;
  name text := 'requests_' || to_char(day, 'YYYYMMDD');
  first timestamptz := day::timestamp AT TIME ZONE 'UTC';
  past timestamptz := (day + 1)::timestamp AT TIME ZONE 'UTC';
BEGIN
  IF day NOT BETWEEN today - 31 AND today + 2 THEN
    RETURN false;
  END IF;
  IF to_regclass('postern.' || name) IS NOT NULL THEN
    RETURN true;
  END IF;
  -- Many may come at once, at midnight and when all pods start; one makes it, the others find it.
  PERFORM pg_advisory_xact_lock(7095770201);
  -- By the table of tables: what this process has kept of names may be older than the lock.
  IF EXISTS (SELECT FROM pg_class WHERE relname = name AND relnamespace = 'postern'::regnamespace) THEN
    RETURN true;
  END IF;
  EXECUTE format('CREATE TABLE postern.%I (LIKE postern.requests INCLUDING ALL)', name);
  -- Rows of that day that came before would keep it from being attached.
  LOCK TABLE postern.requests_other IN ACCESS EXCLUSIVE MODE;
  EXECUTE format('WITH moved AS (DELETE FROM postern.requests_other WHERE time >= %L AND time < %L RETURNING *)
    INSERT INTO postern.%I SELECT * FROM moved', first, past, name);
  EXECUTE format('ALTER TABLE postern.requests ATTACH PARTITION postern.%I FOR VALUES FROM (%L) TO (%L)', name, first, past);
  RETURN true;
END $$;

-- Takes whole days away, the only way rows go: of days before this one. For the owner, once a day.
CREATE FUNCTION postern.drop_before(day date) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  name text;
  dropped integer := 0;
BEGIN
  FOR name IN SELECT relname FROM pg_class WHERE relnamespace = 'postern'::regnamespace AND relkind = 'r'
    AND relname ~ '^requests_[0-9]{8}$' AND relname < 'requests_' || to_char(day, 'YYYYMMDD') LOOP
    EXECUTE format('DROP TABLE postern.%I', name);
    dropped := dropped + 1;
  END LOOP;
  RETURN dropped;
END $$;

-- Roles without a password, which cannot log in: grant them to those that do. Roles are of the whole server, and may be
-- there already: of another database, or made by whoever may, where the one who applies this may not.
DO $$ DECLARE
  role text;
BEGIN
  FOREACH role IN ARRAY ARRAY['postern_writer', 'postern_reader'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
      EXECUTE format('CREATE ROLE %I NOLOGIN', role);
    END IF;
  END LOOP;
END $$;
GRANT USAGE ON SCHEMA postern TO postern_writer, postern_reader;
GRANT SELECT ON postern.meta TO postern_writer, postern_reader;
GRANT INSERT ON postern.requests TO postern_writer;
GRANT SELECT ON postern.requests TO postern_reader;
REVOKE EXECUTE ON FUNCTION postern.prepare(date), postern.drop_before(date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION postern.prepare(date) TO postern_writer;
