//! Private files: ours alone, whole or absent, on disk before we go on.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use crate::durable;
use crate::identity::Error;

/// Most bytes any file of identity has: a full table of claims.
const FILE_BYTES_MAX: u64 = 65_536 * 68 + 1;

/// Makes `dir` (0700) if it is absent; refuses one of another user, or one that others may write to.
pub(crate) fn private_dir(dir: &Path) -> Result<(), Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(Error::io("make", dir))?;
    let metadata = fs::metadata(dir).map_err(Error::io("look at", dir))?;
    let user = nix::unistd::geteuid().as_raw();
    if metadata.uid() != user {
        return Err(Error::OtherUser {
            path: dir.to_owned(),
            owner: metadata.uid(),
            user,
        });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(Error::Exposed {
            path: dir.to_owned(),
            may: "write to",
            mode,
        });
    }
    Ok(())
}

/// Writes `path` (0600) whole: a reader or a crash sees the old content or the new.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    durable::replace_shared(path, bytes).map_err(Error::io("write", path))
}

/// Reads `path`; `None`: it is not there.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(Error::Io {
                operation: "read",
                path: path.to_owned(),
                source,
            });
        }
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(Error::io("read", path))?;
    Ok(Some(bytes))
}

/// Reads a secret: refused when others may read it.
pub(crate) fn read_secret(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let Some(bytes) = read(path)? else {
        return Ok(None);
    };
    let mode = fs::metadata(path)
        .map_err(Error::io("look at", path))?
        .mode()
        & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Error::Exposed {
            path: path.to_owned(),
            may: "read",
            mode,
        });
    }
    Ok(Some(bytes))
}

/// Removes `path` if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    durable::remove(path).map_err(Error::io("remove", path))
}

/// A chain in one file: number, then {length u16, DER} each.
pub(crate) fn encode_chain(chain: &[Vec<u8>]) -> Vec<u8> {
    let mut out = vec![u8::try_from(chain.len()).unwrap_or(u8::MAX)];
    for der in chain {
        out.extend_from_slice(&u16::try_from(der.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend_from_slice(der);
    }
    out
}

/// Reads what [`encode_chain`] wrote.
pub(crate) fn decode_chain(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut bytes = bytes;
    let chain = take_chain(&mut bytes)?;
    bytes.is_empty().then_some(chain)
}

/// Takes a chain from the front of `bytes`.
pub(crate) fn take_chain(bytes: &mut &[u8]) -> Option<Vec<Vec<u8>>> {
    let (count, rest) = bytes.split_first()?;
    *bytes = rest;
    (0..*count)
        .map(|_| take_long(bytes).map(<[u8]>::to_vec))
        .collect()
}

/// Takes {length u16, bytes}.
pub(crate) fn take_long<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_at_checked(2)?;
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    let (taken, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

/// Takes {length u8, bytes}.
pub(crate) fn take_short<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first()?;
    let (taken, rest) = rest.split_at_checked(usize::from(*length))?;
    *bytes = rest;
    Some(taken)
}
