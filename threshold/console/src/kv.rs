//! `radix kv`: being written.

/// Ends at once.
pub(crate) async fn run(_words: Vec<String>) -> Result<(), std::io::Error> {
    Err(std::io::Error::other("the KV server is being written"))
}
