//! Questions and answers as bytes. Pure.
//!
//! Spec: RFC 1035, sections 4.1 and 4.2; RFC 6891 for how large an answer over UDP may be.

use std::net::Ipv4Addr;

use simple_dns::rdata::{A, OPT, RData};
use simple_dns::{
    CLASS, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
};

use super::{Known, Table};

/// Time an answer may be kept by who asked, in seconds. 1: as long as a restart takes, and longer than a table is kept.
pub const TTL_SECONDS: u32 = 1;
/// Bytes of an answer over UDP that every asker takes.
const UDP_BYTES_MIN: usize = 512;
/// Most bytes of an answer over UDP, whatever is asked for: what no link of ours takes apart.
const UDP_BYTES_MAX: u16 = 1232;

/// How an answer travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// One datagram: what is too long is cut off, and said to be.
    Udp,
    /// A connection.
    Tcp,
}

/// The answer to a question; `None` to what is no question, which gets none.
///
/// `turn` decides which address comes first where a name has several.
#[must_use]
pub fn answer(question: &[u8], table: &Table, turn: usize, over: Over) -> Option<Vec<u8>> {
    let asked = Packet::parse(question).ok()?;
    if asked.has_flags(PacketFlag::RESPONSE) {
        return None;
    }
    let mut reply = Packet::new_reply(asked.id());
    reply.set_flags(asked_flags(&asked));
    *reply.opcode_mut() = asked.opcode();
    reply.questions.clone_from(&asked.questions);
    let size = asked.opt().map(|opt| opt.udp_packet_size);
    *reply.opt_mut() = size.map(|_| OPT {
        opt_codes: Vec::new(),
        udp_packet_size: UDP_BYTES_MAX,
        version: 0,
    });
    let known = judge(&asked, table);
    let code = match &known {
        Ok(_) => RCODE::NoError,
        Err(code) => *code,
    };
    *reply.rcode_mut() = code;
    if code != RCODE::Refused {
        reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
    }
    let addresses = known.unwrap_or_default();
    let first = turn % addresses.len().max(1);
    let (later, sooner) = addresses.split_at(first);
    for address in sooner.iter().chain(later) {
        reply.answers.push(record(&asked.questions[0], *address));
    }
    let bytes = reply.build_bytes_vec_compressed().ok()?;
    let room = usize::from(size.unwrap_or_default().min(UDP_BYTES_MAX)).max(UDP_BYTES_MIN);
    if over == Over::Tcp || bytes.len() <= room {
        return Some(bytes);
    }
    reply.answers.clear();
    reply.set_flags(PacketFlag::TRUNCATION);
    reply.build_bytes_vec_compressed().ok()
}

fn asked_flags(asked: &Packet<'_>) -> PacketFlag {
    if asked.has_flags(PacketFlag::RECURSION_DESIRED) {
        PacketFlag::RECURSION_DESIRED
    } else {
        PacketFlag::empty()
    }
}

/// The addresses to answer with, none where the name has nothing of the kind, or why there is no answer.
fn judge(asked: &Packet<'_>, table: &Table) -> Result<Vec<Ipv4Addr>, RCODE> {
    if asked.opcode() != OPCODE::StandardQuery {
        return Err(RCODE::NotImplemented);
    }
    let [question] = asked.questions.as_slice() else {
        return Err(RCODE::FormatError);
    };
    let part = |part: &[u8]| String::from_utf8(part.to_ascii_lowercase()).unwrap_or_default();
    let parts: Vec<String> = question.qname.as_bytes().map(part).collect();
    let internet = matches!(question.qclass, QCLASS::ANY | QCLASS::CLASS(CLASS::IN));
    match table.look(&parts) {
        Known::Addresses(_) if !internet => Ok(Vec::new()),
        Known::Addresses(addresses) => match question.qtype {
            QTYPE::ANY | QTYPE::TYPE(TYPE::A) => Ok(addresses),
            _ => Ok(Vec::new()),
        },
        Known::Nobody => Err(RCODE::NameError),
        Known::Foreign => Err(RCODE::Refused),
    }
}

