//! How far rows were sent: a small file beside the log. Were it in the log itself, each batch would take the writer's lock.
//! Lost or old, it costs sending rows once more, and no row.

use std::fs;
use std::io;
use std::path::Path;

use super::super::segments::beside;

/// What the file is called after the log.
const END: &str = ".shipped";

/// The last row of a store that Postgres has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// Which store: one that was set aside and begun anew counts anew.
    pub(super) store: i64,
    /// The row's number.
    pub(super) seq: i64,
    /// Its time, in microseconds: a disk that has forgotten it gives its number to another row.
    pub(super) at: i64,
}

/// `None` where there is none, or none that can be read.
pub(super) fn read(log: &Path) -> Option<Position> {
    let text = fs::read_to_string(beside(log, END)).ok()?;
    let mut numbers = text.split_ascii_whitespace().map(|number| number.parse::<i64>().ok());
    let mut number = || numbers.next().flatten();
    Some(Position { store: number()?, seq: number()?, at: number()? })
}

/// Whole, or as it was.
pub(super) fn write(log: &Path, position: Position) -> io::Result<()> {
    let (path, unfinished) = (beside(log, END), beside(log, &format!("{END}.new")));
    let Position { store, seq, at } = position;
    fs::write(&unfinished, format!("{store} {seq} {at}\n"))?;
    fs::rename(unfinished, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_replaced_and_never_written_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("requests.db");
        let position = |seq| Position { store: 7, seq, at: 1 };
        write(&log, position(1)).expect("written");
        // Whoever has it open reads it as it was.
        let before = folder.path().join("before.db");
        fs::hard_link(beside(&log, END), beside(&before, END)).expect("linked");
        write(&log, position(2)).expect("written");
        assert_eq!([read(&before), read(&log)], [Some(position(1)), Some(position(2))]);
    }

    #[test]
    fn it_comes_back_as_it_was_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("requests.db");
        assert_eq!(read(&log), None);
        for seq in [1, i64::MAX] {
            let position = Position { store: 7, seq, at: -3 };
            write(&log, position).expect("written");
            assert_eq!(read(&log), Some(position));
        }
        for torn in ["", "7", "7 1", "7 x 1"] {
            fs::write(beside(&log, END), torn).expect("written");
            assert_eq!(read(&log), None, "{torn}");
        }
    }
}
