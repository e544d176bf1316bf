//! What must come before what: read off the files that dictums need and make.

use std::collections::{BTreeMap, BTreeSet};

use crux_core::adf::Span;

use crate::dictum::{Dictum, Form, Need, Product};
use crate::glob;

/// Largest number of dictums in one graph.
pub const DICTUMS_MAX: usize = 200_000;

/// Why dictums do not make a graph; each names the places that matter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// Two dictums write the same file, or one inside the other's directory.
    #[error("order the dictums: `{first}` and `{second}` both make `{path}`")]
    MadeTwice {
        /// What both write.
        path: String,
        /// Name of the earlier dictum.
        first: String,
        /// Name of the later one.
        second: String,
        /// Where the later one declares it.
        span: Span,
        /// Where the earlier one does.
        before: Span,
    },
    /// Dictums need each other in a circle.
    #[error("order the dictums: they need each other in a circle: {}", circle(.0))]
    Cycle(Vec<Link>),
    /// More dictums than [`DICTUMS_MAX`].
    #[error("order the dictums: {0} are too many")]
    TooMany(usize),
}

/// One step of a circle: `dictum` needs `path`, which the next one makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Name of the dictum that needs.
    pub dictum: String,
    /// What it needs.
    pub path: String,
    /// Where it says so.
    pub span: Span,
}

fn circle(links: &[Link]) -> String {
    let steps: Vec<String> = links
        .iter()
        .map(|link| format!("`{}` needs `{}`", link.dictum, link.path))
        .collect();
    steps.join(", ")
}

/// Dictums in an order in which each comes after all that it needs.
///
/// The order depends on what they need and make alone: the same dictums in another order, or
/// under other names, give the same one.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    dictums: Vec<Dictum>,
    /// For each dictum the ones it needs something of.
    needs: Vec<BTreeSet<usize>>,
    /// Which dictum makes a path.
    makers: BTreeMap<String, usize>,
}

impl Graph {
    /// Orders `dictums`.
    ///
    /// # Errors
    /// Every product that is made twice; else a circle.
    pub fn new(mut dictums: Vec<Dictum>) -> Result<Self, Vec<GraphError>> {
        if dictums.len() > DICTUMS_MAX {
            return Err(vec![GraphError::TooMany(dictums.len())]);
        }
        dictums.sort_by(|one, other| {
            (one.first_product(), &one.name).cmp(&(other.first_product(), &other.name))
        });
        let makers = makers(&dictums)?;
        let needs: Vec<_> = (0..dictums.len())
            .map(|at| links(&dictums, &makers, at))
            .collect();
        let order = order(&needs).map_err(|left| vec![find_circle(&dictums, &needs, &left)])?;
        Ok(Self::reordered(dictums, &needs, &order))
    }

    fn reordered(dictums: Vec<Dictum>, needs: &[BTreeMap<usize, usize>], order: &[usize]) -> Self {
        let mut place = vec![0; order.len()];
        for (new, old) in order.iter().enumerate() {
            place[*old] = new;
        }
        let needs: Vec<BTreeSet<usize>> = order
            .iter()
            .map(|old| needs[*old].keys().map(|needed| place[*needed]).collect())
            .collect();
        let mut slots: Vec<Option<Dictum>> = dictums.into_iter().map(Some).collect();
        let dictums: Vec<Dictum> = order.iter().filter_map(|old| slots[*old].take()).collect();
        let makers = dictums
            .iter()
            .enumerate()
            .flat_map(|(at, dictum)| {
                dictum
                    .products
                    .iter()
                    .map(move |made| (made.path.clone(), at))
            })
            .collect();
        Self {
            dictums,
            needs,
            makers,
        }
    }

    /// The dictums, each after all that it needs.
    #[must_use]
    pub fn dictums(&self) -> &[Dictum] {
        &self.dictums
    }

    /// Which dictums the one at `index` needs something of; all are before it.
    #[must_use]
    pub fn needs(&self, index: usize) -> &BTreeSet<usize> {
        &self.needs[index]
    }

    /// The dictum that makes `path`, or the directory it is in.
    #[must_use]
    pub fn maker(&self, path: &str) -> Option<usize> {
        maker(&self.dictums, &self.makers, path)
    }

    /// Every product that `need` matches, in bytewise order, with the dictum that makes it.
    #[must_use]
    pub fn made_for(&self, need: &Need) -> Vec<(&Product, usize)> {
        made_for(&self.dictums, &self.makers, need)
    }

    /// The dictums without which `wanted` cannot be there, in order; all if it is empty.
    ///
    /// Paths that no dictum makes are passed over: they are the caller's own files.
    #[must_use]
    pub fn closure(&self, wanted: &[String]) -> BTreeSet<usize> {
        if wanted.is_empty() {
            return (0..self.dictums.len()).collect();
        }
        let mut found = BTreeSet::new();
        let mut open: Vec<usize> = wanted.iter().filter_map(|path| self.maker(path)).collect();
        while let Some(index) = open.pop() {
            if found.insert(index) {
                open.extend(&self.needs[index]);
            }
        }
        found
    }
}

