//! Draws a page of the terminal dashboard. Pure: what is drawn depends on the arguments alone.

use std::time::Duration;

use hebb_engine::Task;
use hebb_node::coordinator::{DomainStatus, Overview, Role};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Axis, Block, Cell, Chart, Dataset, GraphType, Paragraph, Row, Table, TableState};

use super::screen::{Page, Screen};
use super::source::{Point, Snapshot, main_metric};
use crate::output::percent;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const GOOD: Color = Color::Green;
const BAD: Color = Color::Red;
const DRIFT: Color = Color::Yellow;
/// Cells of a sparkline.
const SPARK: usize = 30;
/// A queue this long is worth a colour.
const LAG_MUCH: u64 = 1_000;
/// A process this full is about to be killed.
const MEMORY_FULL: f64 = 0.9;

/// Draws what was seen last, `age` ago.
pub fn draw(frame: &mut Frame<'_>, look: &Snapshot, screen: &Screen, target: &str, age: Duration) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(3), Constraint::Min(1), Constraint::Length(1)]).areas(frame.area());
    frame.render_widget(Paragraph::new(header(look, target, age)), head);
    match &look.overview {
        Some(overview) => match &screen.page {
            Page::Domains => domains(frame, body, look, overview, screen),
            Page::Domain(name) => domain(frame, body, look, overview, name, screen),
            Page::Nodes => nodes(frame, body, overview, screen),
        },
        None => frame.render_widget(Paragraph::new("Waiting for a coordinator…").dim(), body),
    }
    frame.render_widget(Paragraph::new(keys(screen)).dim(), foot);
}

fn header(look: &Snapshot, target: &str, age: Duration) -> Text<'static> {
    let mut first = vec![Span::from("Hebb ").bold().fg(Color::Cyan), Span::from(target.to_owned())];
    match &look.trouble {
        Some(trouble) => first.push(Span::from(format!("  {trouble}")).fg(BAD)),
        None => first.push(Span::from(format!("  {} s ago", age.as_secs())).dim()),
    }
    let Some(overview) = &look.overview else { return Text::from(Line::from(first)) };
    let status = &overview.status;
    let partitions: usize = status.domains.iter().map(|domain| domain.partitions.len()).sum();
    let restarts: u32 = overview.nodes.iter().map(|node| node.restarts).sum();
    let warn = |text: String, is_bad: bool| if is_bad { Span::from(text).fg(BAD).bold() } else { Span::from(text) };
    let second = vec![
        Span::from(format!("leader {} (term {})", status.leader, status.term)),
        warn(format!("  workers {}", status.workers.len()), status.workers.is_empty()),
        warn(
            format!("  partitions {}/{partitions}", partitions as u64 - status.unowned.min(partitions as u64)),
            status.unowned > 0,
        ),
        warn(format!("  lag {}", status.lag), status.lag >= LAG_MUCH),
        Span::from(format!("  events/s {}", rate(overview.events_per_second))),
        Span::from(format!("  p99 {}", seconds(status.answer_p99_seconds))),
        warn(format!("  restarts {restarts}"), restarts > 0),
    ];
    Text::from(vec![Line::from(first), Line::from(second)])
}

fn keys(screen: &Screen) -> String {
    match screen.page {
        Page::Domains => format!(
            "↑↓ choose  enter open  s sort ({}{})  r reverse  tab nodes  q quit",
            screen.order.as_str(),
            if screen.reversed { ", reversed" } else { "" }
        ),
        Page::Domain(_) => "↑↓ scroll  esc back  tab nodes  q quit".to_owned(),
        Page::Nodes => "↑↓ scroll  esc back  tab domains  q quit".to_owned(),
    }
}

fn table(frame: &mut Frame<'_>, area: Rect, titles: &[&str], widths: &[Constraint], rows: Vec<Row<'_>>, chosen: usize) {
    let titles = Row::new(titles.iter().map(|title| Cell::from((*title).to_owned()))).bold().fg(Color::Cyan);
    let table = Table::new(rows, widths.to_vec())
        .header(titles)
        .column_spacing(2)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    frame.render_stateful_widget(table, area, &mut TableState::default().with_selected(chosen));
}

