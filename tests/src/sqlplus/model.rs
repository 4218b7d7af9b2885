//! The model behind the **stand-in** for `sqlplus`: a database that has states and can be told to fail.
//! No Oracle software is in it, and none was had. It knows exactly the statements that the hook's
//! scripts have, written here a second time: anything else is ORA-00900, as a change of the hook would be
//! that nobody has thought about here.
//!
//! The hook's native tests use this file too.

use serde::{Deserialize, Serialize};

/// Instance, database, files; what was asked of it; what it is told to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Database {
    /// ORACLE_SID.
    pub sid: String,
    /// `OPEN`, `MOUNTED`, `STARTED`, or `DOWN`: there is no instance.
    pub status: String,
    /// `YES`: an instance of a cluster.
    pub parallel: String,
    /// When it was started, in seconds.
    pub started: i64,
    /// The database's number.
    pub dbid: u64,
    /// `ARCHIVELOG` or `NOARCHIVELOG`.
    pub log_mode: String,
    /// `READ WRITE`, `READ ONLY`, `MOUNTED`.
    pub open_mode: String,
    /// `PRIMARY`, `PHYSICAL STANDBY`.
    pub role: String,
    /// `YES`: it has containers.
    pub cdb: String,
    /// The system change number.
    pub scn: u64,
    /// The current redo log.
    pub sequence: u64,
    /// Data files.
    pub files: Vec<DataFile>,
    /// Number, open mode, name.
    pub containers: Vec<(u32, String, String)>,
    /// Redo logs.
    pub redo: Vec<String>,
    /// Control files.
    pub control: Vec<String>,
    /// Local archive destinations.
    pub archive: Vec<String>,
    /// DB_RECOVERY_FILE_DEST.
    pub recovery_area: Option<String>,
    /// Channels of RMAN.
    pub rman: u32,
    /// Statements, in the order in which they were asked for, with what came of each.
    pub log: Vec<String>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
}

/// A data file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataFile {
    /// Its number.
    pub number: u32,
    /// Where it is.
    pub path: String,
    /// `SYSTEM`, `ONLINE`, `OFFLINE`.
    pub status: String,
    /// `READ WRITE`, `READ ONLY`.
    pub enabled: String,
    /// Its container.
    pub container: u32,
    /// In backup mode.
    pub active: bool,
    /// Since which change number.
    pub change: u64,
    /// Since when, in seconds.
    pub begun: i64,
}

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// The beginning of the statement, or of the line, at which it happens.
    pub at: String,
    /// Once the statement has had its effect, and not before it.
    pub after: bool,
    /// What happens.
    pub what: What,
    /// How often it does not happen before it does.
    pub skip: u32,
    /// How often it happens; 0 is always.
    pub times: u32,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum What {
    /// This error line.
    Error(String),
    /// It does not come back.
    Hang,
    /// It takes so many milliseconds.
    Slow(u64),
    /// `sqlplus` is killed by this signal.
    Die(i32),
    /// `sqlplus` exits with this code, and says nothing.
    Exit(i32),
    /// Lines that nobody asked for.
    Noise(String),
    /// The output ends in the middle of this statement's answer; the exit code is 0.
    Half,
    /// The output has no markers: as if PROMPT printed nothing.
    NoMarkers,
    /// Somebody else puts all files into backup mode.
    SomebodyBegins,
    /// Somebody else ends it, and begins his own.
    SomebodyTakesOver,
    /// The instance is started anew, and the database opened.
    Restart,
    /// Only the first file goes into backup mode.
    OnlyOneFile,
}

/// How the stand-in ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With an exit code.
    Exit(i32),
    /// Not at all.
    Hang,
    /// By a signal.
    Signal(i32),
}

/// What is around the stand-in.
pub trait World {
    /// Seconds, in the server's local time.
    fn now(&self) -> i64;
    /// Lets time pass.
    fn pause(&mut self, milliseconds: u64);
    /// Keeps what the database has become, before anything else happens.
    fn keep(&mut self, database: &Database);
    /// Standard output.
    fn print(&mut self, text: &str);
}

