//! A document as a page for a browser: distributions, not only medians. One file, no scripts, nothing
//! fetched from anywhere, in the style of the page of a run.

use maud::{DOCTYPE, Markup, html};

use super::document::{BenchDocument, Load, Measure, Method, Place, Set};
use super::stats::{quantile, sorted, to_f64};
use super::table::{about, ratio_of, times};
use crate::output::human::{duration, visible};
use crate::report::{head, table};

const OWN_STYLE: &str = include_str!("page.css");

/// Height of a track, in pixels, and of the box in its middle.
const HEIGHT: u32 = 26;
const BOX: u32 = 12;
/// A box is drawn at least this long, in percent of the width.
const SHORTEST: f64 = 0.6;
/// Dots at the very edge would be cut: what is left free at each side, in percent.
const MARGIN: f64 = 1.5;
/// At most this many marks on an axis: their texts do not touch on a narrow screen.
const MOST_TICKS: usize = 5;

/// The page of a document, readable in light and dark, on paper, and without a network. Characters
/// that a reader does not see are written out.
#[must_use]
pub fn page(document: &BenchDocument) -> String {
    let title = match document.place {
        Place::Lab => "What a freeze costs, in a lab",
        Place::Here => "What a snapshot costs on this machine",
    };
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            (head(&format!("{title} – {}", document.machine.host), OWN_STYLE))
            body {
                main {
                    h1 { (title) }
                    p { (document.machine.host) " · " (document.started.get(..10).unwrap_or_default()) " · "
                        (document.rounds) " rounds"
                        @if document.place == Place::Lab { ", seed " (document.seed) } }
                    (figures(document))
                    (legend(document))
                    @for (measure, load) in headings(document) { (section(document, measure, load)) }
                    h2 { "On what it was measured" }
                    ul { @for line in about(document) { li { (line) } } }
                    (file_systems(document))
                    (words(document))
                }
                footer { "Measured and drawn by stillpoint " (document.stillpoint) "." }
            }
        }
    };
    visible(&markup.into_string())
}

/// Ours, in large letters: the medians of what is quickest to read.
fn figures(document: &BenchDocument) -> Markup {
    let ours = |set: &&Set| set.method == Method::Stillpoint;
    html! {
        dl.figures {
            @for set in document.sets.iter().filter(ours) {
                div.figure {
                    dt { (set.measure.name()) ", " (count(set.file_systems)) }
                    dd.value { (duration(set.median_ns)) }
                    dd.means { (set.load.name()) "; at most " (duration(set.max_ns)) " in " (set.n) }
                }
            }
        }
    }
}

fn count(file_systems: usize) -> String {
    format!("{file_systems} file system{}", if file_systems == 1 { "" } else { "s" })
}

fn headings(document: &BenchDocument) -> Vec<(Measure, Load)> {
    let mut headings: Vec<(Measure, Load)> = Vec::new();
    for set in &document.sets {
        if !headings.contains(&(set.measure, set.load)) {
            headings.push((set.measure, set.load));
        }
    }
    headings
}

fn section(document: &BenchDocument, measure: Measure, load: Load) -> Markup {
    let of = |set: &&Set| (set.measure, set.load) == (measure, load);
    let sets: Vec<&Set> = document.sets.iter().filter(of).collect();
    let scale = Scale::over(sets.iter().flat_map(|set| set.values_ns.iter().copied()));
    let mut counts: Vec<usize> = sets.iter().map(|set| set.file_systems).collect();
    counts.dedup();
    let rows = sets.iter().map(|set| row(document, set)).collect();
    let columns = ["file systems", "how", "n", "median", "p99", "greatest", "as stillpoint's"];
    html! {
        section {
            h2 { (capital(measure.name())) ": " (load.name()) }
            @for file_systems in counts {
                h3 { (count(file_systems)) }
                div.chart {
                    @for set in sets.iter().filter(|set| set.file_systems == file_systems) {
                        (lane(&scale, set))
                    }
                    (axis(&scale))
                }
            }
            (table(&columns, rows))
        }
    }
}

fn row(document: &BenchDocument, set: &Set) -> Vec<Markup> {
    let number = |text: String| html! { span.number { (text) } };
    let p99 = set.p99_ns.map_or_else(|| "–".to_owned(), duration);
    let ratio = ratio_of(document, set).map_or_else(String::new, times);
    vec![
        number(set.file_systems.to_string()),
        html! { (set.method.name()) },
        number(set.n.to_string()),
        number(duration(set.median_ns)),
        number(p99),
        number(duration(set.max_ns)),
        html! { (ratio) },
    ]
}

