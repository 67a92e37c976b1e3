//! Rows for people and programs: an aligned table, one JSON object a line, or CSV.

use std::fmt::Write as _;
use std::io::{self, Write};

/// The shape of what is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// Aligned columns; long values are cut.
    #[default]
    Table,
    /// The same in colours, for a terminal.
    Painted,
    /// One object a line, every column.
    Json,
    /// RFC 4180, with a header. No text in it is a formula to a spreadsheet.
    Csv,
    /// The same on a terminal, with escapes for what would move it.
    CsvShown,
}

/// Characters of one value in a table.
const CELL_CHARS: usize = 48;

/// Rows that are held to find the columns' widths; later rows use the same, so that memory does not grow with them.
const MEASURED_ROWS: usize = 100;

/// One value of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cell<'a> {
    Null,
    Integer(i64),
    Real(f64),
    Text(&'a str),
    Blob(&'a [u8]),
}

/// What is done with each row.
pub(super) type Each<'e> = dyn FnMut(&[Cell<'_>]) -> io::Result<()> + 'e;

/// The column whose words have colours, and these (ECMA-48 §8.3.117).
const PAINTED: &str = "verdict";
const BOLD: &str = "\u{1b}[1m";
const RED: &str = "\u{1b}[31m";
const YELLOW: &str = "\u{1b}[33m";
const PLAIN: &str = "\u{1b}[0m";

/// Characters with which a spreadsheet's formula begins, or what it takes for one: clients choose much of what is printed
/// (OWASP, "CSV Injection").
const FORMULA: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

/// Prints rows of the same columns to `out`.
pub(super) struct Printer<'o, W: ?Sized = dyn Write + 'o> {
    output: Output,
    out: &'o mut W,
    columns: Vec<String>,
    /// Table only: the rows not printed yet, until `widths` is known.
    held: Vec<Vec<String>>,
    widths: Option<Vec<usize>>,
}

impl<'o, W: Write + ?Sized> Printer<'o, W> {
    pub(super) fn new(output: Output, out: &'o mut W, columns: Vec<String>) -> io::Result<Self> {
        if matches!(output, Output::Csv | Output::CsvShown) {
            write_csv(out, columns.iter().map(|name| csv_field(name)))?;
        }
        Ok(Self { output, out, columns, held: Vec::new(), widths: None })
    }

