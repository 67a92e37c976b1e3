//! By which names a request is found again: its own id, and the id of the trace it belongs to.

use std::fmt;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::hops::single;
use crate::hash::hex;

/// Where a request's id is told.
pub static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Where a request says which trace it belongs to.
pub static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Longest request id that is taken from a proxy, in bytes.
const REQUEST_ID_MAX_BYTES: usize = 128;

/// How many bits of a UUID of version 7 are chance, as the gate makes them.
const CHANCE_BITS: u32 = 62;

/// By which a request is known to whoever passes it on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestId {
    /// The gate's own.
    Own(Uuid7),
    /// A trusted proxy's, as it came.
    Told(Box<str>),
}

impl RequestId {
    /// A request's id: a trusted proxy's, or else a fresh one.
    pub fn of(headers: &HeaderMap, trusted_hops: u8, fresh: impl FnOnce() -> Uuid7) -> Self {
        let valid = |byte: u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':' | b'/' | b'+' | b'=')
        };
        let line = if trusted_hops > 0 { single(headers, &X_REQUEST_ID) } else { None };
        let told = line.and_then(|value| value.to_str().ok());
        let told = told.filter(|id| (1..=REQUEST_ID_MAX_BYTES).contains(&id.len()) && id.bytes().all(valid));
        told.map_or_else(|| Self::Own(fresh()), |id| Self::Told(id.into()))
    }

    /// As `x-request-id` has it. A value of its own, because one of the client's head would keep all of that head.
    pub fn header(&self) -> Option<HeaderValue> {
        match self {
            Self::Own(id) => HeaderValue::from_bytes(&id.text()).ok(),
            Self::Told(id) => HeaderValue::from_str(id).ok(),
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(id) => f.write_str(std::str::from_utf8(&id.text()).unwrap_or_default()),
            Self::Told(id) => f.write_str(id),
        }
    }
}

/// A UUID of version 7 (RFC 9562 §5.7): microseconds, then chance. Such ids sort by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uuid7 {
    micros: u64,
    chance: u64,
}

impl Uuid7 {
    /// Of a time since the epoch, and of 62 bits of chance.
    #[must_use]
    pub const fn new(micros: u64, chance: u64) -> Self {
        Self { micros, chance: chance & ((1 << CHANCE_BITS) - 1) }
    }

    /// Its time, in microseconds since the epoch.
    #[must_use]
    pub const fn micros(self) -> u64 {
        self.micros
    }

    /// What tells it from others of its time: 62 bits.
    #[must_use]
    pub const fn chance(self) -> u64 {
        self.chance
    }

    /// Milliseconds in 48 bits, their fraction in 12, 62 bits of chance, around version and variant.
    #[must_use]
    pub const fn bytes(self) -> [u8; 16] {
        let fraction = self.micros % 1000 * 4096 / 1000;
        let high = (self.micros / 1000) << 16 | 0x7000 | fraction;
        let low = 1 << 63 | self.chance;
        ((high as u128) << 64 | low as u128).to_be_bytes()
    }

    fn text(self) -> [u8; 36] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        /// Where the digits of each byte stand.
        const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
        let mut text = [b'-'; 36];
        for (place, byte) in PLACES.into_iter().zip(self.bytes()) {
            text[place] = DIGITS[usize::from(byte >> 4)];
            text[place + 1] = DIGITS[usize::from(byte & 15)];
        }
        text
    }
}

/// What a request says of the trace it belongs to (W3C Trace Context §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace's id.
    pub trace_id: [u8; 16],
    /// The span that it was asked in.
    pub span_id: [u8; 8],
    /// Its flags.
    pub flags: u8,
}

/// The flag of a trace that is recorded.
const SAMPLED: u8 = 1;

impl TraceContext {
    /// Whether whoever asked records it.
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// As `traceparent` has it, in its first version.
    #[must_use]
    pub fn header(&self) -> Option<HeaderValue> {
        let (trace, span) = (hex(&self.trace_id, ""), hex(&self.span_id, ""));
        HeaderValue::try_from(format!("00-{trace}-{span}-{:02x}", self.flags)).ok()
    }
}

/// The trace a request belongs to, where it says so in a way that everybody reads alike; if not, what it says is taken
/// out.
pub fn trace_context(headers: &mut HeaderMap) -> Option<TraceContext> {
    // Comparing the names that are there is cheaper than looking for two that hardly ever are.
    if !headers.keys().any(|name| name == TRACEPARENT || name == TRACESTATE) {
        return None;
    }
    let context = single(headers, &TRACEPARENT).and_then(|value| parse_traceparent(value.as_bytes()));
    if context.is_none() {
        headers.remove(&TRACEPARENT);
        headers.remove(&TRACESTATE);
    }
    context
}

fn parse_traceparent(value: &[u8]) -> Option<TraceContext> {
    let text = std::str::from_utf8(value).ok()?;
    let is_lower_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut fields = text.splitn(5, '-');
    let [version, trace, parent, flags] = [fields.next()?, fields.next()?, fields.next()?, fields.next()?];
    // A later version may have more behind these four; 255 is none.
    let ends = fields.next().is_none() || version != "00";
    let lengths = (version.len(), trace.len(), parent.len(), flags.len()) == (2, 32, 16, 2);
    let is_hex = [version, trace, parent, flags].into_iter().all(is_lower_hex);
    let is_something = trace.bytes().any(|digit| digit != b'0') && parent.bytes().any(|digit| digit != b'0');
    if !(ends && lengths && is_hex && is_something && version != "ff") {
        return None;
    }
    let number = |digits| u128::from_str_radix(digits, 16).ok();
    let flags = u8::from_str_radix(flags, 16).ok()?;
    let span = u64::try_from(number(parent)?).ok()?;
    Some(TraceContext { trace_id: number(trace)?.to_be_bytes(), span_id: span.to_be_bytes(), flags })
}

#[cfg(test)]
mod tests {
    use super::{RequestId, Uuid7};

    #[test]
    fn an_id_is_a_uuid_of_version_7() {
        // RFC 9562 appendix A.6, but for its random fraction.
        let text = |id: Uuid7| RequestId::Own(id).to_string();
        let millisecond = 0x017f_22e2_79b0 * 1000;
        let id = Uuid7::new(millisecond, 0x18c4_dc0c_0c07_398f);
        assert_eq!(text(id), "017f22e2-79b0-7000-98c4-dc0c0c07398f");
        assert_eq!(id.bytes()[..8], [0x01, 0x7f, 0x22, 0xe2, 0x79, 0xb0, 0x70, 0x00]);
        assert_eq!(text(Uuid7::new(millisecond + 999, u64::MAX)), "017f22e2-79b0-7ffb-bfff-ffffffffffff");
        assert_eq!(text(Uuid7::new(0, 0)), "00000000-0000-7000-8000-000000000000");
    }
}
