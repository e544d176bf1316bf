//! What became of a failed call: the difference between "never arrived" and "nobody knows".

use std::error::Error as StdError;

use crux_wire::status::{self, Effect, Kind};
use tonic::Status;

use crate::identity::refusal_in;
use crate::rpc::NotConnected;

/// What became of a failed call, as far as its caller can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was never carried out: it may be repeated anywhere.
    NotArrived,
    /// It may have been carried out: only an idempotent one may be repeated.
    Unknown,
    /// The other side looked at it and answered with a failure.
    Failed,
    /// One side refused the other, before anything was carried out.
    Refused,
}

/// Tells the fate of a call from its status: by what lies behind it if it was made here, else by its kind and effect.
#[must_use]
pub fn fate(status: &Status) -> Fate {
    if let Some(source) = status.source() {
        return local_fate(source);
    }
    match status::read(status) {
        (Kind::Refused | Kind::Unauthenticated, _) => Fate::Refused,
        (Kind::Unavailable | Kind::Cancelled | Kind::Timeout, Effect::None) => Fate::NotArrived,
        (Kind::Unavailable | Kind::Cancelled | Kind::Timeout, _) => Fate::Unknown,
        _ => Fate::Failed,
    }
}

/// How often a call that never arrived is made again.
const REPEATS_MAX: u32 = 3;

/// Calls, and calls again while the call certainly never arrived, at most three times.
///
/// A call that meets the moment when its connection is replaced (the peer's leaf was renewed, the server restarted) comes
/// back so; repeating it is always right.
///
/// # Errors
/// The last status.
///
/// # Cancel safety
/// As the call itself.
pub async fn repeat_unsent<T, W>(mut call: impl FnMut() -> W) -> Result<T, Status>
where
    W: Future<Output = Result<T, Status>>,
{
    let mut result = call().await;
    for _ in 0..REPEATS_MAX {
        match &result {
            Err(status) if fate(status) == Fate::NotArrived => result = call().await,
            _ => break,
        }
    }
    result
}

/// The fate of a call that no answer came to.
fn local_fate(source: &(dyn StdError + 'static)) -> Fate {
    if refusal_in(source).is_some() {
        return Fate::Refused;
    }
    let mut at = Some(source);
    while let Some(error) = at {
        if error.is::<NotConnected>() {
            return Fate::NotArrived;
        }
        if error
            .downcast_ref::<hyper::Error>()
            .is_some_and(hyper::Error::is_canceled)
        {
            // It was still waiting for a connection when that ended.
            return Fate::NotArrived;
        }
        if let Some(rustls::Error::AlertReceived(_)) = error.downcast_ref() {
            // The server turned our certificate away, so it never read further.
            return Fate::Refused;
        }
        at = match error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
        {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    Fate::Unknown
}
