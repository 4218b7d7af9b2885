//! What is tried.

/// An attack, and what is in the words of its refusal.
pub struct Attack {
    pub words: &'static [&'static str],
    pub said: &'static str,
}

/// Words that a terminal would act on, or hide.
pub const TRICK: &str = "a\u{1b}[2J\u{1b}]0;x\u{7}\u{9b}31m\r\u{8}\u{202e}\u{200b}\u{feff}\u{e0041}\nstate: all is well";

/// The words of an attack, as its settings have them.
pub fn words(attack: &[&str]) -> Vec<String> {
    attack.iter().map(|word| (*word).to_owned()).collect()
}

/// What the host answers with a refusal, and the guest goes on.
pub const ANSWERED: &[(&str, &[&[&str]])] = &[
    (
        "statements that are almost granted",
        &[
            &["sql", "A", "select 1"],
            &["sql", "A", "Select 1"],
            &["sql", "A", "SELECT 1;"],
            &["sql", "A", "SELECT 1; DROP TABLE secrets.t"],
            &["sql", "A", "SELECT 1;DROP TABLE secrets.t"],
            &["sql", "A", "SELECT 1 -- x"],
            &["sql", "A", "SELECT 1 --"],
            &["sql", "A", "SELECT 1 # x"],
            &["sql", "A", "SELECT 1 /* x */"],
            &["sql", "A", "SELECT/**/1"],
            &["sql", "A", "SELECT /*! 1 */"],
            &["sql", "A", "/*!50000 SELECT 1 */"],
            &["sql", "A", "/*M!100100 SELECT 1 */"],
            &["sql", "A", "SELECT\u{a0}1"],
            &["sql", "A", "SELECT\u{3000}1"],
            &["sql", "A", "SELECT\u{2003}1"],
            &["sql", "A", "SELECT\u{2028}1"],
            &["sql", "A", "SELECT\u{85}1"],
            &["sql", "A", "SELECT\u{b}1"],
            &["sql", "A", "SELECT\u{200b} 1"],
            &["sql", "A", "\u{feff}SELECT 1"],
            &["sql", "A", "SELECT 1\u{200d}"],
            &["sql", "A", "SELECT 1\0"],
            &["sql", "A", "SELECT 1\0; DROP TABLE secrets.t"],
            &["sql", "A", "\u{405}ELECT 1"],
            &["sql", "A", "SELE\u{421}T 1"],
            &["sql", "A", "\u{ff33}ELECT 1"],
            &["sql", "A", "SELECT \u{ff11}"],
            &["sql", "A", "SELECT \u{661}"],
            &["sql", "A", "SELECT 1\u{1b}[2K"],
            &["sql", "A", "SELECT 1\u{8}"],
            &["sql", "A", "SELECT 11"],
            &["sql", "A", "SELECT 1 1"],
            &["sql", "A", "S ELECT 1"],
            &["sql", "A", "SELECT1"],
            &["sql", "A", "SELECT (1)"],
            &["sql", "A", "SELECT 'a b'"],
            &["sql", "A", "SELECT 'a\tb'"],
            &["sql", "A", "SELECT 'a  b"],
            &["sql", "A", "SELECT 'a  b' ''"],
            &["sql", "A", "SELECT \"a  b\""],
            &["sql", "A", "SELECT `a  b`"],
            &["sql", "A", "SELECT 'a\\  b'"],
            &["sql", "A", ""],
            &["sql", "A", "   "],
            &["sql", "A", "\0"],
            &["sql", "A", ";"],
            &["sql", "A", "UNLOCK TABLES; DROP TABLE secrets.t"],
            &["sql", "A", "FLUSH TABLES WITH READ LOCK AND DISABLE CHECKPOINT"],
            &["sql", "A", "FLUSH TABLES"],
        ],
    ),
    (
        "statements that only one side names",
        &[
            &["sql", "A", "SELECT 7"],
            &["sql", "A", "DROP TABLE test.t"],
            &["sql", "A", "DROP TABLE secrets.t"],
            &["sql", "A", "SELECT LOAD_FILE('/etc/shadow')"],
            &["sql", "A", "SELECT 1 INTO OUTFILE '/tmp/x'"],
            &["sql", "A", "LOAD DATA LOCAL INFILE '/etc/shadow' INTO TABLE secrets.t"],
            &["sql", "A", "SET GLOBAL general_log_file = '/etc/cron.d/x'"],
            &["sql", "A", "INSTALL SONAME 'x'"],
            &["sql", "A", "SHUTDOWN"],
            &["sql", "A", "KILL 1"],
        ],
    ),
    (
        "parameters that were not granted",
        &[
            &["sql", "A", "SELECT ?"],
            &["sql-with", "A", "SELECT ?", "1; DROP TABLE secrets.t"],
            &["sql-with", "A", "SELECT ?", ""],
            &["sql-with", "A", "SELECT 1", "1"],
            &["many-parameters", "A", "SELECT ?", "2"],
            &["many-parameters", "A", "SELECT ?", "50000"],
            &["many-parameters", "A", "SELECT 1", "1"],
            &["long-sql", "A", "3000000"],
        ],
    ),
    (
        "connections that were not granted",
        &[
            &["open", "B", ""],
            &["open", "B", "MAIN"],
            &["open", "B", "main "],
            &["open", "B", "main\0"],
            &["open", "B", "m\u{430}in"],
            &["open", "B", "../main"],
            &["open", "B", "/run/mysqld/mysqld.sock"],
            &["open", "B", "mysql://root@localhost"],
            &["open", "B", "main\", statements = [\"DROP TABLE t\"] #"],
            &["open", "B", "\u{1b}[2J"],
            &["hoard", "main"],
        ],
    ),
    (
        "programs and arguments that were not granted",
        &[
            &["run", "/bin/sh", "-c", "id"],
            &["run", "sh"],
            &["run", ""],
            &["run", "TOOL", "--version"],
            &["run", "tool "],
            &["run", "tool\0", "--version"],
            &["run", "../tool", "--version"],
            &["run", "/usr/bin/touch", "--version"],
            &["run", "tool"],
            &["run", "tool", ""],
            &["run", "tool", "--version", ""],
            &["run", "tool", "--version", "/tmp/x"],
            &["run", "tool", "--version\0"],
            &["run", "tool", "--version\n"],
            &["run", "tool", "--version "],
            &["run", "tool", " --version"],
            &["run", "tool", "--VERSION"],
            &["run", "tool", "--vers"],
            &["run", "tool", "--", "--version"],
            &["run", "tool", "--reference=/etc/shadow", "/tmp/x"],
            &["run", "tool", "-c", "x y"],
            &["run", "tool", "--ver\u{200b}sion"],
            &["run", "tool", "\u{2212}\u{2212}version"],
            &["run", "tool", "--version;id"],
            &["run", "tool", "$(id)"],
            &["run", "tool", "`id`"],
            &["run", "tool", "../../etc/passwd"],
            &["run-with", "tool", "three\n", "--version"],
            &["run-with", "tool", "one\ntwo", "--version"],
            &["run-with", "tool", "one\ntwo\n\0", "--version"],
            &["run-with", "tool", "one\ntwo\nid\n", "--version"],
        ],
    ),
    (
        "state beyond its bounds",
        &[
            &["kv-set", "", "1"],
            &["kv-set", "big", "4097"],
            &["kv-set", "huge", "3000000"],
            &["kv-long-key", "129"],
            &["kv-long-key", "100000"],
            &["kv-fill", "100"],
            &["kv-fill", "0"],
        ],
    ),
];

