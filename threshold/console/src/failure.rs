//! What a command says when it fails, and with which exit code.

use std::error::Error;
use std::fmt;
use std::io::ErrorKind;

use crux_core::adf::Diagnostic;
use crux_core::identity::Refusal;
use crux_core::names::LabelError;
use crux_net::identity::refusal_in;

/// Whose fault a failure is; picks the exit code of docs/guide.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// 1: the work failed.
    Failed,
    /// 2: wrong words, a wrong environment, or a description that does not check.
    Usage,
    /// 3: what is asked cannot be satisfied.
    Unsatisfiable,
    /// 4: part of it was done, or time ran out.
    Partial,
    /// 5: policy or authority refused it.
    Refused,
    /// 75: nobody can tell whether it was done.
    Lost,
    /// A code that stands for itself (`exec`).
    Code(u8),
}

impl Fault {
    /// The process exit code.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unsatisfiable => 3,
            Self::Partial => 4,
            Self::Refused => 5,
            Self::Lost => 75,
            Self::Code(code) => code,
        }
    }
}

/// What a refusal in the handshake, which says no more, can mean.
const REFUSED_HINT: &str = "whoever asks was denied here, or let in for a time that is over";

/// A failed command: what, why, and what to do next.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) fault: Fault,
    message: String,
    causes: Vec<String>,
    hints: Vec<String>,
    broken: bool,
}

/// What commands return.
pub(crate) type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// A failure whose message reads after "error: ".
    pub(crate) fn new(fault: Fault, message: impl Into<String>) -> Self {
        Self {
            fault,
            message: message.into(),
            causes: Vec::new(),
            hints: Vec::new(),
            broken: false,
        }
    }

    /// A failure of the work itself.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Fault::Failed, message)
    }

    /// Wrong use or environment.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Fault::Usage, message)
    }

    /// A description with errors, rendered one below the other.
    pub(crate) fn diagnostics(diagnostics: &[Diagnostic]) -> Self {
        let mut text: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
        let errors = diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.is_error())
            .count();
        let plural = if errors == 1 { "" } else { "s" };
        text.push(format!(
            "{errors} error{plural} in the description; nothing was changed"
        ));
        Self::usage(text.join("\n"))
    }

    /// Adds the chain of sources of `error`.
    pub(crate) fn because(mut self, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut source = Some(error);
        while let Some(current) = source {
            let text = match is_fragment(current) {
                true => format!("failed to {current}"),
                false => current.to_string(),
            };
            if self.causes.last() != Some(&text) {
                self.causes.push(text);
            }
            source = current.source();
        }
        self
    }

    /// The same of one of several things, which it names first.
    pub(crate) fn about(mut self, name: &str) -> Self {
        self.message = format!("{name}: {}", self.message);
        self
    }

    /// Adds what the user can do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Another exit code for the same words.
    pub(crate) const fn with_fault(mut self, fault: Fault) -> Self {
        self.fault = fault;
        self
    }

    /// The same, where a connection broke: whoever refuses us may have said why, and not been heard.
    pub(crate) fn broken(mut self, error: &(dyn Error + 'static)) -> Self {
        self.broken = !refuses_us(error);
        self
    }

    /// Whether a connection broke, and nothing says that we are refused.
    pub(crate) const fn is_broken(&self) -> bool {
        self.broken
    }

    /// The same with the alert of whoever refuses us, which tells why the connection broke.
    pub(crate) fn explained(mut self, alert: &std::io::Error) -> Self {
        self.fault = match self.fault {
            // Of `exec`, whose own failures have codes of their own.
            Fault::Code(125) => Fault::Code(126),
            _ => Fault::Refused,
        };
        self.causes.push(unheard(alert));
        self.hint(REFUSED_HINT)
    }

    /// What it says in one line, without hints.
    pub(crate) fn line(&self) -> String {
        let parts = std::iter::once(&self.message).chain(&self.causes);
        parts.cloned().collect::<Vec<_>>().join(": ")
    }

    /// A gRPC answer as a failure: its code picks the fault.
    pub(crate) fn status(doing: &str, status: &tonic::Status) -> Self {
        let fault = match status.code() {
            tonic::Code::InvalidArgument => Fault::Usage,
            tonic::Code::PermissionDenied | tonic::Code::Unauthenticated => Fault::Refused,
            tonic::Code::FailedPrecondition | tonic::Code::Aborted => Fault::Refused,
            tonic::Code::ResourceExhausted => Fault::Unsatisfiable,
            tonic::Code::DeadlineExceeded => Fault::Partial,
            _ => Fault::Failed,
        };
        let failure = Self::new(fault, format!("failed to {doing}: {}", told(status)));
        match status.source().is_some_and(refuses_us) {
            true => failure.with_fault(Fault::Refused).hint(REFUSED_HINT),
            false => match status.source() {
                Some(source) => failure.broken(source),
                None => failure,
            },
        }
    }
}

