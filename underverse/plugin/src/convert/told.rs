//! What is told, on the wire: servers, running containers, the effective spec, plans, progress, exposures.

use underverse::{
    Action, ContainerId, Effective, EffectiveRole, EffectiveStorage, End, Error, Exposed, Failure,
    HordeName, Kind, PlannedStep, Progress, Running, RunningState, Server, StepDone,
    StorageExposure, StorageId, Weaker,
};

use super::spec::{from_path, from_storage_kind, to_path, to_storage_kind};
use super::{all, bytes, each, need, role, tags, texts, unreadable};
use crate::wire;

impl From<&Server> for wire::Server {
    fn from(server: &Server) -> Self {
        Self {
            name: server.name.clone(),
            tags: texts(&server.tags),
            cpus: server.cpus,
            memory_bytes: server.memory.get(),
            memory_available_bytes: server.memory_available.get(),
        }
    }
}

impl TryFrom<wire::Server> for Server {
    type Error = Error;
    fn try_from(server: wire::Server) -> Result<Self, Error> {
        Ok(Self {
            name: server.name,
            tags: tags(server.tags)?,
            cpus: server.cpus,
            memory: bytes(server.memory_bytes),
            memory_available: bytes(server.memory_available_bytes),
        })
    }
}

impl From<&Running> for wire::Running {
    fn from(one: &Running) -> Self {
        let (state, failure) = match &one.state {
            RunningState::Waiting => (wire::RunningState::Waiting, String::new()),
            RunningState::Started => (wire::RunningState::Started, String::new()),
            RunningState::Failed(how) => (wire::RunningState::Failed, how.clone()),
        };
        Self {
            id: one.id.to_string(),
            ordinal: one.ordinal,
            label: one.label.clone(),
            role: one.role.to_string(),
            server: one.server.clone(),
            address: one
                .address
                .map(|address| address.to_string())
                .unwrap_or_default(),
            tags: texts(&one.tags),
            state: state.into(),
            failure,
            generation: Some(one.generation.into()),
            pid: one.pid,
            directory: one.directory.as_deref().map(from_path),
        }
    }
}

impl TryFrom<wire::Running> for Running {
    type Error = Error;
    fn try_from(one: wire::Running) -> Result<Self, Error> {
        let address = match one.address.as_str() {
            "" => None,
            text => Some(
                text.parse()
                    .map_err(|_| unreadable("the address of a container"))?,
            ),
        };
        let state = match wire::RunningState::try_from(one.state) {
            Ok(wire::RunningState::Started) => RunningState::Started,
            Ok(wire::RunningState::Failed) => RunningState::Failed(one.failure),
            Ok(wire::RunningState::Waiting | wire::RunningState::Unspecified) | Err(_) => {
                RunningState::Waiting
            }
        };
        Ok(Self {
            id: ContainerId::from_backend(one.id),
            ordinal: one.ordinal,
            label: one.label,
            role: role(one.role)?,
            server: one.server,
            address,
            tags: tags(one.tags)?,
            state,
            generation: need(one.generation, "a generation")?.into(),
            pid: one.pid,
            directory: one.directory.map(to_path),
        })
    }
}

impl From<&Effective> for wire::Effective {
    fn from(effective: &Effective) -> Self {
        Self {
            name: effective.name.to_string(),
            generation: Some(effective.generation.into()),
            roles: each(&effective.roles),
            network: Some((&effective.network).into()),
            weaker: each(&effective.weaker),
            storage: each(&effective.storage),
        }
    }
}

impl TryFrom<wire::Effective> for Effective {
    type Error = Error;
    fn try_from(effective: wire::Effective) -> Result<Self, Error> {
        let weaker = |weaker: wire::Weaker| Weaker {
            asked: weaker.asked,
            obtained: weaker.obtained,
        };
        Ok(Self {
            name: HordeName::new(effective.name)?,
            generation: need(effective.generation, "a generation")?.into(),
            roles: all(effective.roles)?,
            network: need(effective.network, "the network")?.try_into()?,
            storage: all(effective.storage)?,
            weaker: effective.weaker.into_iter().map(weaker).collect(),
        })
    }
}

impl From<&Weaker> for wire::Weaker {
    fn from(weaker: &Weaker) -> Self {
        Self {
            asked: weaker.asked.clone(),
            obtained: weaker.obtained.clone(),
        }
    }
}

impl From<&EffectiveRole> for wire::EffectiveRole {
    fn from(role: &EffectiveRole) -> Self {
        Self {
            role: role.role.to_string(),
            wanted: role.wanted,
            obtained: role.obtained,
            shortfall: role.shortfall.clone(),
        }
    }
}

impl TryFrom<wire::EffectiveRole> for EffectiveRole {
    type Error = Error;
    fn try_from(told: wire::EffectiveRole) -> Result<Self, Error> {
        Ok(Self {
            role: role(told.role)?,
            wanted: told.wanted,
            obtained: told.obtained,
            shortfall: told.shortfall,
        })
    }
}

impl From<&EffectiveStorage> for wire::EffectiveStorage {
    fn from(storage: &EffectiveStorage) -> Self {
        Self {
            id: storage.id.to_string(),
            container: storage.container.clone(),
            server: storage.server.clone(),
            source: storage.source.clone(),
            capacity_bytes: storage.capacity.get(),
            size: Some((&storage.size).into()),
        }
    }
}

impl TryFrom<wire::EffectiveStorage> for EffectiveStorage {
    type Error = Error;
    fn try_from(storage: wire::EffectiveStorage) -> Result<Self, Error> {
        Ok(Self {
            id: StorageId::from_backend(storage.id),
            container: storage.container,
            server: storage.server,
            source: storage.source,
            capacity: bytes(storage.capacity_bytes),
            size: need(storage.size, "a strength")?.into(),
        })
    }
}

