//! What a script wrote, to a bound: the last bytes are kept, the rest is counted.

use std::collections::VecDeque;

/// The last bytes of a stream, and how many came before them.
#[derive(Debug)]
pub(super) struct Ring {
    bytes: VecDeque<u8>,
    capacity: usize,
    dropped: u64,
}

impl Ring {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { bytes: VecDeque::with_capacity(capacity), capacity, dropped: 0 }
    }

    pub(super) fn push(&mut self, chunk: &[u8]) {
        let surplus = (self.bytes.len() + chunk.len()).saturating_sub(self.capacity);
        let from_ring = surplus.min(self.bytes.len());
        self.bytes.drain(..from_ring);
        let kept = chunk.get(surplus - from_ring..).unwrap_or_default();
        self.bytes.extend(kept);
        self.dropped += surplus as u64;
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The kept bytes as text for a terminal or a log: control characters except line feed and tab
    /// are left out, and so is what is left of an escape sequence's start.
    pub(super) fn text(&self) -> String {
        let bytes: Vec<u8> = self.bytes.iter().copied().collect();
        String::from_utf8_lossy(&bytes)
            .chars()
            .filter(|&c| c == '\n' || c == '\t' || !c.is_control())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Ring;

    #[test]
    fn what_fits_is_kept_whole() {
        let mut ring = Ring::with_capacity(8);
        ring.push(b"abc");
        ring.push(b"defgh");
        assert_eq!(ring.text(), "abcdefgh");
        assert_eq!(ring.dropped(), 0);
    }

    #[test]
    fn the_last_bytes_stay_and_the_others_are_counted() {
        let mut ring = Ring::with_capacity(4);
        ring.push(b"abcdef");
        assert_eq!((ring.text().as_str(), ring.dropped()), ("cdef", 2));
        ring.push(b"g");
        assert_eq!((ring.text().as_str(), ring.dropped()), ("defg", 3));
        ring.push(b"");
        assert_eq!((ring.text().as_str(), ring.dropped()), ("defg", 3));
        ring.push(b"0123456789");
        assert_eq!((ring.text().as_str(), ring.dropped()), ("6789", 13));
    }

    #[test]
    fn no_control_character_reaches_a_terminal() {
        let mut ring = Ring::with_capacity(64);
        ring.push(b"a\x1b[31mb\0c\r\n\td\x07");
        assert_eq!(ring.text(), "a[31mbc\n\td");
    }
}
