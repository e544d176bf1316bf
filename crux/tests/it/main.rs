//! What an application sees: handles, its own server, its blackboard, against an agent made for the tests.

mod agent;
mod blackboard;
mod service;
