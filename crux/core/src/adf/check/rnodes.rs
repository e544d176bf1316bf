//! Blocks of rnodes: completeness, and what they expose.

use std::collections::BTreeSet;

use super::Checker;
use crate::adf::begat::Attribute;
use crate::adf::diagnostic::Code;
use crate::adf::nearest::nearest;
use crate::adf::reader::shown;
use crate::adf::rnodes::Block;
use crate::adf::source::At;

impl Checker<'_> {
    /// Everything about the rnodes files.
    pub(super) fn rnodes(&mut self) {
        let blocks = &self.application.rnodes.blocks;
        if blocks.is_empty() && !self.application.rnodes.lost.is_any() {
            self.no_block();
        }
        for block in blocks {
            self.block(block);
        }
        self.described_users();
        for block in blocks.iter().skip(1) {
            let first = blocks[0].provider.span;
            self.push(|files| {
                let message = "rnodes from several blocks are not available yet";
                let found = files.error(Code::Unsupported, block.provider.span, message);
                found.relating(files.related(first, "the first block"))
            });
        }
    }

    fn no_block(&mut self) {
        let name = format!("{}.rnodes", self.application.name);
        let files = self.application.files.files();
        let Some(index) = files.iter().position(|file| file.name == name) else {
            return;
        };
        let file = crate::adf::source::FileId(u16::try_from(index).unwrap_or(u16::MAX));
        let span = crate::adf::source::Span {
            file,
            start: 0,
            end: 0,
        };
        let texts = (
            "no block says where rnodes come from",
            "local { … } or another provider",
        );
        self.expected(Code::MissingKey, span, texts);
    }

    fn block(&mut self, block: &At<Block>) {
        let word = block.provider.word();
        if block.count.is_none() {
            let message = format!("`{word}` does not say how many rnodes");
            self.expected(
                Code::MissingKey,
                block.provider.span,
                (&message, "n = 6 in the block"),
            );
        }
        if block.command.is_none() {
            let message = format!("`{word}` does not say what a rnode runs");
            let expected = "cmd = /path/of/fulcrum in the block";
            self.expected(Code::MissingKey, block.provider.span, (&message, expected));
        }
        let mounts = block
            .mounts
            .iter()
            .map(|mount| (mount.path.value.as_str(), mount.path.span));
        self.distinct(mounts, "is mounted twice");
        let users = block
            .users
            .iter()
            .map(|user| (user.name.value.as_str(), user.name.span));
        self.distinct(users, "is given twice");
        let servers = block
            .servers
            .iter()
            .map(|server| (server.name.value.as_str(), server.name.span));
        self.distinct(servers, "is given twice");
        let ports: Vec<String> = block
            .exposes
            .iter()
            .map(|one| format!("port {}{}", one.external.value, one.carries.suffix()))
            .collect();
        let spans = block.exposes.iter().map(|one| one.external.span);
        self.distinct(
            ports.iter().map(String::as_str).zip(spans),
            "is exposed twice",
        );
        for expose in &block.exposes {
            self.known_class(&expose.class.value, expose.class.span);
        }
    }

    /// Warns of each class whose user no block describes: it runs as whoever runs the rnode.
    ///
    /// Not an error: the Chronicles' own files name a user and leave it to the provider.
    fn described_users(&mut self) {
        let rnodes = &self.application.rnodes;
        if rnodes.lost.is_any() || rnodes.blocks.is_empty() {
            return;
        }
        let known: BTreeSet<&str> = rnodes
            .blocks
            .iter()
            .flat_map(|block| &block.users)
            .map(|user| user.name.value.as_str())
            .collect();
        for rule in &self.application.begat.runs {
            let named = rule.attributes.iter().find_map(|one| match &one.value {
                Attribute::UserId(user) => Some((user, one.span)),
                _ => None,
            });
            let Some((user, span)) = named.filter(|(user, _)| !known.contains(user.as_str()))
            else {
                continue;
            };
            let near = nearest(user, known.iter().copied());
            self.push(|files| {
                let message = format!(
                    "no block describes the user {}: {} runs as whoever runs the rnode",
                    shown(user),
                    shown(&rule.class.value)
                );
                let found = files.error(Code::UnknownUser, span, message);
                found
                    .expecting(format!("`user {user} = auto` or `= self` in a rnodes file"))
                    .suggesting(near)
                    .as_warning()
            });
        }
    }
}
