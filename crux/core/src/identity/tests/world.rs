//! An owner with everything below it, made with keys of the test.

use std::time::Duration;

use rcgen::{
    CertificateParams, CustomExtension, Issuer, KeyPair, PublicKeyData as _, SigningKey as _,
};

use crate::identity::{
    Charter, Denies, Enrols, Grant, LEAF_BACKDATE_SECONDS, LEAF_LIFE_SECONDS, Moment, NEVER,
    OID_COMPONENTS, Prefix, Principal, PublicKey, Refusal, Role, UnixTime, Verb, Verbs, Window,
    verify,
};
use crate::names::Label;

/// When the tests play: some day in 2026.
pub(super) const NOW: UnixTime = UnixTime::from_seconds(1_790_000_000);
pub(super) const DAY: u64 = 86_400;

pub(super) fn label(text: &str) -> Label {
    Label::new(text).expect("a label")
}

pub(super) struct Key(pub(super) KeyPair);

impl Key {
    pub(super) fn new() -> Self {
        Self(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key"))
    }

    pub(super) fn public(&self) -> PublicKey {
        PublicKey::from_point(self.0.der_bytes()).expect("a point")
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).expect("a signature")
    }

    /// Certifies `subject`, whatever is asked.
    pub(super) fn certify(&self, subject: &Self, grant: &Grant, validity: Window) -> Vec<u8> {
        self.certify_raw(
            subject,
            vec![(&OID_COMPONENTS, true, grant.encode())],
            validity,
        )
    }

    pub(super) fn certify_raw(
        &self,
        subject: &Self,
        extensions: Vec<(&[u64], bool, Vec<u8>)>,
        validity: Window,
    ) -> Vec<u8> {
        let mut params = CertificateParams::default();
        let moment =
            |time: UnixTime| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(time.seconds());
        params.not_before = moment(validity.from);
        params.not_after = moment(validity.until);
        params.custom_extensions = extensions
            .into_iter()
            .map(|(oid, critical, content)| {
                let mut extension = CustomExtension::from_oid_content(oid, content);
                extension.set_criticality(critical);
                extension
            })
            .collect();
        let issuer = Issuer::new(CertificateParams::default(), &self.0);
        params
            .signed_by(&subject.0, &issuer)
            .expect("a certificate")
            .der()
            .to_vec()
    }
}

pub(super) fn leaf_window(now: UnixTime) -> Window {
    Window {
        from: now.minus(LEAF_BACKDATE_SECONDS),
        until: now.plus(LEAF_LIFE_SECONDS),
    }
}

pub(super) fn always() -> Window {
    Window {
        from: NOW,
        until: NEVER,
    }
}

pub(super) fn long() -> Window {
    Window {
        from: NOW.minus(3_600),
        until: NOW.plus(90 * DAY),
    }
}

pub(super) fn operator() -> Grant {
    Grant::new(
        Role::Operator {
            label: label("ann"),
        },
        Verbs::of(&[Verb::Operator, Verb::Invite]),
        Prefix::EVERYTHING,
    )
    .may_grant(Verbs::of(&[
        Verb::Operator,
        Verb::Invite,
        Verb::Tool,
        Verb::Lifecycle,
        Verb::Peer,
        Verb::App,
    ]))
}

/// An operator of one namespace.
pub(super) fn operator_of(namespace: &str) -> Grant {
    Grant {
        prefix: Prefix::namespace(label(namespace)),
        ..operator()
    }
}

fn person_invitation(enrols: Enrols, namespace: &str) -> Grant {
    let role = Role::Invitation {
        enrols,
        label: None,
    };
    let mut grant = Grant::new(role, Verbs::NONE, Prefix::namespace(label(namespace)));
    grant.claim_by = NOW.plus(DAY);
    grant.uses = 1;
    grant
}

pub(super) fn operator_invitation(namespace: &str) -> Grant {
    person_invitation(Enrols::Operator, namespace).may_grant(operator().may_grant)
}

/// For a tool that may act on applications.
pub(super) fn tool_invitation(namespace: &str) -> Grant {
    person_invitation(Enrols::Tool, namespace).may_grant(tool(namespace).verbs)
}

pub(super) fn tool(namespace: &str) -> Grant {
    Grant::new(
        Role::Tool {
            label: label("tuner"),
        },
        Verbs::of(&[Verb::Tool, Verb::Lifecycle]),
        Prefix::namespace(label(namespace)),
    )
}

pub(super) fn host(namespace: &str) -> Grant {
    Grant::new(
        Role::Host,
        Verbs::of(&[Verb::Invite, Verb::Host]),
        Prefix::namespace(label(namespace)),
    )
    .may_grant(Verbs::of(&[Verb::Peer, Verb::App]))
}

