//! What a message is, by the media type of its body, the root element of its XML, or the method of a gRPC request.
//!
//! Closed lists: a client chooses what it sends, and must not choose how many words the log and the metrics have.

mod call;
mod media;
mod names;
mod scan;

use std::fmt;

pub use self::call::Call;
pub use self::media::Medium;
use self::names::{Lookup, ROOTS};
pub use self::scan::{LOOKED_AT_MAX, RootScan};

/// A type of message that the program knows by itself: one byte, ordered as in [`MessageType::all`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageType(u8);

/// Those that are no root element.
const WORDS: [&str; 3] = ["other", "exi", "json"];

impl MessageType {
    /// How many there are.
    pub const COUNT: usize = WORDS.len() + ROOTS.len();

    /// A message of which nothing else is known: XML with another root or none that can be read, a call of another method.
    pub const OTHER: Self = Self(0);

    /// Efficient XML Interchange: its root is known to whoever has its schema, and not by a look at its bytes.
    pub const EXI: Self = Self(1);

    /// JSON, which has no root element, and whose members have no order.
    pub const JSON: Self = Self(2);

    /// Every one of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).take(Self::COUNT).map(Self)
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let word = WORDS.iter().position(|word| *word == name).and_then(|index| u8::try_from(index).ok());
        word.map(Self).or_else(|| name.bytes().fold(Lookup::NEW, Lookup::with).found().and_then(Self::root))
    }

    /// The name in rows, metrics and the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        WORDS.iter().chain(&ROOTS).nth(self.index()).copied().unwrap_or(WORDS[0])
    }

    /// Its place among all.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Whether it is a root element.
    #[must_use]
    pub fn is_root(self) -> bool {
        self.index() >= WORDS.len()
    }

    /// Of a place in the list of roots.
    fn root(place: u8) -> Option<Self> {
        let index = usize::from(place) + WORDS.len();
        (index < Self::COUNT).then(|| u8::try_from(index).ok().map(Self)).flatten()
    }
}

impl fmt::Display for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
