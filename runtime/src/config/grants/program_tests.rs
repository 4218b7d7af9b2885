use super::*;
use crate::config::connections::Connections;
use crate::config::grants::HookGrant;
use crate::paths::Paths;

const MODULE: &str =
    "module = \"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"\n";

fn read(section: &str) -> Result<HookGrant, ConfigError> {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::under(root.path());
    std::fs::create_dir_all(paths.grants()).unwrap();
    let file = paths.grants().join("db.toml");
    std::fs::write(&file, format!("{MODULE}{section}")).unwrap();
    HookGrant::load(&file, &Connections::load(&paths).unwrap())
}

/// A section that is right, but for one line.
fn with(line: &str) -> Result<HookGrant, ConfigError> {
    let key = line.split(' ').next().unwrap();
    let right = ["command = \"tool\"", "path = \"/usr/bin/tool\"", "arguments = [[]]"];
    let mut lines: Vec<&str> =
        right.into_iter().filter(|right| right.split(' ').next() != Some(key)).collect();
    // Always in the fifth line of the file, and a table of its own at the end.
    while lines.len() < 2 {
        lines.push("");
    }
    lines.insert(2, line);
    read(&format!("[[program]]\n{}\n", lines.join("\n")))
}

fn refusal(line: &str) -> (String, Option<String>) {
    let error = with(line).unwrap_err();
    (error.to_string(), error.hint())
}

#[test]
fn a_whole_section_is_read() {
    let grant = read(
        r#"
        [[program]]
        command = "sqlplus"
        path = "/opt/oracle/bin/sqlplus"
        digest = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
        arguments = [["-S", "/ as sysdba"], ["--sid={name}", "{uint}"], []]
        stdin = ["ALTER DATABASE BEGIN BACKUP;\nEXIT\n"]
        user = "root"
        groups = ["daemon"]
        environment = { ORACLE_SID = "ORCL" }
        writable = ["/var/tmp"]
        [program.limits]
        seconds = 5
        cpu = 0.5

        [[program]]
        command = "tool"
        path = "/usr/bin/tool"
        arguments = []
        "#,
    )
    .unwrap();
    let sqlplus = &grant.programs["sqlplus"];
    assert_eq!(sqlplus.path, Path::new("/opt/oracle/bin/sqlplus"));
    assert_eq!(sqlplus.path_at.line, 5);
    assert!(sqlplus.digest.is_some());
    assert_eq!(sqlplus.arguments.len(), 3);
    assert!(sqlplus.arguments[1].matches(&["--sid=ORCL".into(), "7".into()]));
    assert_eq!((sqlplus.user.uid, sqlplus.user.gid, &sqlplus.user.groups), (0, 0, &vec![1]));
    assert_eq!(sqlplus.environment["ORACLE_SID"], "ORCL");
    let limits = ProgramLimits { seconds: 5, cpu: 0.5, ..ProgramLimits::default() };
    assert_eq!(sqlplus.limits, limits);
    let tool = &grant.programs["tool"];
    assert_eq!((tool.user.name.as_str(), tool.limits), ("nobody", ProgramLimits::default()));
    assert!(tool.arguments.is_empty() && tool.writable.is_empty());
}

#[test]
fn a_program_that_is_granted_twice_is_an_error() {
    let section = "[[program]]\ncommand = \"a\"\npath = \"/a\"\narguments = []\n";
    let error = read(&format!("{section}{section}")).unwrap_err().to_string();
    assert!(error.contains("db.toml:7:11: program `a` is granted twice"), "{error}");
}

