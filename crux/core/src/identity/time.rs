//! Wall time as identity sees it: whole seconds, and windows of validity.

use std::fmt;

/// How long a leaf is good from the moment it is made. 1 h: short enough that nobody need revoke one.
pub const LEAF_LIFE_SECONDS: u64 = 3_600;
/// How far a leaf is dated back, for clocks that disagree. 30 min: half its life.
pub const LEAF_BACKDATE_SECONDS: u64 = 1_800;
/// The longest validity a leaf may state.
pub const LEAF_LIFE_MAX_SECONDS: u64 = 7_200;
/// How long an operator's grant is good: 90 days.
pub const OPERATOR_LIFE_SECONDS: u64 = 90 * 86_400;
/// The longest validity an operator's or tool's grant may state: 91 days.
pub const GRANT_LIFE_MAX_SECONDS: u64 = 91 * 86_400;
/// The end of what has none: the last second of the year 9999, as RFC 5280 has it.
pub const NEVER: UnixTime = UnixTime(253_402_300_799);

/// A moment of wall time: seconds since 1970 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(u64);

impl UnixTime {
    /// Takes seconds since 1970.
    #[must_use]
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds)
    }

    /// Seconds since 1970.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0
    }

    /// This moment and `seconds` more.
    #[must_use]
    pub const fn plus(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// This moment and `seconds` less; not before 1970.
    #[must_use]
    pub const fn minus(self, seconds: u64) -> Self {
        Self(self.0.saturating_sub(seconds))
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "unix time {}", self.0)
    }
}

/// A span of wall time, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its first second.
    pub from: UnixTime,
    /// Its last second.
    pub until: UnixTime,
}

impl Window {
    /// All of time.
    pub const ALWAYS: Self = Self {
        from: UnixTime(0),
        until: UnixTime(u64::MAX),
    };

    /// Whether `moment` lies in it.
    #[must_use]
    pub fn contains(&self, moment: UnixTime) -> bool {
        self.from <= moment && moment <= self.until
    }

    /// What it has in common with `other`.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            from: self.from.max(other.from),
            until: self.until.min(other.until),
        }
    }

    /// Its length in seconds; 0 when it ends before it begins.
    #[must_use]
    pub const fn seconds(&self) -> u64 {
        self.until.0.saturating_sub(self.from.0)
    }
}
