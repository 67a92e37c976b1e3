//! Statements straight on the SQLite handle that sqlx owns.
//!
//! Unsafe. It exists for its figures: sqlx sends each execution, and each row, to and from a thread of its own, 10 to 20 µs
//! each. What is done for every decision, or for every batch of them, goes by this; sqlx still owns the connection and every
//! other statement.

use std::ffi::{CStr, CString, c_int};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::slice;

use libsqlite3_sys::{
    SQLITE_BLOB, SQLITE_DONE, SQLITE_INTEGER, SQLITE_OK, SQLITE_ROW, SQLITE_TEXT, SQLITE_TRANSIENT, sqlite3,
    sqlite3_bind_blob, sqlite3_bind_int64, sqlite3_bind_text, sqlite3_column_blob, sqlite3_column_bytes,
    sqlite3_column_int64, sqlite3_column_type, sqlite3_errmsg, sqlite3_extended_errcode, sqlite3_finalize,
    sqlite3_last_insert_rowid, sqlite3_prepare_v2, sqlite3_reset, sqlite3_step, sqlite3_stmt,
};
use sqlx::sqlite::LockedSqliteHandle;
use sqlx::{Connection, SqliteConnection};

/// SQLite refused.
#[derive(Debug, thiserror::Error)]
#[error("{message} (code {code})")]
pub struct HandleError {
    code: c_int,
    message: String,
}

impl HandleError {
    /// What SQLite did not say, but we.
    pub(super) fn ours(message: &str) -> Self {
        Self { code: 0, message: message.to_owned() }
    }

    /// SQLite's extended result code.
    pub(super) fn code(&self) -> i32 {
        self.code
    }
}

/// The handle of a connection, for as long as no other thread uses it.
///
/// Who gives it back and at once takes it again stops for ever some time: sqlx's thread learns who wants it by a queue of 50,
/// and may itself wait for it while the queue is full. An answer of that thread shows that it has nothing left to learn.
///
/// # Errors
/// When that thread has ended.
pub(super) async fn lock(connection: &mut SqliteConnection) -> sqlx::Result<LockedSqliteHandle<'_>> {
    connection.ping().await?;
    connection.lock_handle().await
}

/// A connection, which no other thread uses while its lock is borrowed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Database<'h> {
    handle: NonNull<sqlite3>,
    lock: PhantomData<&'h mut ()>,
}

impl<'h> Database<'h> {
    pub(super) fn of(handle: &'h mut LockedSqliteHandle<'_>) -> Self {
        Self { handle: handle.as_raw_handle(), lock: PhantomData }
    }

    pub(super) fn prepare(self, sql: &CStr) -> Result<Statement<'h>, HandleError> {
        let mut statement = ptr::null_mut();
        // SAFETY: the handle is open and, while its lock is borrowed, used by this thread only; `sql` is terminated by NUL,
        // which is what the length -1 asks for; `statement` is a place to write to; the tail is not asked for.
        let code =
            unsafe { sqlite3_prepare_v2(self.handle.as_ptr(), sql.as_ptr(), -1, &raw mut statement, ptr::null_mut()) };
        match NonNull::new(statement) {
            // What nothing was bound to is NULL (sqlite.org/lang_expr.html#varparam).
            Some(statement) if code == SQLITE_OK => Ok(Statement { database: self, statement }),
            // On an error SQLite leaves no statement behind, so there is nothing to finalise.
            _ => Err(self.last_error()),
        }
    }

    /// The same of a text that is made while the program runs.
    pub(super) fn prepare_text(self, sql: String) -> Result<Statement<'h>, HandleError> {
        let sql = CString::new(sql).map_err(|_| HandleError::ours("the statement has a NUL"))?;
        self.prepare(&sql)
    }

    /// Executes a statement that has no parameters and no rows of its own.
    pub(super) fn execute(self, sql: &CStr) -> Result<(), HandleError> {
        self.prepare(sql)?.step().map(drop)
    }

    /// The first number of the first row; 0 where there is none.
    pub(super) fn number(self, sql: &CStr) -> Result<i64, HandleError> {
        let mut statement = self.prepare(sql)?;
        Ok(if statement.step()? { statement.integer() } else { 0 })
    }

    /// Pages in use, of all tables.
    pub(super) fn pages(self) -> Result<i64, HandleError> {
        Ok(self.number(c"PRAGMA page_count")? - self.number(c"PRAGMA freelist_count")?)
    }

    /// The number of the row that was inserted last.
    pub(super) fn inserted(self) -> i64 {
        // SAFETY: the connection is open and used by this thread only.
        unsafe { sqlite3_last_insert_rowid(self.handle.as_ptr()) }
    }

    fn last_error(self) -> HandleError {
        // SAFETY: the connection is open and used by this thread only; the message is a NUL-terminated string that is valid
        // until the next call on the connection, and is copied before that.
        unsafe {
            HandleError {
                code: sqlite3_extended_errcode(self.handle.as_ptr()),
                message: CStr::from_ptr(sqlite3_errmsg(self.handle.as_ptr())).to_string_lossy().into_owned(),
            }
        }
    }
}

