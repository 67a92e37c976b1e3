-- The request log in Postgres, version 3: the hash over a row and the one before (docs/request-log.md#the-chain).

ALTER TABLE postern.requests ADD COLUMN chain text;

UPDATE postern.meta SET value = 3 WHERE key = 'version';
