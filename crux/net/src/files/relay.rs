//! What still comes to a place, given on to others: no more than what is verified, and in any order they ask for it.
//!
//! The taking side tells what it has ([`Sink`](super::Sink) does, as it stages and names); readers wait for
//! what has not come yet, until it comes or the copy is over. docs/design/fileio.md, "One source to many".

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crux_core::digest::{Digest, GROUP_BYTES, Groups};
use crux_core::files::manifest::{Entry, Manifest};
use crux_core::files::path::RelPath;
use crux_wire::fileio::v1::{Piece, Want};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::cache::HashCache;
use super::error::Error;
use super::give::PIECES_QUEUED;
use super::offer::{Given, PIECE_BYTES, seals_of};
use super::root::Root;

/// Readers of one relay at once, each with a thread that waits; more are sent elsewhere. 8: a relay is planned to have two.
const READERS_MAX: usize = 8;
/// Groups that came last and are given from memory, of one relay: 4 MiB, more than what is gathered or under way to the disk.
const RECENT_GROUPS: usize = 256;
/// How often a reader that waits looks whether it is still listened to.
const LOOK: Duration = Duration::from_millis(500);
/// Longest wait for the next group. 50 s: shorter than the reader's own patience, so that it hears why.
const WAIT_MAX: Duration = Duration::from_secs(50);

/// A copy under way that others may read.
#[derive(Debug)]
pub struct Relay {
    root: Arc<Root>,
    cache: Arc<HashCache>,
    state: Mutex<State>,
    changed: Condvar,
    readers: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    /// Once it is known.
    offer: Option<Arc<Offer>>,
    /// The large file that is on its way.
    arriving: Option<Arc<Arriving>>,
    /// Nothing more comes.
    over: bool,
    /// Grows with each change, so that none is missed while the disk is looked at.
    changes: u64,
}

#[derive(Debug)]
struct Offer {
    text: Arc<str>,
    manifest: Manifest,
    dest: RelPath,
}

/// A large file, of which some groups are here.
#[derive(Debug)]
struct Arriving {
    at: RelPath,
    groups: Groups,
    here: Mutex<Here>,
    changed: Condvar,
}

#[derive(Debug)]
struct Here {
    /// Where it is staged; keeps its content after it was named.
    file: Arc<File>,
    have: Vec<bool>,
    recent: HashMap<usize, Box<[u8]>>,
    order: VecDeque<usize>,
    over: bool,
}

/// What stops a reader: it is no longer listened to.
struct Gone;

impl Relay {
    /// A relay of what will come below `root`.
    #[must_use]
    pub fn new(root: Arc<Root>, cache: Arc<HashCache>) -> Self {
        Self {
            root,
            cache,
            state: Mutex::default(),
            changed: Condvar::new(),
            readers: AtomicUsize::new(0),
        }
    }

    /// The root it writes and reads below.
    #[must_use]
    pub const fn root(&self) -> &Arc<Root> {
        &self.root
    }

    /// Tells that nothing more comes: readers get what is here, and an end instead of what is not.
    pub fn end(&self) {
        let mut state = self.state();
        state.over = true;
        if let Some(arriving) = &state.arriving {
            arriving.end();
        }
        self.tell(&mut state);
    }

    /// The manifest, as soon as it is known. Blocks: call it off the runtime.
    ///
    /// # Errors
    /// [`Kind::Source`](super::Kind::Source) when it does not come.
    pub fn text(&self, listened: &dyn Fn() -> bool) -> Result<Arc<str>, Error> {
        self.offer(listened).map(|offer| Arc::clone(&offer.text))
    }

    /// What is asked for, piece by piece, as it comes; read beside the runtime.
    #[must_use]
    pub fn pieces(self: &Arc<Self>, wants: Vec<Want>) -> mpsc::Receiver<Result<Piece, Error>> {
        let (tx, rx) = mpsc::channel(PIECES_QUEUED);
        let relay = Arc::clone(self);
        drop(tokio::task::spawn_blocking(move || {
            let given = relay.reading().and_then(|_reading| relay.give(&wants, &tx));
            if let Err(error) = given {
                // Whoever listens no longer needs no reason.
                let _ = tx.blocking_send(Err(error));
            }
        }));
        rx
    }