#[test]
fn what_is_wrong_is_named_with_its_place_and_the_next_step() {
    for (line, at, problem) in [
        ("command = \"/bin/tool\"", "5:11", "`/bin/tool` cannot be a program's name"),
        ("command = \"-x\"", "5:11", "cannot be a program's name"),
        ("path = \"bin/tool\"", "5:8", "`bin/tool` is not a plain absolute path"),
        ("path = \"/usr/../tool\"", "5:8", "is not a plain absolute path"),
        ("path = \"/usr/./tool\"", "5:8", "is not a plain absolute path"),
        ("path = \"/usr//tool\"", "5:8", "is not a plain absolute path"),
        ("path = \"/usr/tool/\"", "5:8", "is not a plain absolute path"),
        ("path = \"/usr/to\\u0000ol\"", "5:8", "is not a plain absolute path"),
        ("path = \"\"", "5:8", "is not a plain absolute path"),
        ("path = \"/usr/bin/bash\"", "5:8", "is a shell, and no shell is run for a hook"),
        ("path = \"/usr/bin/busybox\"", "5:8", "is a shell"),
        ("user = \"nobody-at-all\"", "5:8", "there is no user `nobody-at-all` on this machine"),
        ("user = \"\"", "5:8", "there is no user ``"),
        ("groups = [\"daemon\", \"no-such\"]", "5:21", "there is no group `no-such`"),
        ("environment = { \"A B\" = \"x\" }", "5:17", "`A B` cannot be a variable's name"),
        ("environment = { \"1A\" = \"x\" }", "5:17", "cannot be a variable's name"),
        ("environment = { \"\" = \"x\" }", "5:17", "cannot be a variable's name"),
        ("environment = { \"A=B\" = \"x\" }", "5:17", "cannot be a variable's name"),
        ("environment = { LD_PRELOAD = \"x\" }", "5:17", "`LD_PRELOAD` changes what a program is"),
        ("environment = { ld_audit = \"x\" }", "5:17", "`ld_audit` changes what a program is"),
        ("environment = { PATH = \"/tmp\" }", "5:17", "`PATH` changes what a program is"),
        ("environment = { PYTHONPATH = \"/tmp\" }", "5:17", "changes what a program is"),
        ("environment = { PERL5LIB = \"/tmp\" }", "5:17", "changes what a program is"),
        ("environment = { BASH_ENV = \"/tmp\" }", "5:17", "changes what a program is"),
        ("writable = [\"/\"]", "5:13", "`/` would let the program write everywhere"),
        ("writable = [\"tmp\"]", "5:13", "is not a plain absolute path"),
    ] {
        let (error, hint) = refusal(line);
        assert!(error.contains(&format!("db.toml:{at}: ")), "{line}: {error}");
        assert!(error.contains(problem), "{line}: {error}");
        assert!(hint.is_some_and(|hint| !hint.is_empty()), "{line}: no hint");
    }
}

#[test]
fn what_is_wrong_by_itself_is_named_with_its_place() {
    for (line, at, problem) in [
        ("digest = \"sha256:12\"", "5:10", "is not a digest"),
        ("arguments = [[], [\"-{name}\"]]", "5:18", "could become any option"),
        ("arguments = [[\"{unit}\"]]", "5:14", "there is no placeholder `{unit}`"),
        ("arguments = [[\"a\\u0000\"]]", "5:14", "NUL"),
        ("environment = { A = \"x\\u0000\" }", "5:21", "NUL"),
        ("limits = { seconds = 0 }", "5:10", "`seconds = 0` is not from 1 to 86400"),
        ("limits = { processes = 0 }", "5:10", "`processes = 0`"),
        ("limits = { memory-bytes = 1 }", "5:10", "`memory-bytes = 1`"),
        ("limits = { output-bytes = 100000000 }", "5:10", "`output-bytes = 100000000`"),
        ("limits = { cpu = nan }", "5:10", "`cpu = NaN`"),
        ("limits = { second = 1 }", "5:12", "unknown field `second`"),
        ("shell = true", "5:1", "unknown field `shell`"),
    ] {
        let (error, _) = refusal(line);
        assert!(error.contains(&format!("db.toml:{at}: ")), "{line}: {error}");
        assert!(error.contains(problem), "{line}: {error}");
    }
    let long = "x".repeat(LONGEST_STDIN + 1);
    assert!(refusal(&format!("stdin = [\"{long}\"]")).0.contains("standard input is longer"));
    assert!(with(&format!("stdin = [\"{}\"]", &long[1..])).is_ok());
}

#[test]
fn their_twins_are_read() {
    for line in [
        "command = \"pg_ctl-15.2+x\"",
        "path = \"/tool\"",
        "path = \"/usr/lib/bash/tool\"",
        "user = \"daemon\"",
        "environment = { ORACLE_SID = \"x\", TNS_ADMIN = \"/etc\", _A = \"\", OLD_X = \"\" }",
        "writable = [\"/var/tmp\"]",
        "arguments = [[\"--name={name}\"]]",
        "limits = { cpu = 2 }",
    ] {
        assert!(with(line).is_ok(), "{line}: {:?}", with(line).unwrap_err());
    }
}

#[test]
fn what_is_too_long_is_refused_and_its_twin_is_not() {
    let (name, word) = ("t".repeat(65), "x".repeat(LONGEST_WORD + 1));
    for (key, most, less, why) in [
        ("command = \"", name.as_str(), 64, "name"),
        ("arguments = [[\"", word.as_str(), LONGEST_WORD, "an argument is longer than"),
        ("environment = { A = \"", word.as_str(), LONGEST_WORD, "the value of `A` is too long"),
    ] {
        let end = match key.chars().filter(|c| "[{".contains(*c)).count() {
            0 => "\"",
            1 => "\" }",
            _ => "\"]]",
        };
        let said = refusal(&format!("{key}{most}{end}")).0;
        assert!(said.contains(why), "{}", said.chars().take(200).collect::<String>());
        assert!(with(&format!("{key}{}{end}", &most[..less])).is_ok(), "{key}");
    }
}
