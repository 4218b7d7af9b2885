//! Nothing but what stands between the markers is data.

use stillpoint_hook::process::Output;
use stillpoint_hook::testing::exited;
use stillpoint_hook_oracle::sqlplus::{Failure, Report};

fn whole(inside: &str) -> Output {
    exited(0, &format!("banner\n<sp:begin>x</sp>\n{inside}<sp:end>x</sp>\nbye\n"))
}

#[test]
fn noise_is_not_data() {
    let text = "WARNING: password expires\n<sp:a>1|2|c|d</sp>\n\nsome <sp:a>noise</sp>\n";
    let report = Report::read("x", &whole(text)).unwrap();
    assert_eq!(report.row::<3>("a").unwrap(), ["1", "2", "c|d"]);
    assert!(report.row::<5>("a").is_err(), "too few fields");
    assert!(report.row::<1>("b").is_err(), "no such value");
}

#[test]
fn what_is_not_whole_is_no_report() {
    let good = whole("<sp:a>1</sp>\n");
    let cases = [
        exited(0, ""),
        exited(0, "<sp:begin>x</sp>\n<sp:a>1</sp>\n"),
        exited(0, "<sp:a>1</sp>\n<sp:end>x</sp>\n"),
        exited(0, "<sp:end>x</sp>\n<sp:begin>x</sp>\n"),
        exited(0, "<sp:begin>y</sp>\n<sp:end>y</sp>\n"),
        whole("<sp:a>1\n"),
        whole("<sp:a\n"),
        whole("<sp:begin>x</sp>\n"),
        Output { exit_code: Some(2), ..good.clone() },
        Output { exit_code: None, signal: Some(9), ..good.clone() },
        Output { truncated: true, ..good.clone() },
    ];
    assert!(Report::read("x", &good).is_ok());
    for case in cases {
        let failure = Report::read("x", &case).unwrap_err();
        assert!(matches!(failure, Failure::Unreadable(_)), "{failure:?}");
    }
}

#[test]
fn the_first_error_of_the_server_is_the_cause() {
    for (text, code) in [
        ("*\nERROR at line 1:\nORA-01146: cannot start\nORA-01110: data file 1\n", "ORA-01146"),
        ("ERROR: ORA-01017: invalid username\nSP2-0751: Unable to connect\n", "ORA-01017"),
        ("SP2-0640: Not connected\n", "SP2-0640"),
    ] {
        let failure = Report::read("x", &exited(3, text)).unwrap_err();
        assert_eq!(failure.code(), Some(code), "{text}");
    }
}