/// The only arguments that it knows.
pub const ARGUMENTS: [&str; 7] = ["-S", "-L", "-R", "3", "/", "as", "sysbackup"];

const INSTANCE: &str = "SELECT '<sp:instance>' || instance_name || '|' || status || '|' || version || '|' || parallel || '|' || ROUND((startup_time - DATE '1970-01-01') * 86400) || '</sp>' FROM v$instance";
const DATABASE: &str = "SELECT '<sp:database>' || dbid || '|' || name || '|' || db_unique_name || '|' || log_mode || '|' || open_mode || '|' || database_role || '|' || cdb || '|' || current_scn || '|' || resetlogs_change# || '|' || ROUND((SYSDATE - DATE '1970-01-01') * 86400) || '</sp>' FROM v$database";
const FILES: &str = "SELECT '<sp:file>' || d.file# || '|' || b.status || '|' || b.change# || '|' || ROUND((b.time - DATE '1970-01-01') * 86400) || '|' || d.status || '|' || d.enabled || '|' || d.con_id || '|' || d.name || '</sp>' FROM v$datafile d, v$backup b WHERE b.file# = d.file# ORDER BY d.file#";
const LOG: &str = "SELECT '<sp:log>' || thread# || '|' || sequence# || '</sp>' FROM v$log WHERE status = 'CURRENT'";
const INCARNATION: &str = "SELECT '<sp:incarnation>' || incarnation# || '</sp>' FROM v$database_incarnation WHERE status = 'CURRENT'";
const CONTAINERS: &str = "SELECT '<sp:container>' || con_id || '|' || open_mode || '|' || name || '</sp>' FROM v$containers ORDER BY con_id";
const REDO: &str = "SELECT '<sp:redo>' || member || '</sp>' FROM v$logfile WHERE type = 'ONLINE'";
const CONTROL: &str = "SELECT '<sp:control>' || name || '</sp>' FROM v$controlfile";
const ARCHIVE: &str = "SELECT '<sp:archive>' || destination || '</sp>' FROM v$archive_dest WHERE status = 'VALID' AND target = 'PRIMARY'";
const AREA: &str = "SELECT '<sp:recovery-area>' || name || '</sp>' FROM v$recovery_file_dest";
const RMAN: &str = "SELECT '<sp:rman>' || COUNT(*) || '</sp>' FROM v$session WHERE client_info LIKE 'rman channel=%'";

/// Statements that change something.
pub const BEGIN_BACKUP: &str = "ALTER DATABASE BEGIN BACKUP";
/// Ends it.
pub const END_BACKUP: &str = "ALTER DATABASE END BACKUP";
/// Archives the current redo log.
pub const ARCHIVE_LOG: &str = "ALTER SYSTEM ARCHIVE LOG CURRENT";
/// Writes dirty blocks.
pub const CHECKPOINT: &str = "ALTER SYSTEM CHECKPOINT";

/// What `SET` says about the output; the defaults are those of `sqlplus`.
struct Output {
    heading: bool,
    feedback: bool,
    page: bool,
    width: usize,
    markers: bool,
    on_error: Option<i32>,
}

