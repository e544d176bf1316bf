//! Grounds for backends that keep everything below one directory: a scratch directory a case, with a tap beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use underverse::{Program, Running, StorageExposure};

use crate::fixture::{Cannot, Disturbance, Fixture, Ground, Opened, Resolved, Take, Vantage};
use crate::tap::Tap;

/// What an author tells of a backend whose ground is one directory. Nothing here asks the backend.
#[async_trait]
pub trait Below: Send + Sync + Debug {
    /// A process of the backend below `directory`, with its mutating calls passing `tap`.
    ///
    /// # Errors
    /// When it does not start.
    async fn open(&self, directory: &Path, tap: Tap) -> Result<Opened, Cannot>;

    /// As [`Ground::kill`].
    ///
    /// # Errors
    /// When it goes on.
    async fn kill(&self, _opened: &Opened) -> Result<(), Cannot> {
        Ok(())
    }

    /// As [`Ground::inventory`].
    ///
    /// # Errors
    /// When it cannot be looked at.
    async fn inventory(&self, directory: &Path) -> Result<BTreeSet<String>, Cannot>;

    /// As [`Ground::remove`], by the container's id.
    ///
    /// # Errors
    /// When it cannot be ended.
    async fn remove(&self, directory: &Path, id: &str) -> Result<(), Cannot>;

    /// Ends every process and unmakes every mount below `directory`, before it is removed and once more when it is gone.
    fn sweep(&self, directory: &Path);

    /// As [`Ground::environment`], by the container's id.
    ///
    /// # Errors
    /// `NotOffered` where it cannot be read.
    async fn environment(
        &self,
        _directory: &Path,
        _of: &Running,
    ) -> Result<BTreeMap<String, String>, Cannot> {
        Err(Cannot::NotOffered("this ground cannot read environments"))
    }

    /// As [`Ground::read_inside`] and [`Ground::write_inside`]: where this machine shows a path of a container.
    ///
    /// # Errors
    /// `NotOffered` where it does not.
    async fn inside(
        &self,
        _directory: &Path,
        _of: &Running,
        _path: &str,
    ) -> Result<PathBuf, Cannot> {
        Err(Cannot::NotOffered("this ground cannot look inside"))
    }

    /// As [`Ground::exposure`].
    fn exposure(&self, _directory: &Path, _number: u32) -> Option<StorageExposure> {
        None
    }

    /// As [`Ground::reach`].
    ///
    /// # Errors
    /// `NotOffered` where connections cannot be tried.
    async fn reach(
        &self,
        _directory: &Path,
        _from: Vantage<'_>,
        _to: SocketAddr,
    ) -> Result<Option<String>, Cannot> {
        Err(Cannot::NotOffered("this ground cannot try connections"))
    }

    /// As [`Ground::exchange`].
    ///
    /// # Errors
    /// `NotOffered` where datagrams cannot be tried.
    async fn exchange(
        &self,
        _directory: &Path,
        _from: Vantage<'_>,
        (_to, _text): (SocketAddr, &str),
    ) -> Result<Option<String>, Cannot> {
        Err(Cannot::NotOffered("this ground cannot try datagrams"))
    }

    /// As [`Ground::hold`], by the containers' ids.
    ///
    /// # Errors
    /// `NotOffered` where connections cannot be kept.
    async fn hold(
        &self,
        _directory: &Path,
        _from: &[&str],
        _to: SocketAddr,
    ) -> Result<u32, Cannot> {
        Err(Cannot::NotOffered("this ground cannot keep connections"))
    }

    /// As [`Ground::resolve`].
    ///
    /// # Errors
    /// `NotOffered` where that cannot be asked.
    async fn resolve(
        &self,
        _directory: &Path,
        _from: &Running,
        _name: &str,
    ) -> Result<Vec<Resolved>, Cannot> {
        Err(Cannot::NotOffered("this ground cannot ask for names"))
    }

    /// As [`Ground::internet`].
    fn internet(&self, _directory: &Path) -> Option<SocketAddr> {
        None
    }

    /// As [`Ground::other_addresses`].
    fn other_addresses(&self) -> Vec<IpAddr> {
        Vec::new()
    }

    /// As [`Fixture::program`].
    fn program(&self) -> Program {
        Program::Command(vec!["sleep".to_owned(), "100000".to_owned()])
    }

    /// As [`Fixture::listener`].
    fn listener(&self, _port: u16) -> Option<Program> {
        None
    }

    /// As [`Fixture::taker`].
    fn taker(&self, _port: u16, _what: Take) -> Option<Program> {
        None
    }
}

/// A directory that is removed with everything in it when dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A fresh one with a short path, since sockets may lie below it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn new(label: &str) -> std::io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("uv{}-{number}-{label}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path.canonicalize()?))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

