//! What the demo prints. A page that can no longer be written ends the demo in order, where a panic would leave its
//! processes behind.

use std::io::Write;

use anyhow::{Context, Result};

/// Printed output, indented in two steps.
pub(crate) struct Page<W: Write> {
    out: W,
}

impl<W: Write> Page<W> {
    /// Prints to `out`.
    pub(crate) fn new(out: W) -> Self {
        Self { out }
    }

    /// A line of its own.
    pub(crate) fn line(&mut self, text: &str) -> Result<()> {
        writeln!(self.out, "{text}").and_then(|()| self.out.flush()).context("print")
    }

    /// A title, with space around it.
    pub(crate) fn title(&mut self, text: &str) -> Result<()> {
        self.line(&format!("\n{text}\n"))
    }

    /// A fact with its name.
    pub(crate) fn fact(&mut self, name: &str, value: &str) -> Result<()> {
        self.line(&format!("  {name:<11}{value}"))
    }

    /// A command as one would type it.
    pub(crate) fn command(&mut self, command: &str) -> Result<()> {
        self.line(&format!("  $ {command}"))
    }

    /// What a program said.
    pub(crate) fn output(&mut self, text: &str) -> Result<()> {
        for line in text.trim_end().lines() {
            self.line(format!("    {line}").trim_end())?;
        }
        Ok(())
    }

    /// A command to go on by hand, and what it is for.
    pub(crate) fn suggestion(&mut self, purpose: &str, command: &str) -> Result<()> {
        self.line(&format!("  # {purpose}"))?;
        self.line(&format!("  {command}"))
    }
}
