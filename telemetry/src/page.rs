//! Prometheus' text format, version 0.0.4: families of series, one after the other.

use std::fmt::{Display, Write};

/// A page in the making.
#[derive(Debug, Default)]
pub struct Page(String);

/// What the numbers of a family are.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Grows from the process's start.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by bucket.
    Histogram,
}

/// Labels with their values.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// A family that is being written. Its head is written with its first series: a family without any is left out.
pub struct Family<'a> {
    page: &'a mut String,
    name: &'a str,
    head: Option<(Kind, &'a str)>,
}

impl Page {
    /// Begins a family.
    pub fn family<'a>(&'a mut self, kind: Kind, name: &'a str, help: &'a str) -> Family<'a> {
        Family { page: &mut self.0, name, head: Some((kind, help)) }
    }

    /// A counter without labels.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.single(Kind::Counter, name, help, &value);
    }

    /// A gauge without labels.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.single(Kind::Gauge, name, help, &value);
    }

    /// In one place of the program, and not in each of a hundred that call it.
    #[inline(never)]
    fn single(&mut self, kind: Kind, name: &str, help: &str, value: &dyn Display) {
        self.family(kind, name, help).write("", &[], value);
    }

    /// All of it.
    #[must_use]
    pub fn into_text(self) -> String {
        self.0
    }
}

/// A page that goes on behind what is there.
impl From<String> for Page {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl Family<'_> {
    /// Writes one series.
    pub fn series(&mut self, labels: Labels<'_>, value: impl Display) {
        self.write("", labels, &value);
    }

    /// Writes one series of a histogram.
    pub fn part(&mut self, suffix: &str, labels: Labels<'_>, value: impl Display) {
        self.write(suffix, labels, &value);
    }

    /// In one place of the program as well.
    #[inline(never)]
    fn write(&mut self, suffix: &str, labels: Labels<'_>, value: &dyn Display) {
        self.write_head();
        self.page.push_str(self.name);
        self.page.push_str(suffix);
        for (number, (name, value)) in labels.iter().enumerate() {
            self.page.push(if number == 0 { '{' } else { ',' });
            self.page.push_str(name);
            self.page.push_str("=\"");
            escape(value, self.page);
            self.page.push('"');
        }
        if !labels.is_empty() {
            self.page.push('}');
        }
        // Writing into a string cannot fail.
        let _infallible = writeln!(self.page, " {value}");
    }

    fn write_head(&mut self) {
        let Some((kind, help)) = self.head.take() else { return };
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _infallible = writeln!(self.page, "# HELP {0} {help}\n# TYPE {0} {kind}", self.name);
    }
}

fn escape(value: &str, page: &mut String) {
    for letter in value.chars() {
        match letter {
            '\\' => page.push_str("\\\\"),
            '"' => page.push_str("\\\""),
            '\n' => page.push_str("\\n"),
            _ => page.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Page};

    #[test]
    fn families_are_written_as_prometheus_reads_them() {
        let mut page = Page::from("# first\n".to_owned());
        page.family(Kind::Counter, "unseen_total", "Never written.");
        page.counter("a_total", "A.", 3_u64);
        let mut family = page.family(Kind::Histogram, "b_seconds", "B.");
        family.part("_bucket", &[("of", "x\\y\"z\nü"), ("le", "+Inf")], 1_u64);
        family.part("_sum", &[], 0.5);
        let expected = "# first\n\
                        # HELP a_total A.\n# TYPE a_total counter\na_total 3\n\
                        # HELP b_seconds B.\n# TYPE b_seconds histogram\n\
                        b_seconds_bucket{of=\"x\\\\y\\\"z\\nü\",le=\"+Inf\"} 1\nb_seconds_sum 0.5\n";
        assert_eq!(page.into_text(), expected);
    }
}
