//! What happened to a horde, kept on disk so that nothing is lost over a restart of the backend.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use crux_net::boundary::{Kind as Boundary, cross_file};
use serde::{Deserialize, Serialize};
use underverse::{EventId, EventKind, HordeName, UnderverseEvent};

use crate::durable;
use crate::layout::Home;

/// How many events of a horde are kept at least.
pub(crate) const EVENTS_KEPT: usize = 1024;
/// Ids of one generation begin at its number times this, so that ids grow over a dissolved horde too.
const IDS_PER_GENERATION: u64 = 1 << 24;

/// An event as it is written.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Line {
    id: u64,
    unix_ms: u64,
    subject: String,
    /// Names what is told, where the kind alone does not tell it from another of its like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    kind: KindTwin,
}

/// Something to be told.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) subject: String,
    pub(crate) key: Option<String>,
    pub(crate) kind: EventKind,
}

impl News {
    /// Of a container: its id tells it from any other.
    pub(crate) const fn container(subject: String, kind: EventKind) -> Self {
        Self {
            subject,
            key: None,
            kind,
        }
    }
}

/// The kinds that happen here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum KindTwin {
    ContainerFailed {
        container: String,
        reason: String,
    },
    ContainerStarted {
        container: String,
        replaces: Option<String>,
    },
    ServiceDegraded {
        text: String,
    },
    ServerRebooted {
        affected: Vec<String>,
    },
    ServerGone {
        affected: Vec<String>,
    },
    ServerDegraded {
        reason: String,
        affected: Vec<String>,
    },
    ServerRestored,
    MaintenancePlanned {
        from_unix_ms: u64,
        affected: Vec<String>,
    },
}

/// The event file of one horde.
#[derive(Debug, Clone)]
pub(crate) struct EventFile {
    path: PathBuf,
    horde: HordeName,
}

impl EventFile {
    pub(crate) fn new(home: &Home, horde: &HordeName) -> Self {
        Self {
            path: home.events(horde.as_str()),
            horde: horde.clone(),
        }
    }

    /// The kept events after `since`, in order. A torn last line is passed over.
    pub(crate) fn after(&self, since: Option<EventId>) -> io::Result<Vec<UnderverseEvent>> {
        let since = since.map_or(0, |id| id.0);
        let lines = self.lines()?;
        Ok(lines
            .into_iter()
            .filter(|line| line.id > since)
            .map(|l| self.event(l))
            .collect())
    }

    /// Appends what is not yet told, durably, and returns it with its ids.
    pub(crate) fn append(
        &self,
        generation: u64,
        unix_ms: u64,
        happened: Vec<News>,
    ) -> io::Result<Vec<UnderverseEvent>> {
        let mut lines = self.lines()?;
        let known = lines.len();
        for News { subject, key, kind } in happened {
            let Some(kind) = twin(kind) else { continue };
            let told = |line: &Line| match &key {
                Some(_) => line.key == key,
                None => line.kind == kind && line.subject == subject,
            };
            if lines.iter().any(told) {
                continue;
            }
            let first = generation.saturating_mul(IDS_PER_GENERATION);
            let id = lines
                .last()
                .map_or(first, |line| (line.id + 1).max(first))
                .max(1);
            lines.push(Line {
                id,
                unix_ms,
                subject,
                key,
                kind,
            });
        }
        let new: Vec<Line> = lines[known..].to_vec();
        if new.is_empty() {
            return Ok(Vec::new());
        }
        if lines.len() > 2 * EVENTS_KEPT || !self.ends_whole()? {
            let start = lines.len().saturating_sub(EVENTS_KEPT);
            durable::replace(&self.path, &encode(&lines[start..])?)?;
        } else {
            cross_file(Boundary::Write, &self.path);
            let mut file = fs::OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .open(&self.path)?;
            file.write_all(&encode(&new)?)?;
            file.sync_data()?;
        }
        Ok(new.into_iter().map(|line| self.event(line)).collect())
    }

    /// The id under which something was told.
    pub(crate) fn id_of(&self, key: &str) -> io::Result<Option<u64>> {
        let lines = self.lines()?;
        let found = lines.iter().find(|line| line.key.as_deref() == Some(key));
        Ok(found.map(|line| line.id))
    }

    fn lines(&self) -> io::Result<Vec<Line>> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let lines = text.split(|&byte| byte == b'\n');
        Ok(lines
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect())
    }

    fn ends_whole(&self) -> io::Result<bool> {
        match fs::read(&self.path) {
            Ok(text) => Ok(text.last().is_none_or(|&byte| byte == b'\n')),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn event(&self, line: Line) -> UnderverseEvent {
        UnderverseEvent {
            id: EventId(line.id),
            horde: self.horde.clone(),
            unix_ms: line.unix_ms,
            subject: line.subject,
            kind: match line.kind {
                KindTwin::ContainerFailed { container, reason } => {
                    EventKind::ContainerFailed { container, reason }
                }
                KindTwin::ContainerStarted {
                    container,
                    replaces,
                } => EventKind::ContainerStarted {
                    container,
                    replaces,
                },
                KindTwin::ServiceDegraded { text } => EventKind::ServiceDegraded(text),
                KindTwin::ServerRebooted { affected } => EventKind::ServerRebooted { affected },
                KindTwin::ServerGone { affected } => EventKind::ServerGone { affected },
                KindTwin::ServerDegraded { reason, affected } => {
                    EventKind::ServerDegraded { reason, affected }
                }
                KindTwin::ServerRestored => EventKind::ServerRestored,
                KindTwin::MaintenancePlanned {
                    from_unix_ms,
                    affected,
                } => EventKind::MaintenancePlanned {
                    from_unix_ms,
                    affected,
                },
            },
        }
    }
}

fn encode(lines: &[Line]) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut text, line).map_err(io::Error::other)?;
        text.push(b'\n');
    }
    Ok(text)
}

fn twin(kind: EventKind) -> Option<KindTwin> {
    match kind {
        EventKind::ContainerFailed { container, reason } => {
            Some(KindTwin::ContainerFailed { container, reason })
        }
        EventKind::ContainerStarted {
            container,
            replaces,
        } => Some(KindTwin::ContainerStarted {
            container,
            replaces,
        }),
        EventKind::ServiceDegraded(text) => Some(KindTwin::ServiceDegraded { text }),
        EventKind::ServerRebooted { affected } => Some(KindTwin::ServerRebooted { affected }),
        EventKind::ServerGone { affected } => Some(KindTwin::ServerGone { affected }),
        EventKind::ServerDegraded { reason, affected } => {
            Some(KindTwin::ServerDegraded { reason, affected })
        }
        EventKind::ServerRestored => Some(KindTwin::ServerRestored),
        EventKind::MaintenancePlanned {
            from_unix_ms,
            affected,
        } => Some(KindTwin::MaintenancePlanned {
            from_unix_ms,
            affected,
        }),
        _ => None,
    }
}