impl Database {
    /// An open database with two data files of its own below `directory`, in ARCHIVELOG mode.
    #[must_use]
    pub fn new(sid: &str, data: &str, redo: &str, archive: &str) -> Self {
        let file = |number: u32, name: &str, status: &str| DataFile {
            number,
            path: format!("{data}/{name}"),
            status: status.into(),
            enabled: "READ WRITE".into(),
            container: 0,
            active: false,
            change: 0,
            begun: 0,
        };
        Self {
            sid: sid.into(),
            status: "OPEN".into(),
            parallel: "NO".into(),
            started: 1_700_000_000,
            dbid: 1_234_567_890,
            log_mode: "ARCHIVELOG".into(),
            open_mode: "READ WRITE".into(),
            role: "PRIMARY".into(),
            cdb: "NO".into(),
            scn: 2_000_000,
            sequence: 41,
            files: vec![file(1, "system01.dbf", "SYSTEM"), file(4, "users|01.dbf", "ONLINE")],
            containers: vec![(0, "READ WRITE".into(), sid.into())],
            redo: vec![format!("{redo}/redo01.log")],
            control: vec![format!("{data}/control01.ctl")],
            archive: vec![archive.into()],
            recovery_area: None,
            rman: 0,
            log: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// As a container database: a seed that is read only, one container open, one closed.
    #[must_use]
    pub fn with_containers(mut self, data: &str) -> Self {
        self.cdb = "YES".into();
        let container = |id, mode: &str, name: &str| (id, mode.to_owned(), name.to_owned());
        self.containers = vec![
            container(1, "READ WRITE", "CDB$ROOT"),
            container(2, "READ ONLY", "PDB$SEED"),
            container(3, "READ WRITE", "SALES"),
            container(4, "MOUNTED", "CLOSED"),
        ];
        self.files.iter_mut().for_each(|file| file.container = 1);
        for container in 2..=4_u32 {
            self.files.push(DataFile {
                number: 10 + container,
                path: format!("{data}/pdb{container}.dbf"),
                status: "ONLINE".into(),
                enabled: "READ WRITE".into(),
                container,
                active: false,
                change: 0,
                begun: 0,
            });
        }
        self
    }

    /// What a run must not change: everything but change numbers, the sequence of the log, when a
    /// backup mode that has ended was begun, and what is the stand-in's own.
    #[must_use]
    pub fn lasting(&self) -> Self {
        let mut lasting = self.clone();
        lasting.scn = 0;
        lasting.sequence = 0;
        lasting.log.clear();
        lasting.faults.clear();
        for file in lasting.files.iter_mut().filter(|file| !file.active) {
            (file.change, file.begun) = (0, 0);
        }
        lasting
    }

    /// How often a statement was asked for, and came to its end.
    #[must_use]
    pub fn done(&self, statement: &str) -> usize {
        let done = format!("{statement}: done");
        self.log.iter().filter(|line| **line == done).count()
    }

    /// Somebody puts all files into backup mode.
    pub fn somebody_begins(&mut self, now: i64) {
        self.scn += 100;
        let (change, open) = (self.scn, self.open_containers());
        for file in self.files.iter_mut().filter(|file| is_written(file, &open)) {
            (file.active, file.change, file.begun) = (true, change, now);
        }
    }

    /// Somebody ends it.
    pub fn somebody_ends(&mut self) {
        self.files.iter_mut().for_each(|file| file.active = false);
    }

    /// Whether any file is in backup mode.
    #[must_use]
    pub fn in_backup_mode(&self) -> bool {
        self.files.iter().any(|file| file.active)
    }

    fn open_containers(&self) -> Vec<u32> {
        let open = self.containers.iter().filter(|(_, mode, _)| mode == "READ WRITE");
        open.map(|(id, ..)| *id).collect()
    }

    /// Reads a script to its end, as `sqlplus` does.
    pub fn run(&mut self, arguments: &[String], script: &str, world: &mut impl World) -> Ending {
        if arguments != ARGUMENTS {
            world.print("SP2-0306: Invalid option.\nUsage: CONN[ECT] …\n");
            return Ending::Exit(1);
        }
        if let Err(stop) = self.fault("LOGON", false, world) {
            return stop.ending(world);
        }
        if self.status == "DOWN" {
            // As sqlplus does, with `/ as sysbackup`: it is connected to an idle instance.
            world.print("Connected to an idle instance.\n");
        }
        let mut output = Output {
            heading: true,
            feedback: true,
            page: true,
            width: 80,
            markers: true,
            on_error: None,
        };
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Err(ending) = self.line(line, &mut output, world) {
                return ending;
            }
        }
        // Without EXIT it would end by itself at the end of its input.
        Ending::Exit(0)
    }

    fn line(
        &mut self,
        line: &str,
        output: &mut Output,
        world: &mut impl World,
    ) -> Result<(), Ending> {
        if let Some(text) = line.strip_prefix("PROMPT ") {
            if output.markers {
                world.print(&format!("{text}\n"));
            }
            return self.fault(line, true, world).map_err(|stop| stop.ending(world));
        }
        if let Some(options) = line.strip_prefix("SET ") {
            output.set(options, world);
            return Ok(());
        }
        match line {
            "EXIT 0" => {
                self.fault(line, false, world).map_err(|stop| stop.ending(world))?;
                return Err(Ending::Exit(0));
            }
            "WHENEVER SQLERROR EXIT 3 ROLLBACK" => {
                output.on_error = Some(3);
                return Ok(());
            }
            "WHENEVER OSERROR EXIT 4 ROLLBACK" | "TTITLE OFF" | "BTITLE OFF" => return Ok(()),
            _ => {}
        }
        let Some(statement) = line.strip_suffix(';') else {
            world.print("SP2-0734: unknown command beginning \"…\" - rest of line ignored.\n");
            return Ok(());
        };
        self.statement(statement, output, world)
    }

    fn statement(
        &mut self,
        statement: &str,
        output: &mut Output,
        world: &mut impl World,
    ) -> Result<(), Ending> {
        if self.has_fault(statement, &What::NoMarkers) {
            output.markers = false;
        }
        let half = self.has_fault(statement, &What::Half);
        let answer = match self.fault(statement, false, world) {
            Ok(()) => self.execute(statement, world.now()),
            Err(Stop::Error(line)) => Err(line),
            Err(Stop::End(ending)) => return Err(ending),
        };
        self.note(statement, &answer, world);
        match answer {
            Ok(rows) => {
                if half {
                    let row = rows.first().cloned().unwrap_or_default();
                    let middle = row.char_indices().nth(row.chars().count() / 2);
                    world.print(row.get(..middle.map_or(0, |(at, _)| at)).unwrap_or_default());
                    return Err(Ending::Exit(0));
                }
                output.rows(&rows, world);
                if rows.is_empty() && output.feedback {
                    world.print("\nDatabase altered.\n\n");
                }
                match self.fault(statement, true, world) {
                    Ok(()) => Ok(()),
                    Err(Stop::Error(line)) => output.error(&line, world),
                    Err(Stop::End(ending)) => Err(ending),
                }
            }
            Err(line) => output.error(&line, world),
        }
    }

    fn note(
        &mut self,
        statement: &str,
        answer: &Result<Vec<String>, String>,
        world: &mut impl World,
    ) {
        if statement.starts_with("ALTER ") {
            let outcome = match answer {
                Ok(_) => "done",
                Err(line) => line.split(':').next().unwrap_or_default(),
            };
            self.log.push(format!("{statement}: {outcome}"));
        }
        world.keep(self);
    }

    /// What a statement does, and its rows; or the line of its error.
    fn execute(&mut self, statement: &str, now: i64) -> Result<Vec<String>, String> {
        if self.status == "DOWN" {
            return Err("ORA-01034: ORACLE not available".into());
        }
        let mounted = matches!(self.status.as_str(), "MOUNTED" | "OPEN");
        self.scn += u64::from(self.status == "OPEN");
        let rows = match statement {
            INSTANCE => vec![format!(
                "<sp:instance>{}|{}|19.0.0.0.0|{}|{}</sp>",
                self.sid, self.status, self.parallel, self.started
            )],
            _ if !mounted => return Err("ORA-01507: database not mounted".into()),
            DATABASE => {
                let scn = if self.status == "OPEN" { self.scn } else { 0 };
                vec![format!(
                    "<sp:database>{}|{}|{}|{}|{}|{}|{}|{scn}|1920977|{now}</sp>",
                    self.dbid,
                    self.sid,
                    self.sid,
                    self.log_mode,
                    self.open_mode,
                    self.role,
                    self.cdb
                )]
            }
            FILES => self.files.iter().map(DataFile::row).collect(),
            LOG => vec![format!("<sp:log>1|{}</sp>", self.sequence)],
            INCARNATION => vec!["<sp:incarnation>2</sp>".into()],
            CONTAINERS => {
                let row = |(id, mode, name): &(u32, String, String)| {
                    format!("<sp:container>{id}|{mode}|{name}</sp>")
                };
                self.containers.iter().map(row).collect()
            }
            REDO => tagged("redo", &self.redo),
            CONTROL => tagged("control", &self.control),
            ARCHIVE => tagged("archive", &self.archive),
            AREA => tagged("recovery-area", self.recovery_area.as_slice()),
            RMAN => vec![format!("<sp:rman>{}</sp>", self.rman)],
            ARCHIVE_LOG => self.archive_log().map(|()| Vec::new())?,
            CHECKPOINT => self.must_be_open().map(|()| Vec::new())?,
            BEGIN_BACKUP => self.begin_backup(now).map(|()| Vec::new())?,
            END_BACKUP => self.end_backup().map(|()| Vec::new())?,
            _ => return Err("ORA-00900: invalid SQL statement".into()),
        };
        Ok(rows)
    }

    fn must_be_open(&self) -> Result<(), String> {
        if self.status == "OPEN" { Ok(()) } else { Err("ORA-01109: database not open".into()) }
    }

    fn archive_log(&mut self) -> Result<(), String> {
        self.must_be_open()?;
        if self.log_mode != "ARCHIVELOG" {
            return Err("ORA-00258: manual archiving in NOARCHIVELOG mode must identify log".into());
        }
        self.sequence += 1;
        Ok(())
    }

    fn begin_backup(&mut self, now: i64) -> Result<(), String> {
        self.must_be_open()?;
        if self.log_mode != "ARCHIVELOG" {
            return Err("ORA-01123: cannot start online backup; media recovery not enabled".into());
        }
        if let Some(file) = self.files.iter().find(|file| file.active) {
            return Err(format!(
                "ORA-01146: cannot start online backup - file {} is already in backup",
                file.number
            ));
        }
        let only_one = self.has_fault(BEGIN_BACKUP, &What::OnlyOneFile);
        self.scn += 10;
        let (change, open) = (self.scn, self.open_containers());
        let written = self.files.iter_mut().filter(|file| is_written(file, &open));
        for file in written.take(if only_one { 1 } else { usize::MAX }) {
            (file.active, file.change, file.begun) = (true, change, now);
        }
        Ok(())
    }

    fn end_backup(&mut self) -> Result<(), String> {
        if !self.in_backup_mode() {
            return Err(
                "ORA-01142: cannot end online backup - none of the files are in backup".into()
            );
        }
        self.somebody_ends();
        Ok(())
    }

    fn has_fault(&self, statement: &str, what: &What) -> bool {
        self.faults.iter().any(|fault| statement.starts_with(&fault.at) && fault.what == *what)
    }

    /// Does what is told for this place, and counts it.
    fn fault(&mut self, place: &str, after: bool, world: &mut impl World) -> Result<(), Stop> {
        let here = |fault: &Fault| place.starts_with(&fault.at) && fault.after == after;
        let Some(index) = self.faults.iter().position(here) else { return Ok(()) };
        let fault = &mut self.faults[index];
        if fault.skip > 0 {
            fault.skip -= 1;
            return Ok(());
        }
        let what = fault.what.clone();
        match fault.times {
            1 => drop(self.faults.remove(index)),
            0 => {}
            _ => fault.times -= 1,
        }
        match what {
            What::Slow(milliseconds) => {
                world.keep(self);
                world.pause(milliseconds);
            }
            What::Noise(text) => world.print(&text),
            What::SomebodyBegins => self.somebody_begins(world.now()),
            What::SomebodyTakesOver => {
                self.somebody_ends();
                self.somebody_begins(world.now());
            }
            What::Restart => {
                // It cannot be opened before somebody has taken its files out of backup mode.
                self.started += 60;
                self.somebody_ends();
                if place != "LOGON" {
                    return Err(Stop::Error(
                        "ORA-03113: end-of-file on communication channel".into(),
                    ));
                }
            }
            What::Half | What::NoMarkers | What::OnlyOneFile => {}
            What::Error(line) => return Err(Stop::Error(line)),
            What::Hang => {
                self.log.push(format!("{place}: hangs"));
                world.keep(self);
                return Err(Stop::End(Ending::Hang));
            }
            What::Die(signal) => {
                world.keep(self);
                return Err(Stop::End(Ending::Signal(signal)));
            }
            What::Exit(code) => {
                world.keep(self);
                return Err(Stop::End(Ending::Exit(code)));
            }
        }
        world.keep(self);
        Ok(())
    }
}

/// What a fault makes of the statement at which it happens.
enum Stop {
    /// It fails with this line.
    Error(String),
    /// The whole stand-in ends.
    End(Ending),
}

impl Stop {
    /// Where there is no statement that could fail: as a refused log-on ends `sqlplus -L`.
    fn ending(self, world: &mut impl World) -> Ending {
        match self {
            Stop::Error(line) => {
                world.print(&format!(
                    "ERROR:\n{line}\n\nSP2-0751: Unable to connect to Oracle.  Exiting SQL*Plus\n"
                ));
                Ending::Exit(1)
            }
            Stop::End(ending) => ending,
        }
    }
}

fn is_written(file: &DataFile, open: &[u32]) -> bool {
    matches!(file.status.as_str(), "SYSTEM" | "ONLINE")
        && file.enabled == "READ WRITE"
        && open.contains(&file.container)
}

fn tagged(key: &str, values: &[String]) -> Vec<String> {
    values.iter().map(|value| format!("<sp:{key}>{value}</sp>")).collect()
}

impl DataFile {
    fn row(&self) -> String {
        let backup = if self.active { "ACTIVE" } else { "NOT ACTIVE" };
        let begun = if self.begun == 0 { String::new() } else { self.begun.to_string() };
        format!(
            "<sp:file>{}|{backup}|{}|{begun}|{}|{}|{}|{}</sp>",
            self.number, self.change, self.status, self.enabled, self.container, self.path
        )
    }
}

impl Output {
    fn set(&mut self, options: &str, world: &mut impl World) {
        let words: Vec<&str> = options.split_whitespace().collect();
        for pair in words.chunks(2) {
            match pair {
                ["HEADING", value] => self.heading = *value == "ON",
                ["FEEDBACK", value] => self.feedback = *value == "ON",
                ["PAGESIZE", value] => self.page = *value != "0",
                ["LINESIZE", value] => self.width = value.parse().unwrap_or(80),
                ["MARKUP", "HTML"] | ["OFF"] => {}
                [
                    "DEFINE" | "ECHO" | "VERIFY" | "TIMING" | "TIME" | "TRIMOUT" | "TAB" | "WRAP"
                    | "RECSEP" | "SERVEROUTPUT" | "AUTOTRACE" | "TERMOUT",
                    "ON" | "OFF",
                ] => {}
                _ => world.print(&format!("SP2-0158: unknown SET option \"{}\"\n", pair.join(" "))),
            }
        }
    }

    fn rows(&self, rows: &[String], world: &mut impl World) {
        if self.heading && self.page && !rows.is_empty() {
            world.print("\n'<SP:INSTANCE>'||…\n----------------\n");
        }
        for row in rows {
            let letters: Vec<char> = row.chars().collect();
            for part in letters.chunks(self.width) {
                world.print(&format!("{}\n", part.iter().collect::<String>()));
            }
        }
        if self.feedback && rows.len() > 5 {
            world.print(&format!("\n{} rows selected.\n\n", rows.len()));
        }
    }

    fn error(&self, line: &str, world: &mut impl World) -> Result<(), Ending> {
        world.print(&format!("ALTER …\n*\nERROR at line 1:\n{line}\nORA-01110: data file 1\n\n"));
        self.on_error.map_or(Ok(()), |code| Err(Ending::Exit(code)))
    }
}