pub(super) fn invitation(namespace: &str, name: Option<&str>, uses: u32) -> Grant {
    let role = Role::Invitation {
        enrols: Enrols::Rnode,
        label: name.map(label),
    };
    let mut grant = Grant::new(role, Verbs::NONE, Prefix::namespace(label(namespace)))
        .may_grant(Verbs::of(&[Verb::Peer, Verb::App]));
    grant.claim_by = NOW.plus(DAY);
    grant.uses = uses;
    grant
}

pub(super) fn rnode(namespace: &str, name: &str, ordinal: u32) -> Grant {
    let role = Role::Rnode {
        label: label(name),
        ordinal,
    };
    Grant::new(
        role,
        Verbs::of(&[Verb::Peer]),
        Prefix::namespace(label(namespace)),
    )
    .may_grant(Verbs::of(&[Verb::Peer, Verb::App]))
}

pub(super) fn leaf(above: &Grant) -> Grant {
    Grant::new(Role::Leaf, above.verbs, above.prefix.clone())
}

pub(super) fn app(namespace: &str, class: &str, index: u32) -> Grant {
    let role = Role::App {
        application: label(namespace),
        class: label(class),
        index,
    };
    Grant::new(
        role,
        Verbs::of(&[Verb::App]),
        Prefix::namespace(label(namespace)),
    )
}

/// A rnode: its key, and its chain from its enrolment up.
pub(super) struct Rnode {
    pub(super) key: Key,
    pub(super) throwaway: Key,
    pub(super) grant: Grant,
    pub(super) chain: Vec<Vec<u8>>,
}

impl Rnode {
    /// Its chain with a fresh leaf in front.
    pub(super) fn with_leaf(&self, now: UnixTime) -> Vec<Vec<u8>> {
        self.with(&leaf(&self.grant), leaf_window(now))
    }

    /// Its chain with `grant` for a fresh key in front.
    pub(super) fn with(&self, grant: &Grant, validity: Window) -> Vec<Vec<u8>> {
        let mut chain = vec![self.key.certify(&Key::new(), grant, validity)];
        chain.extend(self.chain.iter().cloned());
        chain
    }
}

pub(super) struct World {
    pub(super) root: Key,
    pub(super) operator: Key,
    pub(super) base: Key,
    pub(super) charter: Charter,
    pub(super) denies: Denies,
}

impl World {
    pub(super) fn new() -> Self {
        let root = Key::new();
        let charter = charter_of(&root);
        Self {
            root,
            operator: Key::new(),
            base: Key::new(),
            charter,
            denies: Denies::default(),
        }
    }

    pub(super) fn operator_chain(&self) -> Vec<Vec<u8>> {
        vec![self.root.certify(&self.operator, &operator(), long())]
    }

    pub(super) fn host_chain(&self, namespace: &str) -> Vec<Vec<u8>> {
        vec![self.root.certify(&self.base, &host(namespace), always())]
    }

    /// A nested rnode, invited by the base under its host grant.
    pub(super) fn nested(&self, namespace: &str, name: &str) -> Rnode {
        self.enrolled(
            &rnode(namespace, name, 0),
            &invitation(namespace, Some(name), 1),
            Key::new(),
        )
    }

    pub(super) fn enrolled(&self, grant: &Grant, invited: &Grant, throwaway: Key) -> Rnode {
        let namespace = invited
            .prefix
            .one_namespace()
            .expect("one namespace")
            .to_string();
        let window = Window {
            from: NOW.minus(1_800),
            until: NOW.plus(DAY),
        };
        let mut chain = vec![self.base.certify(&throwaway, invited, window)];
        chain.extend(self.host_chain(&namespace));
        let key = Key::new();
        chain.insert(0, throwaway.certify(&key, grant, always()));
        Rnode {
            key,
            throwaway,
            grant: grant.clone(),
            chain,
        }
    }

    pub(super) fn judge(&self, chain: &[Vec<u8>]) -> Result<Principal, Refusal> {
        self.judge_at(chain, NOW)
    }

    pub(super) fn judge_at(&self, chain: &[Vec<u8>], now: UnixTime) -> Result<Principal, Refusal> {
        verify(chain, &self.charter, &self.denies, Moment::Now(now))
    }
}

pub(super) fn charter_of(root: &Key) -> Charter {
    let payload = Charter::first_payload(&[root.public()]);
    let signature = root.sign(&Charter::message(&payload));
    Charter::decode(&Charter::assemble(&payload, &[(root.public(), signature)])).expect("a charter")
}