/// One distribution: a dot for each value, a box over the middle half, a line at the median.
fn lane(scale: &Scale, set: &Set) -> Markup {
    let sorted = sorted(&set.values_ns);
    let (from, to) = (scale.place(quantile(&sorted, 250)), scale.place(quantile(&sorted, 750)));
    let width = (to - from).max(SHORTEST);
    let median = scale.place(set.median_ns);
    let took = format!("{}, at most {}", duration(set.median_ns), duration(set.max_ns));
    let label = format!(
        "{}, {}: {} values from {} to {}, median {}",
        set.method.name(),
        count(set.file_systems),
        set.n,
        duration(sorted.first().copied().unwrap_or_default()),
        duration(set.max_ns),
        duration(set.median_ns)
    );
    html! {
        div.lane {
            div.name { (set.method.name()) }
            div.took { (took) }
            svg.track height=(HEIGHT) width="100%" role="img" aria-label=(label) {
                title { (label) }
                @for (at, _) in &scale.ticks() {
                    line.grid x1=(percent(*at)) x2=(percent(*at)) y1="0" y2=(HEIGHT) {}
                }
                rect class=(format!("bar {}", colour(set.method))) x=(percent(from)) y=((HEIGHT - BOX) / 2)
                    width=(percent(width)) height=(BOX) rx="1.5" {}
                @for value in &sorted {
                    circle.dot cx=(percent(scale.place(*value))) cy=(HEIGHT / 2) r="2.2" {}
                }
                line.median x1=(percent(median)) x2=(percent(median)) y1="2" y2=(HEIGHT - 2) {}
            }
        }
    }
}

fn axis(scale: &Scale) -> Markup {
    html! {
        div.lane.axis {
            div.name { "logarithmic" }
            div.took {}
            svg.track height="18" width="100%" aria-hidden="true" {
                @for (at, label) in &scale.ticks() {
                    text x=(percent(*at)) y="12" text-anchor=(anchor(*at)) { (label) }
                }
            }
        }
    }
}

fn anchor(at: f64) -> &'static str {
    match at {
        at if at < 5.0 => "start",
        at if at > 92.0 => "end",
        _ => "middle",
    }
}

fn percent(share: f64) -> String {
    format!("{share:.3}%")
}

fn colour(method: Method) -> &'static str {
    match method {
        Method::Stillpoint => "work",
        Method::NoRehearsal => "changing",
        Method::Cold => "undo",
        Method::Fsfreeze => "held",
        Method::Bare => "frozen",
    }
}

/// A logarithmic scale over whole powers of ten, in ns.
#[derive(Debug)]
struct Scale {
    first: i32,
    last: i32,
}

impl Scale {
    fn over(values: impl Iterator<Item = u64> + Clone) -> Self {
        let exponent = |value: u64| to_f64(value.max(1)).log10();
        let least = values.clone().min().map_or(0.0, exponent).floor();
        let most = values.max().map_or(0.0, exponent).ceil();
        let (first, last) = (whole(least), whole(most));
        Self { first, last: last.max(first + 1) }
    }

    /// Where a value lies, in percent of the width.
    fn place(&self, value: u64) -> f64 {
        let exponent = to_f64(value.max(1)).log10();
        let share = (exponent - f64::from(self.first)) / f64::from(self.last - self.first);
        MARGIN + share.clamp(0.0, 1.0) * (100.0 - 2.0 * MARGIN)
    }

    /// Powers of ten with their places; with many of them, not each.
    fn ticks(&self) -> Vec<(f64, String)> {
        let all = usize::try_from(self.last - self.first + 1).unwrap_or(1);
        let step = all.div_ceil(MOST_TICKS).max(1);
        let powers = (self.first..=self.last).step_by(step);
        powers
            .filter_map(|exponent| {
                let value = 10_u64.checked_pow(u32::try_from(exponent).ok()?)?;
                Some((self.place(value), round(value)))
            })
            .collect()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the logarithm of a u64 is below 20")]
fn whole(exponent: f64) -> i32 {
    exponent as i32
}

/// A power of ten of ns without digits that say nothing.
fn round(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{} µs", ns / 1_000),
        1_000_000..1_000_000_000 => format!("{} ms", ns / 1_000_000),
        _ => format!("{} s", ns / 1_000_000_000),
    }
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().collect::<String>());
    first.unwrap_or_default() + characters.as_str()
}

