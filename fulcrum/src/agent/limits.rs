//! Every bound and interval of the agent, with its unit and reason.

use std::time::Duration;

/// First wait before a failed instance is started again. 100 ms: a crash at start costs little.
pub(crate) const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest wait between two starts. 30 s: a broken instance stays cheap.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// An instance that lived this long starts its back-off anew. 10 s: longer than any start.
pub(crate) const BACKOFF_RESET: Duration = Duration::from_secs(10);
/// Failures within [`GIVE_UP_WINDOW`] after which an instance is given up.
pub(crate) const GIVE_UP_FAILURES: usize = 8;
/// Window in which failures count towards giving up.
pub(crate) const GIVE_UP_WINDOW: Duration = Duration::from_secs(120);
/// A given-up instance is tried again after this, and then after twice as long each time. 15 s: longer than the last
/// back-off before, and the cause may have been outside.
pub(crate) const GIVE_UP_RETRY_MIN: Duration = Duration::from_secs(15);
/// Longest wait before a given-up instance is tried again, and how long its rnode is barred for its class. 5 min: what
/// fails for hours costs one start in that time.
pub(crate) const GIVE_UP_RETRY_MAX: Duration = Duration::from_secs(300);
/// Time between TERM and KILL.
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(10);
/// Without a probe, an instance is ready when it has run this long.
pub(crate) const ALIVE_READY: Duration = Duration::from_millis(300);
/// Pause between two readiness probes of one instance.
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_millis(100);
/// Longest pause between two readiness probes.
pub(crate) const PROBE_INTERVAL_MAX: Duration = Duration::from_secs(2);
/// Time one probe may take.
pub(crate) const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Most probe tasks at once.
pub(crate) const PROBES_MAX: usize = 256;
/// Finished executions of instances that are kept for their output, each instance.
pub(crate) const FINISHED_KEPT_INSTANCE: usize = 3;
/// Finished executions kept a rnode, whoever started them; those that ended first are dropped.
pub(crate) const FINISHED_KEPT_RNODE: usize = 128;
/// Most finished executions kept a rnode, however recently they ended: what the keeper keeps.
pub(crate) const FINISHED_KEPT_MAX: usize = crate::keeper::executions::ENDED_MAX;
/// Time after its end in which no finished execution is dropped for their number. A minute: whoever has to see how it
/// ended, a backend that is started again included, has looked by then.
pub(crate) const FINISHED_KEPT_FOR: Duration = Duration::from_secs(60);
/// Most of the memoir that a new agent reads back for ends that are not in it; the rest is told as undecided. 1 GiB: millions
/// of records, in a second or two.
pub(crate) const ENDS_READ_BYTES_MAX: u64 = 1 << 30;
/// Longest reason in an instance record, in bytes.
pub(crate) const REASON_BYTES_MAX: usize = 300;

/// Time from winning the lead to the first placement: the holders' records arrive in it.
pub(crate) const LEADER_SETTLE: Duration = Duration::from_secs(1);
/// The same when every member has told what it holds.
pub(crate) const LEADER_SETTLE_MIN: Duration = Duration::from_millis(100);
/// The same when nothing runs yet and members are still missing. 5 s: a busy machine starts six rnodes in it.
pub(crate) const LEADER_GATHER: Duration = Duration::from_secs(5);
/// Changes within this are placed together.
pub(crate) const LEADER_DEBOUNCE: Duration = Duration::from_millis(50);
/// Placement runs at least this often, so that a silent member's time-out is noticed.
pub(crate) const LEADER_INTERVAL: Duration = Duration::from_secs(1);
/// A follower looks at least this often; a change of leader wakes it anyway.
pub(crate) const FOLLOWER_INTERVAL: Duration = Duration::from_secs(30);
/// Changes within this are reconciled together.
pub(crate) const RECONCILE_DEBOUNCE: Duration = Duration::from_millis(10);
/// Reconciling runs at least this often.
pub(crate) const RECONCILE_INTERVAL: Duration = Duration::from_secs(5);

