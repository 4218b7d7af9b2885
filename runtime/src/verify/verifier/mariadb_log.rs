//! What MariaDB (and MySQL) log about their start.

/// What a server's error log says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StartLog {
    /// How much of InnoDB's log was applied, in bytes; `None` if the log does not say.
    pub(super) redo_bytes: Option<u64>,
    /// Transactions that were rolled back.
    pub(super) rolled_back: u64,
    /// Transactions that were found prepared; the binary log, or nobody, decided them.
    pub(super) in_doubt: u64,
    /// Rollbacks go on in the background, and have not ended.
    pub(super) rolling_back: bool,
    /// Tables that were not closed, or are marked as crashed.
    pub(super) crashed_tables: Vec<String>,
    /// Lines about pages that cannot be right.
    pub(super) corruption: Vec<String>,
    /// Other lines of level ERROR.
    pub(super) errors: Vec<String>,
    /// It answers.
    pub(super) ready: bool,
}

/// Errors that come from how we start it, and say nothing about the data.
const OURS: [&str; 2] = ["mysql.plugin table", "Could not open mysql.servers"];

impl StartLog {
    pub(super) fn parse(text: &str) -> Self {
        let mut log = Self::default();
        let (mut checkpoint, mut end) = (None, None);
        for line in text.lines() {
            checkpoint = checkpoint.or(number_after(line, "crash recovery from checkpoint LSN="));
            end = end.or(number_after(line, "End of log at LSN="));
            log.in_doubt += u64::from(line.contains("was in the XA prepared state"));
            log.rolled_back += u64::from(line.contains("Rolled back recovered transaction"));
            // MySQL, of transactions that the binary log does not know.
            log.rolled_back += number_after(line, "rolled back ").unwrap_or(0);
            log.rolling_back |= line.contains("Starting in background the rollback");
            log.rolling_back &= !line.contains("Rollback of non-prepared transactions completed");
            log.ready |= line.contains("ready for connections");
            log.sort(line);
        }
        log.redo_bytes = match (checkpoint, end) {
            (Some(checkpoint), Some(end)) => Some(end.saturating_sub(checkpoint)),
            // Nothing was to be done.
            (None, _) if log.ready => Some(0),
            _ => None,
        };
        log
    }

    fn sort(&mut self, line: &str) {
        let is_error = line.contains("[ERROR]") && OURS.iter().all(|words| !line.contains(words));
        if line.contains("marked as crashed") || line.contains("hasn't closed the table") {
            self.crashed_tables.push(without_time(line));
            return;
        }
        let lines = match line.contains("corrupt") {
            true => &mut self.corruption,
            false => &mut self.errors,
        };
        let line = without_time(line);
        if is_error && !lines.contains(&line) {
            lines.push(line);
        }
    }
}

fn number_after(line: &str, words: &str) -> Option<u64> {
    let (_, rest) = line.split_once(words)?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// `2026-11-20 23:42:04 0 [Note] text` → `[Note] text`.
fn without_time(line: &str) -> String {
    line.find('[').and_then(|at| line.get(at..)).unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::StartLog;

    /// MariaDB 10.11.19, on a copy that was taken without anything held.
    const CRASH: &str = "\
2026-11-20 23:42:04 0 [Note] InnoDB: Starting crash recovery from checkpoint LSN=44404
2026-11-20 23:42:04 0 [Note] InnoDB: End of log at LSN=53394
2026-11-20 23:42:04 0 [Note] InnoDB: Transaction 31 was in the XA prepared state.
2026-11-20 23:42:04 0 [Note] InnoDB: 2 transaction(s) which must be rolled back or cleaned up in total 2000 row operations to undo
2026-11-20 23:42:04 0 [Note] InnoDB: Starting in background the rollback of recovered transactions
2026-11-20 23:42:04 0 [Note] InnoDB: Rolled back recovered transaction 27
2026-11-20 23:42:04 0 [Note] InnoDB: Rollback of non-prepared transactions completed
2026-11-20 23:42:04 0 [Note] Recovering after a crash using /srv/binlog/log/binlog
2026-11-20 23:42:04 0 [Note] mariadbd: ready for connections.
";

    #[test]
    fn redo_rollback_and_doubt_are_counted() {
        let log = StartLog::parse(CRASH);
        assert_eq!(log.redo_bytes, Some(53394 - 44404));
        assert_eq!((log.rolled_back, log.in_doubt, log.rolling_back), (1, 1, false));
        assert!(log.ready && log.errors.is_empty() && log.corruption.is_empty());
    }

    #[test]
    fn a_rollback_in_the_background_is_waited_for() {
        let text: String = CRASH.lines().take(5).map(|line| format!("{line}\n")).collect();
        assert!(StartLog::parse(&text).rolling_back);
    }

    #[test]
    fn a_clean_start_has_nothing_to_tell() {
        let log = StartLog::parse(
            "2026-11-20 23:42:05 0 [Note] InnoDB: End of log at LSN=53508\n\
             2026-11-20 23:42:05 0 [Note] InnoDB: log sequence number 53508 (memory-mapped); transaction id 35\n\
             2026-11-20 23:42:05 0 [Note] mariadbd: ready for connections.\n",
        );
        assert_eq!(log, StartLog { redo_bytes: Some(0), ready: true, ..StartLog::default() });
    }

    #[test]
    fn a_torn_page_and_an_unclosed_table_are_told_apart_from_other_errors() {
        let log = StartLog::parse(
            "2026-11-20 23:42:07 0 [ERROR] InnoDB: Failed to read page 3 from file './lab/a.ibd': Page read from tablespace is corrupted.\n\
             2026-11-20 23:42:07 0 [ERROR] mariadbd: Table './lab/m' is marked as crashed and should be repaired\n\
             2026-11-20 23:42:07 0 [ERROR] Could not open mysql.plugin table: \"Table doesn't exist\"\n\
             2026-11-20 23:42:07 0 [ERROR] Aborting\n",
        );
        assert_eq!(log.corruption.len(), 1);
        assert!(log.corruption[0].contains("./lab/a.ibd"));
        assert_eq!(log.crashed_tables.len(), 1);
        assert_eq!(log.errors, ["[ERROR] Aborting"]);
        assert_eq!(log.redo_bytes, None);
    }
}
