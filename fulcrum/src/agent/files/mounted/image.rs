//! What an image of a file system is, by its first bytes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A file system that is mounted from an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Squashfs,
    Erofs,
    Ext4,
}

/// Form, where its magic stands, its magic.
const MAGICS: [(Form, usize, &[u8]); 3] = [
    (Form::Squashfs, 0, b"hsqs"),
    (Form::Erofs, 1024, &0xE0F5_E1E2_u32.to_le_bytes()),
    (Form::Ext4, 1080, &0xEF53_u16.to_le_bytes()),
];

impl Form {
    /// Looks at the first bytes of a file; `None` if it is none of these.
    pub(super) fn of(file: &File) -> io::Result<Option<Self>> {
        let mut head = [0; 2048];
        let mut length = 0;
        while length < head.len() {
            match file.read_at(&mut head[length..], length as u64)? {
                0 => break,
                more => length += more,
            }
        }
        let bears = |(_, at, magic): &&(Self, usize, &[u8])| head[*at..].starts_with(magic);
        Ok(MAGICS.iter().find(bears).map(|(form, _, _)| *form))
    }

    /// As the kernel calls it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Squashfs => "squashfs",
            Self::Erofs => "erofs",
            Self::Ext4 => "ext4",
        }
    }

    /// Options without which the kernel would write to it, or not mount it read-only.
    pub(super) const fn options(self, writable: bool) -> Option<&'static str> {
        match self {
            Self::Ext4 if !writable => Some("noload"),
            Self::Squashfs | Self::Erofs | Self::Ext4 => None,
        }
    }

    /// Whether it can be written to at all.
    pub(super) const fn writable(self) -> bool {
        matches!(self, Self::Ext4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_known_by_its_magic_and_nothing_else_is_one() {
        let at = std::env::temp_dir().join(format!("radix-image-{}", std::process::id()));
        let check = |bytes: &[u8], expected: Option<Form>| {
            std::fs::write(&at, bytes).unwrap();
            assert_eq!(Form::of(&File::open(&at).unwrap()).unwrap(), expected);
        };
        let with = |offset: usize, magic: &[u8]| {
            let mut bytes = vec![0; 4096];
            bytes[offset..offset + magic.len()].copy_from_slice(magic);
            bytes
        };
        check(b"hsqs", Some(Form::Squashfs));
        check(&with(1024, &[0xE2, 0xE1, 0xF5, 0xE0]), Some(Form::Erofs));
        check(&with(1080, &[0x53, 0xEF]), Some(Form::Ext4));
        check(&with(1, b"hsqs"), None);
        check(b"", None);
        std::fs::remove_file(&at).unwrap();
    }
}