    pub(super) fn row(&mut self, cells: &[Cell<'_>]) -> io::Result<()> {
        match self.output {
            Output::Json => self.json_row(cells),
            Output::Csv => write_csv(self.out, cells.iter().map(|cell| csv_cell(*cell))),
            Output::CsvShown => write_csv(self.out, cells.iter().map(|cell| safe(&csv_cell(*cell)))),
            Output::Table | Output::Painted => {
                let row: Vec<String> = cells.iter().map(|cell| table_cell(*cell)).collect();
                match self.widths.take() {
                    Some(widths) => {
                        self.write_row(&widths, &row)?;
                        self.widths = Some(widths);
                        Ok(())
                    }
                    None => {
                        self.held.push(row);
                        if self.held.len() == MEASURED_ROWS { self.print_held() } else { Ok(()) }
                    }
                }
            }
        }
    }

    /// A row that is an object of JSON already. What is no text in it may be on several lines.
    pub(super) fn json(&mut self, object: &str) -> io::Result<()> {
        write_json(self.out, &object.replace(['\n', '\r', '\t'], " "))?;
        self.out.write_all(b"\n")
    }

    /// Shows what was printed so far, although more may come.
    pub(super) fn show(&mut self) -> io::Result<()> {
        if self.is_table() && self.widths.is_none() && !self.held.is_empty() {
            self.print_held()?;
        }
        self.out.flush()
    }

    /// Where it prints.
    pub(super) fn written(&mut self) -> &mut W {
        self.out
    }

    /// Prints what is still held.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if self.is_table() && self.widths.is_none() {
            self.print_held()?;
        }
        self.out.flush()
    }

    fn is_table(&self) -> bool {
        matches!(self.output, Output::Table | Output::Painted)
    }

    fn print_held(&mut self) -> io::Result<()> {
        let header: Vec<String> = self.columns.iter().map(|name| table_cell(Cell::Text(name))).collect();
        let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
        for row in &self.held {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let header = aligned(&widths, header.iter().map(|cell| (cell.as_str(), "")));
        match self.output {
            Output::Painted => writeln!(self.out, "{BOLD}{header}{PLAIN}")?,
            _ => writeln!(self.out, "{header}")?,
        }
        for row in std::mem::take(&mut self.held) {
            self.write_row(&widths, &row)?;
        }
        self.widths = Some(widths);
        Ok(())
    }

    fn write_row(&mut self, widths: &[usize], row: &[String]) -> io::Result<()> {
        let cells = self.columns.iter().zip(row).map(|(column, cell)| {
            let is_painted = self.output == Output::Painted && column == PAINTED;
            (cell.as_str(), if is_painted { colour(cell) } else { "" })
        });
        let line = aligned(widths, cells);
        writeln!(self.out, "{line}")
    }

    /// Written member by member, because an object of serde_json sorts its names.
    fn json_row(&mut self, cells: &[Cell<'_>]) -> io::Result<()> {
        let mut open = '{';
        for (name, cell) in self.columns.iter().zip(cells) {
            write!(self.out, "{open}")?;
            serde_json::to_writer(&mut *self.out, name)?;
            self.out.write_all(b":")?;
            match cell {
                Cell::Null => serde_json::to_writer(&mut *self.out, &())?,
                Cell::Integer(number) => serde_json::to_writer(&mut *self.out, number)?,
                Cell::Real(number) => serde_json::to_writer(&mut *self.out, number)?,
                Cell::Text(text) => write_json(self.out, &serde_json::to_string(text)?)?,
                Cell::Blob(_) => serde_json::to_writer(&mut *self.out, &plain(*cell))?,
            }
            open = ',';
        }
        self.out.write_all(if cells.is_empty() { b"{}\n" } else { b"}\n" })
    }
}

/// JSON with escapes for what moves a terminal, which to programs are the same.
fn write_json(out: &mut (impl Write + ?Sized), json: &str) -> io::Result<()> {
    let mut rest = json;
    while let Some(at) = rest.find(moves_terminal) {
        let (before, from) = rest.split_at(at);
        out.write_all(before.as_bytes())?;
        let mut after = from.chars();
        for unit in after.next().iter().flat_map(|one| one.encode_utf16(&mut [0; 2]).to_vec()) {
            write!(out, "\\u{unit:04x}")?;
        }
        rest = after.as_str();
    }
    out.write_all(rest.as_bytes())
}

/// The value as text, as it is; NULL is empty, a blob is hexadecimal.
pub(super) fn plain(cell: Cell<'_>) -> String {
    match cell {
        Cell::Null => String::new(),
        Cell::Integer(number) => number.to_string(),
        Cell::Real(number) => number.to_string(),
        Cell::Text(text) => text.to_owned(),
        Cell::Blob(bytes) => bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        }),
    }
}

/// The value as one cell: cut, and safe for a terminal.
fn table_cell(cell: Cell<'_>) -> String {
    if cell == Cell::Null {
        return "-".to_owned();
    }
    let text = plain(cell);
    let safe = safe(text.char_indices().nth(CELL_CHARS + 1).map_or(&*text, |(end, _)| &text[..end]));
    match safe.char_indices().nth(CELL_CHARS) {
        None => safe,
        Some(_) => safe.chars().take(CELL_CHARS - 1).chain(['…']).collect(),
    }
}

/// The text with escapes for what moves a terminal.
#[must_use]
pub fn safe(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if moves_terminal(character) { safe.extend(character.escape_unicode()) } else { safe.push(character) }
    }
    safe
}

/// Control characters, and those that hide or reorder what stands beside them: clients choose much of what is printed.
fn moves_terminal(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn colour(verdict: &str) -> &'static str {
    match verdict {
        "refused" => RED,
        "would_refuse" => YELLOW,
        _ => "",
    }
}

/// Cells with their colours in one line.
fn aligned<'c>(widths: &[usize], cells: impl Iterator<Item = (&'c str, &'static str)>) -> String {
    let mut line = String::new();
    for (width, (cell, colour)) in widths.iter().zip(cells) {
        let end = if colour.is_empty() { "" } else { PLAIN };
        // Writing to a string cannot fail.
        let _ = write!(line, "{colour}{cell}{end}{:gap$}", "", gap = width.saturating_sub(cell.chars().count()) + 2);
    }
    line.truncate(line.trim_end().len());
    line
}

/// A text that would be a formula is one no more behind an apostrophe; a number is none.
fn csv_cell(cell: Cell<'_>) -> String {
    let is_number = |text: &str| {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    };
    match cell {
        Cell::Text(text) if text.starts_with(FORMULA) && !is_number(text) => csv_field(&format!("'{text}")),
        cell => csv_field(&plain(cell)),
    }
}

fn csv_field(text: &str) -> String {
    if text.contains(['"', ',', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

fn write_csv(out: &mut (impl Write + ?Sized), fields: impl Iterator<Item = String>) -> io::Result<()> {
    let line: Vec<String> = fields.collect();
    write!(out, "{}\r\n", line.join(","))
}
