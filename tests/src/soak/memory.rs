//! A process's own memory, and whether it grows.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::process::anonymous_kib;

/// Samples of a process, one after each change.
pub(super) struct Memory {
    process: u32,
    samples_kib: Vec<u64>,
    sampled: Instant,
}

impl Memory {
    pub(super) fn of(process: u32) -> Self {
        Self { process, samples_kib: Vec::new(), sampled: Instant::now() }
    }

    /// Takes a sample.
    pub(super) fn sample(&mut self) -> Result<()> {
        let anonymous_kib = anonymous_kib(self.process)?;
        self.sampled = Instant::now();
        self.samples_kib.push(anonymous_kib);
        Ok(())
    }

    /// How long until the last sample is so old.
    pub(super) fn until_next(&self, age: Duration) -> Duration {
        age.saturating_sub(self.sampled.elapsed())
    }

    /// The sample after each tenth of all.
    pub(super) fn tenths(&self) -> Vec<u64> {
        let count = self.samples_kib.len();
        (1..=10).filter_map(|tenth| self.samples_kib.get((count * tenth / 10).checked_sub(1)?).copied()).collect()
    }

    /// Slope of the line through the samples of the second half, by least squares: the first half fills caches, pools
    /// and the allocator's free lists.
    #[expect(clippy::cast_precision_loss, reason = "some hundred samples of some thousand KiB")]
    pub(super) fn slope_bytes(&self) -> f64 {
        let samples = &self.samples_kib[self.samples_kib.len() / 2..];
        let count = samples.len() as f64;
        let mean_x = (count - 1.0) / 2.0;
        let mean_y = samples.iter().map(|kib| *kib as f64).sum::<f64>() / count;
        let deviations = samples.iter().enumerate().map(|(x, kib)| (x as f64 - mean_x, *kib as f64 - mean_y));
        let (above, below) = deviations.fold((0.0, 0.0), |(above, below), (x, y)| (above + x * y, below + x * x));
        if below == 0.0 { 0.0 } else { above / below * 1024.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::Memory;

    #[test]
    fn the_slope_is_of_the_second_half() {
        let table = [
            (vec![1, 900, 7, 11, 12, 13], 1024.0),
            (vec![900, 5, 5, 5], 0.0),
            (vec![0, 0, 14, 12], -2048.0),
            (vec![7], 0.0),
        ];
        for (samples_kib, slope) in table {
            let memory = Memory { samples_kib, ..Memory::of(0) };
            assert!((memory.slope_bytes() - slope).abs() < 1e-6, "{}", memory.slope_bytes());
        }
        let memory = Memory { samples_kib: (1..=20).collect(), ..Memory::of(0) };
        assert_eq!(memory.tenths(), [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]);
    }
}
