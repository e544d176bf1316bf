//! Brings blobs here from the base and from members that have them.

use crux_core::digest::Digest;
use crux_net::identity::Expect;
use crux_net::store::Put;
use crux_wire::document::v1::RnodeRecord;
use crux_wire::fileio::v1::GetRequest;
use crux_wire::fileio::v1::file_io_client::FileIoClient;

use super::context::Agent;
use super::limits::{CALL_TIMEOUT, FETCH_TRIES, FILE_BYTES_MAX};
use super::status::service_address;

/// Where files may be had: the base first, then the members of the namespace.
pub(crate) fn sources(agent: &Agent) -> Vec<String> {
    let mut sources: Vec<String> = agent.config.base.iter().map(ToString::to_string).collect();
    let own = agent.id();
    let members: Vec<(String, RnodeRecord)> = agent.shared.messages("rnode");
    sources.extend(
        members
            .iter()
            .filter(|(owner, _)| *owner != own)
            .map(|(_, record)| service_address(record))
            .filter(|address| !address.is_empty()),
    );
    sources
}

/// Makes a blob present, from the first source that gives it.
///
/// # Errors
/// The last reason, for people.
///
/// # Cancel safety
/// Safe: nothing partial becomes visible.
pub(crate) async fn fetch(
    agent: &Agent,
    digest: &Digest,
    executable: bool,
    sources: &[String],
) -> Result<(), String> {
    if agent.store.has(digest) {
        return Ok(());
    }
    let mut reason = "no rnode is known that may have it".to_owned();
    for source in sources {
        for _ in 0..FETCH_TRIES {
            match fetch_from(agent, digest, executable, source).await {
                Ok(()) => return Ok(()),
                Err(error) => reason = format!("{source}: {error}"),
            }
        }
    }
    Err(reason)
}

async fn fetch_from(
    agent: &Agent,
    digest: &Digest,
    executable: bool,
    source: &str,
) -> Result<(), String> {
    let connecting = crux_net::rpc::connect(source, &agent.credentials, Expect::Owner);
    let channel = tokio::time::timeout(CALL_TIMEOUT, connecting)
        .await
        .map_err(|_| "it does not answer".to_owned())?
        .map_err(|error| error.to_string())?;
    let request = GetRequest {
        digest: digest.to_string(),
        offset: 0,
    };
    let mut client = FileIoClient::new(channel);
    let mut chunks = tokio::time::timeout(CALL_TIMEOUT, client.get(request))
        .await
        .map_err(|_| "it does not answer".to_owned())?
        .map_err(|status| status.message().to_owned())?
        .into_inner();
    let put = Put {
        expected: Some(*digest),
        executable,
    };
    let mut writer = agent.store.writer(put).map_err(|error| error.to_string())?;
    while let Some(chunk) = tokio::time::timeout(CALL_TIMEOUT, chunks.message())
        .await
        .map_err(|_| "it stopped sending".to_owned())?
        .map_err(|status| status.message().to_owned())?
    {
        if writer.size() + chunk.bytes.len() as u64 > FILE_BYTES_MAX {
            return Err("it is too large".to_owned());
        }
        writer
            .append(&chunk.bytes)
            .map_err(|error| error.to_string())?;
    }
    writer
        .commit()
        .map(|_| ())
        .map_err(|error| error.to_string())
}
