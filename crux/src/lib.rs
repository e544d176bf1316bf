//! crux: what an application links. Membership, shared data, service handles and identity.
