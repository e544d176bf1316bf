//! Appends records with group commit: what is asked for while one sync runs shares the next.
//!
//! [`Writer::open`] starts one thread, `memoir`, which alone owns the file; it ends with the last [`Writer`].

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crux_net::boundary::{Kind, cross_file};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::chain::{LINE_BYTES_MAX, Record, Tail};
use super::refusals::{MINUTE_MS, Refusals};
use super::segments::{self, CURRENT};
use super::{Fields, MemoirError};

/// Size at which a segment is finished and the next begun.
pub const SEGMENT_BYTES_MAX: u64 = 64 << 20;

/// Records that may wait to be written. 1024: a caller beyond that waits its turn.
const WAITING_MAX: usize = 1024;

/// Records written before one sync.
const BATCH_MAX: usize = 256;

/// How far back the end is searched for the last whole record.
const TAIL_BYTES_MAX: u64 = 16 * LINE_BYTES_MAX as u64;

/// A cheap, cloneable reference to the writer of one memoir.
#[derive(Debug, Clone)]
pub struct Writer {
    messages: Sender<Message>,
    room: Arc<Semaphore>,
    refusals: Arc<Mutex<Refusals>>,
}

#[derive(Debug)]
enum Message {
    Record {
        kind: String,
        fields: Fields,
        written: Option<Written>,
        _room: OwnedSemaphorePermit,
    },
    Refused,
    Close(oneshot::Sender<()>),
}

type Written = oneshot::Sender<Result<u64, MemoirError>>;

impl Writer {
    /// Opens or begins the memoir in `dir`, which is made if need be.
    ///
    /// What a crash left behind the last whole record is cut off, kept beside the memoir and noted in it
    /// (`memoir.cut`); so is an end that is missing altogether (`memoir.short`).
    ///
    /// # Errors
    /// [`MemoirError::Io`]; the memoir is as it was.
    pub fn open(dir: &Path) -> Result<Self, MemoirError> {
        let refusals = Arc::new(Mutex::new(Refusals::default()));
        let appender = Appender::open(dir, SEGMENT_BYTES_MAX)?;
        let (messages, receiver) = channel();
        let task = Task {
            appender,
            refusals: Arc::clone(&refusals),
            receiver,
        };
        std::thread::Builder::new()
            .name("memoir".to_owned())
            .spawn(move || task.run())
            .map_err(|error| MemoirError::io("start writing", dir, error))?;
        Ok(Self {
            messages,
            room: Arc::new(Semaphore::new(WAITING_MAX)),
            refusals,
        })
    }

    /// Records something and returns once it is queued; it is durable with the next sync, a moment later.
    ///
    /// # Errors
    /// [`MemoirError::Closed`]; nothing was recorded.
    ///
    /// # Cancel safety
    /// Nothing is recorded if it is dropped before it is done.
    pub async fn record(&self, kind: &str, fields: Fields) -> Result<(), MemoirError> {
        self.queue(kind, fields, None).await
    }

    /// Records something and returns its number once it is durable.
    ///
    /// # Errors
    /// [`MemoirError`]; the record is not in the memoir, or, after `Broken`, may be.
    ///
    /// # Cancel safety
    /// The record may have been written.
    pub async fn record_synced(&self, kind: &str, fields: Fields) -> Result<u64, MemoirError> {
        let (written_tx, written_rx) = oneshot::channel();
        self.queue(kind, fields, Some(written_tx)).await?;
        written_rx.await.map_err(|_| MemoirError::Closed)?
    }

