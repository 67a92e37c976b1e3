//! Paths, made unambiguous before they are matched: what is matched is what is forwarded.

use std::borrow::Cow;

use crate::reason::Reason;

/// Normalises a request's path: empty and dot segments are resolved (RFC 3986 §5.2.4).
///
/// What an application behind the gate could read differently than the gate is refused instead of guessed at: encoded
/// slashes, backslashes and NUL, encoded dot segments, dot segments with parameters, paths that climb above the root,
/// and percent signs that encode nothing. Borrowed where nothing had to change, which is nearly always.
///
/// # Errors
/// [`Reason::RouteBadPath`].
pub fn normalise(path: &str) -> Result<Cow<'_, str>, Reason> {
    if !path.starts_with('/') {
        return Err(Reason::RouteBadPath);
    }
    check_bytes(path.as_bytes())?;
    if !path.contains("//") && !path.contains("/.") {
        return Ok(Cow::Borrowed(path));
    }
    resolve(path)
}

fn check_bytes(path: &[u8]) -> Result<(), Reason> {
    for (index, byte) in path.iter().enumerate() {
        match byte {
            b'\\' | 0..=0x20 | 0x7f | b'?' | b'#' => return Err(Reason::RouteBadPath),
            b'%' => check_escape(path, index)?,
            _ => {}
        }
    }
    Ok(())
}

fn check_escape(path: &[u8], index: usize) -> Result<(), Reason> {
    let digit = |offset: usize| path.get(index + offset).and_then(|byte| char::from(*byte).to_digit(16));
    let (Some(high), Some(low)) = (digit(1), digit(2)) else { return Err(Reason::RouteBadPath) };
    match high * 16 + low {
        // NUL ends a string in C; an encoded slash or backslash is a separator to some and a letter to others.
        0 | 0x2f | 0x5c => Err(Reason::RouteBadPath),
        0x2e if is_dot_segment_with_escapes(segment_around(path, index)) => Err(Reason::RouteBadPath),
        _ => Ok(()),
    }
}

fn segment_around(path: &[u8], index: usize) -> &[u8] {
    let start = path[..index].iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let end = path[index..].iter().position(|byte| *byte == b'/').map_or(path.len(), |at| index + at);
    &path[start..end]
}

/// Whether a segment is `.` or `..`, with dots possibly written `%2e`, and possibly with parameters behind a `;`.
fn is_dot_segment_with_escapes(segment: &[u8]) -> bool {
    let mut rest = segment;
    let mut dots = 0;
    loop {
        rest = match rest {
            [b'.', tail @ ..] | [b'%', b'2', b'e' | b'E', tail @ ..] => tail,
            [] | [b';', ..] => return (1..=2).contains(&dots),
            _ => return false,
        };
        dots += 1;
    }
}

fn resolve(path: &str) -> Result<Cow<'_, str>, Reason> {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path[1..].split('/').peekable();
    let mut ends_in_slash = false;
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "" | "." => ends_in_slash = is_last,
            ".." => {
                kept.pop().ok_or(Reason::RouteBadPath)?;
                ends_in_slash = is_last;
            }
            // `..;x` is a parent segment to servers that cut parameters off first.
            _ if is_dot_segment_with_escapes(segment.as_bytes()) => return Err(Reason::RouteBadPath),
            _ => kept.push(segment),
        }
    }
    let mut resolved = String::with_capacity(path.len());
    for segment in &kept {
        resolved.push('/');
        resolved.push_str(segment);
    }
    if ends_in_slash || kept.is_empty() {
        resolved.push('/');
    }
    Ok(Cow::Owned(resolved))
}
