//! One structure in three notations: JSON, YAML and TOML all become the same tree of values.

use std::fmt;
use std::path::Path;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::UserMessageFormatter;
use thiserror::Error;

/// The notation of a file, told by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `.json`
    Json,
    /// `.yaml`, `.yml`
    Yaml,
    /// `.toml`
    Toml,
}

/// A file is not well-formed; one line, with the place where its parser knows it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("not valid {notation}: {detail}")]
pub struct FormatError {
    notation: &'static str,
    detail: String,
}

impl Format {
    /// The notation a file's name promises, if it is one a document may have.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "json" => Some(Self::Json),
            "yaml" | "yml" => Some(Self::Yaml),
            "toml" => Some(Self::Toml),
            _ => None,
        }
    }

    /// Reads a file's text into values. A key that stands twice in one table is an error in every notation.
    ///
    /// # Errors
    /// With line and column where the text is not well-formed.
    pub fn parse(self, text: &str) -> Result<Value, FormatError> {
        let (notation, parsed) = match self {
            Self::Json => ("JSON", serde_json::from_str(text).map_err(|error| json_error(&error))),
            Self::Yaml => ("YAML", serde_saphyr::from_str(text).map_err(|error| yaml_error(&error))),
            Self::Toml => ("TOML", toml::from_str(text).map_err(|error| toml_error(&error, text))),
        };
        parsed.map(|Tree(value)| value).map_err(|detail| FormatError { notation, detail })
    }
}

fn json_error(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    at(error.line(), error.column(), message.strip_suffix(&place).unwrap_or(&message))
}

fn yaml_error(error: &serde_saphyr::Error) -> String {
    let error = error.without_snippet();
    let message = error.render_with_formatter(&UserMessageFormatter);
    match error.location() {
        Some(place) => {
            // The renderer puts the place at the end; ours has one form for all notations.
            let told = format!(" at line {}, column {}", place.line(), place.column());
            at(place.line(), place.column(), message.strip_suffix(&told).unwrap_or(&message))
        }
        None => one_line(&message),
    }
}

fn toml_error(error: &toml::de::Error, text: &str) -> String {
    let Some(span) = error.span() else { return one_line(error.message()) };
    let before = text.get(..span.start).unwrap_or(text);
    let column = before.chars().rev().take_while(|letter| *letter != '\n').count() + 1;
    at(before.matches('\n').count() + 1, column, error.message())
}

fn at(line: impl fmt::Display, column: impl fmt::Display, message: &str) -> String {
    format!("line {line}, column {column}: {}", one_line(message))
}

fn one_line(message: &str) -> String {
    message.split('\n').map(str::trim).collect::<Vec<_>>().join(" ")
}

/// Values, where no table has a key twice: the last of two would win in silence, and nobody would miss the first.
struct Tree(Value);

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor).map(Self)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Tree(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut table: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(key) = table.next_key::<String>()? {
            if values.contains_key(&key) {
                return Err(de::Error::custom(format_args!("duplicate key `{key}`; keep one")));
            }
            let Tree(value) = table.next_value()?;
            values.insert(key, value);
        }
        Ok(values.into())
    }
}
