//! A test switch: in which order things are done that depend on each other in no way.
//!
//! Shut, which it is unless [`VARIABLE`] holds a number, that is the order they are asked in, several at once. Open, the
//! number is the seed of another order, and they are done one at a time, so that the order is the seed's and not the
//! scheduler's. Nothing may come of it but the order: docs/design/underverse.md, "Start order".

use crux_core::digest::Digest;

/// Holds the seed, a whole number.
pub const VARIABLE: &str = "RADIX_TEST_ORDER";

/// As asked, or as a seed says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Order(Option<u64>);

impl Order {
    /// The order of this seed.
    #[must_use]
    pub const fn seeded(seed: u64) -> Self {
        Self(Some(seed))
    }

    /// What the environment asks for; a seed is logged, and what is no number is not heeded, which is logged too.
    #[must_use]
    pub fn from_environment() -> Self {
        let Some(text) = std::env::var_os(VARIABLE) else {
            return Self::default();
        };
        match text.to_str().map(str::parse) {
            Some(Ok(seed)) => {
                tracing::warn!(
                    seed,
                    "{VARIABLE} is set: starts come in the order of that seed"
                );
                Self(Some(seed))
            }
            _ => {
                tracing::warn!(?text, "{VARIABLE} is not a number and is not heeded");
                Self::default()
            }
        }
    }

    /// The variable that gives another process of ours the same order; `None` for the order as asked.
    #[must_use]
    pub fn variable(self) -> Option<(&'static str, String)> {
        Some((VARIABLE, self.0?.to_string()))
    }

    /// `items` in this order. The same seed and number of items give the same order.
    #[must_use]
    pub fn arrange<T>(self, items: Vec<T>) -> Vec<T> {
        let Some(seed) = self.0 else {
            return items;
        };
        let key = |index: usize| Digest::of(format!("{seed} {index}").as_bytes()).to_string();
        let mut keyed: Vec<(String, T)> = (items.into_iter().enumerate())
            .map(|(index, item)| (key(index), item))
            .collect();
        keyed.sort_by(|(one, _), (other, _)| one.cmp(other));
        keyed.into_iter().map(|(_, item)| item).collect()
    }

    /// How many are done at once where `most` may be.
    #[must_use]
    pub const fn at_once(self, most: usize) -> usize {
        if self.0.is_some() { 1 } else { most }
    }
}

#[cfg(test)]
mod tests {
    use super::Order;

    #[test]
    fn a_seed_gives_one_order_of_all_and_another_seed_another() {
        let items: Vec<u32> = (0..9).collect();
        assert_eq!(Order::default().arrange(items.clone()), items);
        let orders: std::collections::BTreeSet<Vec<u32>> = (0..50)
            .map(|seed| {
                let arranged = Order::seeded(seed).arrange(items.clone());
                assert_eq!(arranged, Order::seeded(seed).arrange(items.clone()));
                let mut all = arranged.clone();
                all.sort_unstable();
                assert_eq!(all, items, "seed {seed}");
                arranged
            })
            .collect();
        assert!(orders.len() > 45, "{} orders of 50 seeds", orders.len());
    }
}