/// Events kept for resume tokens.
pub(crate) const EVENTS_KEPT: usize = 1024;
/// First and longest pause before those who did not answer are asked or told again what the owner says.
pub(crate) const AUTHORITY_RETRY: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(60));
/// How often a member looks how much its flock weighs, for verdicts on claims.
pub(crate) const STANDING_LOOK: Duration = Duration::from_secs(1);
/// What a flock weighed so long ago speaks for it when it meets another: longer than two flocks take to become one.
pub(crate) const STANDING_SETTLED: Duration = Duration::from_secs(10);
/// Most changes of that weight remembered within this time; beyond it the oldest go.
pub(crate) const STANDING_SAMPLES_MAX: usize = 64;
/// For how long a verdict must stand before the rnode that it is against ends, or its base hears of it: the flocks that met
/// have said all they have to say by then.
pub(crate) const VERDICT_GRACE: Duration = Duration::from_secs(10);
/// How often a denied member is told so where it was last seen; after that it is left to whoever meets it.
pub(crate) const PARTING_TRIES: u32 = 3;
/// Most invitations that a base keeps until they are claimed or settled; beyond it none is taken, nor made.
pub(crate) const PENDING_INVITATIONS_MAX: usize = 4_096;
/// Shortest and longest pause between two looks at the invitations that wait.
pub(crate) const SETTLE_LOOK: (Duration, Duration) =
    (Duration::from_millis(250), Duration::from_secs(60));
/// Largest document taken, in bytes.
pub(crate) const DOCUMENT_BYTES_MAX: usize = 1 << 20;
/// Namespaces a base holds documents of.
pub(crate) const NAMESPACES_MAX: usize = 256;
/// Generations of a document kept on disk.
pub(crate) const GENERATIONS_KEPT: usize = 2;
/// Pause before a push to a nested rnode is tried again, at first (it is just starting) and at most.
pub(crate) const PUSH_RETRY: (Duration, Duration) =
    (Duration::from_millis(25), Duration::from_secs(1));
/// Time one call to another rnode may take.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest value of a shared entry, in bytes.
pub(crate) const ENTRY_BYTES_MAX: usize = 8 << 10;

/// Size of one piece of output or of a file in a stream, in bytes.
pub(crate) const CHUNK_BYTES: usize = 32 << 10;
/// Pieces waiting in one stream.
pub(crate) const STREAM_CHUNKS: usize = 8;
/// Pause between two looks at a growing output file.
pub(crate) const OUTPUT_POLL: Duration = Duration::from_millis(20);
/// Digests in one Have or Need.
pub(crate) const DIGESTS_MAX: usize = 4096;
/// Largest file taken by Put or fetched, in bytes.
pub(crate) const FILE_BYTES_MAX: u64 = 64 << 30;
/// Tries to fetch one file from one source.
pub(crate) const FETCH_TRIES: u32 = 2;
/// Pause before a failed fetch is tried again, at first.
pub(crate) const FETCH_RETRY: Duration = Duration::from_millis(500);
/// Longest pause before a pinned file that could not be had is asked for again, doubled from [`FETCH_RETRY`]; none when the
/// document changes or a source appears. 15 s: something waits for it to start.
pub(crate) const FETCH_PAUSE_MAX: Duration = Duration::from_secs(15);
/// Longest wait a Need may ask for.
pub(crate) const NEED_DEADLINE_MAX: Duration = Duration::from_secs(600);
/// Verified files remembered by device, inode, size and times.
pub(crate) const VERIFIED_KEPT: usize = 1024;