    /// Counts a refusal of a stranger; sums are recorded per source and minute as `refused`.
    pub fn refused(&self, source: &str, what: &str) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if refusals.count(now_unix_ms(), source, what) {
            // A writer that has ended records nothing more.
            let _ = self.messages.send(Message::Refused);
        }
    }

    /// Writes everything that was queued before, refusals of the running minute included, and ends the writer.
    ///
    /// # Cancel safety
    /// The writer ends all the same.
    pub async fn close(&self) {
        let (closed_tx, closed_rx) = oneshot::channel();
        if self.messages.send(Message::Close(closed_tx)).is_ok() {
            // An error means that it had ended before.
            let _ = closed_rx.await;
        }
    }

    async fn queue(
        &self,
        kind: &str,
        fields: Fields,
        written: Option<Written>,
    ) -> Result<(), MemoirError> {
        let room = Arc::clone(&self.room)
            .acquire_owned()
            .await
            .map_err(|_| MemoirError::Closed)?;
        let message = Message::Record {
            kind: kind.to_owned(),
            fields,
            written,
            _room: room,
        };
        self.messages.send(message).map_err(|_| MemoirError::Closed)
    }
}

/// What the thread `memoir` owns.
struct Task {
    appender: Appender,
    refusals: Arc<Mutex<Refusals>>,
    receiver: Receiver<Message>,
}

impl Task {
    fn run(mut self) {
        let mut summing = false;
        loop {
            let first = if summing {
                self.receiver.recv_timeout(Duration::from_millis(MINUTE_MS))
            } else {
                self.receiver
                    .recv()
                    .map_err(|_| RecvTimeoutError::Disconnected)
            };
            let (first, ended) = match first {
                Ok(message) => (Some(message), false),
                Err(RecvTimeoutError::Timeout) => (None, false),
                Err(RecvTimeoutError::Disconnected) => (None, true),
            };
            let mut batch: VecDeque<_> = first.into_iter().collect();
            while batch.len() < BATCH_MAX
                && let Ok(message) = self.receiver.try_recv()
            {
                batch.push_back(message);
            }
            let closing = batch
                .iter()
                .any(|message| matches!(message, Message::Close(_)));
            summing |= batch
                .iter()
                .any(|message| matches!(message, Message::Refused));
            let sums = self.sums(ended || closing);
            summing &= sums.is_empty();
            let closers = self.commit(batch, &sums);
            if ended || closing {
                drop(self);
                for closer in closers {
                    // Whoever stopped waiting needs no answer.
                    let _ = closer.send(());
                }
                return;
            }
        }
    }

    fn sums(&self, all: bool) -> Vec<Fields> {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if all {
            refusals.take()
        } else {
            refusals.take_due(now_unix_ms())
        }
    }

    /// Writes a batch, syncs once and tells everyone who waits.
    fn commit(&mut self, batch: VecDeque<Message>, sums: &[Fields]) -> Vec<oneshot::Sender<()>> {
        let now = now_unix_ms();
        let (mut lines, mut waiting, mut closers) = (Vec::new(), Vec::new(), Vec::new());
        let mut tail = self.appender.tail;
        for message in batch {
            match message {
                Message::Record {
                    kind,
                    fields,
                    written,
                    _room,
                } => {
                    waiting.extend(written.map(|written| (tail.next_seq, written)));
                    lines.push(tail.append(now, &kind, &fields));
                }
                Message::Refused => {}
                Message::Close(closer) => closers.push(closer),
            }
        }
        lines.extend(sums.iter().map(|sum| tail.append(now, "refused", sum)));
        let result = self.appender.append(&lines, tail);
        if let Err(error) = &result {
            tracing::error!(%error, source = ?std::error::Error::source(error), "the memoir cannot be written");
        }
        for (seq, written) in waiting {
            let answer = match &result {
                Ok(()) => Ok(seq),
                Err(error) => Err(error.again()),
            };
            // A caller that stopped waiting needs no answer.
            let _ = written.send(answer);
        }
        closers
    }
}

impl MemoirError {
    /// The same error for one more caller.
    fn again(&self) -> Self {
        match self {
            Self::Io {
                operation,
                path,
                source,
            } => {
                let source = source.raw_os_error().map_or_else(
                    || io::Error::new(source.kind(), source.to_string()),
                    io::Error::from_raw_os_error,
                );
                Self::io(operation, path, source)
            }
            _ => Self::Broken,
        }
    }
}

