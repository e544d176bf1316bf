//! Why a request to a service failed, by what became of it.

use std::error::Error as StdError;

use tonic::Status;

/// Why a request to a service failed. Match on it; texts are for people.
///
/// Source: requirement SVC-13.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It reached no server: nothing was done, and it may be sent again.
    #[error("reach service {service}")]
    NotArrived {
        /// Which service.
        service: String,
        /// What stood in the way.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// It was sent and no answer came: it may have been done, so only an idempotent request may be sent again.
    #[error("learn whether service {service} did it")]
    Unknown {
        /// Which service.
        service: String,
        /// What is known.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The server answered with a failure of its own.
    #[error("have it done by service {service}")]
    Failed {
        /// Which service.
        service: String,
        /// Its answer.
        #[source]
        source: Box<Status>,
    },
    /// One side refused the other: nothing was done.
    #[error("be let in by service {service}")]
    Refused {
        /// Which service.
        service: String,
        /// Why.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// Nobody offered the service until the deadline.
    #[error("find service {service}")]
    NoSuchService {
        /// Which service.
        service: String,
    },
}