fn record<'a>(question: &Question<'a>, address: Ipv4Addr) -> ResourceRecord<'a> {
    let data = RData::A(A {
        address: address.into(),
    });
    ResourceRecord::new(question.qname.clone(), CLASS::IN, TTL_SECONDS, data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::Name;

    fn table(members: u8) -> Table {
        let mut table = Table::of("shire");
        for member in 1..=members {
            let address = Ipv4Addr::new(198, 18, 1, member);
            table.add("shire", &format!("n{member}"), address);
            table.add("shire", "hobbit", address);
        }
        table
    }

    fn question(name: &str, kind: QTYPE) -> Packet<'_> {
        let mut packet = Packet::new_query(7);
        let name = Name::new(name).unwrap();
        let class = QCLASS::CLASS(CLASS::IN);
        packet
            .questions
            .push(Question::new(name, kind, class, false));
        packet
    }

    /// Code, flags and addresses of the answer.
    fn told(bytes: &[u8]) -> (RCODE, bool, Vec<u8>) {
        let packet = Packet::parse(bytes).unwrap();
        assert_eq!(packet.id(), 7);
        assert!(packet.has_flags(PacketFlag::RESPONSE));
        let last = |record: &ResourceRecord<'_>| match &record.rdata {
            RData::A(a) => Ipv4Addr::from(a.address).octets()[3],
            other => panic!("{other:?}"),
        };
        assert!(
            packet
                .answers
                .iter()
                .all(|record| record.ttl == TTL_SECONDS)
        );
        let cut = packet.has_flags(PacketFlag::TRUNCATION);
        (
            packet.rcode(),
            cut,
            packet.answers.iter().map(last).collect(),
        )
    }

    fn asked(name: &str, kind: QTYPE, turn: usize) -> (RCODE, bool, Vec<u8>) {
        let bytes = question(name, kind).build_bytes_vec().unwrap();
        told(&answer(&bytes, &table(3), turn, Over::Udp).unwrap())
    }

    #[test]
    fn a_name_has_its_addresses_in_turn_and_nothing_of_another_kind() {
        let a = QTYPE::TYPE(TYPE::A);
        assert_eq!(asked("n2", a, 0), (RCODE::NoError, false, vec![2]));
        assert_eq!(asked("N2.Shire", a, 0), (RCODE::NoError, false, vec![2]));
        assert_eq!(
            asked("hobbit", a, 1),
            (RCODE::NoError, false, vec![2, 3, 1])
        );
        let aaaa = QTYPE::TYPE(TYPE::AAAA);
        assert_eq!(asked("n2", aaaa, 0), (RCODE::NoError, false, vec![]));
        assert_eq!(asked("n9", a, 0), (RCODE::NameError, false, vec![]));
        assert_eq!(asked("example.org", a, 0), (RCODE::Refused, false, vec![]));
    }

    #[test]
    fn what_is_too_long_for_a_datagram_is_cut_and_comes_over_a_connection() {
        let mut packet = question("hobbit", QTYPE::TYPE(TYPE::A));
        let table = table(60);
        let bytes = packet.build_bytes_vec().unwrap();
        let udp = told(&answer(&bytes, &table, 0, Over::Udp).unwrap());
        assert_eq!(udp, (RCODE::NoError, true, vec![]));
        let tcp = told(&answer(&bytes, &table, 0, Over::Tcp).unwrap());
        assert_eq!((tcp.1, tcp.2.len()), (false, 60));
        *packet.opt_mut() = Some(OPT {
            opt_codes: Vec::new(),
            udp_packet_size: 4096,
            version: 0,
        });
        let bytes = packet.build_bytes_vec().unwrap();
        let large = told(&answer(&bytes, &table, 0, Over::Udp).unwrap());
        assert_eq!((large.1, large.2.len()), (false, 60));
    }

    #[test]
    fn what_is_no_question_is_not_answered_or_refused_by_name() {
        let question = question("n1", QTYPE::TYPE(TYPE::A))
            .build_bytes_vec()
            .unwrap();
        let reply = answer(&question, &table(1), 0, Over::Udp).unwrap();
        assert_eq!(answer(&reply, &table(1), 0, Over::Udp), None);
        for end in 0..question.len() {
            let cut = answer(&question[..end], &table(1), 0, Over::Udp);
            assert!(
                cut.is_none() || told(&cut.unwrap()).0 != RCODE::NoError,
                "{end}"
            );
        }
        let none = Packet::new_query(7).build_bytes_vec().unwrap();
        let (code, ..) = told(&answer(&none, &table(1), 0, Over::Udp).unwrap());
        assert_eq!(code, RCODE::FormatError);
    }
}
