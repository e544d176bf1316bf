//! From a [`RnodesFile`] back to text.

use std::fmt;

use super::{Block, RnodesFile, UserSource};
use crate::adf::source::{At, Span};
use crate::adf::template::Template;

impl fmt::Display for RnodesFile {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for include in &self.includes {
            writeln!(out, "include({})", include.value)?;
        }
        self.blocks
            .iter()
            .try_for_each(|block| block.value.fmt(out))
    }
}

impl fmt::Display for Block {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{} {{", self.provider.word())?;
        if let Some(count) = &self.count {
            writeln!(out, "  n = {}", count.value)?;
        }
        if let Some(command) = &self.command {
            writeln!(out, "  cmd ={}", words(command.iter()))?;
        }
        for mount in &self.mounts {
            writeln!(out, "  mount {} = {}", word(&mount.host), word(&mount.path))?;
        }
        for one in &self.exposes {
            let (from, class, to) = (one.external.value, &one.class.value, one.internal.value);
            let kind = one.carries.suffix();
            writeln!(out, "  expose {from}{kind} = {class}:{to}")?;
        }
        for user in &self.users {
            let source = match user.source.value {
                UserSource::Oneself => "self",
                UserSource::Auto => "auto",
            };
            writeln!(out, "  user {} = {source}", user.name.value)?;
        }
        for tag in &self.tags {
            writeln!(out, "  tags = {}", word(tag))?;
        }
        for server in &self.servers {
            writeln!(
                out,
                "  server {} ={}",
                server.name.value,
                listed(&server.tags)
            )?;
        }
        for setting in &self.settings {
            writeln!(out, "  {} ={}", setting.key.value, listed(&setting.words))?;
        }
        writeln!(out, "}}")
    }
}

fn listed(values: &[At<String>]) -> String {
    words(values.iter().map(|value| &value.value))
}

fn words<'a>(words: impl Iterator<Item = &'a String>) -> String {
    words.map(|text| format!(" {}", word(text))).collect()
}

fn word(text: &str) -> String {
    Template::text(text, Span::default()).quoted_for('=')
}
