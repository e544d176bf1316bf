//! The flags of both programs, in the form that the Chronicles print: `-rnode n1 -ip 127.0.0.1`.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// What the command line said, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flags {
    /// `-rnode`: the rnode it runs on, for people.
    pub rnode: String,
    /// `-ip`: the address to listen on.
    pub ip: IpAddr,
    /// `-task`: what it calls itself, for people.
    pub task: String,
    /// Every other flag with its value; flags without one hold an empty text.
    pub others: BTreeMap<String, String>,
}

/// Flags that stand alone.
const SWITCHES: [&str; 1] = ["no-agent"];

impl Flags {
    /// Reads the arguments after the program's name; `known` are the flags besides the common ones.
    ///
    /// # Errors
    /// One sentence for people: what is missing, unknown or wrong.
    pub fn parse(
        arguments: impl IntoIterator<Item = String>,
        known: &[&str],
    ) -> Result<Self, String> {
        let mut given = BTreeMap::new();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let name = argument.trim_start_matches('-');
            if !argument.starts_with('-') || !is_known(name, known) {
                return Err(format!("`{argument}` is no flag; known: {}", listed(known)));
            }
            let value = match SWITCHES.contains(&name) {
                true => String::new(),
                false => arguments
                    .next()
                    .ok_or_else(|| format!("-{name} needs a value"))?,
            };
            given.insert(name.to_owned(), value);
        }
        let mut take = |name: &str| {
            given
                .remove(name)
                .ok_or_else(|| format!("-{name} is missing"))
        };
        let ip = take("ip")?;
        Ok(Self {
            rnode: take("rnode")?,
            ip: ip
                .parse()
                .map_err(|_| format!("-ip {ip} is no IP address"))?,
            task: take("task")?,
            others: given,
        })
    }

    /// The value of a flag that is not one of the common ones.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.others.get(name).map(String::as_str)
    }

    /// A port given by flag `name`, or `default`.
    ///
    /// # Errors
    /// One sentence if it is no port.
    pub fn port(&self, name: &str, default: u16) -> Result<u16, String> {
        let read = |text: &str| {
            text.parse()
                .map_err(|_| format!("-{name} {text} is no port"))
        };
        self.get(name).map_or(Ok(default), read)
    }

    /// Whether it runs without an agent.
    #[must_use]
    pub fn alone(&self) -> bool {
        self.others.contains_key("no-agent")
    }
}

fn is_known(name: &str, known: &[&str]) -> bool {
    ["rnode", "ip", "task"].contains(&name) || SWITCHES.contains(&name) || known.contains(&name)
}

fn listed(known: &[&str]) -> String {
    let names: Vec<String> = ["rnode", "ip", "task"]
        .iter()
        .chain(known)
        .map(|name| format!("-{name}"))
        .collect();
    format!("{}, --no-agent", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Flags, String> {
        Flags::parse(
            line.split_whitespace().map(str::to_owned),
            &["prod", "port"],
        )
    }

    #[test]
    fn the_printed_recipe_is_understood() {
        let flags =
            parse("-rnode n1 -ip 127.0.0.1 -task worker1 -prod /var/stix/prods.csv").unwrap();
        assert_eq!(
            (flags.rnode.as_str(), flags.task.as_str()),
            ("n1", "worker1")
        );
        assert_eq!(flags.get("prod"), Some("/var/stix/prods.csv"));
        assert_eq!(flags.port("port", 45271), Ok(45271));
        assert!(!flags.alone());
    }

    #[test]
    fn wrong_flags_are_named() {
        assert!(
            parse("-rnode n1 -ip here -task t")
                .unwrap_err()
                .contains("-ip here")
        );
        assert!(
            parse("-rnode n1 -task t")
                .unwrap_err()
                .contains("-ip is missing")
        );
        assert!(parse("-rnode").unwrap_err().contains("needs a value"));
        assert!(parse("-speed 3").unwrap_err().contains("-speed"));
    }
}
