//! Networks on the wire, as asked and as obtained.

use underverse::{
    AddressId, EffectiveNetwork, EffectivePort, Error, ExternalAddress, Members, NetworkProbe,
    NetworkSpec, Obtained, PortConnect, PortState, Protocol,
};

use super::{all, each, need, unknown, unreadable};
use crate::wire;

impl From<&NetworkSpec> for wire::NetworkSpec {
    fn from(network: &NetworkSpec) -> Self {
        Self {
            horde_private: network.horde_private,
            flock_private: network.flock_private,
            horde_connected: network.horde_connected,
            external_connections_max: network.external_connections_max,
            ports: each(&network.ports),
        }
    }
}

impl TryFrom<wire::NetworkSpec> for NetworkSpec {
    type Error = Error;
    fn try_from(network: wire::NetworkSpec) -> Result<Self, Error> {
        Ok(Self {
            horde_private: network.horde_private,
            flock_private: network.flock_private,
            horde_connected: network.horde_connected,
            external_connections_max: network.external_connections_max,
            ports: all(network.ports)?,
        })
    }
}

fn port_number(number: u32) -> Result<u16, Error> {
    u16::try_from(number).map_err(|_| unreadable("the number of a port"))
}

impl From<&PortConnect> for wire::PortConnect {
    fn from(port: &PortConnect) -> Self {
        use wire::port_connect::External;
        let external = match &port.external {
            ExternalAddress::Default => External::Default(wire::Default {}),
            ExternalAddress::Host(address) => External::Host(address.to_string()),
            ExternalAddress::Acquired(id) => External::Acquired(id.to_string()),
        };
        let protocol = wire::Protocol::from(port.protocol);
        Self {
            external: Some(external),
            external_port: port.external_port.into(),
            internal_port: port.internal_port.into(),
            class: match &port.members {
                Members::All => None,
                Members::Class(class) => Some(class.clone()),
            },
            protocol: protocol.into(),
        }
    }
}

impl TryFrom<wire::PortConnect> for PortConnect {
    type Error = Error;
    fn try_from(port: wire::PortConnect) -> Result<Self, Error> {
        use wire::port_connect::External;
        let external = match need(port.external, "where a door is")? {
            External::Default(_) => ExternalAddress::Default,
            External::Host(text) => ExternalAddress::Host(
                text.parse()
                    .map_err(|_| unreadable("the address of a door"))?,
            ),
            External::Acquired(id) => ExternalAddress::Acquired(AddressId::from_backend(id)),
        };
        let protocol = match wire::Protocol::try_from(port.protocol) {
            Ok(wire::Protocol::Tcp) => Protocol::Tcp,
            Ok(wire::Protocol::Udp) => Protocol::Udp,
            Ok(wire::Protocol::Unspecified) | Err(_) => {
                return Err(unknown("a door for protocol", port.protocol));
            }
        };
        Ok(Self {
            external,
            external_port: port_number(port.external_port)?,
            internal_port: port_number(port.internal_port)?,
            members: port.class.map_or(Members::All, Members::Class),
            protocol,
        })
    }
}

impl From<&EffectiveNetwork> for wire::EffectiveNetwork {
    fn from(network: &EffectiveNetwork) -> Self {
        let flag = |of: &Obtained<bool>| {
            Some(wire::ObtainedFlag {
                value: of.value,
                strength: Some((&of.strength).into()),
            })
        };
        let limit = &network.external_connections_max;
        Self {
            horde_private: flag(&network.horde_private),
            flock_private: flag(&network.flock_private),
            horde_connected: flag(&network.horde_connected),
            external_connections_max: Some(wire::ObtainedLimit {
                value: limit.value,
                strength: Some((&limit.strength).into()),
            }),
            ports: each(&network.ports),
            probes: each(&network.probes),
        }
    }
}

impl TryFrom<wire::EffectiveNetwork> for EffectiveNetwork {
    type Error = Error;
    fn try_from(network: wire::EffectiveNetwork) -> Result<Self, Error> {
        let flag = |told: Option<wire::ObtainedFlag>| {
            let told = need(told, "what was obtained")?;
            let strength = need(told.strength, "a strength")?.into();
            Ok::<_, Error>(Obtained {
                value: told.value,
                strength,
            })
        };
        let limit = need(network.external_connections_max, "what was obtained")?;
        Ok(Self {
            horde_private: flag(network.horde_private)?,
            flock_private: flag(network.flock_private)?,
            horde_connected: flag(network.horde_connected)?,
            external_connections_max: Obtained {
                value: limit.value,
                strength: need(limit.strength, "a strength")?.into(),
            },
            ports: all(network.ports)?,
            probes: network.probes.into_iter().map(Into::into).collect(),
        })
    }
}

impl From<Protocol> for wire::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
        }
    }
}

impl From<&EffectivePort> for wire::EffectivePort {
    fn from(port: &EffectivePort) -> Self {
        let (state, reason) = match &port.state {
            PortState::Waiting => (wire::PortState::Waiting, String::new()),
            PortState::Open => (wire::PortState::Open, String::new()),
            PortState::Refused(reason) => (wire::PortState::Refused, reason.clone()),
        };
        Self {
            address: port.address.to_string(),
            class: port.class.clone(),
            internal_port: port.internal_port.into(),
            state: state.into(),
            reason,
            protocol: wire::Protocol::from(port.protocol).into(),
        }
    }
}

impl TryFrom<wire::EffectivePort> for EffectivePort {
    type Error = Error;
    fn try_from(port: wire::EffectivePort) -> Result<Self, Error> {
        let state = match wire::PortState::try_from(port.state) {
            Ok(wire::PortState::Open) => PortState::Open,
            Ok(wire::PortState::Refused) => PortState::Refused(port.reason),
            Ok(wire::PortState::Waiting | wire::PortState::Unspecified) | Err(_) => {
                PortState::Waiting
            }
        };
        // An older plug-in, which has one door at an address only, does not say it.
        let protocol = match wire::Protocol::try_from(port.protocol) {
            Ok(wire::Protocol::Udp) => Protocol::Udp,
            Ok(wire::Protocol::Tcp | wire::Protocol::Unspecified) | Err(_) => Protocol::Tcp,
        };
        Ok(Self {
            protocol,
            address: port
                .address
                .parse()
                .map_err(|_| unreadable("the address of a door"))?,
            class: port.class,
            internal_port: port_number(port.internal_port)?,
            state,
        })
    }
}

impl From<&NetworkProbe> for wire::NetworkProbe {
    fn from(probe: &NetworkProbe) -> Self {
        Self {
            tried: probe.tried.clone(),
            connected: probe.connected,
            how: probe.how.clone(),
        }
    }
}

impl From<wire::NetworkProbe> for NetworkProbe {
    fn from(probe: wire::NetworkProbe) -> Self {
        Self {
            tried: probe.tried,
            connected: probe.connected,
            how: probe.how,
        }
    }
}
