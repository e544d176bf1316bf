//! `radix`: the one command, and the names it answers to.
fn main() {}
