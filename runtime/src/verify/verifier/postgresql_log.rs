//! What PostgreSQL logs about its start.

/// What a server's log says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StartLog {
    /// Where redo began, and where the log ended.
    pub(super) redo: Option<(u64, u64)>,
    /// Prepared transactions that were taken over.
    pub(super) in_doubt: u64,
    /// Lines about pages or records that cannot be right.
    pub(super) corruption: Vec<String>,
    /// Other lines of level ERROR, FATAL or PANIC.
    pub(super) errors: Vec<String>,
    /// It answers.
    pub(super) ready: bool,
}

impl StartLog {
    pub(super) fn parse(text: &str) -> Self {
        let position = |words: &str| text.lines().find_map(|line| lsn_after(line, words));
        // The last record itself begins where redo is done; the log ends where no other was found.
        let end = position("invalid record length at ").or_else(|| position("redo done at "));
        let mut log = Self { redo: position("redo starts at ").zip(end), ..Self::default() };
        for line in text.lines() {
            // A standby is ready for reading alone.
            log.ready |= line.contains("database system is ready to accept");
            log.in_doubt += u64::from(line.contains("recovering prepared transaction"));
            let is_bad = ["ERROR: ", "FATAL: ", "PANIC: "].iter().any(|word| line.contains(word));
            let is_page = ["verification failed", "invalid page", "could not read block"]
                .iter()
                .any(|words| line.contains(words));
            if is_page {
                log.corruption.push(line.to_owned());
            } else if is_bad && !line.contains("the database system is starting up") {
                log.errors.push(line.to_owned());
            }
        }
        log
    }

    /// How much was redone, in bytes of the log; `None` if the log does not say.
    pub(super) fn redo_bytes(&self) -> Option<u64> {
        match self.redo {
            Some((from, to)) => Some(to.saturating_sub(from)),
            None => self.ready.then_some(0),
        }
    }
}

fn lsn_after(line: &str, words: &str) -> Option<u64> {
    let (_, rest) = line.split_once(words)?;
    parse_lsn(rest.split([' ', ':', ',']).next()?)
}

/// `0/19010F0` as a number.
pub(super) fn parse_lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let half = |text| u64::from_str_radix(text, 16).ok();
    Some((half(high)? << 32) | half(low)?)
}

#[cfg(test)]
mod tests {
    use super::{StartLog, parse_lsn};

    /// PostgreSQL 15.18, on a copy that was taken while it ran.
    const LIVE: &str = "\
2026-11-20 10:00:00.000 UTC [7] LOG:  database system was interrupted; last known up at 2026-11-20 09:59:58 UTC
2026-11-20 10:00:00.001 UTC [7] LOG:  database system was not properly shut down; automatic recovery in progress
2026-11-20 10:00:00.002 UTC [7] LOG:  redo starts at 0/1900028
2026-11-20 10:00:00.003 UTC [7] LOG:  invalid record length at 0/1901128: wanted 24, got 0
2026-11-20 10:00:00.003 UTC [7] LOG:  redo done at 0/19010F0 system usage: CPU: user: 0.00 s, system: 0.00 s, elapsed: 0.00 s
2026-11-20 10:00:00.010 UTC [1] LOG:  database system is ready to accept connections
";

    #[test]
    fn redo_is_counted_to_the_end_of_the_log() {
        let log = StartLog::parse(LIVE);
        assert_eq!(log.redo_bytes(), Some(0x1100));
        assert!(log.ready && log.errors.is_empty());
    }

    #[test]
    fn after_a_shutdown_nothing_is_redone() {
        let log = StartLog::parse("LOG:  database system is ready to accept connections\n");
        assert_eq!(log.redo_bytes(), Some(0));
        assert_eq!(StartLog::parse("").redo_bytes(), None);
    }

    #[test]
    fn prepared_transactions_and_bad_pages_are_found() {
        let log = StartLog::parse(
            "LOG:  recovering prepared transaction 741 from shared memory\n\
             WARNING:  page verification failed, calculated checksum 1 but expected 2\n\
             ERROR:  invalid page in block 0 of relation base/5/16384\n\
             FATAL:  could not locate required checkpoint record\n",
        );
        assert_eq!((log.in_doubt, log.corruption.len(), log.errors.len()), (1, 2, 1));
    }

    #[test]
    fn a_position_has_two_halves() {
        assert_eq!(parse_lsn("1/0A"), Some((1 << 32) + 10));
        assert_eq!(parse_lsn("1"), None);
    }
}
