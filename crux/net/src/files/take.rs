//! The taking side over the wire: asks for what is missing, and nothing else.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crux_core::digest::{Digest, GROUP_BYTES, GroupHasher, Groups, SEAL_BYTES};
use crux_core::files::manifest::{MANIFEST_BYTES_MAX, Manifest};
use crux_core::files::path::RelPath;
use crux_wire::fileio::v1::file_io_client::FileIoClient;
use crux_wire::fileio::v1::{
    CopyProgress, GiveInput, GiveOutput, ManifestRequest, Piece, Range, ReadRequest, Want,
};
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::error::{Error, Kind};
use super::offer::PIECE_BYTES;
use super::sink::{Item, Large, Sink, Small, Wanted};
use crate::store::TakeError;

/// Small files asked for at once.
const BATCH_FILES: usize = 4096;
/// Bytes of small files asked for at once.
const BATCH_BYTES: u64 = 8 << 20;
/// Pieces that wait to be verified and written; the wire waits beyond it.
const PIECES_QUEUED: usize = 32;
/// Ranges asked for at once: a file with holes everywhere is asked for in several turns.
pub const RANGES_AT_ONCE: usize = 4096;
/// Groups below one seal that is compared with an older version's first. 16: an edit costs 512 bytes of seals, and a
/// file without edits a 16th of them.
const ABOVE: usize = 16;
/// Bytes after which progress is told again.
const TELL_EVERY: u64 = 4 << 20;

/// Longest wait for the next message. 60 s: a slow disk pauses, a dead link is noticed before.
const STALL_MAX: Duration = Duration::from_secs(60);

/// How far a copy is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Files of the manifest.
    pub files: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Files that are in place.
    pub files_done: u64,
    /// Bytes that came over the wire.
    pub moved: u64,
    /// Bytes that were here already, in place, staged, or in an older version.
    pub kept: u64,
    /// The manifest's digest, once it is known.
    pub manifest: Option<Digest>,
}

impl Tally {
    /// Its form on the wire.
    #[must_use]
    pub fn message(&self, done: bool) -> CopyProgress {
        CopyProgress {
            files: self.files,
            bytes: self.bytes,
            files_done: self.files_done,
            bytes_moved: self.moved,
            bytes_kept: self.kept,
            done,
            manifest: self
                .manifest
                .map(|digest| digest.to_string())
                .unwrap_or_default(),
        }
    }
}

/// Who hears how far it is.
pub type Told<'a> = &'a (dyn Fn(&Tally) + Send + Sync);

/// Where the bytes come from.
#[derive(Debug)]
pub enum Source {
    /// We call whoever offers.
    Pull {
        /// Its service.
        client: FileIoClient<Channel>,
        /// Its ticket.
        ticket: String,
        /// The manifest's digest, where somebody else told it.
        manifest: Option<Digest>,
        /// What it is sending.
        pieces: Option<Box<Streaming<Piece>>>,
    },
    /// Whoever gives has called us.
    Gift {
        /// What it sends.
        inputs: Streaming<GiveInput>,
        /// What we ask it for.
        outputs: mpsc::Sender<Result<GiveOutput, Status>>,
    },
}

impl Source {
    /// A source that is called with a ticket; it lies if its manifest has another digest than `manifest`.
    #[must_use]
    pub const fn pull(
        client: FileIoClient<Channel>,
        ticket: String,
        manifest: Option<Digest>,
    ) -> Self {
        Self::Pull {
            client,
            ticket,
            manifest,
            pieces: None,
        }
    }

