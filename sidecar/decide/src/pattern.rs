//! Regular expressions of documents: of the whole text, bounded in size, in number and in what they read.

use regex::bytes::{Regex, RegexBuilder};

/// Regular expressions in one policy: a request may have to try each of them.
pub(crate) const PATTERNS_MAX: usize = 64;

/// Length of an expression, which is also the longest that Gateway API takes for a path.
const PATTERN_MAX_BYTES: usize = 1024;

/// A compiled expression: counted repetitions of repetitions grow without it (`(a{99}){99}`).
const COMPILED_MAX_BYTES: usize = 64 << 10;

/// What an expression remembers of earlier texts, for each thread that uses it.
const CACHE_MAX_BYTES: usize = 64 << 10;

/// The longest text that an expression is asked about: a search is linear in it, times the expression's size.
const TEXT_MAX_BYTES: usize = 4096;

/// A regular expression that matches whole texts.
#[derive(Clone, Debug)]
pub(crate) struct Pattern(Regex);

impl Pattern {
    /// Compiles an expression; the error says what is wrong with it and what to do.
    pub(crate) fn new(expression: &str) -> Result<Self, String> {
        if expression.len() > PATTERN_MAX_BYTES {
            let length = expression.len();
            return Err(format!("is {length} bytes long; a regular expression has at most {PATTERN_MAX_BYTES}"));
        }
        // By itself first: in the group, `a)(b` would be well formed and mean something else.
        build(expression)?;
        build(&format!(r"\A(?:{expression})\z")).map(Self)
    }

    /// Whether it matches the whole text. A text that is too long matches nothing.
    pub(crate) fn is_match(&self, text: &[u8]) -> bool {
        text.len() <= TEXT_MAX_BYTES && self.0.is_match(text)
    }
}

/// Classes and case are ASCII's, because a normalised path is; `.` is any byte but a line's end.
fn build(expression: &str) -> Result<Regex, String> {
    let mut builder = RegexBuilder::new(expression);
    let builder = builder.unicode(false).size_limit(COMPILED_MAX_BYTES).dfa_size_limit(CACHE_MAX_BYTES);
    builder.build().map_err(|error| match error {
        regex::Error::CompiledTooBig(limit) => {
            format!("`{expression}` takes more than {limit} bytes compiled; repeat less, or split it")
        }
        // The library draws the expression over several lines; its last line says what is wrong.
        error => {
            let error = error.to_string();
            let last = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("`{expression}` is not a regular expression: {last}")
        }
    })
}
