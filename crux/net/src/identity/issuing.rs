//! Grants for a key that was shown (`radix ca issue`): both sides.

use std::path::Path;

use crux_core::identity::{DOCUMENT_CONTEXT, PublicKey, Signed};
use crux_core::names::Label;

use crate::identity::files;
use crate::identity::invitation::GrantTerms;
use crate::identity::owner::{Creation, keep_grant, lock, open_owner, person, stay};
use crate::identity::{
    Acceptance, Error, GrantLine, Invitation, OwnerStore, SecretKey, Trust, WallClock,
};

impl OwnerStore {
    /// The public key of whoever is to be an operator or tool with the state directory `home`; made at the first call.
    ///
    /// # Errors
    /// [`Error::Claimed`] where the root key is; [`Error::Io`].
    pub fn shown_key(home: &Path) -> Result<PublicKey, Error> {
        files::private_dir(home)?;
        let (owner, operator) = (home.join("owner"), home.join("operator"));
        if owner.join("root.key").exists() {
            return Err(Error::Claimed(owner));
        }
        files::private_dir(&operator)?;
        let key = SecretKey::open_or_create(&operator.join("operator.key"))?;
        Ok(*key.public())
    }

    /// Keeps a grant that was issued for the key of this state directory, in place of any before.
    ///
    /// # Errors
    /// [`Error::Claimed`] when another owner is here; [`Error::Refused`] when it is for another key or does not count.
    pub fn login_with_grant(home: &Path, line: &GrantLine) -> Result<Self, Error> {
        let key = Self::shown_key(home)?;
        let owner = home.join("owner");
        files::private_dir(&owner)?;
        let _lock = lock(&owner.join("lock"))?;
        if let Some((_, charter)) = open_owner(&owner, Creation::Refused)?
            && charter.owner() != line.charter.owner()
        {
            return Err(Error::Claimed(owner));
        }
        if line.key()? != key {
            return Err(Error::Invitation("the grant is for another key"));
        }
        let clock = WallClock::with_floor(&owner.join("floor"))?;
        // Nothing is kept that does not count.
        let secret = SecretKey::open_or_create(&home.join("operator/operator.key"))?;
        let trust = Trust::new(line.charter.clone(), clock.clone());
        let signature = secret.sign(DOCUMENT_CONTEXT, b"")?;
        let signed = Signed {
            context: DOCUMENT_CONTEXT,
            payload: b"",
            signature: &signature,
            chain: &line.chain,
        };
        trust.verify_signed(&signed, Acceptance::New)?;
        keep_grant(home, line)?;
        Self::with_operator(home, None, line.charter.clone(), clock)
    }

    /// Makes the holder of `key` an operator, by the root: what [`invite_operator`](Self::invite_operator) would, at once.
    ///
    /// # Errors
    /// As there.
    pub fn issue_operator(
        &self,
        label: &Label,
        terms: &GrantTerms,
        key: &PublicKey,
    ) -> Result<GrantLine, Error> {
        self.issue_for(&self.at_once().invite_operator(label, terms)?, key)
    }

    /// Makes the holder of `key` a tool, by this operator: what [`invite_tool`](Self::invite_tool) would, at once.
    ///
    /// # Errors
    /// As there.
    pub fn issue_tool(
        &self,
        label: &Label,
        terms: &GrantTerms,
        key: &PublicKey,
    ) -> Result<GrantLine, Error> {
        self.issue_for(&self.at_once().invite_tool(label, terms)?, key)
    }

    fn issue_for(&self, invitation: &Invitation, key: &PublicKey) -> Result<GrantLine, Error> {
        let validity = stay(invitation, invitation.claim_by());
        let chain = invitation.enrol(person(invitation)?, key, validity)?;
        Ok(GrantLine::new(self.charter().clone(), chain))
    }
}
