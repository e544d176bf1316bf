//! External addresses.

use underverse::{Capability as C, ExternalAddress, Kind, Protocol};

use crate::bed::{Bed, dissolved, fails, horde, realised};
use crate::case::{Case, Judged, Stop, case, ensure};
use crate::refusal::door;

const NEEDS: &[C] = &[C::ExternalAddresses];
/// Addresses asked for before a backend counts as having no end of them.
const ASKED_MAX: u32 = 2_000;

pub(super) const CASES: &[Case] = &[
    case("address.distinct", NEEDS, |bed| Box::pin(distinct(bed))),
    case("address.repeated", NEEDS, |bed| Box::pin(repeated(bed))),
    case("address.exhausted", NEEDS, |bed| Box::pin(exhausted(bed))),
    case("address.release-twice", NEEDS, |bed| {
        Box::pin(release_twice(bed))
    }),
    case(
        "address.taken",
        &[C::ExternalAddresses, C::ExposeTcp],
        |bed| Box::pin(taken(bed)),
    ),
];

async fn distinct(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let first = opened
        .underverse
        .acquire_address(&horde()?, "first")
        .await?;
    let second = opened
        .underverse
        .acquire_address(&horde()?, "second")
        .await?;
    ensure(first.0 != second.0 && first.1 != second.1, || {
        format!("{} and {} are one", first.0, second.0)
    })
}

async fn repeated(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let first = opened
        .underverse
        .acquire_address(&horde()?, "first")
        .await?;
    let opened = bed.restart(opened).await?;
    let again = opened
        .underverse
        .acquire_address(&horde()?, "first")
        .await?;
    ensure(first == again, || {
        format!(
            "{} at {} became {} at {}",
            first.0, first.1, again.0, again.1
        )
    })
}

async fn exhausted(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let mut last = None;
    for number in 0..ASKED_MAX {
        match opened
            .underverse
            .acquire_address(&horde()?, &format!("r{number}"))
            .await
        {
            Ok((id, _)) => last = Some(id),
            Err(error) if error.kind() == Kind::Limit => {
                let last =
                    last.ok_or_else(|| Stop::Failed("not even one is to be had".to_owned()))?;
                opened.underverse.release_address(&last).await?;
                opened
                    .underverse
                    .acquire_address(&horde()?, "after")
                    .await?;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(Stop::Failed(format!("{ASKED_MAX} were given, and no end")))
}

async fn release_twice(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let (id, _) = opened
        .underverse
        .acquire_address(&horde()?, "first")
        .await?;
    opened.underverse.release_address(&id).await?;
    Ok(opened.underverse.release_address(&id).await?)
}

async fn taken(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let (id, _) = opened
        .underverse
        .acquire_address(&horde()?, "first")
        .await?;
    let mut spec = bed.spec(1)?;
    let mut port = door(Protocol::Tcp)?;
    port.external = ExternalAddress::Acquired(id.clone());
    spec.network.ports.push(port);
    realised(&opened, 1, &spec).await?;
    fails(opened.underverse.release_address(&id).await, Kind::Taken)?;
    dissolved(&opened, 2, &horde()?).await?;
    Ok(opened.underverse.release_address(&id).await?)
}