/// The file being written and the end of its chain.
#[derive(Debug)]
pub(super) struct Appender {
    dir: PathBuf,
    file: File,
    head: File,
    pub(super) tail: Tail,
    first_seq: u64,
    bytes: u64,
    segment_bytes_max: u64,
    broken: bool,
}

impl Appender {
    pub(super) fn open(dir: &Path, segment_bytes_max: u64) -> Result<Self, MemoirError> {
        let failed = |error| MemoirError::io("open", dir, error);
        fs::create_dir_all(dir).map_err(failed)?;
        let (mut file, created) = open_current(dir).map_err(failed)?;
        if created {
            File::open(dir)
                .and_then(|dir| dir.sync_all())
                .map_err(failed)?;
        }
        let found = Found::end(&mut file).map_err(failed)?;
        let head = segments::head(dir).map_err(failed)?;
        let tail = match found.last {
            Some(tail) => tail,
            None => end_of_finished(dir).map_err(failed)?,
        };
        let bytes = found.whole_bytes;
        let first_seq = first_seq(&mut file)
            .map_err(failed)?
            .unwrap_or(tail.next_seq);
        let head_file = segments::open_head(dir).map_err(failed)?;
        let (dir, broken) = (dir.to_owned(), false);
        let mut appender = Self {
            dir,
            file,
            head: head_file,
            tail,
            first_seq,
            bytes,
            segment_bytes_max,
            broken,
        };
        appender.mend(&found.torn, head.map(|(seq, _)| seq))?;
        Ok(appender)
    }

    /// Cuts what is not a record and notes it, and notes an end that is missing.
    fn mend(&mut self, torn: &[u8], head_seq: Option<u64>) -> Result<(), MemoirError> {
        let now = now_unix_ms();
        let mut tail = self.tail;
        let mut lines = Vec::new();
        if let Some(seq) = head_seq.filter(|seq| *seq >= tail.next_seq) {
            let fields = Fields::from_iter([("last_known_seq".to_owned(), Value::from(seq))]);
            lines.push(tail.append(now, "memoir.short", &fields));
        }
        if !torn.is_empty() {
            segments::keep_cut(&self.dir, self.tail.next_seq, torn)
                .and_then(|()| self.file.set_len(self.bytes))
                .map_err(|error| MemoirError::io("mend", &self.dir, error))?;
            let digest = crux_core::digest::Digest::of(torn).to_string();
            let fields = Fields::from_iter([
                ("bytes".to_owned(), Value::from(torn.len())),
                ("digest".to_owned(), Value::from(digest)),
            ]);
            lines.push(tail.append(now, "memoir.cut", &fields));
        }
        self.append(&lines, tail)
    }

    /// Appends whole lines that end in `tail` and makes them durable.
    pub(super) fn append(&mut self, lines: &[String], tail: Tail) -> Result<(), MemoirError> {
        if lines.is_empty() {
            return Ok(());
        }
        if self.broken {
            return Err(MemoirError::Broken);
        }
        cross_file(Kind::Write, &self.dir);
        let text = lines.concat();
        let written = self
            .file
            .write_all(text.as_bytes())
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // What was half written must not stand between whole records; if it cannot be taken back, nothing more is written.
            let back = self
                .file
                .set_len(self.bytes)
                .and_then(|()| self.file.sync_data());
            self.broken = back.is_err();
            return Err(MemoirError::io("write", self.dir.join(CURRENT), error));
        }
        self.bytes += text.len() as u64;
        self.tail = tail;
        if let Err(error) = segments::write_head(&mut self.head, tail) {
            tracing::warn!(%error, "the memoir's head cannot be written");
        }
        if self.bytes >= self.segment_bytes_max {
            self.finish_segment()?;
        }
        Ok(())
    }

    /// Renames the full segment and begins the next.
    fn finish_segment(&mut self) -> Result<(), MemoirError> {
        let finished = self.dir.join(segments::finished_name(self.first_seq));
        let begin = || {
            fs::rename(self.dir.join(CURRENT), finished)?;
            let (file, _) = open_current(&self.dir)?;
            File::open(&self.dir)?.sync_all()?;
            Ok(file)
        };
        match begin() {
            Ok(file) => self.file = file,
            Err(error) => {
                // The records are durable where they are; only the next ones have no place.
                self.broken = true;
                return Err(MemoirError::io("begin a segment of", &self.dir, error));
            }
        }
        (self.first_seq, self.bytes) = (self.tail.next_seq, 0);
        Ok(())
    }
}

