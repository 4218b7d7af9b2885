//! The little of tar that a bundle needs: regular files with short names, POSIX ustar. What a reader
//! could take in two ways is refused: extensions, links, directories, prefixes, sizes that are not
//! octal, bytes after the end.

const BLOCK: usize = 512;

/// `ustar`, and version 00.
const MAGIC: &[u8] = b"ustar\x0000";

const NAME: std::ops::Range<usize> = 0..100;
const SIZE: std::ops::Range<usize> = 124..136;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const TYPE: usize = 156;
const LINK: std::ops::Range<usize> = 157..257;
const MAGIC_AT: std::ops::Range<usize> = 257..265;
const PREFIX: std::ops::Range<usize> = 345..500;

/// Puts files into an archive.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    /// Adds a file: root's, 0644, of the epoch. Names are ours, and shorter than 100 bytes.
    pub(super) fn add(&mut self, name: &str, content: &[u8]) {
        let mut header = [0; BLOCK];
        put(&mut header[NAME], name.as_bytes());
        put(&mut header[100..108], b"0000644\0");
        put(&mut header[108..116], b"0000000\0");
        put(&mut header[116..124], b"0000000\0");
        put(&mut header[SIZE], format!("{:011o}\0", content.len()).as_bytes());
        put(&mut header[136..148], b"00000000000\0");
        header[TYPE] = b'0';
        put(&mut header[MAGIC_AT], MAGIC);
        put(&mut header[265..269], b"root");
        put(&mut header[297..301], b"root");
        let sum = checksum(&header);
        put(&mut header[CHECKSUM], format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
    }

    /// The archive, with its end.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * BLOCK, 0);
        self.0
    }
}

fn put(field: &mut [u8], bytes: &[u8]) {
    field[..bytes.len()].copy_from_slice(bytes);
}

/// Gets files out of an archive, in their order.
#[derive(Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next file's name and content; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<(&'a str, &'a [u8])>, String> {
        let (header, rest) = self.0.split_at_checked(BLOCK).ok_or("it is cut short")?;
        if header.iter().all(|&byte| byte == 0) {
            return self.end(rest).map(|()| None);
        }
        let name = self.check(header)?;
        let size = octal(&header[SIZE]).ok_or("a size in it is not a number")?;
        let (content, rest) = rest.split_at_checked(size).ok_or("it is cut short")?;
        let padding = size.next_multiple_of(BLOCK) - size;
        let (padding, rest) = rest.split_at_checked(padding).ok_or("it is cut short")?;
        if padding.iter().any(|&byte| byte != 0) {
            return Err(format!("there is something behind `{name}`"));
        }
        self.0 = rest;
        Ok(Some((name, content)))
    }

    fn check(&self, header: &'a [u8]) -> Result<&'a str, String> {
        if header[MAGIC_AT] != *MAGIC {
            return Err("it is not a POSIX tar archive".into());
        }
        if octal(&header[CHECKSUM]) != Some(checksum(header)) {
            return Err("a header in it is damaged".into());
        }
        let name = text(&header[NAME]).ok_or("a name in it is not text")?;
        let empty = |field: &[u8]| field.iter().all(|&byte| byte == 0);
        if header[TYPE] != b'0' || !empty(&header[LINK]) || !empty(&header[PREFIX]) {
            return Err(format!("`{name}` is not a plain file"));
        }
        Ok(name)
    }

    /// Nothing but zeros to the end, and of these a block at least.
    fn end(&mut self, rest: &[u8]) -> Result<(), String> {
        if rest.len() < BLOCK {
            return Err("it is cut short".into());
        }
        if rest.iter().any(|&byte| byte != 0) {
            return Err("there is something behind its end".into());
        }
        Ok(())
    }
}

/// The sum of all bytes, those of the sum itself as spaces.
fn checksum(header: &[u8]) -> usize {
    let sum: usize = header.iter().map(|&byte| usize::from(byte)).sum();
    let own: usize = header[CHECKSUM].iter().map(|&byte| usize::from(byte)).sum();
    sum - own + CHECKSUM.len() * usize::from(b' ')
}

/// Octal digits, ended by NUL or space.
fn octal(field: &[u8]) -> Option<usize> {
    let digits = field.split(|&byte| byte == 0 || byte == b' ').next()?;
    let rest = &field[digits.len()..];
    if digits.is_empty() || rest.is_empty() || rest.iter().any(|byte| !matches!(byte, 0 | b' ')) {
        return None;
    }
    usize::from_str_radix(std::str::from_utf8(digits).ok().filter(|d| !d.starts_with('+'))?, 8).ok()
}

/// Printable ASCII, ended by NUL.
fn text(field: &[u8]) -> Option<&str> {
    let end = field.iter().position(|&byte| byte == 0)?;
    let (name, rest) = field.split_at(end);
    let plain = name.iter().all(|byte| byte.is_ascii_graphic()) && !name.is_empty();
    if !plain || rest.iter().any(|&byte| byte != 0) {
        return None;
    }
    std::str::from_utf8(name).ok()
}
