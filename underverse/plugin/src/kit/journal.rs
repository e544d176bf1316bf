//! For authors: the events of a horde in a file, which is all that the trait asks of them.
//!
//! One line an event: its protobuf form in base64. Ids are line numbers, from 1.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crux_net::durable;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use prost::Message as _;
use underverse::{Error, EventId, EventKind, HordeName, Kind, UnderverseEvent};

use crate::wire;

/// Time between two looks for events that another process wrote.
const LOOK: Duration = Duration::from_millis(50);

/// The events of one horde, in a file of its own. It is gone with the file.
#[derive(Debug, Clone)]
pub struct Journal {
    path: PathBuf,
    horde: HordeName,
}

impl Journal {
    /// The journal of `horde` at `path`, whose folder must exist before something is told.
    #[must_use]
    pub const fn new(path: PathBuf, horde: HordeName) -> Self {
        Self { path, horde }
    }

    /// Writes down what happened to `subject`; what was told before, in the same words, is not told again.
    ///
    /// # Errors
    /// `Io`.
    pub fn tell(&self, subject: &str, kind: EventKind) -> Result<(), Error> {
        let told = self.after(None);
        if told
            .iter()
            .any(|old| old.subject == subject && old.kind == kind)
        {
            return Ok(());
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let event = UnderverseEvent {
            id: EventId(told.len() as u64 + 1),
            horde: self.horde.clone(),
            unix_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            subject: subject.to_owned(),
            kind,
        };
        let lines: Vec<String> = told
            .iter()
            .chain([&event])
            .map(|event| STANDARD.encode(wire::Event::from(event).encode_to_vec()))
            .collect();
        let written = durable::replace_unsynced(&self.path, lines.join("\n").as_bytes());
        written.map_err(|error| Error::new(Kind::Io, "write an event down", error.to_string()))
    }

    /// Tells that `container` was started for `subject`, and what it stands in for.
    ///
    /// # Errors
    /// `Io`.
    pub fn started(&self, subject: &str, container: &str) -> Result<(), Error> {
        let replaces = self.before(subject, container);
        self.tell(
            subject,
            EventKind::ContainerStarted {
                container: container.to_owned(),
                replaces,
            },
        )
    }

    /// Tells that `container` of `subject` ended unasked, and how.
    ///
    /// # Errors
    /// `Io`.
    pub fn failed(&self, subject: &str, container: &str, reason: String) -> Result<(), Error> {
        self.tell(
            subject,
            EventKind::ContainerFailed {
                container: container.to_owned(),
                reason,
            },
        )
    }

    /// Finds the event that is answered. What the answer says, this backend has no use for.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn answer(&self, event: EventId) -> Result<(), Error> {
        let known = self.after(None).iter().any(|kept| kept.id == event);
        let missing =
            || Error::new(Kind::NotFound, "answer an event", "it is not kept").with("event", event);
        if known { Ok(()) } else { Err(missing()) }
    }

    /// The events after `since`, in order.
    #[must_use]
    pub fn after(&self, since: Option<EventId>) -> Vec<UnderverseEvent> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        let read = |line: &str| {
            let bytes = STANDARD.decode(line).ok()?;
            UnderverseEvent::try_from(wire::Event::decode(bytes.as_slice()).ok()?).ok()
        };
        text.lines()
            .filter_map(read)
            .filter(|event| Some(event.id) > since)
            .collect()
    }

    /// The container that was last told of for `subject`, other than `new`: what `new` stands in for.
    #[must_use]
    pub fn before(&self, subject: &str, new: &str) -> Option<String> {
        let told = self.after(None);
        let of = |event: &UnderverseEvent| match &event.kind {
            EventKind::ContainerFailed { container, .. }
            | EventKind::ContainerStarted { container, .. } => {
                (event.subject == subject && container != new).then(|| container.clone())
            }
            _ => None,
        };
        told.iter().rev().find_map(of)
    }

    /// The events after `since`, then those that come, for as long as the stream is held.
    #[must_use]
    pub fn follow(self, since: Option<EventId>) -> BoxStream<'static, UnderverseEvent> {
        let fresh = stream::unfold((self, since), |(journal, since)| async move {
            loop {
                let fresh = journal.after(since);
                if let Some(last) = fresh.last() {
                    let since = Some(last.id);
                    return Some((stream::iter(fresh), (journal, since)));
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        fresh.flatten().boxed()
    }
}
