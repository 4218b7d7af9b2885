use super::*;

fn with(more: &[&str]) -> Result<Params, ParamError> {
    let words = ["-RamRoleName=role", "-Name=LinuxApp1"].iter().chain(more);
    parse(words.map(|word| (*word).to_owned()))
}

fn named(name: &str) -> Result<Params, ParamError> {
    parse(["-RamRoleName=role".to_owned(), format!("-Name={name}")])
}

#[test]
fn the_documented_command_line_with_and_without_its_quotes() {
    for quote in ["", "\""] {
        let words = [
            format!("-RamRoleName={quote}AppSnapshotRoleName{quote}"),
            "-EnableFsFreeze=true".to_owned(),
            "-TimeoutInSeconds=30".to_owned(),
            format!("-PreScriptPath={quote}/tmp/prescript.sh{quote}"),
            format!("-PostScriptPath={quote}/tmp/postscript.sh{quote}"),
            format!("-ExcludeDiskId={quote}{quote}"),
            format!("-Name={quote}LinuxApp1{quote}"),
        ];
        let params = parse(words).unwrap();
        assert_eq!(params.role, "AppSnapshotRoleName");
        assert_eq!(params.name, "LinuxApp1");
        assert_eq!(params.exclude_disks, Vec::<String>::new());
        assert_eq!(params.pre_script, Some("/tmp/prescript.sh".into()));
        assert_eq!(params.post_script, Some("/tmp/postscript.sh".into()));
        assert!(params.freeze);
        assert_eq!(params.window(), Duration::from_secs(30));
    }
}

#[test]
fn what_is_not_said_is_as_documented() {
    let params = with(&[]).unwrap();
    assert_eq!(params.description, "");
    assert_eq!((params.pre_script.clone(), params.post_script.clone()), (None, None));
    assert!(params.freeze);
    assert_eq!(params.window(), Duration::from_secs(30));
    assert_eq!(params.script_timeout, Duration::from_secs(1800));
    assert_eq!((params.hooks, params.require), (HookChoice::Auto, None));
    assert_eq!((params.root, params.log_file), (None, None));
}

#[test]
fn role_and_name_are_required() {
    for (words, name) in [
        (&["-Name=ab"][..], "RamRoleName"),
        (&["-Name=ab", "-RamRoleName="], "RamRoleName"),
        (&["-RamRoleName=r"], "Name"),
    ] {
        let error = parse(words.iter().map(|word| (*word).to_owned())).unwrap_err();
        assert_eq!(error, ParamError::Missing { name });
        assert_eq!(error.exit_code(), ExitCode::Parameters);
    }
}

#[test]
fn disks_are_separated_by_comma_space_or_semicolon() {
    for list in ["d-1,d-2", "d-1 d-2", "d-1;d-2", " d-1 ,; d-2,", "d-1\td-2\nd-1"] {
        let params = with(&[&format!("-ExcludeDiskId={list}")]).unwrap();
        assert_eq!(params.exclude_disks, ["d-1", "d-2"], "{list:?}");
    }
}

#[test]
fn a_window_is_at_least_a_second_and_never_longer_than_ours() {
    for (asked, window) in
        [("1", 1), ("0x10", 16), ("30", 30), ("31", 30), ("9223372036854775807", 30)]
    {
        let params = with(&[&format!("-TimeoutInSeconds={asked}")]).unwrap();
        assert_eq!(params.window(), Duration::from_secs(window), "{asked}");
    }
    for asked in ["0", "-1", "1.5", "", "30s"] {
        let error = with(&[&format!("-TimeoutInSeconds={asked}")]).unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::Parameters, "{asked:?}");
    }
    assert!(with(&["-ScriptTimeoutInSeconds=86400"]).is_ok());
    for asked in ["0", "86401"] {
        assert!(with(&[&format!("-ScriptTimeoutInSeconds={asked}")]).is_err(), "{asked}");
    }
}

#[test]
fn names_are_checked_by_the_rules_of_the_cloud() {
    let longest = "n".repeat(128);
    for name in ["ab", "Lx.1_a-b:c", "快照1", longest.as_str()] {
        assert_eq!(named(name).unwrap().name, name);
    }
    let too_long = "n".repeat(129);
    for name in
        ["", "a", "1ab", "-ab", "http://x", "https://x", "a b", "a\nb", "a\"b", too_long.as_str()]
    {
        let error = named(name).unwrap_err();
        assert!(matches!(error, ParamError::Name { .. }), "{name:?}: {error}");
        assert_eq!(error.exit_code(), ExitCode::Precondition);
    }
}

#[test]
fn descriptions_are_checked_and_may_be_left_out() {
    let longest = format!("-Description={}", "d".repeat(256));
    for description in ["-Description=", "-Description=a \"b\", c", &longest] {
        assert!(with(&[description]).is_ok(), "{description}");
    }
    let too_long = format!("-Description={}", "d".repeat(257));
    for description in ["-Description=a", "-Description=http://x", &too_long] {
        assert_eq!(with(&[description]).unwrap_err().exit_code(), ExitCode::Precondition);
    }
}

#[test]
fn words_that_are_left_are_refused_and_the_hint_says_how_to_quote() {
    for (words, hint) in [
        (&["-Description=before", "the", "-EnableFsFreeze=false"][..], "-Description=\""),
        (&["-ExcludeDiskId=d-1", "d-2"], "-ExcludeDiskId=d-1;d-2"),
        (&["-EnableFsFreeze", "false"], "-EnableFsFreeze=false"),
    ] {
        let error = with(words).unwrap_err();
        assert!(matches!(error, ParamError::LeftOver { .. }));
        assert_eq!(error.exit_code(), ExitCode::Parameters);
        assert!(error.hint().contains(hint), "{}", error.hint());
    }
}

#[test]
fn a_misspelt_parameter_is_refused_with_the_right_one() {
    let error = with(&["-excludediskid=d-1"]).unwrap_err();
    assert_eq!(error.to_string(), "flag provided but not defined: -excludediskid");
    assert_eq!(error.hint(), "is -ExcludeDiskId meant?");
    assert_eq!(error.exit_code(), ExitCode::Parameters);
}

#[test]
fn our_own_are_in_the_same_style() {
    let params = with(&["-Hooks=both", "--Require", "application", "-Root=/srv", "-LogFile=/x"]);
    let params = params.unwrap();
    assert_eq!(params.hooks, HookChoice::Both);
    assert_eq!(params.require, Some(Level::Application));
    assert_eq!(params.root, Some("/srv".into()));
    assert_eq!(params.log_file, Some("/x".into()));
    for wrong in ["-Hooks=all", "-Require=high", "-Root=relative", "-LogFile=x"] {
        assert_eq!(with(&[wrong]).unwrap_err().exit_code(), ExitCode::Parameters, "{wrong}");
    }
}

#[test]
fn help_names_every_parameter_and_is_no_error() {
    for word in ["-h", "--help"] {
        let error = parse([word.to_owned()]).unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::Ok);
    }
    for flag in FLAGS {
        assert!(usage().contains(&format!("  -{}", flag.name)), "{}", flag.name);
    }
    let shown = crate::output::human::visible(&usage());
    assert_eq!(shown, usage(), "it is printed as it is written");
}