fn makers(dictums: &[Dictum]) -> Result<BTreeMap<String, usize>, Vec<GraphError>> {
    let mut makers: BTreeMap<String, usize> = BTreeMap::new();
    let mut errors = Vec::new();
    for (at, dictum) in dictums.iter().enumerate() {
        for product in &dictum.products {
            if let Some(before) = makers.get(&product.path) {
                errors.push(made_twice(&dictums[*before], dictum, product));
            } else {
                makers.insert(product.path.clone(), at);
            }
        }
    }
    for dictum in dictums {
        for product in &dictum.products {
            let above = folders(&product.path).find_map(|folder| makers.get(folder));
            errors.extend(above.map(|above| made_twice(&dictums[*above], dictum, product)));
        }
    }
    if errors.is_empty() {
        Ok(makers)
    } else {
        Err(errors)
    }
}

fn made_twice(first: &Dictum, second: &Dictum, product: &Product) -> GraphError {
    let at_or_above = |made: &&Product| {
        made.path == product.path || folders(&product.path).any(|folder| folder == made.path)
    };
    GraphError::MadeTwice {
        path: product.path.clone(),
        first: first.name.clone(),
        second: second.name.clone(),
        span: product.span,
        before: first
            .products
            .iter()
            .find(at_or_above)
            .map_or(first.span, |made| made.span),
    }
}

/// The folders that `path` is in, innermost first.
fn folders(path: &str) -> impl Iterator<Item = &str> {
    path.rmatch_indices('/').map(|(at, _)| &path[..at])
}

fn maker(dictums: &[Dictum], makers: &BTreeMap<String, usize>, path: &str) -> Option<usize> {
    let in_dir = |folder| {
        let at = makers.get(folder).copied()?;
        let is_dir = |made: &Product| made.form == Form::Dir && made.path == folder;
        dictums[at].products.iter().any(is_dir).then_some(at)
    };
    makers
        .get(path)
        .copied()
        .or_else(|| folders(path).find_map(in_dir))
}

fn made_for<'a>(
    dictums: &'a [Dictum],
    makers: &BTreeMap<String, usize>,
    need: &Need,
) -> Vec<(&'a Product, usize)> {
    let product = |path: &str, at: usize| {
        let same =
            |made: &&Product| made.path == path || path.starts_with(&format!("{}/", made.path));
        dictums[at]
            .products
            .iter()
            .find(same)
            .map(|made| (made, at))
    };
    if !glob::is_glob(&need.pattern) {
        let at = maker(dictums, makers, &need.pattern);
        return at
            .and_then(|at| product(&need.pattern, at))
            .into_iter()
            .collect();
    }
    // Only what begins like the pattern can match it.
    let (folder, _) = glob::split(&need.pattern);
    makers
        .range(folder.clone()..)
        .take_while(|(path, _)| path.starts_with(&folder))
        .filter(|(path, _)| glob::matches(&need.pattern, path))
        .filter_map(|(path, at)| product(path, *at))
        .collect()
}

/// What the dictum at `at` needs of others: their index, and which of its needs says so.
fn links(
    dictums: &[Dictum],
    makers: &BTreeMap<String, usize>,
    at: usize,
) -> BTreeMap<usize, usize> {
    let mut links = BTreeMap::new();
    for (number, need) in dictums[at].needs.iter().enumerate() {
        for (_, maker) in made_for(dictums, makers, need) {
            // A glob over a folder that one's own product is in does not mean that product.
            if maker != at || !glob::is_glob(&need.pattern) {
                links.entry(maker).or_insert(number);
            }
        }
    }
    links
}

/// Kahn's algorithm, smallest index first; `Err` holds what is left of a circle.
fn order(needs: &[BTreeMap<usize, usize>]) -> Result<Vec<usize>, BTreeSet<usize>> {
    let mut waiting: Vec<usize> = needs.iter().map(BTreeMap::len).collect();
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); needs.len()];
    for (at, needed) in needs.iter().enumerate() {
        needed.keys().for_each(|needed| users[*needed].push(at));
    }
    let mut ready: BTreeSet<usize> = (0..needs.len()).filter(|at| waiting[*at] == 0).collect();
    let mut order = Vec::with_capacity(needs.len());
    while let Some(at) = ready.pop_first() {
        order.push(at);
        for user in &users[at] {
            waiting[*user] -= 1;
            if waiting[*user] == 0 {
                ready.insert(*user);
            }
        }
    }
    if order.len() == needs.len() {
        return Ok(order);
    }
    Err((0..needs.len()).filter(|at| waiting[*at] > 0).collect())
}

/// Every dictum left over needs another one left over, so walking along needs ends in a circle.
fn find_circle(
    dictums: &[Dictum],
    needs: &[BTreeMap<usize, usize>],
    left: &BTreeSet<usize>,
) -> GraphError {
    let mut path: Vec<usize> = Vec::new();
    let mut at = left.first().copied().unwrap_or(0);
    while !path.contains(&at) {
        path.push(at);
        let next = needs[at].keys().find(|needed| left.contains(needed));
        at = next.copied().unwrap_or(at);
    }
    let start = path.iter().position(|seen| *seen == at).unwrap_or(0);
    let round = &path[start..];
    let links = round.iter().enumerate().map(|(step, index)| {
        let next = round[(step + 1) % round.len()];
        let need = needs[*index]
            .get(&next)
            .and_then(|number| dictums[*index].needs.get(*number));
        Link {
            dictum: dictums[*index].name.clone(),
            path: need.map_or_else(String::new, |need| need.pattern.clone()),
            span: need.map_or(dictums[*index].span, |need| need.span),
        }
    });
    GraphError::Cycle(links.collect())
}
