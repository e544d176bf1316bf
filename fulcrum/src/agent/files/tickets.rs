//! What was promised to whoever names a ticket, for a while.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use crate::agent::limits::{TICKET_LIFE, TICKETS_MAX};

/// Promises by ticket; the oldest make room for new ones.
#[derive(Debug)]
pub(crate) struct Tickets<T> {
    held: Mutex<Held<T>>,
}

impl<T> Default for Tickets<T> {
    fn default() -> Self {
        Self {
            held: Mutex::default(),
        }
    }
}

impl<T> Tickets<T> {
    /// Keeps a promise under a new ticket.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub(crate) fn add(&self, promised: T) -> Result<String, crux_net::files::Error> {
        self.add_at(Instant::now(), promised)
    }

    /// Keeps a promise under the ticket of somebody else; what `stays` says of one that is here already decides.
    pub(crate) fn take_over(&self, ticket: &str, promised: T, stays: impl Fn(&T) -> bool) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.get(ticket).is_some_and(|(_, there)| stays(there)) {
            return false;
        }
        insert(&mut held, Instant::now(), (ticket.to_owned(), promised));
        true
    }

    /// What a ticket promises, if it still does; using it makes it last.
    pub(crate) fn find(&self, ticket: &str) -> Option<Arc<T>> {
        self.find_at(Instant::now(), ticket)
    }

    /// Forgets promises that `of` names and nobody is at.
    pub(crate) fn forget(&self, of: impl Fn(&T) -> bool) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, (_, promised)| Arc::strong_count(promised) > 1 || !of(promised));
    }

    fn add_at(&self, now: Instant, promised: T) -> Result<String, crux_net::files::Error> {
        let ticket = crux_net::files::ticket()?;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        insert(&mut held, now, (ticket.clone(), promised));
        Ok(ticket)
    }

    fn find_at(&self, now: Instant, ticket: &str) -> Option<Arc<T>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let (used, promised) = held.get_mut(ticket)?;
        if now.duration_since(*used) >= TICKET_LIFE {
            return None;
        }
        *used = now;
        Some(Arc::clone(promised))
    }
}

type Held<T> = BTreeMap<String, (Instant, Arc<T>)>;

fn insert<T>(held: &mut Held<T>, now: Instant, (ticket, promised): (String, T)) {
    held.retain(|_, (used, _)| now.duration_since(*used) < TICKET_LIFE);
    if held.len() >= TICKETS_MAX && !held.contains_key(&ticket) {
        let oldest = held.iter().min_by_key(|(_, (used, _))| *used);
        if let Some(oldest) = oldest.map(|(ticket, _)| ticket.clone()) {
            held.remove(&oldest);
        }
    }
    held.insert(ticket, (now, Arc::new(promised)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_for_its_promise_and_for_a_while() {
        let tickets = Tickets::default();
        let begun = Instant::now();
        let one = tickets.add_at(begun, "one").unwrap();
        let other = tickets.add_at(begun, "other").unwrap();
        assert_ne!(one, other);
        assert_eq!(tickets.find("guess"), None);
        let later = begun + TICKET_LIFE / 2;
        assert_eq!(tickets.find_at(later, &one).as_deref(), Some(&"one"));
        let later = begun + TICKET_LIFE;
        assert!(tickets.find_at(later, &one).is_some());
        assert!(tickets.find_at(later, &other).is_none());
        let used = tickets.find_at(later, &one);
        tickets.forget(|_| true);
        assert!(tickets.find_at(later, &one).is_some());
        drop(used);
        tickets.forget(|promised| *promised == "other");
        assert!(tickets.find_at(later, &one).is_some());
        for _ in 0..TICKETS_MAX {
            let later = later + TICKET_LIFE / 1000;
            tickets.add_at(later, "more").unwrap();
        }
        assert!(tickets.find_at(later, &one).is_none());
    }

    #[test]
    fn the_ticket_of_somebody_else_is_taken_over_unless_what_is_there_stays() {
        let tickets = Tickets::default();
        let own = tickets.add("own").unwrap();
        assert!(!tickets.take_over(&own, "relayed", |there| *there == "own"));
        assert_eq!(tickets.find(&own).as_deref(), Some(&"own"));
        for again in ["relayed", "relayed again"] {
            assert!(tickets.take_over("theirs", again, |there| *there == "own"));
            assert_eq!(tickets.find("theirs").as_deref(), Some(&again));
        }
    }
}
