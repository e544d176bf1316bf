//! Fulcrum: the keeper and the agent of a rnode.
