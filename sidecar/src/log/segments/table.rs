//! All of the log as one table for a query of the user's own: a virtual table that has the rows of one file after the
//! other, the oldest first, with one segment open at a time.
//!
//! Unsafe, because SQLite knows virtual tables through C alone (sqlite.org/vtab.html), and sqlx does not know them. What is
//! pointed to is owned as follows: [`Source`] by the module, until SQLite destroys it with the connection; [`Table`] and
//! [`Cursor`] by SQLite between the call that makes one and the call that ends it, of which it makes one each. SQLite calls
//! all of this from the thread that uses the connection, and nothing here panics.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;

use libsqlite3_sys::{
    SQLITE_CANTOPEN, SQLITE_CORRUPT, SQLITE_DESERIALIZE_FREEONCLOSE, SQLITE_DESERIALIZE_READONLY, SQLITE_DONE,
    SQLITE_ERROR, SQLITE_IOERR, SQLITE_NOMEM, SQLITE_NOTADB, SQLITE_OK, SQLITE_OPEN_READONLY, SQLITE_OPEN_READWRITE,
    SQLITE_OPEN_URI, SQLITE_ROW, sqlite3, sqlite3_close, sqlite3_column_text, sqlite3_column_value, sqlite3_context,
    sqlite3_create_module_v2, sqlite3_declare_vtab, sqlite3_deserialize, sqlite3_finalize, sqlite3_index_info,
    sqlite3_int64, sqlite3_malloc64, sqlite3_module, sqlite3_open_v2, sqlite3_prepare_v2, sqlite3_result_value,
    sqlite3_step, sqlite3_stmt, sqlite3_value, sqlite3_vtab, sqlite3_vtab_cursor,
};
use sqlx::sqlite::LockedSqliteHandle;

use super::open::image;
use super::{Segment, Unread};

/// What one virtual table shows.
pub(super) struct Source {
    /// The view that each file has.
    pub(super) view: &'static str,
    /// The live file's columns of it.
    pub(super) columns: Vec<String>,
    /// Where the live file is.
    pub(super) live: PathBuf,
    /// Segments, oldest first.
    pub(super) segments: Vec<Segment>,
    /// Those that cannot be read.
    pub(super) unread: Unread,
}

/// Makes a view known to the connection of the live file, under its name, as a module for a virtual table.
pub(super) fn register(handle: &mut LockedSqliteHandle<'_>, source: Source) -> bool {
    let Ok(name) = CString::new(source.view) else { return false };
    let source = Box::into_raw(Box::new(source));
    // SAFETY: the handle is open and locked; the name is copied; the module is static; `source` is given away, and `forget`
    // gets it back exactly once, also where this call fails (sqlite.org/c3ref/create_module.html).
    let code = unsafe {
        sqlite3_create_module_v2(
            handle.as_raw_handle().as_ptr(),
            name.as_ptr(),
            &raw const MODULE,
            source.cast(),
            Some(forget),
        )
    };
    code == SQLITE_OK
}

static MODULE: sqlite3_module = sqlite3_module {
    iVersion: 0,
    xCreate: Some(connect),
    xConnect: Some(connect),
    xBestIndex: Some(best_index),
    xDisconnect: Some(disconnect),
    xDestroy: Some(disconnect),
    xOpen: Some(open),
    xClose: Some(close),
    xFilter: Some(filter),
    xNext: Some(next),
    xEof: Some(eof),
    xColumn: Some(column),
    xRowid: Some(rowid),
    xUpdate: None,
    xBegin: None,
    xSync: None,
    xCommit: None,
    xRollback: None,
    xFindFunction: None,
    xRename: None,
    xSavepoint: None,
    xRelease: None,
    xRollbackTo: None,
    xShadowName: None,
    xIntegrity: None,
};

/// One virtual table. SQLite knows its first field.
#[repr(C)]
struct Table {
    base: sqlite3_vtab,
    live: *mut sqlite3,
    source: *const Source,
}

/// A walk through a table. SQLite knows its first field.
#[repr(C)]
struct Cursor {
    base: sqlite3_vtab_cursor,
    walk: Walk,
}

