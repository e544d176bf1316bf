//! Sessions with rnodes as their operator, for what is measured without a `radix` process around it.

use crux_net::identity::{Expect, OwnerStore};
use crux_net::rpc;
use tonic::transport::Channel;

use crate::radix::Radix;

/// Runs `work` to its end on this thread.
///
/// # Errors
///
/// What `work` says, or that no runtime can be had.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?
        .block_on(work)
}

/// A session with the base rnode.
///
/// # Errors
///
/// When it says nowhere where it listens, or does not answer.
pub(crate) async fn base(radix: &Radix) -> Result<Channel, String> {
    let path = radix.home().join("base/agent/contact");
    let text = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let contact: serde_json::Value =
        serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    let host = contact["host"].as_str().unwrap_or_default();
    open(radix, &format!("{host}:{}", contact["port"])).await
}

/// A session with the rnode at `address`.
///
/// # Errors
///
/// When it does not answer.
pub(crate) async fn open(radix: &Radix, address: &str) -> Result<Channel, String> {
    let owner = OwnerStore::open_or_create(radix.home()).map_err(|error| error.to_string())?;
    let credentials = owner.credentials().map_err(|error| error.to_string())?;
    rpc::connect(address, &credentials, Expect::Owner)
        .await
        .map_err(|error| error.to_string())
}
