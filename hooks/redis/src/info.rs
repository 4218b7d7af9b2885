//! `INFO`: what the server says of itself at one moment. Pure: text to a struct.

use std::collections::BTreeMap;

use stillpoint_hook::HookError;

/// A server's version, as it speaks of its compatibility: a Valkey says 7.2.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u16, pub u16, pub u16);

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(|part| part.parse().ok());
        Some(Version(numbers.next()??, numbers.next()??, numbers.next()??))
    }
}

/// One answer to `INFO`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info(BTreeMap<String, String>);

impl Info {
    /// From the server's text: `name:value` lines, and headings.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let entries = text.lines().filter(|line| !line.starts_with('#'));
        let entries = entries.filter_map(|line| line.trim_end().split_once(':'));
        Info(entries.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// A field's text; empty if the server has none.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// A field's number, if there is one.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i64> {
        self.text(name).parse().ok()
    }

    fn is_set(&self, name: &str) -> bool {
        self.text(name) == "1"
    }

    /// A field that every server of a known version has.
    ///
    /// # Errors
    /// [`HookError::Internal`] if this one has not.
    pub fn required(&self, name: &str) -> Result<i64, HookError> {
        self.number(name)
            .ok_or_else(|| HookError::Internal(["the server's INFO has no `", name, "`"].concat()))
    }

    /// The version.
    ///
    /// # Errors
    /// If there is none that can be read.
    pub fn version(&self) -> Result<Version, HookError> {
        let text = self.text("redis_version");
        Version::parse(text).ok_or_else(|| {
            let message = ["this is not a version of Redis: ", text].concat();
            HookError::application("version", message, false)
        })
    }

    /// Another one after each start of the server.
    #[must_use]
    pub fn run_id(&self) -> &str {
        self.text("run_id")
    }

    /// The server's clock, in milliseconds since 1970.
    ///
    /// # Errors
    /// If it does not tell.
    pub fn clock_ms(&self) -> Result<u64, HookError> {
        let microseconds = self.required("server_time_usec")?;
        u64::try_from(microseconds / 1000)
            .map_err(|_| HookError::Internal("the server's clock is before 1970".into()))
    }

    /// It reads its files, and so has not all of its data.
    #[must_use]
    pub fn loading(&self) -> bool {
        self.is_set("loading") || self.is_set("async_loading")
    }

    /// It copies another server's data.
    #[must_use]
    pub fn replica(&self) -> bool {
        self.text("role") == "slave"
    }

    /// A replica that gets a whole copy of its master's data right now.
    #[must_use]
    pub fn syncing(&self) -> bool {
        self.is_set("master_sync_in_progress")
    }

    /// A part of a cluster.
    #[must_use]
    pub fn cluster(&self) -> bool {
        self.is_set("cluster_enabled")
    }

    /// The append-only file is on.
    #[must_use]
    pub fn aof(&self) -> bool {
        self.is_set("aof_enabled")
    }

    /// An AOF rewrite runs, or waits for something else to end.
    #[must_use]
    pub fn rewriting(&self) -> bool {
        self.is_set("aof_rewrite_in_progress") || self.is_set("aof_rewrite_scheduled")
    }

    /// An RDB file is being written.
    #[must_use]
    pub fn saving(&self) -> bool {
        self.is_set("rdb_bgsave_in_progress")
    }

    /// Keys in all databases.
    #[must_use]
    pub fn keys(&self) -> i64 {
        let databases = self.0.iter().filter(|(name, _)| {
            name.strip_prefix("db").is_some_and(|n| !n.is_empty() && n.parse::<u32>().is_ok())
        });
        databases
            .filter_map(|(_, fields)| fields.strip_prefix("keys=")?.split(',').next()?.parse().ok())
            .fold(0, |sum: i64, keys: i64| sum.saturating_add(keys))
    }

    /// Whether somebody paused writes, and for how many milliseconds more; `None` if the server does
    /// not tell (before 8.0).
    #[must_use]
    pub fn paused_ms(&self) -> Option<u64> {
        match self.text("paused_reason") {
            "" => None,
            "none" => Some(0),
            _ => {
                let left = self.number("paused_timeout_milliseconds").unwrap_or(i64::MAX);
                Some(u64::try_from(left).unwrap_or(0).max(1))
            }
        }
    }
}

/// What does not move while nothing is written: taken under the pause, and compared after the thaw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks {
    run_id: String,
    role: String,
    replication_id: String,
    /// Changes since the last RDB file.
    changes: i64,
    saves: (Option<i64>, Option<i64>),
    aof: Option<Aof>,
}

/// Where the AOF ends.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Aof {
    size: i64,
    rewrites: Option<i64>,
}