/// The end of a segment as it was found.
struct Found {
    /// The tail after the last whole record; `None` where there is none.
    last: Option<Tail>,
    /// Length up to the end of the last whole record.
    whole_bytes: u64,
    /// What stands behind it.
    torn: Vec<u8>,
}

impl Found {
    fn end(file: &mut File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let start = length.saturating_sub(TAIL_BYTES_MAX);
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(start))?;
        file.read_to_end(&mut bytes)?;
        let mut end = bytes.len();
        // Each round looks at the last line that has an end, then at the one before it.
        while let Some(line_end) = bytes[..end].iter().rposition(|byte| *byte == b'\n') {
            let line_start = bytes[..line_end]
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |at| at + 1);
            if let Some(record) = Record::parse(&bytes[line_start..line_end]) {
                let torn = bytes.split_off(line_end + 1);
                let whole_bytes = start + bytes.len() as u64;
                return Ok(Self {
                    last: Some(Tail::after(&record)),
                    whole_bytes,
                    torn,
                });
            }
            end = line_end;
        }
        if start > 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "no whole record near the end",
            ));
        }
        Ok(Self {
            last: None,
            whole_bytes: 0,
            torn: bytes,
        })
    }
}

fn open_current(dir: &Path) -> io::Result<(File, bool)> {
    let path = dir.join(CURRENT);
    let created = !path.try_exists()?;
    let mut options = fs::OpenOptions::new();
    let file = options
        .create(true)
        .read(true)
        .append(true)
        .mode(0o600)
        .open(path)?;
    Ok((file, created))
}

/// Number of the first record of an open segment.
fn first_seq(file: &mut File) -> io::Result<Option<u64>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(LINE_BYTES_MAX as u64).read_to_end(&mut bytes)?;
    let line = bytes
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    Ok(Record::parse(line).map(|record| record.seq))
}

/// The tail after the last finished segment, or the start of a new memoir.
fn end_of_finished(dir: &Path) -> io::Result<Tail> {
    let files = segments::files(dir)?;
    let finished = files.iter().rev().find(|path| !path.ends_with(CURRENT));
    let Some(finished) = finished else {
        return Ok(Tail::START);
    };
    Ok(Found::end(&mut File::open(finished)?)?
        .last
        .unwrap_or(Tail::START))
}

fn now_unix_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_segment_is_followed_by_the_next_in_one_chain() {
        let dir =
            std::env::temp_dir().join(format!("fulcrum-memoir-segments-{}", std::process::id()));
        for _ in 0..3 {
            let mut appender = Appender::open(&dir, 1000).unwrap();
            for _ in 0..10 {
                let mut tail = appender.tail;
                let line = tail.append(1, "tick", &Fields::new());
                appender.append(&[line], tail).unwrap();
            }
        }
        let verified = super::super::verify(&dir).unwrap();
        let records = super::super::read(&dir, 0).unwrap();
        let files = segments::files(&dir).unwrap().len();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!((verified.records, records.len()), (30, 30));
        assert!(files > 3, "{files}");
    }
}
