//! `radix events`: what happened, oldest first, with a token to resume from.
//!
//! Every rnode keeps its own events. What all of them tell alike (documents, members, leaders, denials) is taken from the
//! first that answers, and what only one can tell (instances, files, needs) from each.

use std::time::{Duration, Instant};

use crux_wire::fulcrum::v1::Event;
use futures_util::StreamExt as _;
use futures_util::stream::{self, SelectAll};
use serde::Serialize;
use tonic::{Status, Streaming};

use crate::args;
use crate::connection::{Base, Namespace, RnodeConnection};
use crate::failure::{Failure, Outcome};
use crate::home::Home;
use crate::output::{self, Format};

/// Beginnings of the kinds that every rnode of a namespace tells of.
const SHARED: [&str; 4] = ["document", "rnode.", "leader", "identity."];

/// How long a rnode whose agent died may take to have another.
const REOPEN_WAIT_MAX: Duration = Duration::from_secs(30);
/// Pause between two attempts to find it.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);

/// One event as JSON.
#[derive(Debug, Serialize)]
struct Line<'a> {
    token: &'a str,
    unix_ms: u64,
    kind: &'a str,
    subject: &'a str,
    text: &'a str,
    namespace: &'a str,
    rnode: &'a str,
    fields: std::collections::BTreeMap<&'a str, &'a str>,
}

/// Runs the command.
pub(crate) async fn run(args: args::Events) -> Outcome<()> {
    let base = Base::require(&Home::locate()?).await?;
    if args.running.namespace.as_deref() == Some("base") {
        let after = args.after.unwrap_or_default();
        if !after.is_empty() && after.parse::<u64>().is_err() {
            return Err(no_token(&after, "7"));
        }
        refuse_future(&base, &after).await?;
        let mut events = base.itself().events(after, args.follow).await?;
        while let Some(event) = next(events.message().await)? {
            print(&event, args.format)?;
        }
        return Ok(());
    }
    let after = args.after.as_deref().map(Token::parse).transpose()?;
    let namespace = base.namespace(args.running.namespace.as_deref()).await?;
    let mut tellers = tellers(&base, &namespace).await?;
    let mut events = Vec::new();
    for teller in &mut tellers {
        events.extend(teller.kept().await?);
    }
    // Rnodes of one machine share its clock; of one rnode the order is its own, whatever its clock did.
    events.sort_by_key(|event| event.unix_ms);
    if let Some(after) = after {
        events = after.later(events)?;
    }
    for event in &events {
        print(event, args.format)?;
    }
    if !args.follow {
        return Ok(());
    }
    let mut streams: SelectAll<_> = tellers
        .into_iter()
        .map(|teller| teller.follow(base.clone(), namespace.name.clone()))
        .collect();
    while let Some(event) = streams.next().await {
        print(&event?, args.format)?;
    }
    Ok(())
}

/// Refuses to go on behind an event of the base that has not happened: it would tell nothing, as if all was told.
async fn refuse_future(base: &Base, after: &str) -> Outcome<()> {
    let Ok(number) = after.parse::<u64>() else {
        return Ok(());
    };
    let mut events = base.itself().events(String::new(), false).await?;
    let mut last = 0;
    while let Some(event) = next(events.message().await)? {
        last = event.token.parse().unwrap_or(last);
    }
    match number > last {
        true => Err(unhappened("base", number)),
        false => Ok(()),
    }
}

fn unhappened(rnode: &str, number: u64) -> Failure {
    Failure::usage(format!("{rnode} has no event {number} yet"))
}

fn next(event: Result<Option<Event>, Status>) -> Outcome<Option<Event>> {
    event.map_err(|status| Failure::status("follow events", &status))
}

/// Which event of which rnode: `n1:7`.
struct Token<'t> {
    rnode: &'t str,
    number: u64,
}

impl<'t> Token<'t> {
    fn parse(text: &'t str) -> Outcome<Self> {
        let parts = text.split_once(':');
        let known = parts.and_then(|(rnode, number)| {
            let number = number.parse().ok()?;
            Some(Self { rnode, number })
        });
        known.ok_or_else(|| no_token(text, "n1:7"))
    }

    /// What comes behind it among `events`, which are in their order.
    fn later(&self, mut events: Vec<Event>) -> Outcome<Vec<Event>> {
        let ours = |event: &Event| {
            Token::parse(&event.token)
                .is_ok_and(|token| token.rnode == self.rnode && token.number >= self.number)
        };
        let Some(at) = events.iter().position(ours) else {
            return Err(unhappened(self.rnode, self.number));
        };
        // One that is no longer kept has no place; what came next has.
        let is_it = Token::parse(&events[at].token)?.number == self.number;
        Ok(events.split_off(at + usize::from(is_it)))
    }
}

fn no_token(text: &str, like: &str) -> Failure {
    Failure::usage(format!("`{text}` is no token of an event"))
        .hint(format!("tokens stand before the events, such as {like}"))
}

/// A rnode that tells what happened on it.
struct Teller {
    label: String,
    rnode: RnodeConnection,
    /// Whether it tells what all do.
    shared: bool,
    /// Its own token of what it told last.
    last: String,
}