fn domains(frame: &mut Frame<'_>, area: Rect, look: &Snapshot, overview: &Overview, screen: &Screen) {
    if overview.status.domains.is_empty() {
        frame.render_widget(Paragraph::new("There is no domain yet: the first event makes one.").dim(), area);
        return;
    }
    let rows = screen.sorted(overview).into_iter().map(|domain| {
        let history = look.histories.get(&domain.name).map_or(&[][..], Vec::as_slice);
        let detail = overview.details.get(&domain.name);
        Row::new(vec![
            Cell::from(domain.name.clone()),
            Cell::from(task(domain.task)),
            Cell::from(quality(overview, domain)),
            Cell::from(sparkline(history, SPARK)),
            Cell::from(drifts(domain.drifts)),
            Cell::from(domain.events.to_string()),
            Cell::from(rate(detail.and_then(|detail| detail.events_per_second))),
            Cell::from(lag(domain.lag)),
            Cell::from(owned(domain)),
        ])
    });
    let titles = ["DOMAIN", "TASK", "QUALITY", "LAST HOUR", "DRIFTS", "EVENTS", "EVENTS/S", "LAG", "OWNED"];
    let widths = [
        Constraint::Min(12),
        Constraint::Length(9),
        Constraint::Length(13),
        Constraint::Length(SPARK as u16),
        Constraint::Length(6),
        Constraint::Length(9),
        Constraint::Length(8),
        Constraint::Length(7),
        Constraint::Length(7),
    ];
    table(frame, area, &titles, &widths, rows.collect(), screen.row);
}

fn domain(frame: &mut Frame<'_>, area: Rect, look: &Snapshot, overview: &Overview, name: &str, screen: &Screen) {
    let Some(domain) = overview.status.domains.iter().find(|domain| domain.name == name) else {
        frame.render_widget(Paragraph::new(format!("{name} is no longer there.")).dim(), area);
        return;
    };
    let [facts, chart, partitions] =
        Layout::vertical([Constraint::Length(3), Constraint::Percentage(55), Constraint::Min(4)]).areas(area);
    let detail = overview.details.get(name).cloned().unwrap_or_default();
    let number = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.4}"));
    let lines = vec![
        Line::from(vec![
            Span::from(format!("{name}  ")).bold(),
            Span::from(format!("{}  {}", task(domain.task), quality(overview, domain))),
            Span::from(match domain.task {
                task if task.has_classes() => format!(
                    "  of all labels {}  kappa {}  log-loss {}",
                    percent(domain.accuracy),
                    number(detail.kappa),
                    number(detail.log_loss)
                ),
                _ => String::new(),
            }),
            Span::from(format!("  drifts {}", domain.drifts)).fg(DRIFT),
        ]),
        Line::from(format!(
            "events {} ({}/s)  labels {}  lag {}  repeated {}  did not fit {}  classes {}  features {}",
            domain.events,
            rate(detail.events_per_second),
            domain.labels,
            domain.lag,
            detail.duplicates,
            detail.rejected,
            detail.class_count,
            detail.features
        )),
    ];
    frame.render_widget(Paragraph::new(lines), facts);
    history(frame, chart, look.histories.get(name).map_or(&[][..], Vec::as_slice), main_metric(domain));
    let rows = domain.partitions.iter().map(|partition| {
        let owner = match &partition.owner {
            Some(owner) => Span::from(owner.clone()),
            None => Span::from("nobody").fg(BAD).bold(),
        };
        Row::new(vec![
            Cell::from(partition.index.to_string()),
            Cell::from(owner),
            Cell::from(partition.epoch.to_string()),
            Cell::from(lag(partition.lag)),
            Cell::from(bytes(partition.state_bytes)),
        ])
    });
    let titles = ["PARTITION", "OWNER", "OWNERS SO FAR", "LAG", "CHECKPOINT"];
    let widths = [
        Constraint::Length(9),
        Constraint::Min(12),
        Constraint::Length(13),
        Constraint::Length(9),
        Constraint::Length(10),
    ];
    table(frame, partitions, &titles, &widths, rows.collect(), screen.row);
}

