-- What holds the chain of `decision` and `refusal` together (chain.rs); empty where there is none.

-- Of the rows `first` to `last`, which the log itself has deleted, the last one's hash, and what only the gate can say of
-- it where the chain has a key. Where `first` is behind `last` none is gone: here the chain begins, or a file ended.
CREATE TABLE link (last INTEGER PRIMARY KEY, first INTEGER NOT NULL, hash BLOB NOT NULL, proof BLOB);

-- The newest row of all, so that it is missed when it is taken away.
CREATE TABLE chain_end (one INTEGER PRIMARY KEY CHECK (one = 1), last INTEGER NOT NULL, proof BLOB NOT NULL);
