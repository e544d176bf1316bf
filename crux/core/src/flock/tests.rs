//! The machine by itself: single steps, and small flocks without a simulator.

