//! The hot insert: one prepared statement for a batch's rows, straight on the SQLite handle that sqlx owns.
//!
//! Unsafe. It exists for its figures: with this a row's whole way, queue and commit included, is some 2 µs and 81 bytes of file
//! (`examples/row_cost.rs`; a trace's id is 17 more), so that one thread keeps up with every worker.

use std::borrow::Cow;
use std::ffi::{CStr, c_int};

use libsqlite3_sys::{SQLITE_STATIC, sqlite3_bind_blob, sqlite3_bind_null, sqlite3_bind_text};

use super::handle::{Database, HandleError, Statement, length_of};

/// One bound value. Text is usually borrowed: SQLite reads it from where the record keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Null,
    Integer(i64),
    Text(Cow<'a, str>),
    Blob(Blob),
    /// Many bytes, where the record keeps them.
    Bytes(&'a [u8]),
}

/// A few bytes, in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blob {
    bytes: [u8; 17],
    length: u8,
}

impl Blob {
    /// An id behind a mark of at most one byte.
    pub(super) fn of(mark: &[u8], id: [u8; 16]) -> Self {
        let mut bytes = [0; 17];
        let mut length = 0;
        for (place, byte) in bytes.iter_mut().zip(mark.iter().chain(&id)) {
            *place = *byte;
            length += 1;
        }
        Self { bytes, length }
    }
}

/// Executes `sql` once a row. The caller holds a transaction, or every row would be one of its own.
pub(super) fn insert<'a, const COLUMNS: usize>(
    database: Database<'_>,
    sql: &CStr,
    rows: impl Iterator<Item = [Value<'a>; COLUMNS]>,
) -> Result<(), HandleError> {
    let mut statement = Insert { statement: database.prepare(sql)?, bound: [Bound::Null; COLUMNS] };
    for row in rows {
        statement.execute(&row)?;
    }
    Ok(())
}

/// What a parameter is bound to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bound {
    Null,
    Integer(i64),
    /// A row's memory, which is gone with that row: never what the next one has.
    Memory,
}

struct Insert<'h, const COLUMNS: usize> {
    statement: Statement<'h>,
    /// What the row before has left, which SQLite keeps. Most of a row is as in the row before, and comparing costs a
    /// tenth of binding.
    bound: [Bound; COLUMNS],
}

impl<const COLUMNS: usize> Insert<'_, COLUMNS> {
    fn execute(&mut self, row: &[Value<'_>; COLUMNS]) -> Result<(), HandleError> {
        for (index, (place, value)) in (1..).zip(row.iter().enumerate()) {
            let next = match value {
                Value::Null => Bound::Null,
                Value::Integer(value) => Bound::Integer(*value),
                Value::Text(_) | Value::Blob(_) | Value::Bytes(_) => Bound::Memory,
            };
            if next == Bound::Memory || next != self.bound[place] {
                self.bind(index, value)?;
                self.bound[place] = next;
            }
        }
        // All text bound above outlives this function, so that it is valid whenever SQLite reads it: during the step.
        let result = self.statement.step().map(drop);
        // The bindings stay; those to a row's memory dangle from the return of this function on, and nothing reads them
        // before the next row has bound these parameters anew.
        self.statement.reset();
        result
    }

    fn bind(&mut self, index: c_int, value: &Value<'_>) -> Result<(), HandleError> {
        let statement = self.statement.as_ptr();
        let code = match value {
            // SAFETY: the statement is prepared, not finalised and reset; a wrong index is an error, not a fault.
            Value::Null => unsafe { sqlite3_bind_null(statement, index) },
            Value::Integer(value) => return self.statement.bind(index, *value),
            Value::Text(text) => {
                let length = length_of(text.as_bytes())?;
                // SAFETY: as above; pointer and length describe `text`. SQLITE_STATIC, no copy: `execute`, the only
                // caller, steps while its row, and so the text, is still borrowed.
                unsafe { sqlite3_bind_text(statement, index, text.as_ptr().cast(), length, SQLITE_STATIC()) }
            }
            Value::Blob(blob) => {
                let length = c_int::from(blob.length);
                // SAFETY: as above; `length` counts bytes of the array, which is part of the row.
                unsafe { sqlite3_bind_blob(statement, index, blob.bytes.as_ptr().cast(), length, SQLITE_STATIC()) }
            }
            Value::Bytes(bytes) => {
                let length = length_of(bytes)?;
                // SAFETY: as with a text.
                unsafe { sqlite3_bind_blob(statement, index, bytes.as_ptr().cast(), length, SQLITE_STATIC()) }
            }
        };
        self.statement.checked(code)
    }
}
