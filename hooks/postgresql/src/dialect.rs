//! What a server of which version understands.

use stillpoint_hook::sql::Engine;

use crate::statements as s;

/// The oldest version that is known.
pub const OLDEST: u32 = 13;
/// The newest version that this was written for; newer ones are told of, and asked the same.
pub const NEWEST: u32 = 17;

/// A server's version: what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// The major version: 15 of 15.18.
    pub major: u32,
}

impl Dialect {
    /// What a server understands that calls itself so.
    ///
    /// # Errors
    /// In words: another database, or a version that is too old.
    pub fn of(engine: Engine, version: &str) -> Result<Self, String> {
        if engine != Engine::Postgresql {
            return Err("this is not a PostgreSQL server".into());
        }
        let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
        match digits.parse() {
            Ok(major) if major >= OLDEST => Ok(Dialect { major }),
            Ok(_) => Err(format!(
                "PostgreSQL {version} is not supported: versions {OLDEST} to {NEWEST} are"
            )),
            Err(_) => Err(format!("the server's version is not understood: {version:?}")),
        }
    }

    fn since(self, major: u32) -> bool {
        self.major >= major
    }

    /// What the role may do.
    #[must_use]
    pub fn privileges(self) -> &'static str {
        if self.since(15) { s::PRIVILEGES_15 } else { s::PRIVILEGES_13 }
    }

    /// Whether an exclusive backup runs, where there is such a thing.
    #[must_use]
    pub fn exclusive_backup(self) -> Option<&'static str> {
        (!self.since(15)).then_some(s::EXCLUSIVE_13)
    }

    /// The server's own end of an idle session, where it has one.
    #[must_use]
    pub fn idle_timeout(self) -> Option<&'static str> {
        self.since(14).then_some(s::IDLE_TIMEOUT_14)
    }

    /// Begins a base backup.
    #[must_use]
    pub fn backup_start(self) -> &'static str {
        if self.since(15) { s::BACKUP_START_15 } else { s::BACKUP_START_13 }
    }

    /// Ends it.
    #[must_use]
    pub fn backup_stop(self) -> &'static str {
        if self.since(15) { s::BACKUP_STOP_15 } else { s::BACKUP_STOP_13 }
    }

    /// The statements that let a role checkpoint.
    #[must_use]
    pub fn grant_checkpoint(self, role: &str) -> String {
        if self.since(15) {
            format!("GRANT pg_checkpoint TO {role}")
        } else {
            format!(
                "ALTER ROLE {role} SUPERUSER (before version 15 nobody else may CHECKPOINT), or set \
                 mode = \"backup\", which needs no superuser"
            )
        }
    }

    /// The statements that let a role take a base backup.
    #[must_use]
    pub fn grant_backup(self, role: &str) -> String {
        let (start, stop) = if self.since(15) {
            ("pg_backup_start(text, boolean)", "pg_backup_stop(boolean)")
        } else {
            ("pg_start_backup(text, boolean, boolean)", "pg_stop_backup(boolean, boolean)")
        };
        format!("GRANT EXECUTE ON FUNCTION {start}, {stop} TO {role}")
    }
}

/// A name as SQL writes it.
#[must_use]
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_servers_say() {
        for (version, major) in
            [("15.18 (Debian 15.18-0+deb12u1)", 15), ("13.0", 13), ("17beta2", 17), ("18.1", 18)]
        {
            assert_eq!(Dialect::of(Engine::Postgresql, version).unwrap().major, major);
        }
        for version in ["12.22", "9.6.24", "", "devel"] {
            assert!(Dialect::of(Engine::Postgresql, version).is_err(), "{version}");
        }
        assert!(Dialect::of(Engine::Mysql, "15.1").is_err());
    }

    #[test]
    fn what_came_and_went_with_15() {
        let (old, new) = (Dialect { major: 14 }, Dialect { major: 15 });
        assert_eq!(old.backup_start(), s::BACKUP_START_13);
        assert_eq!(old.backup_stop(), s::BACKUP_STOP_13);
        assert_eq!(old.exclusive_backup(), Some(s::EXCLUSIVE_13));
        assert_eq!(new.backup_start(), s::BACKUP_START_15);
        assert_eq!(new.backup_stop(), s::BACKUP_STOP_15);
        assert_eq!(new.exclusive_backup(), None);
        assert_eq!(Dialect { major: 13 }.idle_timeout(), None);
        assert!(old.grant_checkpoint("r").contains("SUPERUSER"));
        assert!(old.grant_backup("r").contains("pg_start_backup(text, boolean, boolean)"));
    }

    #[test]
    fn a_name_is_quoted() {
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
    }
}
