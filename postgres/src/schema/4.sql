-- The request log in Postgres, version 4: what is captured of requests, and their bodies (docs/request-log.md#what-is-captured).

-- Text, not jsonb: it is what the row's hash covers, and is kept as it was written. `captured::jsonb` is always valid.
ALTER TABLE postern.requests ADD COLUMN captured text, ADD COLUMN bodies bytea;
-- They are sealed, which nothing compresses.
ALTER TABLE postern.requests ALTER COLUMN bodies SET STORAGE EXTERNAL;

-- As in version 2, but for their order: from the first day that is dropped until all is over nobody can write.
CREATE OR REPLACE FUNCTION postern.drop_before(day date) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $$
DECLARE
  name text;
  dropped integer := 0;
BEGIN
  DELETE FROM postern.requests_other WHERE time < day::timestamp AT TIME ZONE 'UTC';
  FOR name IN SELECT relname FROM pg_class WHERE relnamespace = 'postern'::regnamespace AND relkind = 'r'
    AND relname ~ '^requests_[0-9]{8}$' AND relname < 'requests_' || to_char(day, 'YYYYMMDD') LOOP
    EXECUTE format('DROP TABLE postern.%I', name);
    dropped := dropped + 1;
  END LOOP;
  RETURN dropped;
END $$;

CREATE OR REPLACE FUNCTION postern.keep(days integer, summed_days integer DEFAULT 400) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  today date := (now() AT TIME ZONE 'UTC')::date;
  oldest timestamptz := (today - days)::timestamp AT TIME ZONE 'UTC';
  oldest_sum timestamptz := (today - summed_days)::timestamp AT TIME ZONE 'UTC';
BEGIN
  IF days < 1 OR summed_days < 1 THEN
    RAISE invalid_parameter_value USING MESSAGE = 'a day is to be kept at least';
  END IF;
  PERFORM postern.refresh();
  DELETE FROM postern.per_minute WHERE minute < oldest;
  DELETE FROM postern.per_hour WHERE hour < oldest_sum;
  DELETE FROM postern.latency_per_hour WHERE hour < oldest_sum;
  DELETE FROM postern.uses WHERE last < oldest_sum;
  RETURN postern.drop_before(today - days);
END $$;

UPDATE postern.meta SET value = 4 WHERE key = 'version';
