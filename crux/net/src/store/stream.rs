//! Blobs on the move: one stream of bytes that any store can read back.
//!
//! ```text
//! radix-store/1\n
//! blob DIGEST SIZE r\n   SIZE bytes        data
//! blob DIGEST SIZE x\n   SIZE bytes        an executable
//! named NAME SIZE\n      SIZE bytes        a small file beside the blobs, e.g. an execution record
//! end COUNT DIGEST\n                       number of parts, and BLAKE3 of all bytes before `end`
//! ```
//!
//! Sizes and counts are decimal; a NAME is `[A-Za-z0-9._/-]`, without a leading `/` and without
//! `..`. Parts are trusted for nothing: a blob is kept only if it has its digest, a stream without
//! its last line is reported as cut short. See `docs/formats/store-stream.md`.

use std::io::{self, Read, Write};
use std::path::Path;

use crux_core::digest::{Digest, DigestHasher};

use super::{Error, Info, Kind, PIECE_BYTES, Put, Store};

const VERSION_LINE: &str = "radix-store/1";
/// Longest header line: a name of 256 bytes with its size.
const LINE_BYTES_MAX: usize = 512;
/// Longest name of a named part.
const NAME_BYTES_MAX: usize = 256;
/// Largest named part: they are read into memory.
const NAMED_BYTES_MAX: u64 = 16 << 20;

/// One part of a stream that has been read.
#[derive(Debug)]
pub enum Part {
    /// A blob, which is in the store now.
    Blob(Info),
    /// A named part.
    Named {
        /// Its name, a relative path without `..`.
        name: String,
        /// Its bytes.
        bytes: Vec<u8>,
    },
}

/// Writes a stream. Without [`Writer::finish`] what was written reads as cut short.
pub struct Writer<'a> {
    writer: &'a mut dyn Write,
    hasher: DigestHasher,
    count: u64,
}

impl<'a> Writer<'a> {
    /// Starts a stream.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn start(writer: &'a mut dyn Write) -> Result<Self, Error> {
        let mut stream = Self {
            writer,
            hasher: DigestHasher::new(),
            count: 0,
        };
        stream.write(format!("{VERSION_LINE}\n").as_bytes())?;
        Ok(stream)
    }

    /// Adds a blob of `store`; returns its size.
    ///
    /// # Errors
    /// As [`Store::open_verified`]; [`Kind::Io`].
    pub fn blob(&mut self, store: &Store, digest: &Digest) -> Result<u64, Error> {
        let (mut file, size) = store.open_verified(digest)?;
        let executable = store.info(digest).is_some_and(|info| info.executable);
        let flag = if executable { 'x' } else { 'r' };
        self.write(format!("blob {digest} {size} {flag}\n").as_bytes())?;
        let mut piece = vec![0; PIECE_BYTES];
        let mut left = size;
        while left > 0 {
            let want = usize::try_from(left)
                .unwrap_or(PIECE_BYTES)
                .min(PIECE_BYTES);
            file.read_exact(&mut piece[..want])
                .map_err(|source| Error::io("read", &store.path(digest), source))?;
            self.write(&piece[..want])?;
            left -= want as u64;
        }
        self.count += 1;
        Ok(size)
    }

    /// Adds a named part.
    ///
    /// # Errors
    /// [`Kind::Format`] for a name or size that no reader would take; [`Kind::Io`].
    pub fn named(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        if !is_name(name) || bytes.len() as u64 > NAMED_BYTES_MAX {
            return Err(Error::format(&format!(
                "`{name}` is no part that a stream can hold"
            )));
        }
        self.write(format!("named {name} {}\n", bytes.len()).as_bytes())?;
        self.write(bytes)?;
        self.count += 1;
        Ok(())
    }

    /// Writes the last line and flushes.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn finish(mut self) -> Result<(), Error> {
        let line = format!("end {} {}\n", self.count, self.hasher.finish());
        self.write(line.as_bytes())?;
        self.writer
            .flush()
            .map_err(|source| failed("write", source))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.hasher.update(bytes);
        self.writer
            .write_all(bytes)
            .map_err(|source| failed("write", source))
    }
}

impl std::fmt::Debug for Writer<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Writer")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

/// Reads a stream part by part.
pub struct Reader<'a> {
    reader: &'a mut dyn Read,
    hasher: DigestHasher,
    count: u64,
}

