//! PEM text, bounded: certificates in, certificates out.

use sidecar_decide::Certificate;
use thiserror::Error;

/// Most text that is read at once: a chain of 64 certificates fits, and a Secret holds 1 MiB anyway.
const TEXT_MAX_BYTES: usize = 256 * 1024;

/// Why text is no list of PEM blocks of a kind.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BlockError {
    /// Not text, too long, or broken blocks.
    #[error("is not PEM: {0}")]
    NotPem(String),
    /// Blocks of something else.
    #[error("holds a block `{found}` where `{wanted}` is expected; remove it")]
    OtherBlock {
        /// Label of the block that is there.
        found: String,
        /// Label that is expected.
        wanted: &'static str,
    },
    /// No block.
    #[error("holds no PEM block `{0}`")]
    Empty(&'static str),
    /// A block whose bytes are no certificate.
    #[error("block {index}: {detail}")]
    NotACertificate {
        /// Which block, from 1.
        index: usize,
        /// What is wrong with it.
        detail: String,
    },
}

/// The bytes of all blocks of a text, all of which have one of these labels; at least one.
pub(super) fn read(text: &[u8], labels: &[&'static str]) -> Result<Vec<Vec<u8>>, BlockError> {
    let wanted = labels.first().copied().unwrap_or_default();
    if text.len() > TEXT_MAX_BYTES {
        return Err(BlockError::NotPem(format!("{} bytes; at most {TEXT_MAX_BYTES} are read", text.len())));
    }
    let blocks = pem::parse_many(text).map_err(|error| BlockError::NotPem(error.to_string()))?;
    if blocks.is_empty() {
        return Err(BlockError::Empty(wanted));
    }
    let bytes = blocks.into_iter().map(|block| {
        if !labels.contains(&block.tag()) {
            return Err(BlockError::OtherBlock { found: block.tag().to_owned(), wanted });
        }
        Ok(block.into_contents())
    });
    bytes.collect()
}

/// The certificates of a text; at least one.
pub(crate) fn certificates(text: &[u8]) -> Result<Vec<Certificate>, BlockError> {
    let blocks = read(text, &["CERTIFICATE"])?.into_iter().enumerate();
    let read = blocks.map(|(index, der)| {
        let error = |detail: String| BlockError::NotACertificate { index: index + 1, detail };
        Certificate::from_der(der).map_err(|found| error(found.to_string()))
    });
    read.collect()
}

/// Certificates as text.
pub(crate) fn write<'a>(certificates: impl IntoIterator<Item = &'a Certificate>) -> String {
    certificates.into_iter().map(|certificate| block("CERTIFICATE", &certificate.der)).collect()
}

/// One block as text.
pub(crate) fn block(label: &str, der: &[u8]) -> String {
    let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(label, der), lines)
}