/// Whether an error is the other side's alert in a handshake, once it has read our certificate; it does not say why.
fn refuses_us(error: &(dyn Error + 'static)) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == ErrorKind::InvalidData)
        || error.source().is_some_and(refuses_us)
}

/// Whether an error is one of ours, whose words read after "failed to", and not one of a library or the system.
fn is_fragment(error: &(dyn Error + 'static)) -> bool {
    error.is::<LabelError>()
        || error.is::<Refusal>()
        || error.is::<crux_net::identity::Error>()
        || error.is::<crux_net::store::Error>()
        || error.is::<fulcrum::error::ConfigError>()
        || error.is::<fulcrum::memoir::MemoirError>()
        || error.is::<fulcrum::memoir::VerifyError>()
        || error.is::<begat::Error>()
        || error.is::<underverse::Error>()
}

/// What a status says, for people: where no answer came, why.
fn told(status: &tonic::Status) -> String {
    let message = status.message();
    match (status.source(), status.code()) {
        (_, tonic::Code::Cancelled | tonic::Code::DeadlineExceeded) => {
            format!("it did not answer in time ({message})")
        }
        // Whoever knows a call says why it does not serve it.
        (_, tonic::Code::Unimplemented) if message.is_empty() => {
            "it runs another version of radix, which does not know this call".to_owned()
        }
        (Some(source), _) => unheard(source),
        (None, _) => message.to_owned(),
    }
}

/// Why a rnode could not be talked to: that it, or we, are refused, that nobody answered in time, or that it is out of reach.
pub(crate) fn unheard(error: &(dyn Error + 'static)) -> String {
    if let Some(refusal) = refusal_in(error) {
        return format!("it is refused here: {refusal}");
    }
    let (mut kind, mut last, mut at) = (None, error, Some(error));
    while let Some(error) = at {
        let io = error.downcast_ref::<std::io::Error>();
        kind = kind.or_else(|| io.map(std::io::Error::kind));
        last = error;
        at = error.source();
    }
    match kind {
        Some(ErrorKind::TimedOut) => "it did not answer in time".to_owned(),
        Some(
            ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::AddrNotAvailable,
        ) => format!("it cannot be reached: {last}"),
        // An alert in the handshake: it does not say why.
        Some(ErrorKind::InvalidData) => format!("it refuses us: {last}"),
        _ => last.to_string(),
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A diagnostic says by itself that it is an error.
        let prefix = match self.message.starts_with("error[") {
            true => "",
            false => "error: ",
        };
        write!(formatter, "{prefix}{}", self.message)?;
        for cause in &self.causes {
            write!(formatter, "\n  because: {cause}")?;
        }
        for hint in &self.hints {
            write!(formatter, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::failed(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rnode_that_was_not_heard_is_told_by_what_went_wrong() {
        let io = |kind: ErrorKind| std::io::Error::from(kind);
        let refusal = crux_core::identity::Refusal::NoCertificate;
        let refused = std::io::Error::new(ErrorKind::InvalidData, refusal);
        let alert = std::io::Error::new(ErrorKind::InvalidData, "received fatal alert");
        for (error, expected) in [
            (refused, "it is refused here: verify an identity"),
            (alert, "it refuses us: received fatal alert"),
            (io(ErrorKind::TimedOut), "it did not answer in time"),
            (
                io(ErrorKind::ConnectionRefused),
                "it cannot be reached: connection refused",
            ),
            (io(ErrorKind::BrokenPipe), "broken pipe"),
        ] {
            let said = unheard(&error);
            assert!(said.starts_with(expected), "{said}");
            let status = tonic::Status::from_error(Box::new(error));
            assert_eq!(told(&status), said, "behind a call");
        }
        let told = |code, text: &str| told(&tonic::Status::new(code, text));
        assert!(told(tonic::Code::Unimplemented, "").contains("another version"));
        assert_eq!(told(tonic::Code::Unimplemented, "no base"), "no base");
        assert_eq!(
            told(tonic::Code::PermissionDenied, "key 7 is denied"),
            "key 7 is denied"
        );
        let late = told(tonic::Code::DeadlineExceeded, "Timeout expired");
        assert!(late.starts_with("it did not answer in time"), "{late}");
    }

    #[test]
    fn a_connection_that_broke_is_explained_by_a_refusal() {
        let error = |kind| std::io::Error::new(kind, "a pipe or an alert");
        let broke = |kind| {
            let status = tonic::Status::from_error(Box::new(error(kind)));
            Failure::status("look", &status)
        };
        let lost = || broke(ErrorKind::BrokenPipe);
        assert_eq!((lost().fault, lost().is_broken()), (Fault::Failed, true));
        assert!(!broke(ErrorKind::InvalidData).is_broken(), "it says why");
        let alert = error(ErrorKind::InvalidData);
        let explained = lost().explained(&alert);
        assert_eq!(explained.fault, Fault::Refused);
        let said = explained.to_string();
        for words in ["a pipe", "because: it refuses us", "was denied here"] {
            assert!(said.contains(words), "{said}");
        }
        let exec = lost().with_fault(Fault::Code(125)).explained(&alert);
        assert_eq!(exec.fault, Fault::Code(126));
        // What a rnode answered is no broken connection.
        assert!(!Failure::status("look", &tonic::Status::unavailable("busy")).is_broken());
    }

    #[test]
    fn each_fault_has_its_documented_code() {
        let codes = [
            (Fault::Failed, 1),
            (Fault::Usage, 2),
            (Fault::Unsatisfiable, 3),
            (Fault::Partial, 4),
            (Fault::Refused, 5),
            (Fault::Lost, 75),
            (Fault::Code(126), 126),
        ];
        for (fault, code) in codes {
            assert_eq!(fault.code(), code);
        }
    }
}