impl From<&PlannedStep> for wire::PlannedStep {
    fn from(step: &PlannedStep) -> Self {
        let action = match step.action {
            Action::Create => wire::StepAction::Create,
            Action::Start => wire::StepAction::Start,
            Action::Stop => wire::StepAction::Stop,
            Action::Remove => wire::StepAction::Remove,
        };
        Self {
            action: action.into(),
            subject: step.subject.clone(),
            reason: step.reason.clone(),
        }
    }
}

impl From<wire::PlannedStep> for PlannedStep {
    /// An action that we do not know makes something, as far as we can tell.
    fn from(step: wire::PlannedStep) -> Self {
        let action = match wire::StepAction::try_from(step.action) {
            Ok(wire::StepAction::Start) => Action::Start,
            Ok(wire::StepAction::Stop) => Action::Stop,
            Ok(wire::StepAction::Remove) => Action::Remove,
            Ok(wire::StepAction::Create | wire::StepAction::Unspecified) | Err(_) => Action::Create,
        };
        Self {
            action,
            subject: step.subject,
            reason: step.reason,
        }
    }
}

impl From<&Progress> for wire::Progress {
    fn from(progress: &Progress) -> Self {
        use wire::progress::Item;
        let item = match progress {
            Progress::Step(done) => Item::Step(wire::StepDone {
                step: Some((&done.step).into()),
                number: done.number,
                of: done.of,
                failure: done.failure.clone(),
            }),
            Progress::End(end) => Item::End(end.as_ref().into()),
        };
        Self { item: Some(item) }
    }
}

impl TryFrom<wire::Progress> for Progress {
    type Error = Error;
    fn try_from(progress: wire::Progress) -> Result<Self, Error> {
        use wire::progress::Item;
        Ok(match need(progress.item, "progress")? {
            Item::Step(done) => Self::Step(StepDone {
                step: need(done.step, "a step")?.into(),
                number: done.number,
                of: done.of,
                failure: done.failure,
            }),
            Item::End(end) => Self::End(Box::new(end.try_into()?)),
        })
    }
}

impl From<&End> for wire::End {
    fn from(end: &End) -> Self {
        use wire::end::How;
        let failure = |failure: &Failure| wire::Failure {
            subject: failure.subject.clone(),
            error: Some((&failure.error).into()),
        };
        let how = match end {
            End::Done(effective) => How::Done(effective.into()),
            End::Partial(effective, failures) => How::Partial(wire::Partial {
                effective: Some(effective.into()),
                failures: failures.iter().map(failure).collect(),
            }),
            End::Unknown(error) => How::Unknown(error.into()),
            End::Refused(error) => How::Refused(error.into()),
        };
        Self { how: Some(how) }
    }
}

impl TryFrom<wire::End> for End {
    type Error = Error;
    fn try_from(end: wire::End) -> Result<Self, Error> {
        use wire::end::How;
        let failure = |failure: wire::Failure| {
            let error = need(failure.error, "an error")?.into();
            Ok::<_, Error>(Failure {
                subject: failure.subject,
                error,
            })
        };
        Ok(match need(end.how, "how it ended")? {
            How::Done(effective) => Self::Done(effective.try_into()?),
            How::Partial(partial) => Self::Partial(
                need(partial.effective, "what was obtained")?.try_into()?,
                partial
                    .failures
                    .into_iter()
                    .map(failure)
                    .collect::<Result<_, _>>()?,
            ),
            How::Unknown(error) => Self::Unknown(error.into()),
            How::Refused(error) => Self::Refused(error.into()),
        })
    }
}

impl From<&StorageExposure> for wire::StorageExposure {
    fn from(exposure: &StorageExposure) -> Self {
        Self {
            server: exposure.server.clone(),
            source: exposure.source.clone(),
            bind: exposure.bind.clone(),
            kind: from_storage_kind(exposure.kind).into(),
            tags: exposure.tags.iter().cloned().collect(),
            thin: exposure.thin,
        }
    }
}

impl TryFrom<wire::StorageExposure> for StorageExposure {
    type Error = Error;
    fn try_from(exposure: wire::StorageExposure) -> Result<Self, Error> {
        Ok(Self {
            server: exposure.server,
            source: exposure.source,
            bind: exposure.bind,
            kind: to_storage_kind(exposure.kind)?,
            tags: exposure.tags.into_iter().collect(),
            thin: exposure.thin,
        })
    }
}

impl From<&Exposed> for wire::Exposed {
    fn from(exposed: &Exposed) -> Self {
        Self {
            exposure: Some((&exposed.exposure).into()),
            capacity_bytes: exposed.capacity.get(),
            allotted_bytes: exposed.allotted.get(),
            size: Some((&exposed.size).into()),
        }
    }
}

impl TryFrom<wire::Exposed> for Exposed {
    type Error = Error;
    fn try_from(exposed: wire::Exposed) -> Result<Self, Error> {
        Ok(Self {
            exposure: need(exposed.exposure, "an exposure")?.try_into()?,
            capacity: bytes(exposed.capacity_bytes),
            allotted: bytes(exposed.allotted_bytes),
            size: need(exposed.size, "a strength")?.into(),
        })
    }
}

/// How a pass is told whose message cannot be read: nobody knows what holds.
pub(crate) fn unreadable_end(error: Error) -> Progress {
    let error = match error.kind() {
        Kind::Bug => error,
        _ => Error::new(Kind::Bug, "read progress", error.chain()),
    };
    Progress::End(Box::new(End::Unknown(
        error.effect(underverse::Effect::Unknown),
    )))
}
