//! `radix services`: the directory of rnode services and of the application's services.

use crate::args;
use crate::connection::Base;
use crate::failure::Outcome;
use crate::home::Home;
use crate::output::{self, Format};
use crate::view::Service;

/// Runs the command.
pub(crate) async fn run(args: args::List) -> Outcome<()> {
    let base = Base::require(&Home::locate()?).await?;
    let reply = base
        .any_rnode(args.running.namespace.as_deref())
        .await?
        .services()
        .await?;
    let services = Service::from_wire(&reply);
    if args.format == Format::Json {
        return output::json(&services);
    }
    let rows: Vec<_> = services
        .iter()
        .map(|service| {
            vec![
                service.name.clone(),
                service.address.clone(),
                service.instance.clone(),
                service.version.clone(),
                service.checksum.chars().take(12).collect(),
            ]
        })
        .collect();
    output::table(
        &["NAME", "ADDRESS", "INSTANCE", "VERSION", "CHECKSUM"],
        &rows,
    );
    Ok(())
}
