//! The format of 9P2000.L's messages, as Linux's `include/net/9p/9p.h` and the protocol's description (diod's protocol.md, intro(5) of
//! Plan 9) have it: size, type and tag, then fields. Numbers are little-endian; a string has its length before it.
//!
//! A request is a row of one table. Its answer has the next number as its type. The crate `p9` keeps its types of this to itself, and
//! the other that has them all is under a licence that does not go with this one's.

/// Bytes of a message's size, type and tag.
pub(super) const HEADER: usize = 7;
/// The type of the answer that says why there is none.
const ERROR: u8 = 7;
/// Names in one walk, at most.
const MAX_NAMES: u16 = 16;

/// Something that is read from the front of a message.
trait Field<'a>: Sized {
    fn take(bytes: &mut &'a [u8]) -> Option<Self>;
}

/// Something that is put at the end of an answer.
pub(super) trait Put {
    fn put(&self, answer: &mut Vec<u8>);
}

macro_rules! numbers {
    ($($type:ty)*) => {$(
        impl<'a> Field<'a> for $type {
            fn take(bytes: &mut &'a [u8]) -> Option<Self> {
                let (number, rest) = bytes.split_first_chunk()?;
                *bytes = rest;
                Some(<$type>::from_le_bytes(*number))
            }
        }

        impl Put for $type {
            fn put(&self, answer: &mut Vec<u8>) {
                answer.extend(self.to_le_bytes());
            }
        }
    )*};
}

numbers!(u8 u16 u32 u64);

/// Takes `count` bytes.
fn take_bytes<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

impl<'a> Field<'a> for &'a [u8] {
    fn take(bytes: &mut &'a [u8]) -> Option<Self> {
        let len = u16::take(bytes)?;
        take_bytes(bytes, len.into())
    }
}

/// A string; of one that is too long, as none of the host's are, the beginning.
impl Put for &[u8] {
    fn put(&self, answer: &mut Vec<u8>) {
        let len = u16::try_from(self.len()).unwrap_or(u16::MAX);
        len.put(answer);
        answer.extend(self.iter().take(len.into()));
    }
}

/// What is to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Data<'a>(pub(super) &'a [u8]);

impl<'a> Field<'a> for Data<'a> {
    fn take(bytes: &mut &'a [u8]) -> Option<Self> {
        let len = u32::take(bytes)?;
        take_bytes(bytes, usize::try_from(len).ok()?).map(Data)
    }
}

impl<'a> Field<'a> for Vec<&'a [u8]> {
    fn take(bytes: &mut &'a [u8]) -> Option<Self> {
        let count = u16::take(bytes).filter(|count| *count <= MAX_NAMES)?;
        (0..count).map(|_| <&[u8]>::take(bytes)).collect()
    }
}

/// A time: seconds and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time(pub(super) u64, pub(super) u64);

impl<'a> Field<'a> for Time {
    fn take(bytes: &mut &'a [u8]) -> Option<Self> {
        Some(Time(u64::take(bytes)?, u64::take(bytes)?))
    }
}

impl Put for Time {
    fn put(&self, answer: &mut Vec<u8>) {
        self.0.put(answer);
        self.1.put(answer);
    }
}

/// What a file is to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Qid {
    /// Whether it is a directory or a symbolic link.
    pub kind: u8,
    /// Changes as the file does.
    pub version: u32,
    /// A number of its own.
    pub path: u64,
}

impl Put for Qid {
    fn put(&self, answer: &mut Vec<u8>) {
        self.kind.put(answer);
        self.version.put(answer);
        self.path.put(answer);
    }
}

macro_rules! requests {
    ($($number:literal $name:ident { $($field:ident: $type:ty),* $(,)? })*) => {
        /// A request.
        #[derive(Clone, Debug)]
        #[expect(dead_code, reason = "a row is all of a message, whatever of it is asked for")]
        pub(super) enum Request<'a> {
            $($name { $($field: $type),* },)*
        }

        impl<'a> Request<'a> {
            fn of(kind: u8, mut bytes: &'a [u8]) -> Option<Self> {
                let bytes = &mut bytes;
                match kind {
                    $($number => Some(Request::$name { $($field: <$type as Field>::take(bytes)?),* }),)*
                    _ => None,
                }
            }
        }
    };
}