/// The last hour of a metric, with a mark below where a drift was detected.
fn history(frame: &mut Frame<'_>, area: Rect, points: &[Point], metric: &str) {
    let block = Block::bordered().title(format!(" {} over the last hour ", metric.replace('_', " ")));
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        frame.render_widget(Paragraph::new("Nothing was measured yet.").dim().block(block), area);
        return;
    };
    let least = points.iter().map(|point| point.value).fold(f64::INFINITY, f64::min);
    let greatest = points.iter().map(|point| point.value).fold(f64::NEG_INFINITY, f64::max);
    let room = (greatest - least).max(greatest.abs() * 0.01).max(1e-6) * 0.1;
    let bounds = [least - room, greatest + room];
    let line: Vec<(f64, f64)> = points.iter().map(|point| (point.at, point.value)).collect();
    let marks: Vec<(f64, f64)> =
        points.iter().filter(|point| point.drift).map(|point| (point.at, bounds[0] + room * 0.2)).collect();
    let line = Dataset::default().marker(Marker::Braille).graph_type(GraphType::Line).fg(GOOD).data(&line);
    let drifts = Dataset::default().marker(Marker::Block).graph_type(GraphType::Scatter).fg(DRIFT).data(&marks);
    let label = |value: f64| match metric {
        "recent_accuracy" => format!("{:.1} %", value * 100.0),
        _ => format!("{value:.3}"),
    };
    let span = last.at - first.at;
    let chart = Chart::new(vec![line, drifts])
        .block(block)
        .x_axis(Axis::default().bounds([first.at, last.at.max(first.at + 1.0)]).labels([
            format!("{} ago", minutes(span)),
            format!("{} drift(s)", marks.len()),
            "now".to_owned(),
        ]))
        .y_axis(Axis::default().bounds(bounds).labels([label(bounds[0]), label(bounds[1])]));
    frame.render_widget(chart, area);
}

fn nodes(frame: &mut Frame<'_>, area: Rect, overview: &Overview, screen: &Screen) {
    let rows = overview.nodes.iter().map(|node| {
        let worker = overview.status.workers.iter().find(|worker| node.role == Role::Worker && worker.id == node.id);
        let share = node.memory_limit.map(|limit| node.memory_bytes as f64 / limit.max(1) as f64);
        let memory = match (share, node.memory_limit) {
            (Some(share), Some(limit)) => {
                let text = format!("{} of {}", bytes(node.memory_bytes), bytes(limit));
                if share > MEMORY_FULL { Span::from(text).fg(BAD).bold() } else { Span::from(text) }
            }
            _ => Span::from(bytes(node.memory_bytes)),
        };
        let role = match node.role {
            Role::Coordinator => "leads",
            Role::Gateway => "gateway",
            Role::Worker if worker.is_some_and(|worker| worker.draining) => "leaving",
            Role::Worker => "worker",
        };
        let up =
            node.started_at.map_or_else(|| "–".to_owned(), |at| minutes(f64::from(overview.at.saturating_sub(at))));
        let restarts = Span::from(node.restarts.to_string());
        Row::new(vec![
            Cell::from(node.id.clone()),
            Cell::from(role),
            Cell::from(memory),
            Cell::from(seconds(node.latency_seconds)),
            Cell::from(up),
            Cell::from(if node.restarts > 0 { restarts.fg(BAD).bold() } else { restarts }),
            Cell::from(worker.map_or_else(String::new, |worker| worker.partitions.to_string())),
            Cell::from(worker.map_or_else(|| Span::from(""), |worker| lag(worker.lag))),
        ])
    });
    let titles = ["NODE", "ROLE", "MEMORY", "LATENCY", "UP", "RESTARTS", "PARTITIONS", "LAG"];
    let widths = [
        Constraint::Min(16),
        Constraint::Length(8),
        Constraint::Length(22),
        Constraint::Length(9),
        Constraint::Length(10),
        Constraint::Length(8),
        Constraint::Length(10),
        Constraint::Length(9),
    ];
    table(frame, area, &titles, &widths, rows.collect(), screen.row);
}

