//! The administrator's face over the wire.

use std::sync::Arc;

use async_trait::async_trait;
use underverse::{Error, Exposed, ServerChange, StorageExposure, Tag, UnderverseAdmin};

use super::Plugin;
use crate::convert::{all, outcome, texts};
use crate::session::Session;
use crate::wire;
use crate::wire::underverse_admin_client::UnderverseAdminClient;

fn client(session: &Session) -> UnderverseAdminClient<tonic::transport::Channel> {
    UnderverseAdminClient::new(session.channel.clone())
}

#[async_trait]
impl UnderverseAdmin for Plugin {
    async fn expose(&self, exposure: StorageExposure) -> Result<(), Error> {
        let exposure = &exposure;
        let call = |session: Arc<Session>| async move {
            client(&session)
                .expose(wire::ExposeRequest {
                    exposure: Some(exposure.into()),
                })
                .await
        };
        outcome(self.call(call).await?.into_inner().error)
    }

    async fn unexpose(&self, server: &str, source: &str) -> Result<(), Error> {
        let call = |session: Arc<Session>| async move {
            let request = wire::UnexposeRequest {
                server: server.to_owned(),
                source: source.to_owned(),
            };
            client(&session).unexpose(request).await
        };
        outcome(self.call(call).await?.into_inner().error)
    }

    async fn exposures(&self) -> Result<Vec<Exposed>, Error> {
        let call = |session: Arc<Session>| async move {
            client(&session).exposures(wire::ExposuresRequest {}).await
        };
        let reply = self.call(call).await?.into_inner();
        outcome(reply.error)?;
        all(reply.exposures)
    }

    async fn tag(&self, server: &str, add: &[Tag], remove: &[Tag]) -> Result<(), Error> {
        let call = |session: Arc<Session>| async move {
            let request = wire::TagRequest {
                server: server.to_owned(),
                add: texts(add),
                remove: texts(remove),
            };
            client(&session).tag(request).await
        };
        outcome(self.call(call).await?.into_inner().error)
    }

    async fn change_server(&self, server: &str, change: ServerChange) -> Result<(), Error> {
        let change = &change;
        let call = |session: Arc<Session>| async move {
            let request = wire::ChangeServerRequest {
                server: server.to_owned(),
                change: Some(change.into()),
            };
            client(&session).change_server(request).await
        };
        outcome(self.call(call).await?.into_inner().error)
    }
}
