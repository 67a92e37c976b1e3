-- The request log in Postgres, version 4: what is captured of requests, and their bodies (docs/request-log.md#what-is-captured).

-- Text, not jsonb: it is what the row's hash covers, and is kept as it was written. `captured::jsonb` is always valid.
ALTER TABLE postern.requests ADD COLUMN captured text, ADD COLUMN bodies bytea;
-- They are sealed, which nothing compresses.
ALTER TABLE postern.requests ALTER COLUMN bodies SET STORAGE EXTERNAL;

UPDATE postern.meta SET value = 4 WHERE key = 'version';