/// Every rnode of a namespace that answers; that one does not is said.
async fn tellers(base: &Base, namespace: &Namespace) -> Outcome<Vec<Teller>> {
    let mut found: Vec<Teller> = Vec::new();
    let mut failures = Vec::new();
    for rnode in &namespace.horde.rnodes {
        match base.reach(&namespace.name, rnode).await {
            Ok(reached) => found.push(Teller {
                label: rnode.label.clone(),
                rnode: reached,
                shared: found.is_empty(),
                last: String::new(),
            }),
            Err(failure) => failures.push((rnode.label.as_str(), failure)),
        }
    }
    if found.is_empty() {
        return Err(base.unreachable(namespace, failures.pop().map(|(_, failure)| failure)));
    }
    for (label, _) in failures {
        output::talk(&format!("{label} does not answer: its events are missing"));
    }
    Ok(found)
}

impl Teller {
    /// What it has kept and only it tells, or all do and it is the one that is asked.
    async fn kept(&mut self) -> Outcome<Vec<Event>> {
        let mut events = self.rnode.events(String::new(), false).await?;
        let mut kept = Vec::new();
        while let Some(event) = next(events.message().await)? {
            self.last.clone_from(&event.token);
            kept.extend(told(event, &self.label, self.shared));
        }
        Ok(kept)
    }

    /// What it tells behind that; once its agent has died, what the next one tells, or why there is none.
    fn follow(self, base: Base, namespace: String) -> stream::BoxStream<'static, Outcome<Event>> {
        let begun = (self, None, base, namespace);
        let told = stream::unfold(begun, |(mut teller, open, base, namespace)| async move {
            let mut open: Option<Streaming<Event>> = open;
            loop {
                let events = match open.as_mut() {
                    Some(events) => events,
                    None => match teller.reopen(&base, &namespace).await {
                        Ok(events) => open.insert(events),
                        Err(failure) => {
                            let text = format!("{} does not answer", teller.label);
                            let failure = Failure::failed(text).hint(failure.line());
                            return Some((Err(failure), (teller, None, base, namespace)));
                        }
                    },
                };
                match events.message().await {
                    Ok(Some(event)) => {
                        teller.last.clone_from(&event.token);
                        if let Some(event) = told(event, &teller.label, teller.shared) {
                            return Some((Ok(event), (teller, open, base, namespace)));
                        }
                    }
                    Ok(None) | Err(_) => open = None,
                }
            }
        });
        told.boxed()
    }

    /// Its events behind the last one, as soon as it has an agent.
    async fn reopen(&self, base: &Base, namespace: &str) -> Outcome<Streaming<Event>> {
        let begin = Instant::now();
        loop {
            let opened = match base.rnode(Some(namespace), &self.label).await {
                Ok(rnode) => rnode.events(self.last.clone(), true).await,
                Err(failure) => Err(failure),
            };
            if opened.is_ok() || begin.elapsed() > REOPEN_WAIT_MAX {
                return opened;
            }
            tokio::time::sleep(REOPEN_PAUSE).await;
        }
    }
}

/// An event under a token that names its rnode; `None` if another rnode is asked for its like.
fn told(mut event: Event, label: &str, shared: bool) -> Option<Event> {
    let everybodys = SHARED.iter().any(|kind| event.kind.starts_with(kind));
    event.token = format!("{label}:{}", event.token);
    (shared || !everybodys).then_some(event)
}

fn print(event: &Event, format: Format) -> Outcome<()> {
    if format == Format::Json {
        let line = Line {
            token: &event.token,
            unix_ms: event.unix_ms,
            kind: &event.kind,
            subject: &event.subject,
            text: &event.text,
            namespace: &event.namespace,
            rnode: &event.rnode,
            fields: event
                .fields
                .iter()
                .map(|field| (field.name.as_str(), field.value.as_str()))
                .collect(),
        };
        let text = serde_json::to_string(&line)
            .map_err(|error| Failure::failed(format!("failed to write JSON: {error}")))?;
        output::line(&text);
        return Ok(());
    }
    output::line(&format!(
        "{} {} {} {} {}",
        event.token,
        crate::clock::shown(event.unix_ms),
        event.kind,
        event.subject,
        event.text
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(token: &str) -> Event {
        Event {
            token: token.to_owned(),
            ..Event::default()
        }
    }

    #[test]
    fn a_token_names_a_rnode_and_the_events_behind_it_are_later() {
        let all = || ["n1:1", "n2:1", "n2:2", "n1:2", "n2:3"].map(event).to_vec();
        let check = |token: &str, expected: &[&str]| {
            let later = Token::parse(token).unwrap().later(all()).unwrap();
            let later: Vec<&str> = later.iter().map(|event| event.token.as_str()).collect();
            assert_eq!(later, expected, "{token}");
        };
        check("n1:1", &["n2:1", "n2:2", "n1:2", "n2:3"]);
        check("n2:2", &["n1:2", "n2:3"]);
        check("n2:3", &[]);
        // Of one that is no longer kept, what came next is known.
        check("n1:0", &["n1:1", "n2:1", "n2:2", "n1:2", "n2:3"]);
        for wrong in ["", "7", "n1", "n1:", "n1:x"] {
            assert!(Token::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Token::parse("n3:1").unwrap().later(all()).is_err());
    }

    #[test]
    fn what_all_tell_is_taken_from_one() {
        let of = |kind: &str, shared| {
            let event = Event {
                kind: kind.to_owned(),
                ..event("4")
            };
            told(event, "n2", shared).map(|event| event.token)
        };
        assert_eq!(of("instance.exited", false).as_deref(), Some("n2:4"));
        assert_eq!(of("rnode.up", false), None);
        assert_eq!(of("rnode.up", true).as_deref(), Some("n2:4"));
    }
}
