//! Quantities as Kubernetes writes them, as far as one has to know which is more.

use std::str::FromStr;

/// A quantity in thousandths, such as `500m`, `64Mi` or `1.5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(u128);

/// What is behind the digits, and by how many thousandths it multiplies.
const UNITS: [(&str, u128); 12] = [
    ("m", 1),
    ("", 1_000),
    ("k", 1_000_000),
    ("M", 1_000_000_000),
    ("G", 1_000_000_000_000),
    ("T", 1_000_000_000_000_000),
    ("P", 1_000_000_000_000_000_000),
    ("Ki", 1_000 << 10),
    ("Mi", 1_000 << 20),
    ("Gi", 1_000 << 30),
    ("Ti", 1_000 << 40),
    ("Pi", 1_000 << 50),
];
/// More digits than any quantity needs that a node could have.
const DIGITS: usize = 15;

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self(0);
}

impl FromStr for Quantity {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(())?;
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.len() + fraction.len() > DIGITS || whole.len() + fraction.len() == 0 {
            return Err(());
        }
        let all = [whole, fraction].concat().parse::<u128>().map_err(|_| ())?;
        let places = u32::try_from(fraction.len()).map_err(|_| ())?;
        // Rounded up, as Kubernetes does.
        Ok(Self((all * unit).div_ceil(10_u128.pow(places))))
    }
}

#[cfg(test)]
mod tests {
    use super::Quantity;

    #[test]
    fn quantities_have_an_order() {
        let rising =
            ["0", "1m", "0.5", "1", "1.5", "1k", "1Ki", "0.5M", "16Mi", "17M", "64Mi", "1Gi", "1.5Gi", "1P", "999Pi"];
        for pair in rising.windows(2) {
            let of = |text: &str| text.parse::<Quantity>().expect(text);
            assert!(of(pair[0]) < of(pair[1]), "{pair:?}");
        }
        assert_eq!("500m".parse::<Quantity>(), "0.5".parse());
        assert_eq!("1Ki".parse::<Quantity>(), "1024".parse());
        for text in ["", "Mi", "-1", "1 Mi", "1mi", "1e3", "1.2.3", ".", "1234567890123456"] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }
}
