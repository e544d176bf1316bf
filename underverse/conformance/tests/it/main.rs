//! Each case is green on a backend that keeps everything, and red on its twin that breaks one promise.

#![cfg(test)]

mod ground;
mod model;
mod pass;
mod tap;
mod twins;
