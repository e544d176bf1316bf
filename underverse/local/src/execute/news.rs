//! The step that tells what became of servers.

use underverse::{Error, EventKind};

use super::{Pass, io_at};
use crate::events::{EventFile, News};
use crate::maintenance::Maintenance;
use crate::record::Record;
use crate::servers::{Change, Numbered};

/// Names a change of a server among the events of a horde.
fn key(numbered: &Numbered) -> String {
    format!("server/{}", numbered.serial)
}

/// Ids of the containers on a server, by ordinal.
fn on_server(record: &Record, server: &str) -> Vec<String> {
    let on_it = record
        .containers
        .iter()
        .filter(|(_, held)| held.server == server);
    let label = |(&ordinal, _)| Some(record.cell_label(ordinal)?.execution());
    on_it.filter_map(label).collect()
}

impl Pass<'_> {
    /// Tells the changes of servers, and a reboot of the machine if `boot` names another one than the record.
    pub(super) async fn news(&self, news: &[Numbered], boot: Option<&str>) -> Result<(), Error> {
        let Some(record) = self.record.lock().await.clone() else {
            return Ok(());
        };
        let mut told = Vec::new();
        for numbered in news {
            let affected = on_server(&record, &numbered.server);
            if affected.is_empty() && numbered.change != Change::Restore {
                continue;
            }
            told.push(News {
                subject: numbered.server.clone(),
                key: Some(key(numbered)),
                kind: numbered.change.event(affected),
            });
        }
        let servers = record.containers.values().map(|held| held.server.as_str());
        let servers: std::collections::BTreeSet<&str> = servers.collect();
        for server in servers.into_iter().filter(|_| boot.is_some()) {
            let affected = on_server(&record, server);
            told.push(News {
                subject: server.to_owned(),
                key: boot.map(|boot| format!("boot/{boot}/{server}")),
                kind: EventKind::ServerRebooted { affected },
            });
        }
        self.tell(told)?;
        let maintenance = self.maintenance(news)?;
        let last = news.last().map(|numbered| numbered.serial);
        self.change(|record| {
            record.told = last.unwrap_or(record.told);
            if let Some(boot) = boot {
                boot.clone_into(&mut record.boot);
            }
            for (server, began) in maintenance {
                match began {
                    Some(began) => drop(record.maintenance.insert(server, began)),
                    None => drop(record.maintenance.remove(&server)),
                }
            }
        })
        .await
    }

    /// Maintenance that begins, under the event it was told by, and maintenance that is over.
    fn maintenance(&self, news: &[Numbered]) -> Result<Vec<(String, Option<Maintenance>)>, Error> {
        let home = &self.local.settings().home;
        let path = home.events(self.horde.as_str());
        let file = EventFile::new(home, self.horde);
        let mut maintenance = Vec::new();
        for numbered in news {
            let began = match numbered.change {
                Change::Maintain { from_unix_ms } => {
                    let event = file.id_of(&key(numbered));
                    let event = event.map_err(io_at("read an event", &path))?;
                    event.map(|event| Maintenance {
                        event,
                        from_unix_ms,
                        moved: 0,
                        last_unix_ms: 0,
                    })
                }
                Change::Withdraw | Change::Restore => None,
                Change::Reboot | Change::Degrade { .. } => continue,
            };
            maintenance.push((numbered.server.clone(), began));
        }
        Ok(maintenance)
    }
}