/// A prepared statement that cannot outlive the lock under which no other thread uses the connection.
#[derive(Debug)]
pub(super) struct Statement<'h> {
    database: Database<'h>,
    statement: NonNull<sqlite3_stmt>,
}

/// A value of a row, where SQLite keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored<'a> {
    Null,
    Integer(i64),
    /// In UTF-8, unless the file is damaged.
    Text(&'a [u8]),
    Blob(&'a [u8]),
}

impl Statement<'_> {
    /// For calls that bind. What they bind is theirs to keep until the next [`Self::reset`].
    pub(super) fn as_ptr(&self) -> *mut sqlite3_stmt {
        self.statement.as_ptr()
    }

    /// Binds the parameter of that number, counted from 1.
    pub(super) fn bind(&mut self, index: c_int, value: i64) -> Result<(), HandleError> {
        // SAFETY: the statement is prepared and not finalised; a wrong index is an error, not a fault.
        let code = unsafe { sqlite3_bind_int64(self.statement.as_ptr(), index, value) };
        self.checked(code)
    }

    /// Binds a copy of a text, or NULL.
    pub(super) fn bind_text(&mut self, index: c_int, text: Option<&str>) -> Result<(), HandleError> {
        // What nothing is bound to is NULL.
        let Some(text) = text else { return Ok(()) };
        let length = length_of(text.as_bytes())?;
        // SAFETY: as above; pointer and length describe `text`, of which SQLite makes a copy before it returns.
        let code = unsafe {
            sqlite3_bind_text(self.statement.as_ptr(), index, text.as_ptr().cast(), length, SQLITE_TRANSIENT())
        };
        self.checked(code)
    }

    /// Binds a copy of bytes.
    pub(super) fn bind_bytes(&mut self, index: c_int, bytes: &[u8]) -> Result<(), HandleError> {
        let length = length_of(bytes)?;
        // SAFETY: as with a text.
        let code = unsafe {
            sqlite3_bind_blob(self.statement.as_ptr(), index, bytes.as_ptr().cast(), length, SQLITE_TRANSIENT())
        };
        self.checked(code)
    }

    /// What a call on the statement gave back.
    pub(super) fn checked(&self, code: c_int) -> Result<(), HandleError> {
        if code == SQLITE_OK { Ok(()) } else { Err(self.database.last_error()) }
    }

    /// Goes on; whether there is a row.
    pub(super) fn step(&mut self) -> Result<bool, HandleError> {
        // SAFETY: the statement is prepared and not finalised, and this thread is the only one to use its connection. Who
        // binds memory keeps it until the statement is reset.
        match unsafe { sqlite3_step(self.statement.as_ptr()) } {
            SQLITE_ROW => Ok(true),
            SQLITE_DONE => Ok(false),
            _ => Err(self.database.last_error()),
        }
    }

    /// To be executed once more. What was bound stays bound.
    pub(super) fn reset(&mut self) {
        // SAFETY: as above. What it gives back is the last step's, which was taken.
        unsafe { sqlite3_reset(self.statement.as_ptr()) };
    }

    /// The first value of the row that the last step found, as a number.
    pub(super) fn integer(&self) -> i64 {
        match self.value(0) {
            Stored::Integer(value) => value,
            Stored::Null | Stored::Text(_) | Stored::Blob(_) => 0,
        }
    }

    /// A value of the row that the last step found; NULL where there is no such column, or no row.
    pub(super) fn value(&self, column: c_int) -> Stored<'_> {
        let statement = self.statement.as_ptr();
        // SAFETY: as above; a wrong column, or none, reads as NULL. A text or blob stays where it is until the statement is
        // stepped, reset or finalised, for all of which the borrow has to end; asked for as a blob a text is not changed
        // (sqlite.org/c3ref/column_blob.html), and `bytes` is asked for behind it. One of no bytes may have no place.
        unsafe {
            let memory = || {
                let start = sqlite3_column_blob(statement, column).cast::<u8>();
                let length = usize::try_from(sqlite3_column_bytes(statement, column)).unwrap_or(0);
                if start.is_null() { &[][..] } else { slice::from_raw_parts(start, length) }
            };
            match sqlite3_column_type(statement, column) {
                SQLITE_INTEGER => Stored::Integer(sqlite3_column_int64(statement, column)),
                SQLITE_TEXT => Stored::Text(memory()),
                SQLITE_BLOB => Stored::Blob(memory()),
                _ => Stored::Null,
            }
        }
    }
}

/// How long something is, as SQLite counts.
pub(super) fn length_of(bytes: &[u8]) -> Result<c_int, HandleError> {
    c_int::try_from(bytes.len()).map_err(|_| HandleError::ours("a value is longer than SQLite can take"))
}

impl Drop for Statement<'_> {
    fn drop(&mut self) {
        // SAFETY: prepared by `prepare` and finalised nowhere else; the connection is still open, because the lock on it is
        // still borrowed. Finalising does not read what was bound.
        unsafe { sqlite3_finalize(self.statement.as_ptr()) };
    }
}
