//! Durations, sizes and times: what is read, what is refused, and how they are written back.

use std::fmt::Display;
use std::str::FromStr;

use sidecar_config::{Duration, Ratio, Size, UtcTime};

/// Reads a word and writes it back: its value, and its shortest form.
fn read<T: FromStr<Err = String> + Display>(text: &str, value: impl Fn(T) -> u64) -> (u64, String) {
    let parsed: T = text.parse().unwrap();
    let written = parsed.to_string();
    let again: T = written.parse().unwrap();
    let known = value(parsed);
    assert_eq!(value(again), known, "{text} does not survive being written as {written}");
    (known, written)
}

#[test]
fn times() {
    let table = [
        ("1970-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59Z", -1),
        ("2000-02-29T12:00:01Z", 951_825_601),
        ("2026-11-20T00:00:00Z", 1_795_132_800),
        ("2100-03-01T00:00:00Z", 4_107_542_400),
        ("0001-01-01T00:00:00Z", -62_135_596_800),
        ("9999-12-31T23:59:59Z", 253_402_300_799),
    ];
    for (text, seconds) in table {
        let time: UtcTime = text.parse().unwrap();
        assert_eq!((time.seconds(), time.to_string()), (seconds, text.to_owned()));
        assert_eq!(UtcTime::from_seconds(seconds), Some(time));
    }
    for seconds in [i64::MIN, -62_135_596_801, 253_402_300_800, i64::MAX] {
        assert_eq!(UtcTime::from_seconds(seconds), None);
    }
}

#[test]
fn not_times() {
    let table = [
        "",
        "2026-11-20",
        "2026-11-20T00:00:00",
        "2026-11-20 00:00:00Z",
        "2026-11-20t00:00:00z",
        "2026-11-20T00:00:00.5Z",
        "2026-11-20T00:00:00+00:00",
        "2026-11-20T24:00:00Z",
        "2026-11-20T00:60:00Z",
        "2026-12-31T23:59:60Z",
        "2026-02-29T00:00:00Z",
        "2100-02-29T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2026-00-10T00:00:00Z",
        "2026-13-10T00:00:00Z",
        "2026-01-00T00:00:00Z",
        "2026-01-32T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "+026-11-20T00:00:00Z",
        "２026-11-20T00:00Z",
    ];
    for text in table {
        let error = text.parse::<UtcTime>().unwrap_err();
        let remedy = "is not a time; write it in UTC and to the second, such as `2026-11-20T00:00:00Z`";
        assert_eq!(error, format!("`{text}` {remedy}"));
    }
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

#[test]
fn ratios() {
    let table = [
        ("0", 0, "0.0"),
        ("1", 1_000_000, "1.0"),
        ("0.25", 250_000, "0.25"),
        ("0.1", 100_000, "0.1"),
        ("1e-6", 1, "1e-6"),
    ];
    for (text, millionths, written) in table {
        let ratio: Ratio = serde_json::from_str(text).unwrap();
        assert_eq!(
            (ratio.millionths(), serde_json::to_string(&ratio).unwrap().as_str()),
            (millionths, written),
            "{text}"
        );
    }
    for text in ["-0.1", "1.000001", "100", "\"0.5\""] {
        assert!(serde_json::from_str::<Ratio>(text).is_err(), "{text}");
    }
}