    fn reading(&self) -> Result<Reading<'_>, Error> {
        let reading = Reading(&self.readers);
        if self.readers.fetch_add(1, Ordering::Relaxed) >= READERS_MAX {
            return Err(Error::gone("enough others read here"));
        }
        Ok(reading)
    }

    fn give(&self, wants: &[Want], tx: &mpsc::Sender<Result<Piece, Error>>) -> Result<(), Error> {
        let offer = self.offer(&|| !tx.is_closed())?;
        for (index, want) in (0..).zip(wants) {
            let at =
                RelPath::new(&want.path).map_err(|refusal| Error::path(&want.path, refusal))?;
            let Some(Entry::File { size, digest, .. }) = offer.manifest.entries().get(&at) else {
                return Err(Error::refused(&at, "the offer has no such file"));
            };
            let shown = offer.dest.join(&at);
            let shown = shown.map_err(|refusal| Error::path(&want.path, refusal))?;
            let given = match self.found(&at, &shown, (*size, *digest), tx)? {
                Found::Arriving(arriving) => arriving.give(index, want, tx)?,
                Found::Whole(file, groups) => {
                    let given = Given {
                        file: &file,
                        groups: &groups,
                        executable: false,
                    };
                    let mut listened = true;
                    let mut send = |piece| {
                        listened = tx.blocking_send(Ok(piece)).is_ok();
                        listened
                    };
                    given
                        .give(index, want, &mut send)
                        .map_err(|error| Error::io("read", &shown, error))?;
                    if listened { Ok(()) } else { Err(Gone) }
                }
            };
            if given.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn offer(&self, listened: &dyn Fn() -> bool) -> Result<Arc<Offer>, Error> {
        let mut state = self.state();
        let wait = Wait::begin();
        loop {
            if let Some(offer) = &state.offer {
                return Ok(Arc::clone(offer));
            }
            wait.on(state.over, listened)?;
            state = look(&self.changed, state);
        }
    }

    /// Where a file can be read: on its way, or whole at its final name.
    fn found(
        &self,
        at: &RelPath,
        shown: &RelPath,
        (size, digest): (u64, Digest),
        tx: &mpsc::Sender<Result<Piece, Error>>,
    ) -> Result<Found, Error> {
        let wait = Wait::begin();
        loop {
            // Ordering: taken before the disk is looked at, so that what is named meanwhile is not missed.
            let (arriving, over, changes) = {
                let state = self.state();
                (state.arriving.clone(), state.over, state.changes)
            };
            if let Some(arriving) = arriving.filter(|arriving| arriving.at == *at) {
                return Ok(Found::Arriving(arriving));
            }
            if let Ok(mut file) = self.root.file(shown)
                && file.metadata().is_ok_and(|metadata| metadata.len() == size)
                && let Ok((_, groups)) = self.cache.hash(&mut file)
                && groups.digest() == digest
            {
                return Ok(Found::Whole(file, groups));
            }
            wait.on(over, &|| !tx.is_closed())?;
            let state = self.state();
            if state.changes == changes {
                drop(look(&self.changed, state));
            }
        }
    }

    /// The manifest came, and where it goes; of a try again, the same.
    pub(super) fn opened(&self, text: String, manifest: Manifest, dest: RelPath) {
        let mut state = self.state();
        state.offer = Some(Arc::new(Offer {
            text: text.into(),
            manifest,
            dest,
        }));
        self.tell(&mut state);
    }

    /// A large file begins to come, or goes on after a cut; `file` is where it is staged, and what `have` says is written.
    pub(super) fn begun(&self, at: &RelPath, file: File, groups: &Groups, have: &[bool]) {
        let mut state = self.state();
        let file = Arc::new(file);
        if let Some(arriving) = &state.arriving {
            if arriving.at == *at && arriving.groups.digest() == groups.digest() {
                let mut here = arriving.here();
                here.file = file;
                here.have.copy_from_slice(have);
                arriving.changed.notify_all();
                return;
            }
            arriving.end();
        }
        let here = Here {
            file,
            have: have.to_vec(),
            recent: HashMap::new(),
            order: VecDeque::new(),
            over: false,
        };
        state.arriving = Some(Arc::new(Arriving {
            at: at.clone(),
            groups: groups.clone(),
            here: Mutex::new(here),
            changed: Condvar::new(),
        }));
        self.tell(&mut state);
    }

    /// Groups that follow each other came, were verified and put where the large file is staged.
    pub(super) fn came(&self, offset: u64, bytes: &[u8]) {
        let Some(arriving) = self.state().arriving.clone() else {
            return;
        };
        let Some(first) = arriving.groups.group_at(offset) else {
            return;
        };
        let mut here = arriving.here();
        let group_bytes = usize::try_from(GROUP_BYTES).unwrap_or(usize::MAX);
        for (group, bytes) in (first..).zip(bytes.chunks(group_bytes)) {
            here.took(group, bytes);
        }
        arriving.changed.notify_all();
    }

    /// Files got their final names, among them the large one at `at`.
    pub(super) fn named(&self, at: Option<&RelPath>) {
        let mut state = self.state();
        if state.arriving.as_ref().map(|arriving| &arriving.at) == at {
            // Who reads it goes on: the staged file is the same under its new name.
            state.arriving = None;
        }
        self.tell(&mut state);
    }

    fn tell(&self, state: &mut State) {
        state.changes += 1;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole values are put in only.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Found {
    Arriving(Arc<Arriving>),
    Whole(File, Arc<Groups>),
}

impl Arriving {
    fn give(
        &self,
        index: u32,
        want: &Want,
        tx: &mpsc::Sender<Result<Piece, Error>>,
    ) -> Result<Result<(), Gone>, Error> {
        if want.seals_only {
            let listened = seals_of(&self.groups, (index, want), false)
                .all(|piece| tx.blocking_send(Ok(piece)).is_ok());
            return Ok(if listened { Ok(()) } else { Err(Gone) });
        }
        let size = self.groups.size();
        let whole = [(0, size)];
        let asked: Vec<(u64, u64)> = want
            .ranges
            .iter()
            .map(|range| (range.offset, range.length))
            .collect();
        for (offset, length) in if asked.is_empty() { &whole[..] } else { &asked } {
            let end = offset.saturating_add(*length).min(size);
            let mut offset = offset - offset % GROUP_BYTES;
            while offset < end {
                let bytes = self.bytes(offset, (end - offset).min(PIECE_BYTES), tx)?;
                let piece = Piece {
                    want: index,
                    offset,
                    total: size,
                    bytes,
                    ..Piece::default()
                };
                offset += piece.bytes.len() as u64;
                if tx.blocking_send(Ok(piece)).is_err() {
                    return Ok(Err(Gone));
                }
            }
        }
        Ok(Ok(()))
    }

    /// The group at an offset as soon as it is here, and those after it that are, up to a length.
    fn bytes(
        &self,
        offset: u64,
        length: u64,
        tx: &mpsc::Sender<Result<Piece, Error>>,
    ) -> Result<Vec<u8>, Error> {
        let first = self.groups.group_at(offset);
        let first = first.ok_or_else(|| Error::refused(&self.at, "the file is shorter"))?;
        let mut here = self.here();
        let wait = Wait::begin();
        while !here.have[first] {
            wait.on(here.over, &|| !tx.is_closed())?;
            here = look(&self.changed, here);
        }
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        let mut group = first;
        // What is no longer in memory was written before.
        let mut on_disk = Vec::new();
        while (bytes.len() as u64) < length && here.have.get(group) == Some(&true) {
            let range = self.groups.range(group);
            let begin = bytes.len();
            if let Some(recent) = here.recent.get(&group) {
                bytes.extend_from_slice(recent);
            } else {
                let length = usize::try_from(range.end - range.start).unwrap_or(0);
                bytes.resize(begin + length, 0);
                on_disk.push((begin..bytes.len(), group));
            }
            group += 1;
        }
        let file = Arc::clone(&here.file);
        drop(here);
        for (place, group) in on_disk {
            let bytes = &mut bytes[place];
            file.read_exact_at(bytes, self.groups.range(group).start)
                .map_err(|error| Error::io("read what is staged of", &self.at, error))?;
            // A disk that lost it must not make liars of us.
            if !self.groups.verify(group, bytes) {
                return Err(Error::gone("what was staged here is damaged"));
            }
        }
        Ok(bytes)
    }

    fn end(&self) {
        self.here().over = true;
        self.changed.notify_all();
    }

    fn here(&self) -> MutexGuard<'_, Here> {
        // Counts and contents are put in together.
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Here {
    fn took(&mut self, group: usize, bytes: &[u8]) {
        let Some(have) = self.have.get_mut(group).filter(|have| !**have) else {
            return;
        };
        *have = true;
        self.recent.insert(group, bytes.into());
        self.order.push_back(group);
        if self.order.len() > RECENT_GROUPS
            && let Some(oldest) = self.order.pop_front()
        {
            self.recent.remove(&oldest);
        }
    }
}

/// Counts one reader while it reads.
struct Reading<'a>(&'a AtomicUsize);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long a reader has waited for one thing.
struct Wait(Instant);

impl Wait {
    fn begin() -> Self {
        Self(Instant::now())
    }

    /// Fails where waiting brings nothing.
    fn on(&self, over: bool, listened: &dyn Fn() -> bool) -> Result<(), Error> {
        if over {
            return Err(Error::gone(
                "the copy that was relayed ended before it came",
            ));
        }
        if self.0.elapsed() >= WAIT_MAX || !listened() {
            return Err(Error::gone("nothing comes that could be relayed"));
        }
        Ok(())
    }
}

/// Waits for a change, or for the next look.
fn look<'a, T>(changed: &Condvar, held: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    let waited = changed.wait_timeout(held, LOOK);
    waited.unwrap_or_else(PoisonError::into_inner).0
}