requests! {
    8 StatFs { fid: u32 }
    12 Open { fid: u32, flags: u32 }
    14 Create { fid: u32, name: &'a [u8], flags: u32, mode: u32, gid: u32 }
    16 Symlink { dir: u32, name: &'a [u8], target: &'a [u8], gid: u32 }
    18 MakeNode { dir: u32, name: &'a [u8], mode: u32, major: u32, minor: u32, gid: u32 }
    20 Rename { fid: u32, dir: u32, name: &'a [u8] }
    22 ReadLink { fid: u32 }
    24 GetAttr { fid: u32, mask: u64 }
    26 SetAttr { fid: u32, valid: u32, mode: u32, uid: u32, gid: u32, size: u64, accessed: Time, modified: Time }
    30 XattrWalk { fid: u32, new: u32, name: &'a [u8] }
    32 XattrCreate { fid: u32, name: &'a [u8], size: u64, flags: u32 }
    40 ReadDir { fid: u32, offset: u64, count: u32 }
    50 Sync { fid: u32, data_only: u32 }
    52 Lock { fid: u32, kind: u8, flags: u32, start: u64, length: u64, process: u32, client: &'a [u8] }
    54 GetLock { fid: u32, kind: u8, start: u64, length: u64, process: u32, client: &'a [u8] }
    70 Link { dir: u32, fid: u32, name: &'a [u8] }
    72 MakeDir { dir: u32, name: &'a [u8], mode: u32, gid: u32 }
    74 RenameAt { old_dir: u32, old: &'a [u8], new_dir: u32, new: &'a [u8] }
    76 UnlinkAt { dir: u32, name: &'a [u8], flags: u32 }
    100 Version { size: u32, version: &'a [u8] }
    104 Attach { fid: u32, auth: u32, user: &'a [u8], tree: &'a [u8], uid: u32 }
    108 Flush { tag: u16 }
    110 Walk { fid: u32, new: u32, names: Vec<&'a [u8]> }
    116 Read { fid: u32, offset: u64, count: u32 }
    118 Write { fid: u32, offset: u64, data: Data<'a> }
    120 Clunk { fid: u32 }
    122 Remove { fid: u32 }
}

/// A message that came.
pub(super) struct Message<'a> {
    /// The message's type.
    pub kind: u8,
    /// The tag that its answer is known by.
    pub tag: u16,
    /// What it asks for; nothing that is known here if `None`.
    pub request: Option<Request<'a>>,
}

impl<'a> Message<'a> {
    /// The message at the beginning of `bytes`; `None` if there is not even a header.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes;
        let (size, kind, tag) = (u32::take(&mut rest)?, u8::take(&mut rest)?, u16::take(&mut rest)?);
        let body = usize::try_from(size).ok().and_then(|size| bytes.get(HEADER..size));
        Some(Message { kind, tag, request: body.and_then(|body| Request::of(kind, body)) })
    }

    /// The beginning of the answer, to which the fields are put.
    pub(super) fn answer(&self) -> Vec<u8> {
        let [low, high] = self.tag.to_le_bytes();
        vec![0, 0, 0, 0, self.kind.wrapping_add(1), low, high]
    }

    /// The answer that says why there is no other.
    pub(super) fn refusal(&self, code: u32) -> Vec<u8> {
        let mut answer = Message { kind: ERROR - 1, tag: self.tag, request: None }.answer();
        code.put(&mut answer);
        answer
    }
}

/// Writes the size of an answer, which is complete.
pub(super) fn finish(answer: &mut [u8]) {
    let size = u32::try_from(answer.len()).unwrap_or(u32::MAX);
    if let Some(place) = answer.first_chunk_mut() {
        *place = size.to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_is_read_field_by_field() {
        let bytes = b"\x1a\0\0\0\x6e\x07\x01\x01\0\0\0\x02\0\0\0\x02\0\x03\0usr\x02\0\xff\xfeafter";
        let message = Message::parse(bytes).unwrap();
        assert_eq!((message.kind, message.tag), (110, 0x107));
        let Some(Request::Walk { fid: 1, new: 2, names }) = message.request else { panic!() };
        assert_eq!(names, [b"usr" as &[u8], b"\xff\xfe"]);
    }

    #[test]
    fn what_ends_too_soon_is_no_request() {
        let whole = b"\x1a\0\0\0\x6e\x07\x01\x01\0\0\0\x02\0\0\0\x02\0\x03\0usr\x02\0ab";
        for end in 0..whole.len() {
            let message = Message::parse(&whole[..end]);
            assert_eq!(message.is_some(), end >= HEADER, "{end}");
            assert!(message.is_none_or(|message| message.request.is_none()), "{end}");
        }
        // A size that lies, too many names, and a type that is none.
        for bytes in [
            &b"\x06\0\0\0\x78\0\0\x01\0\0\0"[..],
            b"\x11\0\0\0\x6e\0\0\x01\0\0\0\x02\0\0\0\x11\0",
            b"\x07\0\0\0\x66\0\0",
        ] {
            assert!(Message::parse(bytes).unwrap().request.is_none());
        }
    }

    #[test]
    fn answers_have_their_size_and_the_tag() {
        let message = Message::parse(b"\x0b\0\0\0\x78\x02\0\x01\0\0\0").unwrap();
        let mut answer = message.answer();
        (Qid { kind: 0x80, version: 1, path: 2 }).put(&mut answer);
        (b"ab" as &[u8]).put(&mut answer);
        finish(&mut answer);
        assert_eq!(answer, b"\x18\0\0\0\x79\x02\0\x80\x01\0\0\0\x02\0\0\0\0\0\0\0\x02\0ab");
        let mut refusal = message.refusal(2);
        finish(&mut refusal);
        assert_eq!(refusal, b"\x0b\0\0\0\x07\x02\0\x02\0\0\0");
    }
}