/// The newest points in `cells` cells, each as high as its value within what is shown; a drift is coloured.
fn sparkline(points: &[Point], cells: usize) -> Line<'static> {
    if points.len() < 2 {
        return Line::from("–").dim();
    }
    // Neighbours share a cell where there are more points than cells.
    let size = points.len().div_ceil(cells);
    let cells: Vec<(f64, bool)> = points
        .chunks(size)
        .map(|chunk| {
            let mean = chunk.iter().map(|point| point.value).sum::<f64>() / chunk.len() as f64;
            (mean, chunk.iter().any(|point| point.drift))
        })
        .collect();
    let least = cells.iter().map(|(value, _)| *value).fold(f64::INFINITY, f64::min);
    let greatest = cells.iter().map(|(value, _)| *value).fold(f64::NEG_INFINITY, f64::max);
    let span = (greatest - least).max(f64::MIN_POSITIVE);
    let bar = |value: f64| BARS[(((value - least) / span * 7.0).round() as usize).min(BARS.len() - 1)];
    let cells = cells.into_iter().map(|(value, drift)| {
        let span = Span::from(bar(value).to_string());
        if drift { span.fg(DRIFT) } else { span.fg(GOOD) }
    });
    Line::from(cells.collect::<Vec<_>>())
}

fn quality(overview: &Overview, domain: &DomainStatus) -> String {
    let detail = overview.details.get(&domain.name);
    match (domain.task, domain.recent_accuracy) {
        (Task::Classification | Task::TimeSeriesClassification, Some(accuracy)) => percent(accuracy),
        (Task::Regression, _) => {
            let error = detail.and_then(|detail| detail.mean_absolute_error);
            error.map_or_else(|| "no labels".to_owned(), |error| format!("error {error:.3}"))
        }
        (Task::Patterns, _) => format!("{} patterns", detail.and_then(|detail| detail.patterns).unwrap_or(0)),
        (Task::Governed, _) => format!("{} events", domain.events),
        (Task::Classification | Task::TimeSeriesClassification, None) => "no labels".to_owned(),
    }
}

fn task(task: Task) -> &'static str {
    match task {
        Task::Classification => "classes",
        Task::Regression => "numbers",
        Task::Patterns => "patterns",
        Task::Governed => "governed",
        Task::TimeSeriesClassification => "signals",
    }
}

fn owned(domain: &DomainStatus) -> Span<'static> {
    let owned = domain.partitions.iter().filter(|partition| partition.owner.is_some()).count();
    let text = format!("{owned}/{}", domain.partitions.len());
    if owned < domain.partitions.len() { Span::from(text).fg(BAD).bold() } else { Span::from(text) }
}

fn lag(lag: u64) -> Span<'static> {
    let text = Span::from(lag.to_string());
    if lag >= LAG_MUCH { text.fg(BAD).bold() } else { text }
}

fn drifts(drifts: u64) -> Span<'static> {
    let text = Span::from(drifts.to_string());
    if drifts > 0 { text.fg(DRIFT) } else { text }
}

fn rate(rate: Option<f64>) -> String {
    rate.map_or_else(|| "–".to_owned(), |rate| format!("{rate:.1}"))
}

fn seconds(seconds: Option<f64>) -> String {
    match seconds {
        None => "–".to_owned(),
        Some(seconds) if seconds < 1e-3 => format!("{:.0} µs", seconds * 1e6),
        Some(seconds) => format!("{:.1} ms", seconds * 1e3),
    }
}

fn minutes(seconds: f64) -> String {
    match seconds as u64 {
        few @ 0..60 => format!("{few} s"),
        some @ 60..7_200 => format!("{} min", some / 60),
        many @ 7_200..172_800 => format!("{} h", many / 3_600),
        days => format!("{} d", days / 86_400),
    }
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0 => "–".to_owned(),
        small @ 1..1_048_576 => format!("{:.1} KiB", small as f64 / 1024.0),
        large => format!("{:.1} MiB", large as f64 / 1_048_576.0),
    }
}
