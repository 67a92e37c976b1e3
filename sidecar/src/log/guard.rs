//! What a query of a user may do in SQLite: read, and nothing else, whatever file it is given.
//!
//! Unsafe, because sqlx has no way to say it: two calls on the handle that it owns.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

use libsqlite3_sys::{
    SQLITE_DBCONFIG_DEFENSIVE, SQLITE_DENY, SQLITE_FUNCTION, SQLITE_OK, SQLITE_PRAGMA, SQLITE_READ, SQLITE_RECURSIVE,
    SQLITE_SELECT, SQLITE_TRANSACTION, sqlite3_db_config, sqlite3_hard_heap_limit64, sqlite3_set_authorizer,
};
use sqlx::sqlite::LockedSqliteHandle;

/// Memory SQLite may use in this process: the `log` command shares the pod's memory with the gate, and what it would
/// take too much, the kernel could take from the gate.
const MEMORY_BYTES: i64 = 16 << 20;

/// What tells the schema, and changes nothing when it is selected from.
const HARMLESS: [&str; 6] = ["table_info", "table_xinfo", "table_list", "user_version", "page_count", "freelist_count"];

/// From now on the connection refuses to prepare what does anything but read.
pub(super) fn read_only(handle: &mut LockedSqliteHandle<'_>) -> bool {
    let database = handle.as_raw_handle().as_ptr();
    // SAFETY: the handle is open, and used by this thread only while it is locked. This option takes an int and a pointer
    // to an int, which may be null (sqlite.org/c3ref/c_dbconfig_defensive.html).
    let defensive =
        unsafe { sqlite3_db_config(database, SQLITE_DBCONFIG_DEFENSIVE, 1 as c_int, ptr::null_mut::<c_int>()) };
    // SAFETY: as above; the callback is a function that keeps nothing and gets no data.
    let authorized = unsafe { sqlite3_set_authorizer(database, Some(authorize), ptr::null_mut()) };
    defensive == SQLITE_OK && authorized == SQLITE_OK
}

/// Bounds what SQLite takes in this process, which is the command's own.
pub fn bound_memory() {
    // SAFETY: sets a number; safe at any time and from any thread.
    unsafe { sqlite3_hard_heap_limit64(MEMORY_BYTES) };
}

/// <https://www.sqlite.org/c3ref/set_authorizer.html>
unsafe extern "C" fn authorize(
    _data: *mut c_void,
    action: c_int,
    first: *const c_char,
    second: *const c_char,
    _database: *const c_char,
    _view: *const c_char,
) -> c_int {
    let is_one_of = |name: *const c_char, known: &[&str]| {
        // SAFETY: SQLite gives null or a string that ends in NUL and lives as long as this call.
        !name.is_null() && unsafe { CStr::from_ptr(name) }.to_str().is_ok_and(|name| known.contains(&name))
    };
    let allowed = match action {
        // A transaction is so much at one moment; what could be changed in it is refused.
        SQLITE_SELECT | SQLITE_READ | SQLITE_RECURSIVE | SQLITE_TRANSACTION => true,
        SQLITE_FUNCTION => !is_one_of(second, &["load_extension"]),
        SQLITE_PRAGMA => is_one_of(first, &HARMLESS),
        _ => false,
    };
    if allowed { SQLITE_OK } else { SQLITE_DENY }
}