impl Marks {
    /// From an answer of the server.
    ///
    /// # Errors
    /// If it lacks a field.
    pub fn of(info: &Info) -> Result<Self, HookError> {
        let aof = match info.aof() {
            false => None,
            true => Some(Aof {
                size: info.required("aof_current_size")?,
                rewrites: info.number("aof_rewrites"),
            }),
        };
        Ok(Marks {
            run_id: info.run_id().to_owned(),
            role: info.text("role").to_owned(),
            replication_id: info.text("master_replid").to_owned(),
            changes: info.required("rdb_changes_since_last_save")?,
            saves: (info.number("rdb_saves"), info.number("rdb_last_save_time")),
            aof,
        })
    }

    /// Nothing was written between these marks and `now`.
    ///
    /// The counter of changes counts every change of a key; a finished RDB file sets it back to the changes
    /// since that was begun, which are none if nothing was written. The AOF's size counts bytes, except
    /// across a rewrite. The replication offset is no mark: it also counts a master's pings.
    ///
    /// # Errors
    /// What moved, in words.
    pub fn compare(&self, now: &Info) -> Result<(), String> {
        let later = Marks::of(now).map_err(|error| error.message().to_owned())?;
        if later.run_id != self.run_id {
            return Err("the server was restarted".into());
        }
        if later.role != self.role || later.replication_id != self.replication_id {
            return Err("the server's role in replication changed".into());
        }
        if now.loading() || now.syncing() {
            return Err("the server began to load other data".into());
        }
        let expected = if later.saves == self.saves { self.changes } else { 0 };
        if later.changes != expected {
            return Err(format!(
                "{} changes since the last RDB file, where {expected} were to be",
                later.changes
            ));
        }
        match (&self.aof, &later.aof) {
            (Some(then), Some(now)) if then.rewrites == now.rewrites && then.size != now.size => {
                Err(format!("the AOF had {} bytes, and has {}", then.size, now.size))
            }
            (Some(_), None) | (None, Some(_)) => Err("the AOF was switched on or off".into()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(more: &str) -> Info {
        let base = "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\nserver_time_usec:1700000000123456\r\n\
             role:master\r\nmaster_replid:r1\r\nrdb_changes_since_last_save:5\r\nrdb_saves:1\r\n\
             rdb_last_save_time:17\r\naof_enabled:1\r\naof_current_size:100\r\naof_rewrites:0\r\n\
             loading:0\r\n\r\n# Keyspace\r\ndb0:keys=3,expires=0\r\ndb12:keys=4,expires=1\r\n";
        Info::parse(&[base, more].concat())
    }

    #[test]
    fn fields_are_read_as_the_server_writes_them() {
        let info = info("");
        assert_eq!(info.version().unwrap(), Version(7, 0, 15));
        assert_eq!(info.clock_ms().unwrap(), 1_700_000_000_123);
        assert_eq!(info.keys(), 7);
        assert!(info.aof() && !info.replica() && !info.loading() && !info.cluster());
        assert_eq!(info.paused_ms(), None);
        assert!(info.required("nothing").unwrap_err().message().contains("`nothing`"));
    }

    #[test]
    fn newer_servers_tell_that_they_are_paused() {
        assert_eq!(info("paused_reason:none\r\n").paused_ms(), Some(0));
        let paused = "paused_reason:client_pause\r\npaused_timeout_milliseconds:250\r\n";
        assert_eq!(info(paused).paused_ms(), Some(250));
        assert_eq!(info("paused_reason:failover_in_progress\r\n").paused_ms(), Some(u64::MAX >> 1));
    }

    #[test]
    fn every_mark_that_moves_is_seen() {
        let then = Marks::of(&info("")).unwrap();
        assert_eq!(then.compare(&info("")), Ok(()));
        for (moved, said) in [
            ("run_id:xyz", "restarted"),
            ("role:slave", "role"),
            ("master_replid:r2", "role"),
            ("loading:1", "load"),
            ("master_sync_in_progress:1", "load"),
            ("rdb_changes_since_last_save:6", "6 changes since the last RDB file, where 5"),
            ("aof_current_size:101", "had 100 bytes, and has 101"),
            ("aof_enabled:0", "switched"),
        ] {
            let why = then.compare(&info(&[moved, "\r\n"].concat())).unwrap_err();
            assert!(why.contains(said), "{moved}: {why}");
        }
    }

    #[test]
    fn a_save_and_a_rewrite_of_others_change_no_data() {
        let then = Marks::of(&info("")).unwrap();
        let saved = "rdb_saves:2\r\nrdb_last_save_time:18\r\nrdb_changes_since_last_save:";
        assert_eq!(then.compare(&info(&[saved, "0\r\n"].concat())), Ok(()));
        assert!(then.compare(&info(&[saved, "1\r\n"].concat())).is_err());
        let rewritten = "aof_rewrites:1\r\naof_current_size:40\r\n";
        assert_eq!(then.compare(&info(rewritten)), Ok(()));
    }

    #[test]
    fn what_is_no_redis_has_no_version() {
        assert!(Info::parse("redis_version:x\r\n").version().is_err());
        assert!(Info::parse("").version().is_err());
    }
}
