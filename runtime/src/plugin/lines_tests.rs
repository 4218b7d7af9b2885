use super::*;

const TIME: &str = "2026-11-20 17:01:18.444005807";

/// What is written, also while the console is held.
#[derive(Clone, Debug, Default)]
struct Paper(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Paper {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[test]
fn lines_are_those_of_the_original() {
    assert_eq!(
        line(Severity::Info, TIME, "Version 1.0.0.8"),
        "[level=\"info\"][time=\"2026-11-20 17:01:18.444005807\"][message=\"Version 1.0.0.8\"]\n"
    );
    assert_eq!(
        group_line("ssg-bp170v57ca9j01jb", "Finish whole Processes of Snapshot successfully"),
        "[snapshotgroup=\"ssg-bp170v57ca9j01jb\"][message=\"Finish whole Processes of Snapshot successfully\"]\n"
    );
}

#[test]
fn nobody_can_break_out_of_a_message() {
    let line = line(Severity::Error, TIME, "a\"][x=\"\n\u{1b}[2J\\\u{202e}\u{9b}é\t\r");
    assert!(
        line.ends_with("[message=\"a\\\"][x=\\\"\\n\\u001b[2J\\\\\\u202e\\u009bé\\t\\r\"]\n"),
        "{line}"
    );
    assert_eq!(line.lines().count(), 1);
}

#[test]
fn a_long_message_is_cut_and_its_line_is_whole() {
    for filler in ["x", "\"", "\\", "\u{1b}", "é", "\\\"", "ab\n"] {
        for length in [1400, 1499, 1500, 1501, 9000] {
            let line = line(Severity::Info, TIME, &filler.repeat(length));
            assert!(line.len() < 1_600, "{filler:?}");
            let message = line.split_once("[message=\"").unwrap().1;
            let message = message.strip_suffix("\"]\n").unwrap();
            assert!(
                unescapes(message),
                "{filler:?} × {length}: …{}",
                &message[message.len() - 20..]
            );
        }
    }
}

/// Every backslash begins a whole escape, and no quote stands alone.
fn unescapes(message: &str) -> bool {
    let mut rest = message.chars();
    while let Some(character) = rest.next() {
        match character {
            '"' => return false,
            '\\' => match rest.next() {
                Some('"' | '\\' | 'n' | 'r' | 't') => {}
                Some('u') => {
                    if !(0..4).all(|_| rest.next().is_some_and(|c| c.is_ascii_hexdigit())) {
                        return false;
                    }
                }
                _ => return false,
            },
            _ => {}
        }
    }
    true
}

#[test]
fn a_failure_keeps_its_state_and_its_hint_however_long_its_cause_is() {
    let then = ["state: file systems running".to_owned(), "hint: try".to_owned()];
    let line = failure_line(TIME, &"\u{1b}".repeat(50_000), &then);
    assert!(line.contains("; state: file systems running; hint: try\"]"), "{line}");
    assert!(line.len() <= LAST_LINE, "{}", line.len());
    let all_long = ["s".repeat(9_000), "h".repeat(9_000)];
    let line = failure_line(TIME, &"w".repeat(9_000), &all_long);
    assert!(line.len() <= LAST_LINE && line.ends_with("h…\"]\n"), "{line}");
    let short = failure_line(TIME, "exit 9: it failed", &["state: s".to_owned()]);
    assert!(short.ends_with("[message=\"exit 9: it failed; state: s\"]\n"), "{short}");
}

#[test]
fn output_is_bounded_and_keeps_its_first_lines_its_last_lines_and_the_very_last() {
    let paper = Paper::default();
    let mut console = Console::new(paper.clone());
    for number in 0..5_000 {
        console.say(line(Severity::Info, TIME, &format!("number {number}")));
    }
    let last = failure_line(TIME, &"e".repeat(90_000), &[]);
    console.finish(&"/run/stillpoint/log/".repeat(500), &last);
    let text = paper.text();
    assert!(text.len() < OUTPUT_LIMIT, "{}", text.len());
    for number in [0, 1, 2, 4_997, 4_998, 4_999] {
        assert!(text.contains(&format!("\"number {number}\"")), "{number}");
    }
    assert!(text.ends_with(&last));
    let shown = text.lines().filter(|line| line.contains("\"number ")).count();
    assert!(text.contains(&format!("… {} lines are left out here", 5_000 - shown)), "{text}");
}

#[test]
fn lines_are_written_at_once_but_for_the_time_in_which_it_is_held() {
    let paper = Paper::default();
    let mut console = Console::new(paper.clone());
    console.say("1\n".into());
    assert_eq!(paper.text(), "1\n");
    console.hold();
    console.say("2\n".into());
    console.say("x".repeat(FIRST_LINES) + "\n");
    assert_eq!(paper.text(), "1\n");
    console.resume();
    assert_eq!(paper.text(), "1\n2\n");
    console.finish("", "end\n");
    assert!(paper.text().starts_with("1\n2\n…") || paper.text().starts_with("1\n2\nx"));
    assert!(paper.text().ends_with("end\n"));
}
