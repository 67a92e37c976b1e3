//! What was measured: for each figure one pair a round, and what that comes to.

use crate::peers::Peer;

/// A thing that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// A request on an open HTTP/1.1 connection.
    Http1,
    /// A request on an open HTTP/2 connection.
    Http2,
    /// The same as [`Self::Http1`], by another client.
    Http1Foreign,
    /// A connection with a full handshake and one request.
    Full,
    /// The same by a client that offers a post-quantum key exchange.
    PostQuantum,
    /// A connection that resumes a session, and one request.
    Resumed,
    /// Memory for each of 1,000 idle connections.
    Idle,
    /// Memory for each of very many.
    IdleMany,
    /// Memory that is kept for each of very many after they were closed.
    Kept,
}

impl Figure {
    /// All, in the report's order.
    pub const ALL: [Self; 9] = [
        Self::Http1,
        Self::Http1Foreign,
        Self::Http2,
        Self::Full,
        Self::PostQuantum,
        Self::Resumed,
        Self::Idle,
        Self::IdleMany,
        Self::Kept,
    ];

    /// What it is, with `many` for the number of very many connections.
    pub fn name(self, many: usize) -> String {
        match self {
            Self::Http1 => "request, HTTP/1.1 kept alive".to_owned(),
            Self::Http1Foreign => "the same by h2load".to_owned(),
            Self::Http2 => "request, HTTP/2".to_owned(),
            Self::Full => "connection, full handshake, one request".to_owned(),
            Self::PostQuantum => "the same, client offers post-quantum".to_owned(),
            Self::Resumed => "connection, resumed, one request".to_owned(),
            Self::Idle => "idle connection, of 1000".to_owned(),
            Self::IdleMany => format!("idle connection, of {many}"),
            Self::Kept => format!("kept of it after {many} were closed"),
        }
    }

    /// What it is measured in.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Idle | Self::IdleMany | Self::Kept => "KiB",
            _ => "µs",
        }
    }

    /// What the ratio, or Postern's own figure, is to be at most.
    pub fn aim(self) -> &'static str {
        match self {
            Self::Http1 | Self::Http2 | Self::Http1Foreign => "0.95",
            Self::Full => "0.25",
            Self::Idle | Self::IdleMany => "1.00",
            Self::PostQuantum | Self::Resumed | Self::Kept => "",
        }
    }
}

/// All samples of a run.
#[derive(Debug, Default)]
pub struct Figures {
    samples: Vec<(Figure, Peer, f64)>,
}

/// The middle of some values, and how far they go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Figures {
    /// Adds what was measured; each round adds one for each peer.
    pub fn add(&mut self, figure: Figure, peer: Peer, value: f64) {
        self.samples.push((figure, peer, value));
    }

    /// Values of one peer, in the order of the rounds.
    pub fn of(&self, figure: Figure, peer: Peer) -> Vec<f64> {
        let wanted = |sample: &&(Figure, Peer, f64)| (sample.0, sample.1) == (figure, peer);
        self.samples.iter().filter(wanted).map(|sample| sample.2).collect()
    }

    /// Postern's value over HAProxy's of the same round: what disturbs one round disturbs both sides of it.
    pub fn ratios(&self, figure: Figure) -> Vec<f64> {
        let pairs = self.of(figure, Peer::Postern).into_iter().zip(self.of(figure, Peer::Haproxy));
        pairs.map(|(postern, haproxy)| postern / haproxy).collect()
    }
}

impl Spread {
    /// Of at least one value; the upper one of the two in the middle.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        Some(Self { median: *values.get(values.len() / 2)?, min: *values.first()?, max: *values.last()? })
    }
}

#[cfg(test)]
mod tests {
    use super::{Figure, Figures, Spread};
    use crate::peers::Peer;

    #[test]
    fn ratios_are_of_the_same_round() {
        let mut figures = Figures::default();
        for (haproxy, postern) in [(10.0, 5.0), (100.0, 60.0), (1.0, 2.0)] {
            figures.add(Figure::Http1, Peer::Postern, postern);
            figures.add(Figure::Http1, Peer::Haproxy, haproxy);
        }
        figures.add(Figure::Http2, Peer::Postern, 7.0);
        assert_eq!(figures.ratios(Figure::Http1), [0.5, 0.6, 2.0]);
        let spread = Spread::of(figures.ratios(Figure::Http1));
        assert_eq!(spread, Some(Spread { median: 0.6, min: 0.5, max: 2.0 }));
        assert_eq!(Spread::of(figures.ratios(Figure::Full)), None);
    }
}