    async fn manifest(&mut self) -> Result<String, Error> {
        let mut text = Vec::new();
        match self {
            Self::Pull {
                client,
                ticket,
                manifest,
                ..
            } => {
                let request = ManifestRequest {
                    ticket: ticket.clone(),
                };
                let reply = client.manifest(request).await;
                let mut chunks = reply
                    .map_err(|status| Error::from_source(&status))?
                    .into_inner();
                while let Some(chunk) = next(&mut chunks).await? {
                    add(&mut text, &chunk.bytes)?;
                }
                if manifest.is_some_and(|expected| expected != Digest::of(&text)) {
                    let text = "copy: the manifest that came is not that of the offer";
                    return Err(Error::new(Kind::Lied, text));
                }
            }
            Self::Gift { inputs, .. } => loop {
                let input = next(inputs).await?;
                let input = input.ok_or_else(|| Error::gone("the manifest was cut short"))?;
                if input.manifest_end && input.manifest.is_empty() {
                    break;
                }
                add(&mut text, &input.manifest)?;
                if input.manifest_end {
                    break;
                }
            },
        }
        String::from_utf8(text)
            .map_err(|_| Error::new(Kind::Refused, "read a manifest: it is not UTF-8"))
    }

    async fn read(&mut self, wants: Vec<Want>) -> Result<(), Error> {
        match self {
            Self::Pull {
                client,
                ticket,
                pieces,
                ..
            } => {
                let request = ReadRequest {
                    ticket: ticket.clone(),
                    wants,
                };
                let reply = client.read(request).await;
                let reply = reply.map_err(|status| Error::from_source(&status))?;
                *pieces = Some(Box::new(reply.into_inner()));
                Ok(())
            }
            Self::Gift { outputs, .. } => {
                let read = ReadRequest {
                    ticket: String::new(),
                    wants,
                };
                let output = GiveOutput {
                    read: Some(read),
                    progress: None,
                };
                outputs
                    .send(Ok(output))
                    .await
                    .map_err(|_| Error::gone("the giver is gone"))
            }
        }
    }

    /// The next piece of what was asked for last; `None` at its end.
    async fn piece(&mut self) -> Result<Option<Piece>, Error> {
        let piece = match self {
            Self::Pull { pieces, .. } => match pieces {
                Some(pieces) => next(pieces).await?,
                None => None,
            },
            Self::Gift { inputs, .. } => {
                let input = next(inputs).await?;
                let input = input.ok_or_else(|| Error::gone("the giver is gone"))?;
                input.piece.filter(|piece| !piece.end)
            }
        };
        match piece {
            Some(piece) if !piece.refused.is_empty() => {
                Err(Error::new(Kind::Changed, piece.refused))
            }
            piece => Ok(piece),
        }
    }
}

async fn next<T>(stream: &mut Streaming<T>) -> Result<Option<T>, Error> {
    tokio::time::timeout(STALL_MAX, stream.message())
        .await
        .map_err(|_| Error::gone("nothing came for a minute"))?
        .map_err(|status| Error::from_source(&status))
}

fn add(text: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Error> {
    if bytes.is_empty() {
        // Would only keep us waiting.
        let text = "copy: a part of the manifest that came is empty";
        return Err(Error::new(Kind::Lied, text));
    }
    if text.len() + bytes.len() > MANIFEST_BYTES_MAX {
        return Err(Error::new(
            Kind::Refused,
            "read a manifest: it is too large",
        ));
    }
    text.extend_from_slice(bytes);
    Ok(())
}

/// Brings what `source` gives to `sink`, and tells how far it is. What is there is not asked for.
///
/// # Errors
/// Any [`Kind`]; what was named before stays, what was verified before stays staged, and calling it
/// again goes on from there.
///
/// # Cancel safety
/// As after an error.
pub async fn take(
    source: &mut Source,
    name: &str,
    sink: &Arc<Sink>,
    told: Told<'_>,
) -> Result<Tally, Error> {
    let text = source.manifest().await?;
    let (comparing, name) = (Arc::clone(sink), name.to_owned());
    let (tally, wanted) = off(move || {
        let digest = Digest::of(text.as_bytes());
        let manifest =
            Manifest::parse(&text).map_err(|error| Error::new(Kind::Refused, error.to_string()))?;
        let wanted = comparing.compare(&manifest, &name)?;
        comparing.admit(&wanted)?;
        let tally = Tally {
            files: manifest.files().count() as u64,
            bytes: manifest.bytes(),
            files_done: wanted.same_files,
            moved: 0,
            kept: wanted.same_bytes,
            manifest: Some(digest),
        };
        comparing.make_folders(&wanted)?;
        if let Some(relay) = comparing.relay() {
            relay.opened(text, manifest, wanted.dest.clone());
        }
        Ok((tally, wanted))
    })
    .await?;
    told(&tally);
    let mut taking = Taking {
        source,
        sink,
        dest: wanted.dest.clone(),
        tally,
        told,
    };
    taking.small(&wanted).await?;
    taking.large(&wanted).await?;
    let (tally, finishing) = (taking.tally, Arc::clone(sink));
    off(move || finishing.finish(&wanted)).await?;
    Ok(tally)
}

struct Taking<'a> {
    source: &'a mut Source,
    sink: &'a Arc<Sink>,
    dest: RelPath,
    tally: Tally,
    told: Told<'a>,
}

