//! Khan: what a placement file means. Parse tree in, plan and assignments out; pure.
