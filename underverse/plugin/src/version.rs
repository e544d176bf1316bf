//! Which version of the protocol two sides speak, and how their connection begins.

use crate::wire;

/// Oldest version of the protocol spoken here.
pub const VERSION_MIN: u32 = 1;
/// Newest version of the protocol spoken here.
pub const VERSION_MAX: u32 = 1;
/// Says to a plug-in that its standard input is a connection to its caller.
pub const PLUGIN_VARIABLE: &str = "RADIX_UNDERVERSE_PLUGIN";
/// Largest message between caller and plug-in, in bytes: a horde of ten thousand containers, told in full.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// The newest version in both ranges.
#[must_use]
pub(crate) fn agree(ours: (u32, u32), theirs: (u32, u32)) -> Option<u32> {
    let (low, high) = (ours.0.max(theirs.0), ours.1.min(theirs.1));
    (low >= 1 && low <= high).then_some(high)
}

/// Our greeting.
pub(crate) fn hello() -> wire::HelloRequest {
    wire::HelloRequest {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        caller: concat!("radix ", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::agree;

    #[test]
    fn the_newest_version_that_both_speak_is_taken() {
        let cases = [
            ((1, 1), (1, 1), Some(1)),
            ((1, 3), (2, 5), Some(3)),
            ((2, 5), (1, 3), Some(3)),
            ((1, 1), (2, 3), None),
            ((4, 5), (1, 3), None),
            ((1, 2), (0, 0), None),
            ((0, 0), (0, 0), None),
            ((1, u32::MAX), (7, 7), Some(7)),
        ];
        for (ours, theirs, expected) in cases {
            assert_eq!(agree(ours, theirs), expected, "{ours:?} {theirs:?}");
        }
    }
}
