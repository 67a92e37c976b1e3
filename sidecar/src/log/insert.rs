//! The hot insert: one prepared statement for a batch's rows, straight on the SQLite handle that sqlx owns.
//!
//! Unsafe. It exists for its figures: sqlx boxes every argument and sends every execution to a
//! thread of its own, 10 to 20 µs a row; with this a row's whole way, queue and commit included, is 1.3 to 1.7 µs and
//! 90 bytes of file (`examples/row_cost.rs`; without the ids of requests and traces 78 bytes and the same time; a trace's
//! id is 16 more), so that one thread keeps up with every worker. sqlx still owns the connection, the transaction around this and every other statement.

use std::borrow::Cow;
use std::ffi::{CStr, c_int};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use libsqlite3_sys::{
    SQLITE_DONE, SQLITE_OK, SQLITE_STATIC, sqlite3, sqlite3_bind_blob, sqlite3_bind_int64, sqlite3_bind_null,
    sqlite3_bind_text, sqlite3_errmsg, sqlite3_extended_errcode, sqlite3_finalize, sqlite3_prepare_v2, sqlite3_reset,
    sqlite3_step, sqlite3_stmt,
};
use sqlx::sqlite::LockedSqliteHandle;

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

/// SQLite refused.
#[derive(Debug, thiserror::Error)]
#[error("{message} (code {code})")]
pub struct InsertError {
    code: c_int,
    message: String,
}

impl InsertError {
    /// SQLite's extended result code.
    pub(super) fn code(&self) -> i32 {
        self.code
    }
}

/// Executes `sql` once a row. The caller holds a transaction, or every row would be one of its own.
pub(super) fn insert<'a, const COLUMNS: usize>(
    handle: &mut LockedSqliteHandle<'_>,
    sql: &CStr,
    rows: impl Iterator<Item = [Value<'a>; COLUMNS]>,
) -> Result<(), InsertError> {
    let mut statement = Statement::prepare(handle, sql)?;
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

/// A prepared statement that cannot outlive the lock under which no other thread uses the connection.
struct Statement<'h, const COLUMNS: usize> {
    database: NonNull<sqlite3>,
    statement: NonNull<sqlite3_stmt>,
    /// What the row before has left, which SQLite keeps. Most of a row is as in the row before, and comparing costs a
    /// tenth of binding.
    bound: [Bound; COLUMNS],
    lock: PhantomData<&'h mut ()>,
}

impl<'h, const COLUMNS: usize> Statement<'h, COLUMNS> {
    fn prepare(handle: &'h mut LockedSqliteHandle<'_>, sql: &CStr) -> Result<Self, InsertError> {
        let database = handle.as_raw_handle();
        let mut statement = ptr::null_mut();
        // SAFETY: the handle is open and, while `handle` is borrowed, used by this thread only; `sql` is terminated by NUL,
        // which is what the length -1 asks for; `statement` is a place to write to; the tail is not asked for.
        let code =
            unsafe { sqlite3_prepare_v2(database.as_ptr(), sql.as_ptr(), -1, &raw mut statement, ptr::null_mut()) };
        match NonNull::new(statement) {
            // What nothing was bound to is NULL (sqlite.org/lang_expr.html#varparam).
            Some(statement) if code == SQLITE_OK => {
                Ok(Self { database, statement, bound: [Bound::Null; COLUMNS], lock: PhantomData })
            }
            // On an error SQLite leaves no statement behind, so there is nothing to finalise.
            _ => Err(last_error(database)),
        }
    }

    fn execute(&mut self, row: &[Value<'_>; COLUMNS]) -> Result<(), InsertError> {
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
        // SAFETY: the statement is prepared and not finalised, this thread is the only one to use its connection, and all
        // text bound above outlives this function, so that it is valid whenever SQLite reads it: during the step.
        let code = unsafe { sqlite3_step(self.statement.as_ptr()) };
        let result = if code == SQLITE_DONE { Ok(()) } else { Err(last_error(self.database)) };
        // SAFETY: as above. Its result is the step's, already taken. The bindings stay; those to a row's memory dangle from
        // the return of this function on, and nothing reads them before the next row has bound these parameters anew.
        unsafe { sqlite3_reset(self.statement.as_ptr()) };
        result
    }

    fn bind(&mut self, index: c_int, value: &Value<'_>) -> Result<(), InsertError> {
        let statement = self.statement.as_ptr();
        let code = match value {
            // SAFETY: the statement is prepared, not finalised and reset; a wrong index is an error, not a fault.
            Value::Null => unsafe { sqlite3_bind_null(statement, index) },
            // SAFETY: as above.
            Value::Integer(value) => unsafe { sqlite3_bind_int64(statement, index, *value) },
            Value::Text(text) => {
                let Ok(length) = c_int::try_from(text.len()) else {
                    return Err(InsertError { code: 0, message: "a text is longer than SQLite can take".to_owned() });
                };
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
                let Ok(length) = c_int::try_from(bytes.len()) else {
                    return Err(InsertError { code: 0, message: "bytes are more than SQLite can take".to_owned() });
                };
                // SAFETY: as with a text.
                unsafe { sqlite3_bind_blob(statement, index, bytes.as_ptr().cast(), length, SQLITE_STATIC()) }
            }
        };
        if code == SQLITE_OK { Ok(()) } else { Err(last_error(self.database)) }
    }
}

impl<const COLUMNS: usize> Drop for Statement<'_, COLUMNS> {
    fn drop(&mut self) {
        // SAFETY: prepared by `prepare` and finalised nowhere else; the connection is still open, because the lock on it is
        // still borrowed. Finalising does not read bound text.
        unsafe { sqlite3_finalize(self.statement.as_ptr()) };
    }
}

fn last_error(database: NonNull<sqlite3>) -> InsertError {
    // SAFETY: the connection is open and used by this thread only; the message is a NUL-terminated string that is valid
    // until the next call on the connection, and is copied before that.
    unsafe {
        InsertError {
            code: sqlite3_extended_errcode(database.as_ptr()),
            message: CStr::from_ptr(sqlite3_errmsg(database.as_ptr())).to_string_lossy().into_owned(),
        }
    }
}
