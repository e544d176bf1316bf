//! The underverse of this machine: nested rnodes as processes, cells, loopback addresses, an L4 forwarder.
