//! Wire contracts of Radix: generated protobuf types and services, their REST mapping ([`rest`]), and the tables that map
//! our errors to theirs ([`status`]).
//!
//! Not for logic. The `.proto` files under `proto/` are the source; `cargo xtask proto` regenerates `src/generated/`.

#[expect(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes,
    reason = "generated code"
)]
mod generated {
    pub mod descriptors {
        include!("generated/descriptors.rs");
    }
    pub mod document {
        pub mod v1 {
            include!("generated/radix.document.v1.rs");
        }
    }
    pub mod keeper {
        pub mod v1 {
            include!("generated/radix.keeper.v1.rs");
        }
    }
    pub mod fulcrum {
        pub mod v1 {
            include!("generated/radix.fulcrum.v1.rs");
        }
    }
    pub mod rexec {
        pub mod v1 {
            include!("generated/radix.rexec.v1.rs");
        }
    }
    pub mod fileio {
        pub mod v1 {
            include!("generated/radix.fileio.v1.rs");
        }
    }
    pub mod process {
        pub mod v1 {
            include!("generated/radix.process.v1.rs");
        }
    }
}

pub mod rest;
pub mod status;

pub use generated::*;
