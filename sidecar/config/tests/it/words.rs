//! Durations and sizes: what is read, what is refused, and how they are written back.

use std::fmt::Display;
use std::str::FromStr;

use sidecar_config::{Duration, Size};

/// Reads a word and writes it back: its value, and its shortest form.
fn read<T: FromStr<Err = String> + Display>(text: &str, value: impl Fn(T) -> u64) -> (u64, String) {
    let parsed: T = text.parse().unwrap();
    let written = parsed.to_string();
    let again: T = written.parse().unwrap();
    let known = value(parsed);
    assert_eq!(value(again), known, "{text} does not survive being written as {written}");
    (known, written)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_std().as_millis()).unwrap()
}

#[test]
fn durations() {
    let table = [
        ("0s", 0, "0s"),
        ("1ms", 1, "1ms"),
        ("100ms", 100, "100ms"),
        ("10s", 10_000, "10s"),
        ("1h30m", 5_400_000, "1h30m"),
        ("90m", 5_400_000, "1h30m"),
        ("1h1m1s1ms", 3_661_001, "1h1m1s1ms"),
        ("1000ms", 1_000, "1s"),
        ("1s1s", 2_000, "2s"),
        ("00010s", 10_000, "10s"),
        ("99999h", 359_996_400_000, "99999h"),
    ];
    for (text, value, written) in table {
        assert_eq!(read::<Duration>(text, milliseconds), (value, written.to_owned()), "{text}");
    }
}

#[test]
fn not_durations() {
    let table =
        ["", "10", "s", "1.5s", "-1s", "1d", "1 s", " 1s", "1s ", "1S", "100000s", "1h1h1h1h1h", "1µs", "１s", "1s2"];
    for text in table {
        let error = text.parse::<Duration>().unwrap_err();
        let remedy = "is not a duration; write digits with h, m, s or ms, such as `10s`, `100ms` or `1h30m`";
        assert_eq!(error, format!("`{text}` {remedy}"));
    }
}

#[test]
fn sizes() {
    let table = [
        ("0", 0, "0"),
        ("1", 1, "1"),
        ("1023", 1023, "1023"),
        ("1024", 1024, "1Ki"),
        ("1Ki", 1 << 10, "1Ki"),
        ("256Mi", 256 << 20, "256Mi"),
        ("1024Mi", 1 << 30, "1Gi"),
        ("1536Mi", 1536 << 20, "1536Mi"),
        ("3Gi", 3 << 30, "3Gi"),
        ("18446744073709551615", u64::MAX, "18446744073709551615"),
    ];
    for (text, value, written) in table {
        assert_eq!(read::<Size>(text, Size::bytes), (value, written.to_owned()), "{text}");
    }
}

#[test]
fn not_sizes() {
    let table = [
        "",
        "Mi",
        "1M",
        "1mi",
        "1MiB",
        "1 Mi",
        "-1",
        "+1",
        "1.5Gi",
        "0x10",
        "1Ti",
        "18446744073709551616",
        "17179869184Gi",
    ];
    for text in table {
        let error = text.parse::<Size>().unwrap_err();
        let remedy = "is not a size; write digits with Ki, Mi or Gi, such as `256Mi`";
        assert_eq!(error, format!("`{text}` {remedy}"));
    }
}