/// What ends the guest, wherever it is tried.
pub const ENDS: &[Attack] = &[
    Attack { words: &["loop"], said: "instance was stopped" },
    Attack { words: &["recurse"], said: "trapped" },
    Attack { words: &["eat"], said: "memory" },
    Attack { words: &["panic"], said: "trapped" },
    Attack { words: &["unreachable"], said: "unreachable" },
    Attack { words: &["log-flood", "forever", "0"], said: "hook" },
];

/// What fails the guest: too much, or a lie.
pub const FAILS: &[(&str, Attack)] = &[
    ("prepare", Attack { words: &["path", "relative"], said: "not an absolute path" }),
    ("prepare", Attack { words: &["path", "/a\u{1b}[2J"], said: "hidden characters" }),
    ("prepare", Attack { words: &["path-flood", "2000", "/x"], said: "paths" }),
    ("prepare", Attack { words: &["path-flood", "1000000", "/x"], said: "hook" }),
    ("pre-freeze", Attack { words: &["metadata-flood", "300", "1"], said: "metadata entries" }),
    ("pre-freeze", Attack { words: &["metadata-flood", "20000", "1"], said: "hook" }),
    ("pre-freeze", Attack { words: &["metadata", "key", TRICK], said: "hidden characters" }),
    ("pre-freeze", Attack { words: &["metadata", TRICK, "x"], said: "metadata" }),
    ("pre-freeze", Attack { words: &["long-log", "30000000"], said: "hook" }),
    ("pre-freeze", Attack { words: &["long-failure", "1000000"], said: "hook" }),
];

/// Files for `hook install`.
pub fn files(good: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = vec![
        ("nothing".into(), Vec::new()),
        ("a script".into(), b"#!/bin/sh\nid\n".to_vec()),
        ("a program".into(), std::fs::read("/bin/true").unwrap_or_default()),
        ("another version".into(), [b"\0asm\x0e\0\x01\0", &good[8..]].concat()),
        ("a core module".into(), b"\0asm\x01\0\0\0".to_vec()),
        ("an empty component".into(), b"\0asm\x0d\0\x01\0".to_vec()),
    ];
    for cut in (1..10).map(|tenth| good.len() * tenth / 10) {
        files.push((format!("cut at {cut}"), good[..cut].to_vec()));
    }
    files
}
