//! The root element of an XML document, found in bytes that come in pieces: a few bytes of state, and no copy of any.
//!
//! It reads what comes before a document's root (XML 1.0 §2.8): byte order mark, declaration, comments, processing
//! instructions and a DOCTYPE with its internal subset. It is strict: whatever a parser might read in another way is
//! [`MessageType::OTHER`], so that nobody hides a root from a rule behind, say, a comment that ends twice.

use super::MessageType;
use super::media::ENCODINGS;
use super::names::Lookup;

/// Bytes of a document that are looked at. Declarations and comments of real documents take some hundred.
pub const LOOKED_AT_MAX: u16 = 4096;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A document whose root has not come yet.
#[derive(Clone, Debug)]
pub struct RootScan {
    state: State,
    looked_at: u16,
    has_doctype: bool,
}

/// Where in a document the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At its beginning, behind so many bytes of the mark.
    Beginning(u8),
    /// Between markup.
    Between(Place),
    /// Behind `<`; whether that was the document's first byte.
    Open(Place, bool),
    /// In the target of a processing instruction, which begins like `xml` for so many bytes.
    Target(Place, bool, u8),
    /// In a processing instruction; whether behind `?`.
    Instruction(Place, bool),
    /// In the XML declaration.
    Declaration(Declaration),
    /// Behind `<!`.
    Bang(Place),
    /// Behind `<!-`.
    HalfComment(Place),
    /// In a comment, behind so many dashes.
    Comment(Place, u8),
    /// Behind so many letters of `DOCTYPE`.
    Keyword(u8),
    /// In a DOCTYPE, or one of its declarations.
    Markup(Place),
    /// There, in a text that this quote ends.
    Text(Place, u8),
    /// Behind the internal subset.
    AfterSubset,
    /// In the root's name, or its prefix; whether behind the prefix.
    Name(Lookup, bool),
}

/// What surrounds markup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// What comes before the root.
    Prolog,
    /// The internal subset of a DOCTYPE.
    Subset,
}

/// Where in an XML declaration the next byte stands. Only the encoding is of interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Declaration {
    /// Between its parts.
    Gap,
    /// In a name; whether it is the encoding's.
    Name(bool),
    /// Behind `=`.
    Equals(bool),
    /// In a value that this quote ends.
    Value(u8),
    /// In the encoding: which of those that are known begin so, one bit each, and for how many bytes.
    Encoding { quote: u8, known: u8, bytes: u8 },
    /// Behind `?`.
    End,
}

/// What a byte leads to.
type Step = Result<State, MessageType>;

const OTHER: Step = Err(MessageType::OTHER);

impl Default for RootScan {
    fn default() -> Self {
        Self::new()
    }
}

impl RootScan {
    /// Before its first byte.
    #[must_use]
    pub fn new() -> Self {
        Self { state: State::Beginning(0), looked_at: 0, has_doctype: false }
    }

    /// Looks at the next bytes; says what the message is as soon as that is known, and is not to be asked again then.
    pub fn feed(&mut self, bytes: &[u8]) -> Option<MessageType> {
        for byte in bytes {
            self.looked_at += 1;
            match self.step(*byte) {
                Ok(state) if self.looked_at < LOOKED_AT_MAX => self.state = state,
                Ok(_) => return Some(MessageType::OTHER),
                Err(found) => return Some(found),
            }
        }
        None
    }

    /// What a document is that has ended before its root was known; `None` for an empty body, which is none.
    #[must_use]
    pub fn ended(&self) -> Option<MessageType> {
        (self.looked_at > 0).then_some(MessageType::OTHER)
    }