fn remove(folder: &Path) {
    if std::fs::remove_dir_all(folder).is_err() {
        // The work directories of overlay mounts may not be read, not even by whoever owns them.
        open_up(folder);
        drop(std::fs::remove_dir_all(folder));
    }
}

/// Lets their owner read and remove every directory below `folder`.
fn open_up(folder: &Path) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    drop(std::fs::set_permissions(folder, mode));
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

/// The fixture of a backend whose ground is one directory.
#[derive(Debug)]
pub struct DirectoryFixture {
    name: String,
    below: Arc<dyn Below>,
}

impl DirectoryFixture {
    /// The fixture `name` ("toy, linked in") over what its author tells.
    #[must_use]
    pub fn new(name: impl Into<String>, below: impl Below + 'static) -> Self {
        Self {
            name: name.into(),
            below: Arc::new(below),
        }
    }
}

#[async_trait]
impl Fixture for DirectoryFixture {
    fn name(&self) -> String {
        self.name.clone()
    }

    async fn ground(&self, label: &str) -> Result<Box<dyn Ground>, Cannot> {
        let short: String = label
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .take(12)
            .collect();
        let scratch = Scratch::new(&short)?;
        for part in ["tap", "ground"] {
            std::fs::create_dir(scratch.path().join(part))?;
        }
        let tap = Tap::at(scratch.path().join("tap"));
        let directory = scratch.path().join("ground");
        Ok(Box::new(DirectoryGround {
            below: Arc::clone(&self.below),
            directory,
            tap,
            _scratch: scratch,
        }))
    }

    fn program(&self) -> Program {
        self.below.program()
    }

    fn listener(&self, port: u16) -> Option<Program> {
        self.below.listener(port)
    }

    fn taker(&self, port: u16, what: Take) -> Option<Program> {
        self.below.taker(port, what)
    }
}

#[derive(Debug)]
struct DirectoryGround {
    below: Arc<dyn Below>,
    directory: PathBuf,
    tap: Tap,
    _scratch: Scratch,
}

#[async_trait]
impl Ground for DirectoryGround {
    async fn open(&self) -> Result<Opened, Cannot> {
        self.below.open(&self.directory, self.tap.clone()).await
    }

    async fn kill(&self, opened: &Opened) -> Result<(), Cannot> {
        self.below.kill(opened).await
    }

    async fn inventory(&self) -> Result<BTreeSet<String>, Cannot> {
        self.below.inventory(&self.directory).await
    }

    async fn remove(&self, container: &Running) -> Result<(), Cannot> {
        self.below
            .remove(&self.directory, container.id.as_str())
            .await
    }

    async fn mutations(&self) -> Result<u64, Cannot> {
        self.tap.count()
    }

    async fn disturb(&self, disturbance: Disturbance) -> Result<(), Cannot> {
        self.tap.disturb(disturbance)
    }

    async fn hung(&self) {
        self.tap.hung().await;
    }

    fn exposure(&self, number: u32) -> Option<StorageExposure> {
        self.below.exposure(&self.directory, number)
    }

    async fn write_inside(&self, at: &Running, path: &str, text: &str) -> Result<(), Cannot> {
        let path = self.below.inside(&self.directory, at, path).await?;
        Ok(std::fs::write(path, text)?)
    }

    async fn read_inside(&self, at: &Running, path: &str) -> Result<Option<String>, Cannot> {
        let path = self.below.inside(&self.directory, at, path).await?;
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn environment(&self, of: &Running) -> Result<BTreeMap<String, String>, Cannot> {
        self.below.environment(&self.directory, of).await
    }

    async fn reach(&self, from: Vantage<'_>, to: SocketAddr) -> Result<Option<String>, Cannot> {
        self.below.reach(&self.directory, from, to).await
    }

    async fn exchange(
        &self,
        from: Vantage<'_>,
        to: SocketAddr,
        text: &str,
    ) -> Result<Option<String>, Cannot> {
        let what = (to, text);
        self.below.exchange(&self.directory, from, what).await
    }

    async fn hold(&self, from: &[&Running], to: SocketAddr) -> Result<u32, Cannot> {
        let ids: Vec<&str> = from.iter().map(|one| one.id.as_str()).collect();
        self.below.hold(&self.directory, &ids, to).await
    }

    async fn resolve(&self, from: &Running, name: &str) -> Result<Vec<Resolved>, Cannot> {
        self.below.resolve(&self.directory, from, name).await
    }

    fn internet(&self) -> Option<SocketAddr> {
        self.below.internet(&self.directory)
    }

    fn other_addresses(&self) -> Vec<IpAddr> {
        self.below.other_addresses()
    }
}

impl Drop for DirectoryGround {
    fn drop(&mut self) {
        self.below.sweep(&self.directory);
        // A backend that is still ending may have been about to start something: nothing begins where there is no
        // directory, and what began before is found now.
        remove(&self.directory);
        self.below.sweep(&self.directory);
    }
}