/// Time a new agent waits for each of the keeper's first answers. 30 s: the keeper may be flushing records to a slow disk.
pub(crate) const KEEPER_WAIT: Duration = Duration::from_secs(30);
/// Time a call to start a command waits for the command's file.
pub(crate) const START_WAIT: Duration = Duration::from_secs(30);
/// Arguments in one call to start a command.
pub(crate) const ARGS_MAX: usize = 1024;
/// Total bytes of arguments and environment in one call.
pub(crate) const ARGS_BYTES_MAX: usize = 128 << 10;
/// Longest execution id.
pub(crate) const EXECUTION_ID_MAX: usize = 128;
/// Most beginnings of names that one `rexec` `List` may ask for.
pub(crate) const LIST_PREFIXES_MAX: usize = 64;
/// Time between TERM and KILL when a command's time is over.
pub(crate) const TIMEOUT_GRACE: Duration = Duration::from_secs(5);
/// Streams served at once on one process socket.
pub(crate) const PROCESS_STREAMS_MAX: usize = 64;
/// Services one execution may register.
pub(crate) const REGISTRATIONS_MAX: usize = 64;
/// Longest blackboard key, in bytes.
pub(crate) const BLACKBOARD_KEY_MAX: usize = 256;
/// Longest blackboard value, in bytes.
pub(crate) const BLACKBOARD_VALUE_MAX: usize = 4 << 10;
/// Longest interval at which the base reads a nested rnode's ready instances for a forwarder.
pub(crate) const CLASS_POLL: Duration = Duration::from_millis(500);
/// The same while they change; doubled at each reading that finds nothing new.
pub(crate) const CLASS_POLL_MIN: Duration = Duration::from_millis(25);
/// Classes watched at once on a base.
pub(crate) const CLASS_WATCHES_MAX: usize = 256;
/// Hordes a base holds the state of.
pub(crate) const HORDES_MAX: usize = 256;
/// Tunnels open at once on a base.
pub(crate) const TUNNELS_MAX: usize = 256;
/// Pause before `backend local` is started again, at first and at most.
pub(crate) const BACKEND_RETRY: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(10));
/// Grace a retiring keeper gives its executions.
pub(crate) const RETIRE_GRACE: Duration = Duration::from_secs(5);
/// Sockets of executions that may wait to be served.
pub(crate) const SOCKETS_WAITING_MAX: usize = 4096;
/// Changes of the blackboard within this are written down together.
pub(crate) const BLACKBOARD_SAVE: Duration = Duration::from_millis(500);
/// Blackboard entries of one rnode's processes. 2048: half of what an owner may share.
pub(crate) const BLACKBOARD_ENTRIES_MAX: usize = 2048;
/// Promises held for tickets, of each kind; the oldest make room.
pub(crate) const TICKETS_MAX: usize = 64;
/// How long an unused ticket is good. An hour: longer than any retry, shorter than a shift.
pub(crate) const TICKET_LIFE: Duration = Duration::from_secs(3600);
/// Copies that one rnode takes part in at once; more are refused.
pub(crate) const COPIES_MAX: usize = 32;
/// Streams of files that one caller may read at once; more are refused. 32: as many copies as a rnode takes part in.
pub(crate) const GIVERS_CALLER_MAX: usize = 32;
/// Streams of files that all callers may read at once; more are refused. 128: each may hold one of the 512 threads that
/// block, and up to 2 MiB that wait to be sent.
pub(crate) const GIVERS_MAX: usize = 128;
/// Longest time that nobody takes what a stream of files has. 60 s: as long as a taker waits for us.
pub(crate) const GIVER_UNTAKEN_MAX: Duration = Duration::from_secs(60);
/// Rounds in a row over all its sources that bring nothing new, after which a copy gives up.
pub(crate) const COPY_TRIES: u32 = 8;
/// Pause before a copy is tried again, doubled up to 32 times while nothing new comes.
pub(crate) const COPY_PAUSE: Duration = Duration::from_millis(50);
/// Sources that one copy may name.
pub(crate) const COPY_SOURCES_MAX: usize = 64;
/// Longest ticket that a copy may name, in bytes; ours have 64.
pub(crate) const TICKET_BYTES_MAX: usize = 256;
/// Things wanted in one Read.
pub(crate) const WANTS_MAX: usize = 4096;
/// Ranges wanted in one Read.
pub(crate) const RANGES_MAX: usize = 8192;
/// Needs that may be stated to one rnode.
pub(crate) const NEEDS_MAX: usize = 4096;
/// How often needs are looked after when nothing wakes them.
pub(crate) const NEEDS_INTERVAL: Duration = Duration::from_secs(2);
/// Longest pause before a need that could not be met is tried again, doubled from [`NEEDS_INTERVAL`]; none when needs change
/// or a source appears.
pub(crate) const NEED_PAUSE_MAX: Duration = Duration::from_secs(300);
/// Lies that are remembered, so that each is told once; all are forgotten beyond it.
pub(crate) const LIES_MAX: usize = 4096;
/// Data sets mounted on one rnode.
pub(crate) const MOUNTED_MAX: usize = 64;
/// Members of one mounted set that a scan tells.
pub(crate) const MEMBERS_MAX: usize = 10_000;
/// Longest name of a data service, in bytes.
pub(crate) const SERVICE_BYTES_MAX: usize = 2048;
