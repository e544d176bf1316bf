//! What happened on this rnode, newest last: a bounded ring with tokens to resume from.
//!
//! Kept on disk so that a reader's token outlives the agent; not durable against a power cut, the memoir is.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crux_net::boundary::{Kind, cross_file};
use crux_wire::fulcrum::v1::{Event, Field};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::limits::EVENTS_KEPT;

/// Kind of the event that stands for those no longer kept.
pub(crate) const GAP: &str = "gap";

/// An event as it lies on disk, one JSON object a line.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Line {
    sequence: u64,
    unix_ms: u64,
    kind: String,
    subject: String,
    text: String,
    namespace: String,
    rnode: String,
    #[serde(default)]
    fields: Vec<(String, String)>,
    #[serde(default)]
    origin: String,
}

/// An event, and the token of who told it first; empty for our own.
#[derive(Debug)]
struct Kept {
    event: Event,
    origin: String,
}

#[derive(Debug)]
struct Ring {
    events: VecDeque<Kept>,
    last: u64,
    file: Option<File>,
    lines: usize,
}

/// The events of this rnode.
#[derive(Debug)]
pub(crate) struct Events {
    path: PathBuf,
    ring: Mutex<Ring>,
    newest: watch::Sender<u64>,
}

impl Events {
    /// Opens `events.jsonl` in `agent_dir`; what cannot be read is dropped.
    pub(crate) fn open(agent_dir: &Path) -> Self {
        let path = agent_dir.join("events.jsonl");
        let mut events = VecDeque::new();
        let mut last = 0;
        let mut lines = 0;
        if let Ok(file) = File::open(&path) {
            for text in BufReader::new(file).lines().map_while(Result::ok) {
                lines += 1;
                let Ok(line) = serde_json::from_str::<Line>(&text) else {
                    continue;
                };
                last = last.max(line.sequence);
                events.push_back(kept(line));
                if events.len() > EVENTS_KEPT {
                    events.pop_front();
                }
            }
        }
        let file = open_append(&path).ok();
        let (newest, _) = watch::channel(last);
        Self {
            path,
            ring: Mutex::new(Ring {
                events,
                last,
                file,
                lines,
            }),
            newest,
        }
    }

    /// Adds an event; its token is set here.
    pub(crate) fn push(&self, event: Event) {
        let origin = String::new();
        self.keep(Kept { event, origin });
    }

    /// Adds an event that was told to us under a token of the teller's; once, however often it is told.
    pub(crate) fn pass_on(&self, event: Event) {
        let origin = event.token.clone();
        let known = |kept: &Kept| kept.origin == origin;
        if origin.is_empty() || !self.lock().events.iter().any(known) {
            self.keep(Kept { event, origin });
        }
    }

    fn keep(&self, mut new: Kept) {
        let sequence = {
            let mut ring = self.lock();
            ring.last += 1;
            new.event.token = ring.last.to_string();
            let text = serde_json::to_string(&line(&new));
            ring.events.push_back(new);
            if ring.events.len() > EVENTS_KEPT {
                ring.events.pop_front();
            }
            ring.lines += 1;
            if ring.lines > 2 * EVENTS_KEPT {
                self.compact(&mut ring);
            } else if let (Some(file), Ok(text)) = (&mut ring.file, text) {
                // Losing an event's line loses a resume token, nothing more.
                cross_file(Kind::Write, &self.path);
                let _ = file.write_all(format!("{text}\n").as_bytes());
            }
            ring.last
        };
        self.newest.send_replace(sequence);
    }

    /// The events after `token`, oldest first; a gap event leads if some were dropped meanwhile.
    pub(crate) fn after(&self, token: &str) -> Vec<Event> {
        let ring = self.lock();
        let after: u64 = token.parse().unwrap_or(0);
        let first = ring.events.front().map_or(ring.last + 1, sequence);
        let mut events = Vec::new();
        if !token.is_empty() && (after + 1 < first || after > ring.last) {
            events.push(Event {
                token: first.saturating_sub(1).to_string(),
                kind: GAP.to_owned(),
                text: "older events are no longer kept".to_owned(),
                ..Event::default()
            });
        }
        let from = if after > ring.last { 0 } else { after };
        events.extend(
            ring.events
                .iter()
                .filter(|kept| sequence(kept) > from)
                .map(|kept| kept.event.clone()),
        );
        events
    }