impl Taking<'_> {
    /// Files of one group, many at once; while one batch is synced and named, the next comes.
    async fn small(&mut self, wanted: &Wanted) -> Result<(), Error> {
        let mut by_digest: BTreeMap<Digest, Vec<Item>> = BTreeMap::new();
        for item in wanted.items.iter().filter(|item| item.size <= PIECE_BYTES) {
            by_digest.entry(item.digest).or_default().push(item.clone());
        }
        // In the manifest's order, so that neighbours are named together.
        let mut contents: Vec<Vec<Item>> = by_digest.into_values().collect();
        contents.sort_by(|one, other| one[0].at.cmp(&other[0].at));
        let (mut links, mut placing) = (wanted.links.clone(), None);
        let mut contents = contents.into_iter().peekable();
        while contents.peek().is_some() || !links.is_empty() {
            let mut batch: Vec<Vec<Item>> = Vec::new();
            let mut bytes = 0;
            while let Some(same) =
                contents.next_if(|_| batch.len() < BATCH_FILES && bytes < BATCH_BYTES)
            {
                bytes += same[0].size;
                batch.push(same);
            }
            let (files, cut) = self.batch(batch).await;
            for files in parts(files) {
                self.settle(placing.take()).await?;
                let count = files.len() as u64;
                let (sink, dest, links) = (
                    Arc::clone(self.sink),
                    self.dest.clone(),
                    std::mem::take(&mut links),
                );
                let placed =
                    tokio::task::spawn_blocking(move || sink.place_small(&dest, &files, &links));
                placing = Some((count, placed));
            }
            if let Some(cut) = cut {
                // What came before the cut is right, and need not come again.
                self.settle(placing).await?;
                return Err(cut);
            }
        }
        self.settle(placing).await
    }

    async fn settle(&mut self, placing: Option<Placing>) -> Result<(), Error> {
        if let Some((count, placing)) = placing {
            joined(placing.await)?;
            self.tally.files_done += count;
            (self.told)(&self.tally);
        }
        Ok(())
    }

    /// What came of a batch, and why it was not all.
    async fn batch(&mut self, batch: Vec<Vec<Item>>) -> (Vec<Small>, Option<Error>) {
        let mut files = Vec::new();
        let cut = self.read_batch(&batch, &mut files).await.err();
        (files, cut)
    }

    async fn read_batch(
        &mut self,
        batch: &[Vec<Item>],
        files: &mut Vec<Small>,
    ) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let wants = batch.iter().map(|same| want(&same[0])).collect();
        self.source.read(wants).await?;
        let mut come = vec![false; batch.len()];
        while let Some(piece) = self.source.piece().await? {
            let index = usize::try_from(piece.want).unwrap_or(usize::MAX);
            let same = batch.get(index).ok_or_else(|| lied(&self.dest, 0))?;
            let mut hasher = GroupHasher::new();
            hasher.update(&piece.bytes);
            let groups = Arc::new(hasher.finish());
            let right = groups.size() == same[0].size && groups.digest() == same[0].digest;
            if !right || std::mem::replace(&mut come[index], true) {
                return Err(lied(&same[0].at, 0));
            }
            self.tally.moved += piece.bytes.len() as u64;
            self.tally.kept += piece.bytes.len() as u64 * (same.len() as u64 - 1);
            files.extend(copies(same, piece.bytes.into(), &groups));
        }
        match come.iter().position(|come| !come) {
            Some(missing) => Err(Error::gone(&format!(
                "copy {}: the source ended before it came",
                batch[missing][0].at
            ))),
            None => Ok(()),
        }
    }

    /// Files of several groups, one after the other.
    async fn large(&mut self, wanted: &Wanted) -> Result<(), Error> {
        let mut named: HashMap<Digest, RelPath> = HashMap::new();
        for item in wanted.items.iter().filter(|item| item.size > PIECE_BYTES) {
            let groups = self.seals(item).await?;
            let (sink, dest, of) = (Arc::clone(self.sink), self.dest.clone(), item.clone());
            let twin = named.get(&item.digest).cloned();
            let large = off(move || sink.begin(&dest, &of, groups, twin.as_ref())).await?;
            self.tally.kept += large.seeded;
            let mut large = large;
            while !large.partial.is_whole() {
                large = self.fill(item, large).await?;
            }
            let (sink, dest, of) = (Arc::clone(self.sink), self.dest.clone(), item.clone());
            off(move || sink.end(&dest, &of, &mut large)).await?;
            named.insert(item.digest, item.at.clone());
            self.tally.files_done += 1;
            (self.told)(&self.tally);
        }
        Ok(())
    }

    /// The seals of a file, checked against its digest.
    async fn seals(&mut self, item: &Item) -> Result<Groups, Error> {
        let older = item.older.upgrade();
        let above = older.and_then(|older| older.above(ABOVE).map(|above| (older, above)));
        let seals = match above {
            Some((older, above)) => self.seals_beside(item, (&older, &above)).await?,
            None => self.read_seals(item, Want::default()).await?,
        };
        Groups::check(item.digest, item.size, seals)
            .map_err(|error| Error::new(Kind::Lied, format!("copy {}: {error}", item.at)))
    }

    /// The same where an older version is here: those above several groups first, then those that differ below them.
    async fn seals_beside(
        &mut self,
        item: &Item,
        (older, were): (&Groups, &[[u8; SEAL_BYTES]]),
    ) -> Result<Vec<[u8; SEAL_BYTES]>, Error> {
        let asked = Want {
            above: u32::try_from(ABOVE).unwrap_or(0),
            ..Want::default()
        };
        let above = self.read_seals(item, asked).await?;
        if !Groups::is_above(item.digest, item.size, ABOVE, &above) {
            // Whoever does not know them gave all seals.
            return Ok(above);
        }
        let block = GROUP_BYTES * ABOVE as u64;
        let same = |at: usize| were.get(at) == above.get(at);
        let mut ranges: Vec<Range> = Vec::new();
        for at in (0..above.len()).filter(|at| !same(*at)) {
            let offset = at as u64 * block;
            let length = block.min(item.size - offset);
            match ranges.last_mut() {
                Some(last) if last.offset + last.length == offset => last.length += length,
                _ => ranges.push(Range { offset, length }),
            }
        }
        if ranges.is_empty() || ranges.len() > RANGES_AT_ONCE {
            return self.read_seals(item, Want::default()).await;
        }
        let asked = Want {
            ranges,
            ..Want::default()
        };
        let mut came = self.read_seals(item, asked).await?.into_iter();
        let mut seals = Vec::new();
        let blocks = older.seals().chunks(ABOVE);
        let blocks = blocks.map(Some).chain(std::iter::repeat(None));
        for (at, block) in (0..above.len()).zip(blocks) {
            match block.filter(|_| same(at)) {
                Some(block) => seals.extend_from_slice(block),
                None => seals.extend(came.by_ref().take(ABOVE)),
            }
        }
        Ok(seals)
    }

    /// The seals that a want asks for, unchecked.
    async fn read_seals(
        &mut self,
        item: &Item,
        asked: Want,
    ) -> Result<Vec<[u8; SEAL_BYTES]>, Error> {
        let bound = seals_asked(item.size, &asked.ranges);
        let wanted = Want {
            seals_only: true,
            path: want(item).path,
            ..asked
        };
        self.source.read(vec![wanted]).await?;
        let mut seals: Vec<[u8; SEAL_BYTES]> = Vec::new();
        let bound = usize::try_from(bound).unwrap_or(usize::MAX);
        while let Some(piece) = self.source.piece().await? {
            self.tally.moved += piece.seals.len() as u64;
            let (page, rest) = piece.seals.as_chunks::<SEAL_BYTES>();
            // One without seals would only keep us waiting.
            if !rest.is_empty() || page.is_empty() || seals.len() + page.len() > bound {
                return Err(lied(&item.at, 0));
            }
            seals.extend_from_slice(page);
        }
        Ok(seals)
    }

    /// Brings the groups that are missing; they are verified and written beside the runtime.
    async fn fill(&mut self, item: &Item, large: Large) -> Result<Large, Error> {
        let ranges: Vec<Range> = large
            .partial
            .missing()
            .into_iter()
            .take(RANGES_AT_ONCE)
            .map(|range| Range {
                offset: range.start,
                length: range.end - range.start,
            })
            .collect();
        let held = large.partial.held();
        let wanted = Want {
            ranges,
            ..want(item)
        };
        self.source.read(vec![wanted]).await?;
        let (tx, rx) = mpsc::channel(PIECES_QUEUED);
        let at = item.at.clone();
        let sink = Arc::clone(self.sink);
        let writing = tokio::task::spawn_blocking(move || write(&sink, large, rx, &at));
        let mut untold = 0;
        let mut cut = None;
        loop {
            match self.source.piece().await {
                Ok(Some(piece)) => {
                    untold += piece.bytes.len() as u64;
                    // A writer that is gone says why when it is joined.
                    if tx.send(piece).await.is_err() {
                        break;
                    }
                    if untold >= TELL_EVERY {
                        self.tally.moved += std::mem::take(&mut untold);
                        (self.told)(&self.tally);
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    cut = Some(error);
                    break;
                }
            }
        }
        drop(tx);
        let large = joined(writing.await)?;
        self.tally.moved += untold;
        match cut {
            Some(error) => Err(error),
            None if large.partial.held() > held => Ok(large),
            None => Err(Error::gone(&format!(
                "copy {}: the source ended before all of it came",
                item.at
            ))),
        }
    }
}

