//! Bounds on what a description may be; beyond them a located error is given, never a crash.

/// Largest description file, in bytes; a hand-written one is a few kilobytes.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// Most files that one application may consist of, includes among them.
pub const FILES_MAX: usize = 64;
/// Deepest nesting of brackets in an expression.
pub const NESTING_MAX: usize = 64;
/// Most operators in one statement; keeps trees shallow enough to walk by recursion.
pub const OPERATORS_MAX: usize = 256;
/// Most diagnostics reported at once; what follows is counted only.
pub const DIAGNOSTICS_MAX: usize = 100;
/// Longest name of a class, command, variable or service, in bytes; keys of shared data hold them.
pub const NAME_BYTES_MAX: usize = 64;
/// Most names that a near match is sought among.
pub const CANDIDATES_MAX: usize = 1000;
/// Most rules, entries or statements of one kind in one application.
pub const ITEMS_MAX: usize = 10_000;
/// Most words on one line, continuations included.
pub const WORDS_MAX: usize = 4096;
/// Most rnodes that one block may ask for.
pub const RNODES_MAX: u32 = 100_000;
/// Highest count that a placement may name.
pub const COUNT_MAX: i64 = 1_000_000;
/// Longest part of a source line that a diagnostic shows, in characters.
pub const EXCERPT_CHARS_MAX: usize = 160;
/// Longest argument vector or shell text after substitution, in bytes; the kernel's own bound on
/// one argument is of this size.
pub const EXPANDED_BYTES_MAX: usize = 128 << 10;
