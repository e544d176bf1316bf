//! What a flock machine counts, for operators and tests.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Events counted since the start of one incarnation.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Every counter with its name, in a fixed order.
            #[must_use]
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counters! {
    /// Messages that could not be read.
    malformed,
    /// Messages of another namespace.
    foreign,
    /// Messages or entries whose sender or signature is not what they say.
    forged,
    /// Messages of an earlier incarnation, or of a rnode that has quit.
    stale,
    /// Rnodes whose credential was not accepted.
    refused,
    /// Rnodes and entries turned away at a limit.
    full,
    /// Signs that another rnode has our identity, as after a disk was copied.
    duplicate_identity,
    /// Times this rnode was so late that it doubted itself.
    stalls,
    /// Times it heard nothing of its leader for a whole window and flocked over.
    flock_overs,
    /// Times it asked a neighbour for a newer heartbeat.
    asks,
    /// Heartbeats taken in.
    heartbeats,
    /// Times it became leader or raised its term.
    claims,
    /// Probes sent.
    probes,
    /// First misses that made a suspicion.
    suspicions,
    /// Rnodes it declared lost itself.
    declared,
    /// Rnodes it holds for lost at another's word.
    told_lost,
    /// Times it refuted that it was lost.
    refutations,
    /// Comparisons of tables it began.
    comparisons,
    /// Entries taken in from others.
    entries,
    /// Documents whose bytes or signature were not accepted.
    bad_documents,
    /// Requests refused.
    refusals,
}