impl<'a> Reader<'a> {
    /// Checks the version line.
    ///
    /// # Errors
    /// [`Kind::Format`], [`Kind::Io`].
    pub fn start(reader: &'a mut dyn Read) -> Result<Self, Error> {
        let mut stream = Self {
            reader,
            hasher: DigestHasher::new(),
            count: 0,
        };
        let line = stream.line()?;
        if line != VERSION_LINE {
            return Err(Error::format(&format!(
                "it does not begin with `{VERSION_LINE}`"
            )));
        }
        Ok(stream)
    }

    /// The next part, `None` after the last; blobs go into `store`.
    ///
    /// # Errors
    /// [`Kind::Format`], [`Kind::Mismatch`], and as [`Store::put_bytes`].
    pub fn next_part(&mut self, store: &Store) -> Result<Option<Part>, Error> {
        let before = self.hasher.finish();
        let line = self.line()?;
        let words: Vec<&str> = line.split(' ').collect();
        let part = match words.as_slice() {
            ["blob", digest, size, flag @ ("r" | "x")] => {
                let expected = digest.parse().map_err(|_| bad_line(&line))?;
                let put = Put {
                    expected: Some(expected),
                    executable: *flag == "x",
                };
                Part::Blob(self.blob(store, put, decimal(size, &line)?)?)
            }
            ["named", name, size] if is_name(name) => {
                let bytes = self.named(decimal(size, &line)?)?;
                Part::Named {
                    name: (*name).to_owned(),
                    bytes,
                }
            }
            ["end", count, digest] => {
                if decimal(count, &line)? != self.count || *digest != before.to_string() {
                    return Err(Error::format(
                        "its last line does not match what came before",
                    ));
                }
                return Ok(None);
            }
            _ => return Err(bad_line(&line)),
        };
        self.count += 1;
        Ok(Some(part))
    }

    fn blob(&mut self, store: &Store, put: Put, size: u64) -> Result<Info, Error> {
        let limit = store.limits().blob_bytes_max;
        if size > limit {
            return Err(Error::too_large(limit));
        }
        let mut writer = store.writer(put)?;
        let mut piece = vec![0; PIECE_BYTES];
        let mut left = size;
        while left > 0 {
            let want = usize::try_from(left)
                .unwrap_or(PIECE_BYTES)
                .min(PIECE_BYTES);
            self.exact(&mut piece[..want])?;
            writer.append(&piece[..want])?;
            left -= want as u64;
        }
        writer.commit()
    }

    fn named(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        if size > NAMED_BYTES_MAX {
            return Err(Error::format("a named part is too large"));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        self.exact(&mut bytes)?;
        Ok(bytes)
    }

    fn line(&mut self) -> Result<String, Error> {
        let mut line = Vec::new();
        let mut byte = [0];
        loop {
            self.exact(&mut byte)?;
            match byte[0] {
                b'\n' => break,
                _ if line.len() >= LINE_BYTES_MAX => {
                    return Err(Error::format("a line is too long"));
                }
                other => line.push(other),
            }
        }
        String::from_utf8(line).map_err(|_| Error::format("a line is not text"))
    }

    fn exact(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.reader
            .read_exact(bytes)
            .map_err(|source| match source.kind() {
                io::ErrorKind::UnexpectedEof => Error::format("it is cut short"),
                _ => failed("read", source),
            })?;
        self.hasher.update(bytes);
        Ok(())
    }
}

impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Reader")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

fn decimal(text: &str, line: &str) -> Result<u64, Error> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| digits)
        .ok_or_else(|| bad_line(line))
}

fn bad_line(line: &str) -> Error {
    let shown: String = line
        .chars()
        .take(80)
        .flat_map(char::escape_default)
        .collect();
    Error::format(&format!("`{shown}` is no part of it"))
}

/// Whether `name` is a relative path of plain characters that stays below its directory.
fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte);
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name.bytes().all(plain)
        && name
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..")
}

fn failed(operation: &str, source: io::Error) -> Error {
    Error::io(operation, Path::new("the stream"), source)
}

/// Whether a failed import was the stream's fault rather than this machine's.
#[must_use]
pub fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), Kind::Format | Kind::Mismatch)
}
