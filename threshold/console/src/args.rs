//! The words of the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::output::Format;

/// Describes, runs and watches distributed applications.
#[derive(Debug, Parser)]
#[command(
    name = "radix",
    version,
    about,
    propagate_version = true,
    arg_required_else_help = true
)]
#[command(
    after_help = "Start here: radix up examples/stix\nExit codes: 0 done, 1 failed, 2 usage or description, 3 unsatisfiable, 4 partial or timed out, 5 refused, 6 changes pending, 75 outcome unknown."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Builds and runs the application described in DIR, and waits until it is ready.
    #[command(after_help = "Examples:\n  radix up examples/stix\n  radix up --yes --timeout 60s")]
    Up(Up),
    /// Shows what `up` would change, and changes nothing.
    #[command(
        after_help = "Examples:\n  radix plan examples/stix\n  radix plan --detailed-exitcode   # 6 when changes are pending"
    )]
    Plan(Plan),
    /// Ends an application; its memoirs stay.
    #[command(
        after_help = "Examples:\n  radix down examples/stix --yes\n  radix down --purge --yes   # everything of this state directory but the owner"
    )]
    Down(Down),
    /// Shows how the application is doing.
    Status(Status),
    /// Lists instances.
    Ps(List),
    /// Lists rnodes.
    #[command(alias = "nodes")]
    Rnodes(List),
    /// Shows the flock: its leader, tenure and members.
    Flock(List),
    /// Lists the service directory.
    Services(List),
    /// Prints what happened, oldest first.
    Events(Events),
    /// Prints the output of instances.
    #[command(after_help = "Examples:\n  radix logs prog2 -f\n  radix logs prog1/0 --stderr")]
    Logs(Logs),
    /// Runs an allowed command on a rnode and passes on its output and exit code.
    #[command(
        after_help = "Examples:\n  radix exec n1 stix/worker -- -rnode n1 -ip 127.0.0.1 -task try\n  radix exec --timeout 5s n2 slave -- -rnode n2 -ip 127.0.0.1 -task try"
    )]
    Exec(Exec),
    /// Calls a method of a rnode with JSON; without METHOD, lists them.
    #[command(
        after_help = "Examples:\n  radix api Describe\n  radix api Fulcrum/Events '{\"follow\":true}' --rnode n1\n  radix api FileIo/Put - < lines.ndjson\n  radix api --openapi\nThe messages: docs/formats/rest.md."
    )]
    Api(Api),
    /// Copies a file or folder to, from or between rnodes; run again, it goes on where it was.
    #[command(
        after_help = "Examples:\n  radix cp prods.csv n1:/var/stix/data/\n  radix cp n1:/var/stix/data n2,n3:/var/stix/data\n  radix cp n1:report ./report\nA path below a mount is absolute, a relative one lies in the rnode's own files."
    )]
    Cp(Cp),
    /// What rnodes must have, whatever happens: kept there, fetched anew when it is lost or damaged.
    #[command(
        subcommand,
        after_help = "Examples:\n  radix need add n1,n2 ./model.bin\n  radix need list\n  radix need switch n1 4f1c2ab9d07e http://10.0.0.9/model.bin\n  radix need drop n1 4f1c2ab9d07e"
    )]
    Need(NeedCommand),
    /// The files and data sets that rnodes have, and what changes them.
    #[command(
        subcommand,
        after_help = "Examples:\n  radix data list n1\n  radix data mount n1 9c0f…e2 /var/app/model\n  radix data unmount n1 /var/app/model"
    )]
    Data(DataCommand),
    /// Checks the description files in DIR: every error in all files at once.
    Check(Check),
    /// Formats description files in place.
    Fmt(Fmt),
    /// Shows one rnode.
    #[command(subcommand, alias = "node")]
    Rnode(RnodeCommand),
    /// Reads memoirs, also of rnodes that are gone.
    #[command(subcommand)]
    Memoir(MemoirCommand),
    /// Enrols you as an operator with an invitation.
    Login(Login),
    /// Grants and invitations of the owner.
    #[command(subcommand)]
    Ca(CaCommand),
    /// Underverse backends.
    #[command(subcommand)]
    Backend(BackendCommand),
    /// The servers of this machine and their tags.
    #[command(subcommand)]
    Server(ServerCommand),
    /// Builds and their records.
    #[command(subcommand)]
    Begat(BegatCommand),
    /// Runs the rnodes of one `.rnodes` file with nothing else of Radix.
    #[command(subcommand)]
    Myriad(MyriadCommand),
    /// Prints a completion script for a shell.
    Completions {
        /// bash, zsh, fish, elvish or powershell.
        shell: clap_complete::Shell,
    },
}