/// How many seals whoever knows ranges gives of a file, at most.
fn seals_asked(size: u64, ranges: &[Range]) -> u64 {
    let whole = size.div_ceil(GROUP_BYTES);
    if ranges.is_empty() {
        return whole;
    }
    let asked = ranges
        .iter()
        .map(|range| range.length.div_ceil(GROUP_BYTES));
    asked.fold(0, u64::saturating_add).min(whole)
}

/// One content that came, as each of the files that have it; they share it.
fn copies<'a>(
    same: &'a [Item],
    bytes: Arc<[u8]>,
    groups: &'a Arc<Groups>,
) -> impl Iterator<Item = Small> + use<'a> {
    same.iter().map(move |item| Small {
        item: item.clone(),
        bytes: Arc::clone(&bytes),
        groups: Arc::clone(groups),
    })
}

/// What is staged and named at once of what came, however many files have one content; one part even of nothing, for
/// links may go with it.
fn parts(mut files: Vec<Small>) -> Vec<Vec<Small>> {
    let mut parts = Vec::new();
    loop {
        let (mut count, mut bytes) = (0, 0);
        while count < files.len().min(BATCH_FILES) && bytes < BATCH_BYTES {
            bytes += files[count].bytes.len() as u64;
            count += 1;
        }
        let rest = files.split_off(count);
        parts.push(std::mem::replace(&mut files, rest));
        if files.is_empty() {
            return parts;
        }
    }
}

