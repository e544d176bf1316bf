//! The horde model, the `Underverse` trait over whatever supplies containers, and its events.
