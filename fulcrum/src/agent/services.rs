//! Service records: published for what runs here, looked up over the whole flock.

use std::collections::BTreeSet;

use crux_wire::document::v1::ServiceRecord;
use prost::Message;

use super::context::Agent;
use super::label::InstanceLabel;

/// Publishes a record for each registration of a running instance, and withdraws the others.
pub(crate) fn publish(agent: &Agent) {
    let mut wanted = BTreeSet::new();
    for execution in agent.executions.list() {
        let Some(label) = InstanceLabel::of(&execution) else {
            continue;
        };
        if execution.outcome.is_some() {
            continue;
        }
        for registration in agent.registrations.of(&execution.execution) {
            let key = format!(
                "service/{}/{}/{}",
                registration.name, label.class, label.index
            );
            let namespace = agent.me.namespace.to_string();
            let principal = format!(
                "{namespace}/{}/{}/{}",
                label.application, label.class, label.index
            );
            let record = ServiceRecord {
                name: registration.name,
                namespace,
                application: label.application.clone(),
                class: label.class.clone(),
                index: label.index,
                host: agent.config.host.to_string(),
                port: registration.port.into(),
                version: registration.version,
                checksum: execution.digest.clone(),
                rnode: agent.id(),
                execution: execution.execution.clone(),
                principal,
                tls: registration.tls,
            };
            agent
                .shared
                .publish_if_changed(&key, &record.encode_to_vec());
            wanted.insert(key);
        }
    }
    for key in agent.shared.own_keys("service/") {
        if !wanted.contains(&key) {
            agent.shared.withdraw(&key);
        }
    }
}

/// The services of one name at members that are alive, sorted by class and index.
pub(crate) fn lookup(agent: &Agent, name: &str) -> Vec<ServiceRecord> {
    let prefix = if name.is_empty() {
        "service/".to_owned()
    } else {
        format!("service/{name}/")
    };
    let alive = agent.shared.alive();
    let mut services: Vec<ServiceRecord> = agent
        .shared
        .messages::<ServiceRecord>(&prefix)
        .into_iter()
        .filter(|(owner, record)| alive.contains(owner) && record.rnode == *owner)
        .map(|(_, record)| record)
        .collect();
    services.sort_by(|a, b| {
        (&a.name, &a.class, a.index, &a.rnode).cmp(&(&b.name, &b.class, b.index, &b.rnode))
    });
    services
}