struct Walk {
    live: *mut sqlite3,
    source: *const Source,
    /// Columns that are asked for, by bit.
    used: u64,
    /// How many files were begun; the live one comes after all segments.
    begun: usize,
    /// The segment that is open; null for the live file.
    segment: *mut sqlite3,
    statement: *mut sqlite3_stmt,
    row: sqlite3_int64,
    is_over: bool,
}

impl Walk {
    /// Goes to the next row, of the next file where this one has no more.
    fn step(&mut self) -> c_int {
        loop {
            if !self.statement.is_null() {
                // SAFETY: prepared by `begin`, and not finalised: then it is null.
                match unsafe { sqlite3_step(self.statement) } {
                    SQLITE_ROW => {
                        self.row += 1;
                        return SQLITE_OK;
                    }
                    SQLITE_DONE => self.end(),
                    // A damaged segment costs what is in it, not the answer.
                    code if code & 0xff == SQLITE_CORRUPT && !self.segment.is_null() => {
                        self.note(self.begun - 1);
                        self.end();
                    }
                    code => return code,
                }
            }
            // SAFETY: the module outlives its tables and their cursors.
            let Source { live, segments, .. } = unsafe { &*self.source };
            let code = match segments.get(self.begun) {
                Some(segment) => self.begin_segment(&segment.paths(live)),
                None if self.begun == segments.len() => self.begin(self.live),
                None => {
                    self.is_over = true;
                    return SQLITE_OK;
                }
            };
            self.begun += 1;
            if code != SQLITE_OK {
                return code;
            }
        }
    }

    /// Opens a segment; one that is gone, or damaged, has no rows.
    fn begin_segment(&mut self, paths: &[PathBuf; 3]) -> c_int {
        let [path, packed, thinned] = paths;
        let code = match path.exists() {
            true => self.open(&immutable(path), SQLITE_OPEN_READONLY | SQLITE_OPEN_URI),
            false => self.open_packed(packed, thinned),
        };
        let code = if code == SQLITE_OK { self.begin(self.segment) } else { code };
        if code == SQLITE_OK {
            return SQLITE_OK;
        }
        self.end();
        match code & 0xff {
            SQLITE_CORRUPT | SQLITE_NOTADB | SQLITE_ERROR => {
                self.note(self.begun);
                SQLITE_OK
            }
            // Packed, or deleted, since it was looked for.
            SQLITE_CANTOPEN if !path.exists() => self.begin_segment(paths),
            _ => code,
        }
    }

    /// A segment lacks rows, unless it is gone.
    fn note(&self, segment: usize) {
        // SAFETY: the module outlives its tables and their cursors.
        let Source { live, segments, unread, .. } = unsafe { &*self.source };
        if let Some(segment) = segments.get(segment) {
            unread.note(live, segment);
        }
    }

    fn open(&mut self, name: &CStr, flags: c_int) -> c_int {
        // SAFETY: the name ends in NUL; what is opened is closed by `end`, also where opening fails.
        unsafe { sqlite3_open_v2(name.as_ptr(), &raw mut self.segment, flags, ptr::null()) }
    }

    /// Opens a packed segment in memory, and its bytes are SQLite's.
    fn open_packed(&mut self, packed: &Path, thinned: &Path) -> c_int {
        let image = match image(packed, thinned) {
            Ok(Some(image)) => image,
            Ok(None) => return SQLITE_CORRUPT,
            Err(_) => return SQLITE_IOERR,
        };
        let code = self.open(c":memory:", SQLITE_OPEN_READWRITE);
        if code != SQLITE_OK {
            return code;
        }
        let length = image.len() as sqlite3_int64;
        // SAFETY: memory of SQLite's own allocator of that length, or null; it is written to its end before it is given
        // away, and what it is given to frees it, also where that fails (sqlite.org/c3ref/deserialize.html).
        unsafe {
            let memory = sqlite3_malloc64(image.len() as u64).cast::<u8>();
            if memory.is_null() {
                return SQLITE_NOMEM;
            }
            ptr::copy_nonoverlapping(image.as_ptr(), memory, image.len());
            let flags = SQLITE_DESERIALIZE_FREEONCLOSE | SQLITE_DESERIALIZE_READONLY;
            sqlite3_deserialize(self.segment, c"main".as_ptr(), memory, length, length, flags)
        }
    }