type Placing = (u64, tokio::task::JoinHandle<Result<(), Error>>);

fn want(item: &Item) -> Want {
    Want {
        path: item.at.as_str().to_owned(),
        ..Want::default()
    }
}

fn write(
    sink: &Sink,
    mut large: Large,
    mut pieces: mpsc::Receiver<Piece>,
    at: &RelPath,
) -> Result<Large, Error> {
    while let Some(piece) = pieces.blocking_recv() {
        let left = large.partial.left();
        match large.partial.take(piece.offset, &piece.bytes) {
            // What was not asked for would only keep us busy.
            Ok(()) if large.partial.left() == left => {
                let text = format!(
                    "copy {at}: what came at byte {} was not asked for",
                    piece.offset
                );
                return Err(Error::new(Kind::Lied, text));
            }
            Ok(()) => {
                if let Some(relay) = sink.relay() {
                    relay.came(piece.offset, &piece.bytes);
                }
            }
            Err(TakeError::Lied(offset)) => return Err(lied(at, offset)),
            Err(TakeError::Io(error)) => {
                let error = Error::io("stage", at, error);
                // What cannot be finished must not keep the disk full.
                if error.kind() == Kind::Full {
                    sink.discard(&large);
                }
                return Err(error);
            }
        }
    }
    Ok(large)
}

