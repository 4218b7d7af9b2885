//! Draws a chart: one row of HTML text for each lane, so that it is readable at any width, and a
//! track of SVG in it, whose lengths are shares of its width.

use maud::{Markup, html};

use crate::output::human::duration;

use super::lanes::{Bar, Chart, Lane, Span};

/// The height of a track, in pixels; bars lie in its middle.
const HEIGHT: u32 = 24;
const BAR_HEIGHT: u32 = 12;
/// What is shorter is drawn this long, in percent of the width.
const SHORTEST: f64 = 0.5;
/// At most this many marks on an axis: their texts do not touch on a narrow screen.
const TICKS: f64 = 4.0;

/// A chart with its axis and lanes.
pub(super) fn chart(chart: &Chart) -> Markup {
    html! {
        div.chart {
            (axis(chart))
            @for lane in &chart.lanes { (lane_row(chart, lane)) }
        }
    }
}

/// What the colours stand for, in words.
pub(super) fn legend(entries: &[(&str, &str)]) -> Markup {
    html! {
        ul.legend {
            @for (class, words) in entries {
                li {
                    svg width="22" height="12" aria-hidden="true" { rect class=(class) width="22" height="12" rx="2" {} }
                    span { (words) }
                }
            }
        }
    }
}

/// Patterns that the tracks refer to.
pub(super) fn patterns() -> Markup {
    html! {
        svg.patterns width="0" height="0" aria-hidden="true" {
            defs {
                pattern #hatch width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)" {
                    rect.hatch-ground width="6" height="6" {}
                    rect.hatch-line width="2.5" height="6" {}
                }
            }
        }
    }
}

fn axis(chart: &Chart) -> Markup {
    let ticks = ticks(chart.span.length());
    html! {
        div.lane.axis {
            div.name { "time" }
            div.took {}
            svg.track height="18" width="100%" role="img" aria-label=(format!("time axis, {} long", duration(chart.span.length()))) {
                @for (at, label) in &ticks {
                    text x=(percent(*at)) y="12" text-anchor=(anchor(*at)) { (label) }
                }
            }
        }
    }
}

fn lane_row(chart: &Chart, lane: &Lane) -> Markup {
    let class = match (lane.is_part, lane.failed) {
        (true, true) => "lane part failed-lane",
        (true, false) => "lane part",
        (false, true) => "lane failed-lane",
        (false, false) => "lane",
    };
    let says: Vec<&str> = lane.bars.iter().map(|bar| bar.says.as_str()).collect();
    let label =
        if says.is_empty() { format!("{}: {}", lane.name, lane.took) } else { says.join("; ") };
    html! {
        div class=(class) {
            div.name title=(lane.name) { @if lane.failed { span.sign { "✕ " } } (lane.name) }
            div.took { (lane.took) }
            svg.track height=(HEIGHT) width="100%" role="img" aria-label=(label) {
                @if let Some(hold) = chart.hold { (band(chart, hold, "hold-band")) }
                @if let Some(window) = chart.window { (band(chart, window, "window-band")) }
                @for (at, _) in ticks(chart.span.length()) {
                    line.grid x1=(percent(at)) x2=(percent(at)) y1="0" y2=(HEIGHT) {}
                }
                @for bar in &lane.bars { (bar_rect(chart, bar)) }
            }
        }
    }
}

fn band(chart: &Chart, span: Span, class: &str) -> Markup {
    let (x, width) = place(chart, span);
    html! { rect class=(class) x=(percent(x)) y="0" width=(percent(width)) height=(HEIGHT) {} }
}

fn bar_rect(chart: &Chart, bar: &Bar) -> Markup {
    let (x, width) = place(chart, bar.span);
    let y = (HEIGHT - BAR_HEIGHT) / 2;
    html! {
        rect class=(format!("bar {}", bar.mark.class())) x=(percent(x)) y=(y) width=(percent(width)) height=(BAR_HEIGHT) rx="1.5" {
            title { (bar.says) }
        }
        @if chart.is_cut && bar.span.to > chart.span.to {
            // It goes on beyond the edge: two gaps, as on a broken axis.
            @for gap in [97.2, 98.4] {
                line.cut x1=(percent(gap)) x2=(percent(gap + 0.6)) y1=(y + BAR_HEIGHT + 2) y2=(y - 2) {}
            }
        }
    }
}

/// Where a span lies on the track, in percent: begin and length. Never outside, never too short to be
/// seen.
fn place(chart: &Chart, span: Span) -> (f64, f64) {
    let share = |at: u64| {
        let at = at.clamp(chart.span.from, chart.span.to) - chart.span.from;
        100.0 * to_f64(at) / to_f64(chart.span.length().max(1))
    };
    let (from, to) = (share(span.from), share(span.to));
    let width = (to - from).max(SHORTEST);
    (from.min(100.0 - width), width)
}

/// Marks of an axis of this length, or of 1 µs if that is longer: share in percent, and text.
fn ticks(length_ns: u64) -> Vec<(f64, String)> {
    let length = to_f64(length_ns.max(1_000));
    let rough = length / TICKS;
    let magnitude = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|digit| digit * magnitude)
        .find(|step| *step >= rough)
        .unwrap_or(rough);
    let (unit, name) = match length {
        l if l < 1e6 => (1e3, "µs"),
        l if l < 1e9 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    let decimals = match step / unit {
        s if s >= 1.0 => 0,
        s if s >= 0.1 => 1,
        s if s >= 0.01 => 2,
        _ => 3,
    };
    (0..=5)
        .map(|n| f64::from(n) * step)
        .take_while(|at| *at <= length * 0.97)
        .map(|at| (100.0 * at / length, format!("{:.decimals$} {name}", at / unit)))
        .collect()
}

fn anchor(at: f64) -> &'static str {
    match at {
        at if at < 4.0 => "start",
        at if at > 90.0 => "end",
        _ => "middle",
    }
}

fn percent(share: f64) -> String {
    format!("{share:.3}%")
}

#[expect(clippy::cast_precision_loss, reason = "a picture has some thousand pixels")]
fn to_f64(ns: u64) -> f64 {
    ns as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_has_few_round_marks_at_any_length() {
        for exponent in 0..14 {
            for digit in 1..10 {
                let length = digit * 10_u64.pow(exponent);
                let ticks = ticks(length);
                assert!(ticks.len() <= 6 && !ticks.is_empty(), "{length}: {ticks:?}");
                assert!(
                    ticks.iter().all(|(at, _)| (0.0..=97.0).contains(at)),
                    "{length}: {ticks:?}"
                );
                let mut texts: Vec<&String> = ticks.iter().map(|(_, text)| text).collect();
                texts.dedup();
                assert_eq!(texts.len(), ticks.len(), "{length}: {ticks:?}");
            }
        }
    }

    #[test]
    fn what_is_too_short_to_be_seen_is_drawn_and_nothing_lies_outside() {
        let span = Span { from: 1_000, to: 2_000 };
        let chart = Chart { span, is_cut: false, lanes: Vec::new(), window: None, hold: None };
        for (from, to) in [(1_000, 1_000), (2_000, 2_000), (0, 1), (1_500, 9_000), (9_000, 9_001)] {
            let (x, width) = place(&chart, Span { from, to });
            assert!(width >= SHORTEST && x >= 0.0 && x + width <= 100.0 + 1e-9, "{from} {to}");
        }
    }
}