    /// Prepares the query of one file.
    fn begin(&mut self, database: *mut sqlite3) -> c_int {
        // SAFETY: the module outlives its tables and their cursors.
        let Source { view, columns, .. } = unsafe { &*self.source };
        let known = if self.segment.is_null() { columns.clone() } else { names(database, view) };
        let column = |(index, name): (usize, &String)| {
            let is_used = self.used >> index.min(63) & 1 == 1;
            if is_used && known.contains(name) { format!("\"{name}\"") } else { "NULL".to_owned() }
        };
        let columns: Vec<_> = columns.iter().enumerate().map(column).collect();
        self.statement = prepare(database, &format!("SELECT {} FROM main.{view}", columns.join(", ")));
        if self.statement.is_null() { SQLITE_ERROR } else { SQLITE_OK }
    }

    /// Closes what is open.
    fn end(&mut self) {
        // SAFETY: both are what `begin` and `begin_segment` made, or null, which both calls allow; the statement goes before
        // its connection.
        unsafe {
            sqlite3_finalize(self.statement);
            sqlite3_close(self.segment);
        }
        (self.statement, self.segment) = (ptr::null_mut(), ptr::null_mut());
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        self.end();
    }
}

/// A file that nobody writes, as a URI (sqlite.org/uri.html).
fn immutable(path: &Path) -> CString {
    let mut uri = b"file:".to_vec();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' => uri.push(*byte),
            byte if byte.is_ascii_alphanumeric() => uri.push(*byte),
            byte => uri.extend(format!("%{byte:02x}").bytes()),
        }
    }
    uri.extend(b"?immutable=1");
    // None is left that could be NUL.
    CString::new(uri).unwrap_or_default()
}

fn prepare(database: *mut sqlite3, sql: &str) -> *mut sqlite3_stmt {
    let Ok(sql) = CString::new(sql) else { return ptr::null_mut() };
    let mut statement = ptr::null_mut();
    // SAFETY: the connection is open; the text ends in NUL; on an error the statement stays null.
    unsafe { sqlite3_prepare_v2(database, sql.as_ptr(), -1, &raw mut statement, ptr::null_mut()) };
    statement
}

/// The columns of a view.
fn names(database: *mut sqlite3, view: &str) -> Vec<String> {
    let statement = prepare(database, &format!("SELECT name FROM pragma_table_info('{view}')"));
    let mut names = Vec::new();
    if statement.is_null() {
        return names;
    }
    // SAFETY: prepared above and finalised below.
    while unsafe { sqlite3_step(statement) } == SQLITE_ROW {
        // SAFETY: a row is there; the text is its own until the next step, and copied before.
        let text = unsafe { sqlite3_column_text(statement, 0) };
        if !text.is_null() {
            // SAFETY: not null, so it ends in NUL.
            names.push(unsafe { CStr::from_ptr(text.cast()) }.to_string_lossy().into_owned());
        }
    }
    // SAFETY: prepared above.
    unsafe { sqlite3_finalize(statement) };
    names
}

unsafe extern "C" fn forget(source: *mut c_void) {
    // SAFETY: what `register` gave away; SQLite calls this once.
    drop(unsafe { Box::from_raw(source.cast::<Source>()) });
}

unsafe extern "C" fn connect(
    live: *mut sqlite3,
    source: *mut c_void,
    _count: c_int,
    _arguments: *const *const c_char,
    table: *mut *mut sqlite3_vtab,
    _error: *mut *mut c_char,
) -> c_int {
    let source = source.cast_const().cast::<Source>();
    // SAFETY: what `register` gave away, and not forgotten while there is a table.
    let columns = unsafe { &(*source).columns };
    let columns: Vec<_> = columns.iter().map(|name| format!("\"{name}\"")).collect();
    let Ok(sql) = CString::new(format!("CREATE TABLE t ({})", columns.join(", "))) else { return SQLITE_ERROR };
    // SAFETY: called while SQLite connects the table, which is when this is to be called.
    let code = unsafe { sqlite3_declare_vtab(live, sql.as_ptr()) };
    if code != SQLITE_OK {
        return code;
    }
    let base = sqlite3_vtab { pModule: ptr::null(), nRef: 0, zErrMsg: ptr::null_mut() };
    // SAFETY: a place for the table, which `disconnect` gets back.
    unsafe { *table = Box::into_raw(Box::new(Table { base, live, source })).cast() };
    SQLITE_OK
}