    fn step(&mut self, byte: u8) -> Step {
        match self.state {
            State::Beginning(marked) => beginning(byte, marked),
            State::Between(place) => between(byte, place),
            State::Open(place, is_first) => open(byte, place, is_first),
            State::Target(place, is_first, matched) => target(byte, place, is_first, matched),
            State::Instruction(place, is_asked) => Ok(match byte {
                b'>' if is_asked => State::Between(place),
                _ => State::Instruction(place, byte == b'?'),
            }),
            State::Declaration(declaration) => declare(byte, declaration),
            State::Bang(place) => self.bang(byte, place),
            State::HalfComment(place) => {
                if byte == b'-' {
                    Ok(State::Comment(place, 0))
                } else {
                    OTHER
                }
            }
            State::Comment(place, dashes) => comment(byte, place, dashes),
            State::Keyword(matched) => keyword(byte, matched),
            State::Markup(place) => markup(byte, place),
            State::Text(place, quote) => Ok(if byte == quote { State::Markup(place) } else { self.state }),
            State::AfterSubset => match byte {
                b'>' => Ok(State::Between(Place::Prolog)),
                _ if is_space(byte) => Ok(self.state),
                _ => OTHER,
            },
            State::Name(name, has_prefix) => name_of_root(byte, name, has_prefix),
        }
    }

