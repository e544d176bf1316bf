//! What is asked, on the wire.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use underverse::{
    Error, Execable, HordeName, HordeSpec, Limits, Mount, MountSource, Program, ServerSpec,
    StorageId, StorageKind, StorageRequest, TagRule, UserSource, UserSpec,
};

use super::{all, bytes, each, need, role, tags, texts, unknown, unreadable};
use crate::wire;

pub(super) fn from_path(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

pub(super) fn to_path(bytes: Vec<u8>) -> PathBuf {
    OsString::from_vec(bytes).into()
}

impl From<&HordeSpec> for wire::HordeSpec {
    fn from(spec: &HordeSpec) -> Self {
        let words = |(key, words): (&String, &Vec<String>)| {
            (
                key.clone(),
                wire::Words {
                    words: words.clone(),
                },
            )
        };
        Self {
            name: spec.name.to_string(),
            execables: each(&spec.execables),
            network: Some((&spec.network).into()),
            storage: each(&spec.storage),
            users: each(&spec.users),
            servers: each(&spec.servers),
            settings: spec.settings.iter().map(words).collect(),
        }
    }
}

impl TryFrom<wire::HordeSpec> for HordeSpec {
    type Error = Error;
    fn try_from(spec: wire::HordeSpec) -> Result<Self, Error> {
        Ok(Self {
            name: HordeName::new(spec.name)?,
            execables: all(spec.execables)?,
            network: need(spec.network, "the network")?.try_into()?,
            storage: all(spec.storage)?,
            users: all(spec.users)?,
            servers: all(spec.servers)?,
            settings: spec
                .settings
                .into_iter()
                .map(|(key, words)| (key, words.words))
                .collect(),
        })
    }
}

impl From<&Execable> for wire::Execable {
    fn from(one: &Execable) -> Self {
        let program = match one.program {
            Program::Fulcrum(_) => wire::ProgramKind::Fulcrum,
            Program::Command(_) => wire::ProgramKind::Command,
        };
        Self {
            count: one.count,
            role: one.role.to_string(),
            image: one.image.clone(),
            program: program.into(),
            words: one.program.words().to_vec(),
            required: texts(&one.required),
            added: texts(&one.added),
            mounts: each(&one.mounts),
            env: one.env.clone(),
            limits: Some((&one.limits).into()),
        }
    }
}

impl TryFrom<wire::Execable> for Execable {
    type Error = Error;
    fn try_from(one: wire::Execable) -> Result<Self, Error> {
        let program = match wire::ProgramKind::try_from(one.program) {
            Ok(wire::ProgramKind::Fulcrum) => Program::Fulcrum(one.words),
            Ok(wire::ProgramKind::Command) => Program::Command(one.words),
            Ok(wire::ProgramKind::Unspecified) | Err(_) => {
                return Err(unknown("a program of kind", one.program));
            }
        };
        let rules = one.required.iter().map(|rule| rule.parse::<TagRule>());
        Ok(Self {
            count: one.count,
            role: role(one.role)?,
            image: one.image,
            program,
            required: rules.collect::<Result<_, _>>()?,
            added: tags(one.added)?,
            mounts: all(one.mounts)?,
            env: one.env,
            limits: one.limits.map_or_else(Limits::none, Into::into),
        })
    }
}

impl From<&Mount> for wire::Mount {
    fn from(mount: &Mount) -> Self {
        let source = match &mount.source {
            MountSource::Host(path) => wire::mount::Source::Host(from_path(path)),
            MountSource::Storage(id) => wire::mount::Source::Storage(id.to_string()),
        };
        Self {
            source: Some(source),
            target: from_path(&mount.target),
        }
    }
}

impl TryFrom<wire::Mount> for Mount {
    type Error = Error;
    fn try_from(mount: wire::Mount) -> Result<Self, Error> {
        let source = match need(mount.source, "the source of a mount")? {
            wire::mount::Source::Host(path) => MountSource::Host(to_path(path)),
            wire::mount::Source::Storage(id) => MountSource::Storage(StorageId::from_backend(id)),
        };
        Ok(Self {
            source,
            target: to_path(mount.target),
        })
    }
}

impl From<&Limits> for wire::Limits {
    fn from(limits: &Limits) -> Self {
        Self {
            memory_bytes: limits.memory.map(underverse::ByteCount::get),
            cpu_thousandths: limits.cpu_thousandths,
            processes: limits.processes,
        }
    }
}

impl From<wire::Limits> for Limits {
    fn from(limits: wire::Limits) -> Self {
        Self {
            memory: limits.memory_bytes.map(bytes),
            cpu_thousandths: limits.cpu_thousandths,
            processes: limits.processes,
        }
    }
}

pub(super) const fn from_storage_kind(kind: StorageKind) -> wire::StorageKind {
    match kind {
        StorageKind::FileTree => wire::StorageKind::FileTree,
        StorageKind::Volume => wire::StorageKind::Volume,
    }
}

pub(super) fn to_storage_kind(number: i32) -> Result<StorageKind, Error> {
    match wire::StorageKind::try_from(number) {
        Ok(wire::StorageKind::FileTree) => Ok(StorageKind::FileTree),
        Ok(wire::StorageKind::Volume) => Ok(StorageKind::Volume),
        Ok(wire::StorageKind::Unspecified) | Err(_) => Err(unknown("storage of kind", number)),
    }
}

impl From<&StorageRequest> for wire::StorageRequest {
    fn from(request: &StorageRequest) -> Self {
        Self {
            id: request.id.to_string(),
            kind: from_storage_kind(request.kind).into(),
            capacity_bytes: request.capacity.get(),
            properties: request.properties.iter().cloned().collect(),
        }
    }
}

impl TryFrom<wire::StorageRequest> for StorageRequest {
    type Error = Error;
    fn try_from(request: wire::StorageRequest) -> Result<Self, Error> {
        Ok(Self {
            id: StorageId::from_backend(request.id),
            kind: to_storage_kind(request.kind)?,
            capacity: bytes(request.capacity_bytes),
            properties: request.properties.into_iter().collect(),
        })
    }
}

impl From<&UserSpec> for wire::UserSpec {
    fn from(user: &UserSpec) -> Self {
        let source = match user.source {
            UserSource::Oneself => wire::UserSource::Oneself,
            UserSource::Auto => wire::UserSource::Auto,
        };
        Self {
            name: user.name.clone(),
            source: source.into(),
        }
    }
}

impl TryFrom<wire::UserSpec> for UserSpec {
    type Error = Error;
    fn try_from(user: wire::UserSpec) -> Result<Self, Error> {
        let source = match wire::UserSource::try_from(user.source) {
            Ok(wire::UserSource::Oneself) => UserSource::Oneself,
            Ok(wire::UserSource::Auto) => UserSource::Auto,
            Ok(wire::UserSource::Unspecified) | Err(_) => {
                return Err(unknown("a user of kind", user.source));
            }
        };
        if user.name.is_empty() {
            return Err(unreadable("the name of a user"));
        }
        Ok(Self {
            name: user.name,
            source,
        })
    }
}

impl From<&ServerSpec> for wire::ServerSpec {
    fn from(server: &ServerSpec) -> Self {
        Self {
            name: server.name.clone(),
            tags: texts(&server.tags),
        }
    }
}

impl TryFrom<wire::ServerSpec> for ServerSpec {
    type Error = Error;
    fn try_from(server: wire::ServerSpec) -> Result<Self, Error> {
        Ok(Self {
            name: server.name,
            tags: tags(server.tags)?,
        })
    }
}
