//! From a parsed `.begat` file to a graph, with every problem at its place.

use begat_core::convert::{Problem, dictums};
use begat_core::graph::{Graph, GraphError};
use crux_core::adf::begat::BegatFile;

use crate::tree::Tree;

/// The graph of all dictums in `file`.
///
/// # Errors
/// Every problem that was found, located.
pub fn graph(file: &BegatFile, tree: &Tree) -> Result<Graph, Vec<Problem>> {
    let mut matches = |pattern: &str| tree.matches(pattern).map_err(|error| error.to_string());
    let (dictums, problems) = dictums(file, &mut matches);
    if !problems.is_empty() {
        return Err(problems);
    }
    Graph::new(dictums).map_err(|errors| errors.iter().map(problem).collect())
}

fn problem(error: &GraphError) -> Problem {
    let span = match error {
        GraphError::MadeTwice { span, .. } => *span,
        GraphError::Cycle(links) => links.first().map(|link| link.span).unwrap_or_default(),
        GraphError::TooMany(_) => crux_core::adf::Span::default(),
    };
    Problem {
        span,
        message: error.to_string(),
        help: None,
    }
}
