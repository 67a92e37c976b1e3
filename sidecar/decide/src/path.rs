//! Paths, made unambiguous before they are matched: what is matched is what is forwarded.

use std::borrow::Cow;

use crate::reason::Reason;

/// Normalises a request's path: empty and dot segments are resolved (RFC 3986 §5.2.4), and every byte is spelled one
/// way (§6.2.2), so that `/%61dmin` cannot slip past a rule for `/admin`.
///
/// What an application behind the gate could read differently than the gate is refused instead of guessed at: encoded
/// slashes, backslashes and NUL, overlong UTF-8, encoded dot segments, dot segments with parameters, paths that climb
/// above the root, and percent signs that encode nothing. Borrowed where nothing had to change, which is nearly always.
///
/// # Errors
/// [`Reason::RouteBadPath`].
pub fn normalise(path: &str) -> Result<Cow<'_, str>, Reason> {
    if is_plain(path.as_bytes()) { Ok(Cow::Borrowed(path)) } else { normalise_thoroughly(path) }
}

fn normalise_thoroughly(path: &str) -> Result<Cow<'_, str>, Reason> {
    let relative = path.strip_prefix('/').ok_or(Reason::RouteBadPath)?;
    let mut changes = false;
    let mut segments = relative.split('/').peekable();
    while let Some(segment) = segments.next() {
        changes |= match segment {
            "" => segments.peek().is_some(),
            "." | ".." => true,
            _ => !is_normal(segment.as_bytes())?,
        };
    }
    if changes { resolve(relative).map(Cow::Owned) } else { Ok(Cow::Borrowed(path)) }
}

/// Whether a path is normal at first sight, as nearly all are: plain bytes only, and no segment but the last that is empty
/// or begins with a dot.
fn is_plain(path: &[u8]) -> bool {
    let mut is_first = false;
    let are_plain = path.iter().all(|byte| match byte {
        b'/' => !std::mem::replace(&mut is_first, true),
        b'.' => !is_first,
        byte => {
            is_first = false;
            PLAIN[usize::from(*byte)]
        }
    });
    are_plain && path.first() == Some(&b'/')
}

/// Which bytes a segment may hold plainly.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        plain[byte as usize] = is_unreserved(byte) || is_delimiter(byte);
        byte += 1;
    }
    plain
};

/// A normalised path as routes compare it: the delimiters that RFC 3986 keeps apart from their escapes, but that an
/// application which decodes its paths cannot tell from them, are plain. What is forwarded keeps them as they came.
pub(crate) fn match_key(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut key = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        key.push_str(&rest[..at]);
        let delimiter = escaped(rest.as_bytes(), at).filter(|byte| is_delimiter(*byte));
        key.push(delimiter.map_or('%', char::from));
        rest = &rest[at + delimiter.map_or(1, |_| 3)..];
    }
    key.push_str(rest);
    Cow::Owned(key)
}

/// Whether a segment is spelled as a normal path spells it; refuses what no path may hold.
fn is_normal(segment: &[u8]) -> Result<bool, Reason> {
    if is_disguised_dot_segment(segment) {
        return Err(Reason::RouteBadPath);
    }
    let mut normal = true;
    for (index, byte) in segment.iter().enumerate() {
        match byte {
            b'\\' | 0..=0x20 | 0x7f | b'?' | b'#' => return Err(Reason::RouteBadPath),
            b'%' => normal &= is_normal_escape(segment, index)?,
            _ => normal &= is_unreserved(*byte) || is_delimiter(*byte),
        }
    }
    Ok(normal)
}

fn is_normal_escape(segment: &[u8], index: usize) -> Result<bool, Reason> {
    match (escaped(segment, index), escaped(segment, index + 3)) {
        // NUL ends a string in C; an encoded slash or backslash is a separator to some and a letter to others.
        (None | Some(0 | b'/' | b'\\'), _) => Err(Reason::RouteBadPath),
        // Overlong UTF-8 (RFC 3629 §3): a lenient decoder reads `%C0%AE` as a dot and `%C0%AF` as a slash.
        (Some(0xc0 | 0xc1), Some(0x80..=0xbf)) | (Some(0xe0), Some(0x80..=0x9f)) | (Some(0xf0), Some(0x80..=0x8f)) => {
            Err(Reason::RouteBadPath)
        }
        (Some(byte), _) => {
            let is_upper = !segment[index + 1..index + 3].iter().any(u8::is_ascii_lowercase);
            Ok(is_upper && !is_unreserved(byte))
        }
    }
}