    /// Wakes at each new event.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Rewrites the file with what is kept.
    fn compact(&self, ring: &mut Ring) {
        let mut text = String::new();
        for kept in &ring.events {
            if let Ok(line) = serde_json::to_string(&line(kept)) {
                text.push_str(&line);
                text.push('\n');
            }
        }
        if super::durable::replace(&self.path, text.as_bytes()).is_ok() {
            ring.lines = ring.events.len();
            ring.file = open_append(&self.path).ok();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ring> {
        // Whole between statements; a panic elsewhere leaves at most one event out.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

fn sequence(kept: &Kept) -> u64 {
    kept.event.token.parse().unwrap_or(0)
}

fn kept(line: Line) -> Kept {
    let fields = line
        .fields
        .into_iter()
        .map(|(name, value)| Field { name, value })
        .collect();
    let event = Event {
        token: line.sequence.to_string(),
        unix_ms: line.unix_ms,
        kind: line.kind,
        subject: line.subject,
        text: line.text,
        namespace: line.namespace,
        rnode: line.rnode,
        fields,
    };
    let origin = line.origin;
    Kept { event, origin }
}

fn line(kept: &Kept) -> Line {
    let event = &kept.event;
    Line {
        sequence: sequence(kept),
        unix_ms: event.unix_ms,
        kind: event.kind.clone(),
        subject: event.subject.clone(),
        text: event.text.clone(),
        namespace: event.namespace.clone(),
        rnode: event.rnode.clone(),
        fields: event
            .fields
            .iter()
            .map(|f| (f.name.clone(), f.value.clone()))
            .collect(),
        origin: kept.origin.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(events: &Events, subject: &str) {
        events.push(Event {
            subject: subject.into(),
            ..Event::default()
        });
    }

    fn folder(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("radix-events-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn what_is_told_again_is_passed_on_once_also_by_the_next_agent() {
        let dir = folder("again");
        let tell = |events: &Events, origin: &str| {
            let token = origin.to_owned();
            let subject = token.clone();
            events.pass_on(Event {
                token,
                subject,
                ..Event::default()
            });
        };
        let events = Events::open(&dir);
        for origin in ["a/1", "a/2", "a/1"] {
            tell(&events, origin);
        }
        drop(events);
        let events = Events::open(&dir);
        for origin in ["a/2", "a/3"] {
            tell(&events, origin);
        }
        let told: Vec<_> = events
            .after("")
            .into_iter()
            .map(|e| (e.token, e.subject))
            .collect();
        let wanted = [("1", "a/1"), ("2", "a/2"), ("3", "a/3")];
        assert_eq!(
            told,
            wanted.map(|(token, subject)| (token.to_owned(), subject.to_owned()))
        );
        let _ = std::fs::remove_dir_all(&dir);
    }

    #[test]
    fn a_token_resumes_after_the_agent_died() {
        let dir = folder("resume");
        let events = Events::open(&dir);
        push(&events, "a");
        push(&events, "b");
        let token = events.after("").first().unwrap().token.clone();
        drop(events);
        let events = Events::open(&dir);
        push(&events, "c");
        let subjects: Vec<_> = events
            .after(&token)
            .into_iter()
            .map(|e| e.subject)
            .collect();
        assert_eq!(subjects, ["b", "c"]);
        for round in 0..3 * EVENTS_KEPT {
            push(&events, &format!("e{round}"));
        }
        let late = events.after(&token);
        assert_eq!(late[0].kind, "gap");
        assert_eq!(late.len(), EVENTS_KEPT + 1);
        drop(events);
        let events = Events::open(&dir);
        assert_eq!(
            events.after("").last().unwrap().subject,
            format!("e{}", 3 * EVENTS_KEPT - 1)
        );
        let _ = std::fs::remove_dir_all(&dir);
    }
}