unsafe extern "C" fn disconnect(table: *mut sqlite3_vtab) -> c_int {
    // SAFETY: what `connect` made.
    drop(unsafe { Box::from_raw(table.cast::<Table>()) });
    SQLITE_OK
}

unsafe extern "C" fn best_index(_table: *mut sqlite3_vtab, plan: *mut sqlite3_index_info) -> c_int {
    // SAFETY: SQLite's own, for this call. There is one plan: all rows. What columns are asked for goes on to `filter` in
    // two halves, one of which is in the place of a text that nobody frees.
    unsafe {
        let used = (*plan).colUsed;
        (*plan).idxNum = u32::try_from(used & u64::from(u32::MAX)).unwrap_or(u32::MAX).cast_signed();
        (*plan).idxStr = ptr::without_provenance_mut((used >> 32) as usize);
        (*plan).needToFreeIdxStr = 0;
    }
    SQLITE_OK
}

unsafe extern "C" fn open(table: *mut sqlite3_vtab, cursor: *mut *mut sqlite3_vtab_cursor) -> c_int {
    // SAFETY: what `connect` made, not disconnected while it has cursors; a place for one, which `close` gets back.
    unsafe {
        let Table { live, source, .. } = *table.cast::<Table>();
        let walk = Walk {
            live,
            source,
            used: 0,
            begun: 0,
            segment: ptr::null_mut(),
            statement: ptr::null_mut(),
            row: 0,
            is_over: false,
        };
        *cursor = Box::into_raw(Box::new(Cursor { base: sqlite3_vtab_cursor { pVtab: table }, walk })).cast();
    }
    SQLITE_OK
}

unsafe extern "C" fn close(cursor: *mut sqlite3_vtab_cursor) -> c_int {
    // SAFETY: what `open` made.
    drop(unsafe { Box::from_raw(cursor.cast::<Cursor>()) });
    SQLITE_OK
}

unsafe extern "C" fn filter(
    cursor: *mut sqlite3_vtab_cursor,
    low: c_int,
    high: *const c_char,
    _count: c_int,
    _arguments: *mut *mut sqlite3_value,
) -> c_int {
    // SAFETY: what `open` made, and nobody else uses it during this call.
    let walk = unsafe { &mut (*cursor.cast::<Cursor>()).walk };
    walk.end();
    walk.used = (high.addr() as u64) << 32 | u64::from(low.cast_unsigned());
    (walk.begun, walk.row, walk.is_over) = (0, 0, false);
    walk.step()
}

unsafe extern "C" fn next(cursor: *mut sqlite3_vtab_cursor) -> c_int {
    // SAFETY: as in `filter`.
    unsafe { &mut (*cursor.cast::<Cursor>()).walk }.step()
}

unsafe extern "C" fn eof(cursor: *mut sqlite3_vtab_cursor) -> c_int {
    // SAFETY: as in `filter`.
    c_int::from(unsafe { &(*cursor.cast::<Cursor>()).walk }.is_over)
}

unsafe extern "C" fn column(cursor: *mut sqlite3_vtab_cursor, context: *mut sqlite3_context, index: c_int) -> c_int {
    // SAFETY: as in `filter`; SQLite asks for a column only while there is a row, and takes a copy of the value.
    unsafe {
        let walk = &(*cursor.cast::<Cursor>()).walk;
        sqlite3_result_value(context, sqlite3_column_value(walk.statement, index));
    }
    SQLITE_OK
}

unsafe extern "C" fn rowid(cursor: *mut sqlite3_vtab_cursor, rowid: *mut sqlite3_int64) -> c_int {
    // SAFETY: as in `filter`; a place for the number.
    unsafe { *rowid = (*cursor.cast::<Cursor>()).walk.row };
    SQLITE_OK
}