    fn bang(&mut self, byte: u8, place: Place) -> Step {
        match (byte, place) {
            (b'-', _) => Ok(State::HalfComment(place)),
            (b'D', Place::Prolog) if !self.has_doctype => {
                self.has_doctype = true;
                Ok(State::Keyword(1))
            }
            (b'A'..=b'Z', Place::Subset) => Ok(State::Markup(Place::Subset)),
            _ => OTHER,
        }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Whether a name may begin so. What is not ASCII begins no name of the list, but may begin a prefix.
fn begins_name(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || !byte.is_ascii()
}

fn beginning(byte: u8, marked: u8) -> Step {
    match (marked, byte) {
        (0 | 3, b'<') => Ok(State::Open(Place::Prolog, true)),
        (0 | 3, _) if is_space(byte) => Ok(State::Between(Place::Prolog)),
        (0..3, _) if BYTE_ORDER_MARK.get(usize::from(marked)) == Some(&byte) => Ok(State::Beginning(marked + 1)),
        // UTF-16 and others have another mark, or zeros.
        _ => OTHER,
    }
}

fn between(byte: u8, place: Place) -> Step {
    match (byte, place) {
        (b'<', _) => Ok(State::Open(place, false)),
        (b']', Place::Subset) => Ok(State::AfterSubset),
        // References to parameter entities stand there, too.
        (b'%' | b';' | b'.' | b'-' | b':', Place::Subset) => Ok(State::Between(place)),
        (_, Place::Subset) if begins_name(byte) || byte.is_ascii_digit() => Ok(State::Between(place)),
        _ if is_space(byte) => Ok(State::Between(place)),
        _ => OTHER,
    }
}

fn open(byte: u8, place: Place, is_first: bool) -> Step {
    match (byte, place) {
        (b'?', _) => Ok(State::Target(place, is_first, 0)),
        (b'!', _) => Ok(State::Bang(place)),
        (_, Place::Prolog) if begins_name(byte) => Ok(State::Name(Lookup::NEW.with(byte), false)),
        _ => OTHER,
    }
}

fn target(byte: u8, place: Place, is_first: bool, matched: u8) -> Step {
    const XML: [u8; 3] = *b"xml";
    match XML.get(usize::from(matched)) {
        Some(letter) if byte.eq_ignore_ascii_case(letter) => Ok(State::Target(place, is_first, matched + 1)),
        Some(_) if matched == 0 && !begins_name(byte) => OTHER,
        // `xml` in whatever case is the declaration, and stands at the beginning alone (XML 1.0 §2.6).
        None if is_space(byte) && is_first => Ok(State::Declaration(Declaration::Gap)),
        None if is_space(byte) || byte == b'?' => OTHER,
        _ => Ok(State::Instruction(place, byte == b'?')),
    }
}

fn declare(byte: u8, declaration: Declaration) -> Step {
    Ok(State::Declaration(match (declaration, byte) {
        (Declaration::Gap, b'?') => Declaration::End,
        (Declaration::Gap, _) if is_space(byte) => Declaration::Gap,
        (Declaration::Gap, b'v' | b'e' | b's') => Declaration::Name(byte == b'e'),
        (Declaration::Name(is_encoding), b'=') => Declaration::Equals(is_encoding),
        (Declaration::Name(_), _) if byte.is_ascii_lowercase() || is_space(byte) => declaration,
        (Declaration::Equals(_), _) if is_space(byte) => declaration,
        (Declaration::Equals(false), b'"' | b'\'') => Declaration::Value(byte),
        (Declaration::Equals(true), b'"' | b'\'') => Declaration::Encoding { quote: byte, known: u8::MAX, bytes: 0 },
        (Declaration::Value(quote), _) if byte == quote => Declaration::Gap,
        (Declaration::Value(_), _) if byte.is_ascii_alphanumeric() || byte == b'.' => declaration,
        (Declaration::Encoding { quote, known, bytes }, _) => encoding(byte, quote, known, bytes)?,
        (Declaration::End, b'>') => return Ok(State::Between(Place::Prolog)),
        _ => return OTHER,
    }))
}

fn encoding(byte: u8, quote: u8, known: u8, bytes: u8) -> Result<Declaration, MessageType> {
    let all = || (0..).zip(ENCODINGS).filter(|(bit, _)| known & (1_u8 << bit) != 0);
    if byte == quote {
        let is_known = all().any(|(_, name)| name.len() == usize::from(bytes));
        return if is_known { Ok(Declaration::Gap) } else { Err(MessageType::OTHER) };
    }
    let fits =
        |name: &str| name.as_bytes().get(usize::from(bytes)).is_some_and(|letter| letter.eq_ignore_ascii_case(&byte));
    let known = all().filter(|(_, name)| fits(name)).fold(0, |known, (bit, _)| known | 1_u8 << bit);
    if known == 0 { Err(MessageType::OTHER) } else { Ok(Declaration::Encoding { quote, known, bytes: bytes + 1 }) }
}

fn comment(byte: u8, place: Place, dashes: u8) -> Step {
    match (dashes, byte) {
        (2, b'>') => Ok(State::Between(place)),
        // Two dashes end it (XML 1.0 §2.5); some parsers go on.
        (2, _) => OTHER,
        (_, b'-') => Ok(State::Comment(place, dashes + 1)),
        _ => Ok(State::Comment(place, 0)),
    }
}

fn keyword(byte: u8, matched: u8) -> Step {
    const DOCTYPE: &[u8] = b"DOCTYPE";
    match DOCTYPE.get(usize::from(matched)) {
        Some(letter) if *letter == byte => Ok(State::Keyword(matched + 1)),
        None if is_space(byte) => Ok(State::Markup(Place::Prolog)),
        _ => OTHER,
    }
}

fn markup(byte: u8, place: Place) -> Step {
    match (byte, place) {
        (b'"' | b'\'', _) => Ok(State::Text(place, byte)),
        (b'>', _) => Ok(State::Between(place)),
        (b'[', Place::Prolog) => Ok(State::Between(Place::Subset)),
        (b'<' | b'[' | b']', _) => OTHER,
        _ => Ok(State::Markup(place)),
    }
}

fn name_of_root(byte: u8, name: Lookup, has_prefix: bool) -> Step {
    match byte {
        b':' if !has_prefix => Ok(State::Name(Lookup::NEW, true)),
        b'/' | b'>' => Err(name.found().and_then(MessageType::root).unwrap_or(MessageType::OTHER)),
        _ if is_space(byte) => Err(name.found().and_then(MessageType::root).unwrap_or(MessageType::OTHER)),
        _ => Ok(State::Name(name.with(byte), has_prefix)),
    }
}
