//! One structure in three notations: JSON, YAML and TOML all become the same tree of values.

use std::path::Path;

use serde_json::Value;
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

/// A file is not well-formed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("not valid {format:?}: {detail}")]
pub struct FormatError {
    format: Format,
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

    /// Reads a file's text into values.
    ///
    /// # Errors
    /// With line and column where the text is not well-formed.
    pub fn parse(self, text: &str) -> Result<Value, FormatError> {
        let parsed = match self {
            Self::Json => serde_json::from_str(text).map_err(|e| e.to_string()),
            Self::Yaml => serde_saphyr::from_str(text).map_err(|e| e.to_string()),
            Self::Toml => toml::from_str(text).map_err(|e| e.to_string()),
        };
        parsed.map_err(|detail| FormatError { format: self, detail: detail.trim_end().to_owned() })
    }
}