fn legend(document: &BenchDocument) -> Markup {
    let mut methods: Vec<Method> = document.sets.iter().map(|set| set.method).collect();
    methods.sort_unstable();
    methods.dedup();
    html! {
        ul.legend {
            @for method in methods {
                li {
                    svg width="22" height="12" aria-hidden="true" {
                        rect class=(format!("bar {}", colour(method))) width="22" height="12" rx="2" {}
                    }
                    span { (method.name()) }
                }
            }
            li {
                svg width="22" height="12" aria-hidden="true" { circle.dot cx="11" cy="6" r="2.2" {} }
                span { "one value; the box has the middle half of all, the line is the median" }
            }
        }
    }
}

fn file_systems(document: &BenchDocument) -> Markup {
    let number = |text: String| html! { span.number { (text) } };
    let extents = |count: Option<u32>| {
        number(count.map_or_else(|| "not told".to_owned(), |count| count.to_string()))
    };
    let rows = document.file_systems.iter().map(|fs| {
        let mut row = vec![html! { code { (fs.name) } }, html! { (fs.fs_type) }];
        if let Some(image) = &fs.image {
            row.push(number(format!("{} MiB", image.bytes >> 20)));
            row.push(html! { (image.on) @if image.direct_io { ", direct I/O" } });
            row.push(extents(image.extents_before));
            row.push(extents(image.extents_after));
        }
        row
    });
    let columns: &[&str] = match document.place {
        Place::Lab => &["file system", "type", "image", "on", "extents before", "extents after"],
        Place::Here => &["file system", "type"],
    };
    html! { h2 { "File systems" } (table(columns, rows.collect())) }
}

/// The words of the page, for whoever reads one for the first time.
fn words(document: &BenchDocument) -> Markup {
    let has = |method| document.sets.iter().any(|set| set.method == method);
    html! {
        h2 { "Words" }
        dl.words {
            dt { "window" } dd { "from the first file system frozen to the last thawed, with no snapshot in it" }
            @if document.place == Place::Here {
                dt { "hold" } dd { "from the first application that was asked to hold still to the last that was let go, with no snapshot and no proof in it" }
                dt { "quiesce" } dd { "from when the first application was asked to when the last one held still" }
            }
            dt { "longest write" } dd { "4 KiB and fdatasync, the longest that was under way during flush, rehearsal and window" }
            @if has(Method::NoRehearsal) {
                dt { "rehearsal" } dd { "a freeze and thaw of everything shortly before the real one: it finds what cannot be frozen while nothing is held, and makes the real one faster" }
                dt { "rcu_expedited" } dd { "a switch of the kernel's that a run puts on, and back: freezing waits for grace periods, which are shorter with it" }
            }
            @if has(Method::Fsfreeze) {
                dt { "fsfreeze, in turn" } dd { "fsfreeze -f for one file system after another, then fsfreeze -u, as in scripts" }
            }
            @if has(Method::Bare) {
                dt { "bare ioctls, warm" } dd { "the two system calls alone, in threads, flushed and rehearsed, with nothing that guards them: what the kernel needs for itself" }
            }
            dt { "times (… to …)" } dd { "the ratio of the medians; 95 of 100 ratios lie in the brackets if rounds are drawn anew" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_on_the_scale_and_marks_do_not_crowd() {
        for (least, most) in
            [(0, 0), (1, 1), (5, u64::MAX / 2), (999, 1_001), (1_000_000, 1_000_000)]
        {
            let scale = Scale::over([least, most].into_iter());
            for value in [least, most] {
                let at = scale.place(value);
                assert!((MARGIN..=100.0 - MARGIN).contains(&at), "{least} {most}: {at}");
            }
            let ticks = scale.ticks();
            assert!((1..=MOST_TICKS).contains(&ticks.len()), "{least} {most}: {ticks:?}");
        }
    }

    #[test]
    fn a_power_of_ten_is_written_without_needless_digits() {
        let texts = [100, 10_000, 1_000_000, 10_000_000_000].map(round);
        assert_eq!(texts, ["100 ns", "10 µs", "1 ms", "10 s"]);
    }
}
