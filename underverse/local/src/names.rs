//! The names of a horde on a switch, and who answers for them: A records that follow the leases. Drawn in docs/design/network.md.
//!
//! `Table` is what is known, read from the records of the hordes; `names/answer.rs` is pure and knows the format of questions;
//! `names/serve.rs` holds the sockets. Not for names outside of the flock: whoever asks for one is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;

use crate::address;
use crate::label::rnode_label;
use crate::layout::Home;
use crate::network::Scope;
use crate::record::Record;

mod answer;
mod serve;

pub use answer::{Over, TTL_SECONDS, answer};
pub use serve::serve;

/// What is known of names, as one horde sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    own: String,
    /// Labels and roles by horde, all in lower case.
    hordes: BTreeMap<String, BTreeMap<String, BTreeSet<Ipv4Addr>>>,
}

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// It has these addresses, sorted; never none.
    Addresses(Vec<Ipv4Addr>),
    /// It would be ours, and there is nobody of that name.
    Nobody,
    /// It is no name of ours.
    Foreign,
}

impl Table {
    /// A table for the members of `own`, with nobody in it.
    #[must_use]
    pub fn of(own: &str) -> Self {
        let own = own.to_lowercase();
        let hordes = BTreeMap::from([(own.clone(), BTreeMap::new())]);
        Self { own, hordes }
    }

    /// Adds an address for a label or role of a horde.
    pub fn add(&mut self, horde: &str, name: &str, address: Ipv4Addr) {
        let horde = self.hordes.entry(horde.to_lowercase()).or_default();
        horde
            .entry(name.to_lowercase())
            .or_default()
            .insert(address);
    }

    /// What is recorded below `home` of `own` and, if it shares the flock's switch, of the others that do.
    ///
    /// `None` while its own record cannot be read: what was known last is still true then.
    #[must_use]
    pub fn read(home: &Home, own: &str) -> Option<Self> {
        let record = Record::read(home, own).ok()??;
        let scope = record.switch?.scope;
        let mut table = Self::of(own);
        table.add_horde(home, &record).ok()?;
        if scope == Scope::Flock {
            for entry in std::fs::read_dir(home.hordes()).ok()?.flatten() {
                let name = entry.file_name();
                let Some(other) = name.to_str().filter(|other| *other != own) else {
                    continue;
                };
                // One that is torn or was just removed is nobody's name.
                if let Ok(Some(record)) = Record::read(home, other)
                    && record.switch.is_some_and(|on| on.scope == Scope::Flock)
                {
                    let _ = table.add_horde(home, &record);
                }
            }
        }
        Some(table)
    }

    fn add_horde(&mut self, home: &Home, record: &Record) -> io::Result<()> {
        let horde = &record.namespace;
        self.hordes.entry(horde.to_lowercase()).or_default();
        for lease in address::read(home, horde)? {
            self.add(horde, &rnode_label(lease.ordinal), lease.host);
            if let Some(container) = record.containers.get(&lease.ordinal) {
                self.add(horde, &container.role, lease.host);
            }
        }
        Ok(())
    }

    /// What is known of a name, given by its parts: `n1` or a role of the own horde, or one of these and a horde.
    #[must_use]
    pub fn look(&self, parts: &[String]) -> Known {
        let (name, horde) = match parts {
            [name] => (Some(name), &self.own),
            [name, horde] => (Some(name), horde),
            [.., horde] => (None, horde),
            [] => return Known::Foreign,
        };
        let Some(members) = self.hordes.get(horde) else {
            return Known::Foreign;
        };
        match name.and_then(|name| members.get(name)) {
            Some(addresses) => Known::Addresses(addresses.iter().copied().collect()),
            None => Known::Nobody,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_in_ones_own_horde_or_in_the_one_that_is_named() {
        let [one, two, far] = [1, 2, 3].map(|last| Ipv4Addr::new(198, 18, 1, last));
        let mut table = Table::of("Shire");
        table.add("Shire", "n1", one);
        table.add("Shire", "Hobbit", one);
        table.add("Shire", "hobbit", two);
        table.add("bree", "n1", far);
        let look = |name: &str| {
            let parts: Vec<String> = name.split('.').map(str::to_owned).collect();
            table.look(&parts)
        };
        assert_eq!(look("n1"), Known::Addresses(vec![one]));
        assert_eq!(look("n1.shire"), Known::Addresses(vec![one]));
        assert_eq!(look("hobbit"), Known::Addresses(vec![one, two]));
        assert_eq!(look("n1.bree"), Known::Addresses(vec![far]));
        for nobody in ["n2", "hobbit.bree", "a.n1.shire"] {
            assert_eq!(look(nobody), Known::Nobody, "{nobody}");
        }
        for foreign in ["example.org", "n1.moria"] {
            assert_eq!(look(foreign), Known::Foreign, "{foreign}");
        }
    }
}
