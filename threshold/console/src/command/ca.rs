//! `radix ca` and `radix login`: the owner, its invitations, and operators elsewhere.

use crux_net::identity::{Invitation, OwnerStore};

use crate::args::{self, CaCommand};
use crate::failure::{Failure, Outcome};
use crate::home::Home;
use crate::operator::{label, owner};
use crate::output;

/// Runs `radix ca …`.
pub(crate) fn run(command: CaCommand) -> Outcome<()> {
    let home = Home::open()?;
    let owner = owner(&home)?;
    match command {
        CaCommand::Show => {
            show(&owner);
            Ok(())
        }
        CaCommand::Recovery => Err(Failure::new(
            crate::failure::Fault::Refused,
            "recovery keys are not made yet: the root key in owner/root.key is the only one",
        )
        .hint("keep a copy of owner/root.key where nobody else can read it")),
        CaCommand::Invite {
            namespace,
            label: name,
            pool,
            operator,
        } => {
            let namespace = label("namespace", &namespace)?;
            let invitation = match (operator, pool, name) {
                (true, _, _) => owner.invite_operator(&label("label", "operator")?),
                (false, Some(count), _) => owner.invite_pool(&namespace, count),
                (false, None, Some(name)) => {
                    owner.invite_named(&namespace, &label("label", &name)?)
                }
                (false, None, None) => {
                    return Err(Failure::usage("nobody is named")
                        .hint("give a label, or --pool COUNT, or --operator"));
                }
            };
            let invitation = invitation
                .map_err(|error| Failure::failed("cannot make an invitation").because(&error))?;
            output::talk("whoever has this line can join once; hand it over by a safe way");
            output::line(&invitation.encode());
            Ok(())
        }
    }
}

fn show(owner: &OwnerStore) {
    let charter = owner.charter();
    output::line(&format!("owner     {}", owner.owner()));
    output::line(&format!(
        "charter   generation {}, {} root keys",
        charter.generation(),
        charter.roots().len()
    ));
    let root = if owner.has_root() {
        "here"
    } else {
        "elsewhere"
    };
    output::line(&format!("root key  {root}"));
}

/// Runs `radix login`.
pub(crate) fn login(args: &args::Login) -> Outcome<()> {
    let mut text = args.invitation.clone();
    if text == "-" {
        text.clear();
        std::io::stdin().read_line(&mut text)?;
    }
    let invitation = Invitation::decode(text.trim())
        .map_err(|error| Failure::usage("this is not an invitation").because(&error))?;
    let home = Home::open()?;
    let owner = OwnerStore::login(home.root(), &invitation)
        .map_err(|error| Failure::failed("cannot log in").because(&error))?;
    output::line(&format!("operator of owner {}", owner.owner()));
    Ok(())
}