/// The byte that the escape at an index stands for, if there is one.
pub(crate) fn escaped(path: &[u8], index: usize) -> Option<u8> {
    let [b'%', high, low] = path.get(index..index + 3)? else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(*high)? * 16 + digit(*low)?)
}

/// RFC 3986 §2.3: their escapes mean the same and are normally not written.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What else a segment may hold plainly (RFC 3986 §3.3): sub-delims, colon and at sign.
const fn is_delimiter(byte: u8) -> bool {
    matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@')
}

/// Whether a segment is `.` or `..` to some servers and not to others: dots written `%2e`, or parameters behind a `;`
/// (or `%3b`), which servers cut off first.
fn is_disguised_dot_segment(segment: &[u8]) -> bool {
    let mut rest = segment;
    let mut dots = 0;
    loop {
        rest = match rest {
            [b'.', tail @ ..] | [b'%', b'2', b'e' | b'E', tail @ ..] => tail,
            [] | [b';', ..] | [b'%', b'3', b'b' | b'B', ..] => return (1..=2).contains(&dots),
            _ => return false,
        };
        dots += 1;
    }
}

fn resolve(relative: &str) -> Result<String, Reason> {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = relative.split('/').peekable();
    let mut ends_in_slash = false;
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "" | "." => ends_in_slash = is_last,
            ".." => {
                kept.pop().ok_or(Reason::RouteBadPath)?;
                ends_in_slash = is_last;
            }
            _ => kept.push(segment),
        }
    }
    let mut resolved = String::with_capacity(relative.len() + 1);
    for segment in &kept {
        resolved.push('/');
        spell(segment.as_bytes(), &mut resolved);
    }
    if ends_in_slash {
        resolved.push('/');
    }
    Ok(resolved)
}

/// Writes a segment normally: unreserved bytes plain, delimiters as they came, all others as upper-case escapes.
fn spell(segment: &[u8], out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut index = 0;
    while let Some(byte) = segment.get(index) {
        let (byte, was_escaped) = match escaped(segment, index) {
            Some(byte) => (byte, true),
            None => (*byte, false),
        };
        index += if was_escaped { 3 } else { 1 };
        if is_unreserved(byte) || (is_delimiter(byte) && !was_escaped) {
            out.push(char::from(byte));
        } else {
            let digit = |half: u8| char::from(DIGITS[usize::from(half)]);
            out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

/// The path as servers read it that cut parameters off each segment (`;` and what follows it); `None` where there are
/// none. What is left may have empty and dot segments, which are resolved.
#[must_use]
pub fn without_parameters(path: &str) -> Option<String> {
    if !path.contains(';') && !path.contains("%3B") {
        return None;
    }
    let bare = |segment: &'_ str| {
        let end = [segment.find(';'), segment.find("%3B")].into_iter().flatten().min();
        segment[..end.unwrap_or(segment.len())].to_owned()
    };
    let joined = path.split('/').map(bare).collect::<Vec<_>>().join("/");
    // A dot segment in front of a parameter was refused when the path was normalised.
    normalise(&joined).ok().map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::{is_plain, normalise_thoroughly};

    #[test]
    fn what_is_normal_at_first_sight_is_normal() {
        let signs = ['/', '.', 'a', '%', '2', 'e', ';', '~', '\\', 'é'];
        let mut paths = vec![String::new()];
        let mut plain = 0;
        for _ in 0..6 {
            paths = paths.iter().flat_map(|path| signs.map(|sign| format!("{path}{sign}"))).collect();
            for path in paths.iter().filter(|path| is_plain(path.as_bytes())) {
                assert!(matches!(normalise_thoroughly(path), Ok(Cow::Borrowed(_))), "{path}");
                plain += 1;
            }
            paths.retain(|path| path.starts_with('/'));
        }
        assert!(plain > 1000, "{plain}");
    }
}