fn lied(at: &RelPath, offset: u64) -> Error {
    let text = format!("copy {at}: what came at byte {offset} is not what was offered");
    Error::new(Kind::Lied, text)
}

/// Does something that blocks beside the runtime.
async fn off<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    joined(tokio::task::spawn_blocking(work).await)
}

fn joined<T>(ended: Result<Result<T, Error>, tokio::task::JoinError>) -> Result<T, Error> {
    ended.unwrap_or_else(|error| Err(Error::new(Kind::Io, format!("copy: {error}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(at: usize, size: u64, digest: Digest) -> Item {
        Item {
            at: RelPath::new(&format!("f{at}")).unwrap(),
            mode: 0o644,
            size,
            digest,
            older: std::sync::Weak::new(),
        }
    }

    #[test]
    fn files_of_one_content_share_it_and_are_named_in_bounded_parts() {
        let bytes: Arc<[u8]> = vec![7; 64].into();
        let mut hasher = GroupHasher::new();
        hasher.update(&bytes);
        let groups = Arc::new(hasher.finish());
        let count = BATCH_FILES * 2 + 1;
        let same: Vec<Item> = (0..count).map(|at| item(at, 64, groups.digest())).collect();
        let files: Vec<Small> = copies(&same, Arc::clone(&bytes), &groups).collect();
        assert!(files.iter().all(|file| Arc::ptr_eq(&file.bytes, &bytes)));
        let parts = parts(files);
        let sizes: Vec<usize> = parts.iter().map(Vec::len).collect();
        assert_eq!(sizes, [BATCH_FILES, BATCH_FILES, 1]);
        let named = parts.iter().flatten().map(|file| &file.item.at);
        assert!(named.eq(same.iter().map(|item| &item.at)));
    }

    #[test]
    fn a_part_is_bounded_by_its_bytes_too_and_there_is_one_even_of_nothing() {
        let bytes: Arc<[u8]> = vec![7; 65_536].into();
        let groups = Arc::new(GroupHasher::new().finish());
        let count = usize::try_from(BATCH_BYTES / 65_536).unwrap();
        let same: Vec<Item> = (0..=count)
            .map(|at| item(at, 65_536, groups.digest()))
            .collect();
        let cut = parts(copies(&same, bytes, &groups).collect());
        let sizes: Vec<usize> = cut.iter().map(Vec::len).collect();
        assert_eq!(sizes, [count, 1]);
        assert_eq!(parts(Vec::new()).len(), 1);
    }

    #[test]
    fn no_more_seals_are_taken_than_the_groups_that_were_asked_for_have() {
        let range = |length| Range { offset: 0, length };
        let size = GROUP_BYTES * 10 + 1;
        assert_eq!(seals_asked(size, &[]), 11);
        assert_eq!(seals_asked(size, &[range(GROUP_BYTES * 2)]), 2);
        assert_eq!(seals_asked(size, &[range(GROUP_BYTES), range(1)]), 2);
        assert_eq!(seals_asked(size, &[range(u64::MAX), range(u64::MAX)]), 11);
    }
}