/// Which application.
#[derive(Debug, Args, Clone)]
pub(crate) struct Target {
    /// The directory with the description files.
    #[arg(default_value = ".")]
    pub(crate) dir: PathBuf,
}

/// Which namespace, for commands that look at what runs.
#[derive(Debug, Args, Clone)]
pub(crate) struct Running {
    /// Namespace to look at; the only one that runs, if not given.
    #[arg(short = 'n', long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Answers every question with yes.
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// How long to wait until all is ready.
    #[arg(long, default_value = "120s", value_parser = parse_duration, value_name = "TIME")]
    pub(crate) timeout: std::time::Duration,
    /// Returns once the document is accepted, without waiting.
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Applies this directory although another one was applied last.
    #[arg(long)]
    pub(crate) take_over: bool,
    /// Underverse backend for `myriad` blocks.
    #[arg(long, default_value = "local", value_name = "NAME")]
    pub(crate) backend: String,
}

#[derive(Debug, Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Exits with 6 when something would change.
    #[arg(long)]
    pub(crate) detailed_exitcode: bool,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Underverse backend for `myriad` blocks.
    #[arg(long, default_value = "local", value_name = "NAME")]
    pub(crate) backend: String,
}

#[derive(Debug, Args)]
pub(crate) struct Down {
    /// The directory with the description files; not needed with --namespace or --purge.
    pub(crate) dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) running: Running,
    /// Answers every question with yes.
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Ends everything and leaves only the owner.
    #[arg(long)]
    pub(crate) purge: bool,
    /// How long to wait for the end.
    #[arg(long, default_value = "60s", value_parser = parse_duration, value_name = "TIME")]
    pub(crate) timeout: std::time::Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) running: Running,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) running: Running,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    #[command(flatten)]
    pub(crate) running: Running,
    /// Goes on with what happens next.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Starts after this event's token, such as n1:7.
    #[arg(long, value_name = "TOKEN")]
    pub(crate) after: Option<String>,
    /// How to print; JSON is one object a line.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// `CLASS` or `CLASS/INDEX`; all instances if not given.
    pub(crate) instance: Option<String>,
    #[command(flatten)]
    pub(crate) running: Running,
    /// Goes on with what comes next.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only the standard error stream.
    #[arg(long)]
    pub(crate) stderr: bool,
    /// How many bytes of each stream's end to begin with.
    #[arg(long, default_value_t = 16_384, value_name = "BYTES")]
    pub(crate) tail: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Label of the rnode, such as n1.
    pub(crate) rnode: String,
    /// `CONFIGURATION/COMMAND`, such as stix/worker; the configuration may be left out when there is one.
    pub(crate) command: String,
    /// Arguments for the command.
    #[arg(last = true)]
    pub(crate) args: Vec<String>,
    #[command(flatten)]
    pub(crate) running: Running,
    /// Ends the command after this time (exit code 124).
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub(crate) timeout: Option<std::time::Duration>,
    /// Passes standard input on.
    #[arg(short = 'i', long)]
    pub(crate) stdin: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Api {
    /// `Service/Method`, or any last part of its path that only one method has.
    pub(crate) method: Option<String>,
    /// JSON; `-` reads standard input, `@FILE` a file. `{}` if not given. A line a message where requests stream.
    pub(crate) request: Option<String>,
    /// Label of the rnode to ask, such as n1.
    #[arg(long, default_value = "base", value_name = "LABEL")]
    pub(crate) rnode: String,
    #[command(flatten)]
    pub(crate) running: Running,
    /// Prints the OpenAPI document of all methods.
    #[arg(long, conflicts_with_all = ["method", "request"])]
    pub(crate) openapi: bool,
    /// How to print the list of methods; replies are JSON always.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Cp {
    /// `RNODE:PATH`, or a path of this machine; one of the two is on a rnode. `-` is refused: files are copied, not streams.
    pub(crate) source: String,
    /// `RNODE:PATH`, `RNODE,RNODE:PATH`, `ALL:PATH`, or a path of this machine.
    pub(crate) destination: String,
    /// Folders are copied with all in them; taken for those who are used to it.
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// Between rnodes: the source connects to the destination.
    #[arg(long)]
    pub(crate) push: bool,
    #[command(flatten)]
    pub(crate) running: Running,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) target: Target,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Fmt {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Changes nothing; exits with 1 when a file is not formatted.
    #[arg(long)]
    pub(crate) check: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RnodeCommand {
    /// Name, cluster, resources and the service addresses of a rnode.
    Show {
        /// Label of the rnode, such as n1; `base` for the base rnode.
        label: String,
        #[command(flatten)]
        list: List,
    },
    /// Says whether a user of a rnode may use a file there; if not, exits with 5.
    May {
        /// Label of the rnode, such as n1; `base` for the base rnode.
        label: String,
        /// What the user would do.
        #[arg(value_parser = ["read", "write", "execute"])]
        wish: String,
        /// The file, by its path as the application sees it.
        path: String,
        /// A user of the description, or a number; the rnode's own without it.
        #[arg(long, default_value = "")]
        user: String,
        #[command(flatten)]
        list: List,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum NeedCommand {
    /// States that rnodes need a blob.
    Add {
        /// `RNODE`, `RNODE,RNODE` or `ALL`.
        rnodes: String,
        /// A file of this machine, which is put into the first rnode's store, or the digest of a blob (64 hex digits).
        what: String,
        /// What people call it; the file's name, or the beginning of the digest, if not given.
        #[arg(long)]
        name: Option<String>,
        /// Keeps it as an executable.
        #[arg(long)]
        executable: bool,
        /// Where a read-only copy stands too, below the target of one of the rnodes' mounts.
        #[arg(long, value_name = "PATH")]
        at: Option<String>,
        /// Where it is had from: `rnodes`, `rnode:LABEL`, `http[s]://HOST:PORT/PATH`, `file:PATH`, `block:PATH?BYTES`.
        #[arg(long, value_name = "SERVICE", default_value = "rnodes")]
        from: String,
        #[command(flatten)]
        list: List,
    },
    /// Lists needs and how they stand.
    #[command(name = "list")]
    All {
        /// Label of a rnode; all, if not given.
        rnode: Option<String>,
        #[command(flatten)]
        list: List,
    },
    /// Takes a need back; what came stays until it is removed.
    Drop {
        /// Label of the rnode.
        rnode: String,
        /// The need's id, as listed.
        id: String,
        /// Removes the copy at its path, too.
        #[arg(long)]
        remove: bool,
        #[command(flatten)]
        running: Running,
    },
    /// Has a need served by another data service, once that is known to have the blob.
    Switch {
        /// Label of the rnode.
        rnode: String,
        /// The need's id, as listed.
        id: String,
        /// `rnodes`, `rnode:LABEL`, `http[s]://HOST:PORT/PATH`, or `file:PATH` or `block:PATH?BYTES` of the rnode.
        service: String,
        #[command(flatten)]
        running: Running,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Lists what rnodes have: what is pinned, put by name, in the store, mounted.
    #[command(name = "list")]
    All {
        /// Label of a rnode; all, if not given.
        rnode: Option<String>,
        /// Only what has a name that begins so.
        #[arg(long, default_value = "")]
        prefix: String,
        #[command(flatten)]
        list: List,
    },
    /// Shows a data set that a rnode holds at a path, without copying it, until it is unmounted.
    Mount {
        /// Label of the rnode.
        rnode: String,
        /// The digest of an image in its store (64 hex digits), or the path of an image or folder there.
        what: String,
        /// A missing or empty folder below the target of one of its mounts.
        path: String,
        /// Lets it be written to; not for what is in the store.
        #[arg(long)]
        writable: bool,
        #[command(flatten)]
        list: List,
    },
    /// Takes a mounted data set away; the set itself stays.
    Unmount {
        /// Label of the rnode.
        rnode: String,
        /// Where it is mounted.
        path: String,
        #[command(flatten)]
        running: Running,
    },
    /// Removes a blob that nothing asks for, or a file of a declared root.
    Remove {
        /// Label of the rnode.
        rnode: String,
        /// The digest of a blob (64 hex digits), or a path there.
        what: String,
        #[command(flatten)]
        running: Running,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum MemoirCommand {
    /// Prints a memoir and verifies its chain.
    Read {
        /// `NAMESPACE/LABEL`, or LABEL when it is unique; all are listed without it.
        name: Option<String>,
        /// How to print.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// The line that `radix ca invite` or `radix ca issue` printed for an operator or tool; `-` reads it from standard input.
    #[arg(required_unless_present = "show_key")]
    pub(crate) invitation: Option<String>,
    /// Prints the public key that `radix ca issue` wants, and makes it if there is none; enrols nobody.
    #[arg(long, conflicts_with = "invitation")]
    pub(crate) show_key: bool,
}

/// What a tool may be granted beyond looking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ToolVerb {
    /// To start, run and signal the commands of applications.
    Lifecycle,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Prints an invitation.
    Invite {
        /// Namespace the rnode joins, `base` without it; or the one that an operator or tool is good for.
        #[arg(long)]
        namespace: Option<String>,
        /// Label of the rnode that may join; not needed with --pool or --operator.
        label: Option<String>,
        /// Invites this many rnodes with one invitation.
        #[arg(long, value_name = "COUNT", conflicts_with = "label")]
        pool: Option<u32>,
        /// Invites an operator of this name on another machine, for the namespace given; without --namespace for everything.
        #[arg(long, value_name = "NAME", conflicts_with_all = ["label", "pool"])]
        operator: Option<String>,
        /// Invites a tool of this name, good for the namespace given; without --namespace for everything.
        #[arg(long, value_name = "NAME", conflicts_with_all = ["label", "pool", "operator"])]
        tool: Option<String>,
        /// What the tool may do besides looking: `lifecycle` starts, runs and signals the commands of applications.
        #[arg(long, value_name = "VERBS", value_delimiter = ',', requires = "tool")]
        verbs: Vec<ToolVerb>,
        /// For how many days the operator or tool is let in, from when it comes; 90 without it.
        #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=90), conflicts_with_all = ["label", "pool"])]
        days: Option<u32>,
        /// How long it may be claimed, 1s to 720h; the base revokes it when nobody was met by then, and a 24th later.
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_duration)]
        within: std::time::Duration,
    },
    /// Grants the holder of a public key what an invitation would, with nothing secret to hand over.
    #[command(group = clap::ArgGroup::new("kind").required(true))]
    Issue {
        /// The line that `radix login --show-key` printed on the other machine.
        key: String,
        /// Namespace that it is good for; everything without it.
        #[arg(long)]
        namespace: Option<String>,
        /// Makes an operator of this name.
        #[arg(long, value_name = "NAME", group = "kind")]
        operator: Option<String>,
        /// Makes a tool of this name.
        #[arg(long, value_name = "NAME", group = "kind")]
        tool: Option<String>,
        /// What the tool may do besides looking: `lifecycle` starts, runs and signals the commands of applications.
        #[arg(long, value_name = "VERBS", value_delimiter = ',', requires = "tool")]
        verbs: Vec<ToolVerb>,
        /// For how many days; 90 without it.
        #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=90))]
        days: Option<u32>,
    },
    /// Writes a certificate and key to FILE, for curl and the like, good for an hour.
    Leaf {
        /// The file to make, readable by you alone.
        file: PathBuf,
    },
    /// Denies a rnode, operator, tool, key or invitation for good, and says before what goes with it.
    Deny {
        /// A label of a rnode (`n3`, `stix/n3`), operator or tool, or a whole id in hex.
        #[arg(required = true)]
        names: Vec<String>,
        /// Denies with an operator the rnodes that it enrolled; without this the root vouches for them.
        #[arg(long)]
        with_enrolled: bool,
        /// Why; it is shown wherever the denial is.
        #[arg(long)]
        reason: String,
        /// Does not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Lists what is denied.
    List {
        /// How to print.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Shows the owner: root keys, charter and grants.
    Show,
    /// Replaces the root key and the recovery key; what the old root certified still counts.
    Rotate {
        /// What `radix ca recovery` printed, where it was erased here: without it the old recovery key can still overturn
        /// the rotation. `-` reads it from standard input.
        #[arg(long, value_name = "KEY")]
        recovery: Option<String>,
        /// Does not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Prints the recovery key, which can replace a lost root key.
    Recovery {
        /// Erases it from this machine, once you keep it elsewhere.
        #[arg(long)]
        erase: bool,
    },
    /// Replaces a lost root key by means of the recovery key; ends it where charters stand against each other.
    Recover {
        /// What `radix ca recovery` printed; `-` reads it from standard input.
        key: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum BackendCommand {
    /// Lists the backends: linked in, beside this program and on PATH.
    List {
        /// How to print.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Puts a backend to every promise of the contract, on grounds of its own.
    Check(BackendCheck),
}

/// Which backend is put to the contract, and how the report is printed.
#[derive(Debug, Args)]
pub(crate) struct BackendCheck {
    /// `local`, or the NAME of a plug-in `radix-underverse-NAME`.
    pub(crate) name: String,
    /// Only cases whose name contains this.
    #[arg(long)]
    pub(crate) only: Option<String>,
    /// Runs `local` as a plug-in too.
    #[arg(long)]
    pub(crate) plug_in: bool,
    /// Prints the counts only.
    #[arg(long)]
    pub(crate) counts: bool,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ServerCommand {
    /// Lists the servers, with the tags that were found, given and taken.
    List {
        /// How to print.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Gives tags to a server and takes tags from it; containers that run keep those they were started with.
    Tag {
        /// The server: `local`, or one that a `.rnodes` file declares and that has rnodes.
        server: String,
        /// A tag to give.
        #[arg(long, value_name = "TAG", required_unless_present = "remove")]
        add: Vec<String>,
        /// A tag to take, also one that was found or declared.
        #[arg(long, value_name = "TAG")]
        remove: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum BegatCommand {
    /// Builds what the application in DIR needs.
    Build(Target),
    /// Shows why a product is what it is: its execution record.
    Why {
        /// The product's digest or path.
        product: String,
        /// How to print.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Writes records and products to FILE.
    Export {
        /// The file to make.
        file: PathBuf,
    },
    /// Takes records and products from FILE.
    Import {
        /// The file to read.
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum MyriadCommand {
    /// Starts the processes of a `.rnodes` file.
    Run {
        /// The file.
        file: PathBuf,
    },
    /// Ends everything that `run` started, also after a crash.
    Clean,
}

/// Reads `90s`, `2m`, `1h`, `30d`, `500ms` or plain seconds.
pub(crate) fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    let digits = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number
        .parse()
        .map_err(|_| format!("`{text}` does not begin with a number"))?;
    let milliseconds = match unit {
        "ms" => Some(number),
        "" | "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "d" => number.checked_mul(86_400_000),
        _ => return Err(format!("unknown unit `{unit}`; use ms, s, m, h or d")),
    };
    milliseconds
        .map(std::time::Duration::from_millis)
        .ok_or_else(|| format!("`{text}` is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_words_of_the_command_line_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_are_read_with_and_without_units() {
        let check = |text: &str, expected: Option<u64>| {
            let got = parse_duration(text)
                .ok()
                .map(|duration| duration.as_millis());
            assert_eq!(got, expected.map(u128::from), "{text}");
        };
        check("90s", Some(90_000));
        check("2m", Some(120_000));
        check("7", Some(7_000));
        check("500ms", Some(500));
        check("30d", Some(30 * 86_400_000));
        check("", None);
        check("5x", None);
        check("99999999999999999999s", None);
        check("18446744073709551615h", None);
    }
}
