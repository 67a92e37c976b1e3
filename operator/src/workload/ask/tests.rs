//! What sidecars answer.
