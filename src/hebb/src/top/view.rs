//! Draws a page of the terminal dashboard. Pure: what is drawn depends on the arguments alone.

use std::time::Duration;

use hebb_engine::Task;
use hebb_node::coordinator::{DomainStatus, Overview, Role};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Cell, Chart, Dataset, GraphType, Paragraph, Row, Table, TableState};

use super::screen::{Page, Screen};
use super::source::{Point, Snapshot, main_metric};
use crate::output::{percent, quality};

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

/// Cells between two columns of a table, and between two facts.
const GAP: usize = 2;
/// Lines of an error.
const TROUBLE_LINES: usize = 6;

/// A column of a table.
struct Column {
    title: &'static str,
    /// Cells that it takes, and that it can do with.
    width: u16,
    least: u16,
    /// Where there is no room for all, those with the least go in.
    rank: u8,
    /// Whether it holds names, which are as long as they are.
    names: bool,
}

const fn column(rank: u8, title: &'static str, width: u16) -> Column {
    Column { title, width, least: width, rank, names: false }
}

const fn names(rank: u8, title: &'static str, width: u16) -> Column {
    Column { names: true, ..column(rank, title, width) }
}

const DOMAINS: [Column; 9] = [
    names(0, "DOMAIN", 12),
    column(7, "TASK", 9),
    column(1, "QUALITY", 13),
    Column { least: 8, ..column(8, "LAST HOUR", SPARK as u16) },
    column(5, "DRIFTS", 6),
    column(6, "EVENTS", 9),
    column(2, "EVENTS/S", 8),
    column(3, "LAG", 7),
    column(4, "OWNED", 7),
];
const PARTITIONS: [Column; 5] = [
    column(0, "PARTITION", 9),
    names(1, "OWNER", 12),
    column(3, "OWNERS SO FAR", 13),
    column(2, "LAG", 9),
    column(4, "CHECKPOINT", 10),
];
const NODES: [Column; 8] = [
    names(0, "NODE", 16),
    column(1, "ROLE", 8),
    column(3, "MEMORY", 22),
    column(5, "LATENCY", 9),
    column(6, "UP", 10),
    column(2, "RESTARTS", 8),
    column(7, "PARTITIONS", 10),
    column(4, "LAG", 9),
];

/// The columns that have room, in their order, with their widths. The `longest` name gets up to half of the room.
fn fitting(columns: &[Column], longest: usize, room: u16) -> Vec<(usize, u16)> {
    let mut by_rank: Vec<usize> = (0..columns.len()).collect();
    by_rank.sort_by_key(|index| columns[*index].rank);
    let mut left = room + GAP as u16;
    let mut shown: Vec<(usize, u16)> = Vec::new();
    for index in by_rank {
        let Column { mut width, mut least, names, .. } = columns[index];
        if names {
            width = width.max(u16::try_from(longest).unwrap_or(u16::MAX).min(room / 2));
            least = width;
        }
        if least + GAP as u16 <= left {
            let width = width.min(left - GAP as u16);
            left -= width + GAP as u16;
            shown.push((index, width));
        }
    }
    shown.sort_unstable();
    shown
}

/// Pieces side by side, on as many lines as they need; one that is longer than a line is cut into several.
fn wrapped(pieces: Vec<Span<'static>>, gap: usize, width: u16) -> Vec<Line<'static>> {
    let width = usize::from(width).max(1);
    let (mut lines, mut line, mut length) = (Vec::new(), Vec::new(), 0);
    for piece in pieces {
        let letters: Vec<char> = piece.content.chars().collect();
        for part in letters.chunks(width) {
            if length > 0 && length + gap + part.len() > width {
                lines.push(Line::from(std::mem::take(&mut line)));
                length = 0;
            }
            if length > 0 {
                line.push(Span::from(" ".repeat(gap)));
                length += gap;
            }
            line.push(Span::styled(part.iter().collect::<String>(), piece.style));
            length += part.len();
        }
    }
    lines.push(Line::from(line));
    lines
}

/// Draws what was seen last, `age` ago.
pub fn draw(frame: &mut Frame<'_>, look: &Snapshot, screen: &Screen, target: &str, age: Duration) {
    let header = header(look, target, age, frame.area().width);
    let height = header.len() as u16 + 1;
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(height), Constraint::Min(1), Constraint::Length(1)]).areas(frame.area());
    frame.render_widget(Paragraph::new(header), head);
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

fn header(look: &Snapshot, target: &str, age: Duration, width: u16) -> Vec<Line<'static>> {
    let mut first = vec![Span::from("Hebb").bold().fg(Color::Cyan), Span::from(target.to_owned())];
    if look.trouble.is_none() {
        first.push(Span::from(format!("{} s ago", age.as_secs())).dim());
    }
    let mut lines = wrapped(first, GAP, width);
    if let Some(trouble) = &look.trouble {
        let words = trouble.split_whitespace().map(|word| Span::from(word.to_owned()).fg(BAD)).collect();
        lines.extend(wrapped(words, 1, width).into_iter().take(TROUBLE_LINES));
    }
    let Some(overview) = &look.overview else { return lines };
    let status = &overview.status;
    let partitions: usize = status.domains.iter().map(|domain| domain.partitions.len()).sum();
    let restarts: u32 = overview.nodes.iter().map(|node| node.restarts).sum();
    let warn = |text: String, is_bad: bool| if is_bad { Span::from(text).fg(BAD).bold() } else { Span::from(text) };
    let second = vec![
        warn(format!("workers {}", status.workers.len()), status.workers.is_empty()),
        warn(
            format!("partitions {}/{partitions}", partitions as u64 - status.unowned.min(partitions as u64)),
            status.unowned > 0,
        ),
        warn(format!("lag {}", status.lag), status.lag >= LAG_MUCH),
        Span::from(format!("events/s {}", rate(overview.events_per_second))),
        Span::from(format!("p99 {}", seconds(status.answer_p99_seconds))),
        warn(format!("restarts {restarts}"), restarts > 0),
        Span::from(format!("leader {}", status.leader)),
        Span::from(format!("term {}", status.term)),
    ];
    lines.extend(wrapped(second, GAP, width));
    lines
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

/// Draws the `shown` of the columns, as [`fitting`] has them; names take what room is left.
fn table(
    frame: &mut Frame<'_>,
    area: Rect,
    columns: &[Column],
    shown: &[(usize, u16)],
    rows: Vec<Vec<Cell<'static>>>,
    chosen: usize,
) {
    let titles = Row::new(shown.iter().map(|(index, _)| Cell::from(columns[*index].title))).bold().fg(Color::Cyan);
    let widths = shown.iter().map(|(index, width)| match columns[*index].names {
        true => Constraint::Min(*width),
        false => Constraint::Length(*width),
    });
    let rows = rows.into_iter().map(|cells| {
        let wanted = |(index, cell)| shown.iter().any(|(shown, _)| *shown == index).then_some(cell);
        Row::new(cells.into_iter().enumerate().filter_map(wanted))
    });
    let table = Table::new(rows, widths)
        .header(titles)
        .column_spacing(GAP as u16)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    frame.render_stateful_widget(table, area, &mut TableState::default().with_selected(chosen));
}

fn domains(frame: &mut Frame<'_>, area: Rect, look: &Snapshot, overview: &Overview, screen: &Screen) {
    if overview.status.domains.is_empty() {
        frame.render_widget(Paragraph::new("There is no domain yet: the first event makes one.").dim(), area);
        return;
    }
    let longest = overview.status.domains.iter().map(|domain| domain.name.len()).max().unwrap_or(0);
    let shown = fitting(&DOMAINS, longest, area.width);
    let spark = shown.iter().find(|(index, _)| DOMAINS[*index].title == "LAST HOUR").map_or(0, |(_, width)| *width);
    let rows = screen.sorted(overview).into_iter().map(|domain| {
        let history = look.histories.get(&domain.name).map_or(&[][..], Vec::as_slice);
        let detail = overview.details.get(&domain.name);
        vec![
            Cell::from(domain.name.clone()),
            Cell::from(task(domain.task)),
            Cell::from(quality(domain)),
            Cell::from(sparkline(history, spark.into())),
            Cell::from(drifts(domain.drifts)),
            Cell::from(domain.events.to_string()),
            Cell::from(rate(detail.and_then(|detail| detail.events_per_second))),
            Cell::from(lag(domain.lag)),
            Cell::from(owned(domain)),
        ]
    });
    table(frame, area, &DOMAINS, &shown, rows.collect(), screen.row);
}

fn domain(frame: &mut Frame<'_>, area: Rect, look: &Snapshot, overview: &Overview, name: &str, screen: &Screen) {
    let Some(domain) = overview.status.domains.iter().find(|domain| domain.name == name) else {
        frame.render_widget(Paragraph::new(format!("{name} is no longer there.")).dim(), area);
        return;
    };
    let detail = overview.details.get(name).cloned().unwrap_or_default();
    let number = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.4}"));
    let mut first =
        vec![Span::from(name.to_owned()).bold(), Span::from(task(domain.task)), Span::from(quality(domain))];
    if domain.task.has_classes() {
        first.push(Span::from(format!("of all labels {}", domain.accuracy.map_or_else(|| "–".to_owned(), percent))));
        first.push(Span::from(format!("kappa {}", number(detail.kappa))));
        first.push(Span::from(format!("log-loss {}", number(domain.log_loss))));
    }
    first.push(Span::from(format!("drifts {}", domain.drifts)).fg(DRIFT));
    let second = [
        format!("events {} ({}/s)", domain.events, rate(detail.events_per_second)),
        format!("labels {}", domain.labels),
        format!("lag {}", domain.lag),
        format!("repeated {}", detail.duplicates),
        format!("did not fit {}", detail.rejected),
        format!("classes {}", detail.class_count),
        format!("features {}", detail.features),
    ];
    let mut lines = wrapped(first, GAP, area.width);
    lines.extend(wrapped(second.map(Span::from).into(), GAP, area.width));
    let height = lines.len() as u16 + 1;
    let [facts, chart, partitions] =
        Layout::vertical([Constraint::Length(height), Constraint::Percentage(55), Constraint::Min(4)]).areas(area);
    frame.render_widget(Paragraph::new(lines), facts);
    history(frame, chart, look.histories.get(name).map_or(&[][..], Vec::as_slice), main_metric(domain));
    let rows = domain.partitions.iter().map(|partition| {
        let owner = match &partition.owner {
            Some(owner) => Span::from(owner.clone()),
            None => Span::from("nobody").fg(BAD).bold(),
        };
        vec![
            Cell::from(partition.index.to_string()),
            Cell::from(owner),
            Cell::from(partition.epoch.to_string()),
            Cell::from(lag(partition.lag)),
            Cell::from(bytes(partition.state_bytes)),
        ]
    });
    let owners = domain.partitions.iter().filter_map(|partition| partition.owner.as_ref());
    let shown = fitting(&PARTITIONS, owners.map(String::len).max().unwrap_or(0), area.width);
    table(frame, partitions, &PARTITIONS, &shown, rows.collect(), screen.row);
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
        vec![
            Cell::from(node.id.clone()),
            Cell::from(role),
            Cell::from(memory),
            Cell::from(seconds(node.latency_seconds)),
            Cell::from(up),
            Cell::from(if node.restarts > 0 { restarts.fg(BAD).bold() } else { restarts }),
            Cell::from(worker.map_or_else(String::new, |worker| worker.partitions.to_string())),
            Cell::from(worker.map_or_else(|| Span::from(""), |worker| lag(worker.lag))),
        ]
    });
    let longest = overview.nodes.iter().map(|node| node.id.len()).max().unwrap_or(0);
    table(frame, area, &NODES, &fitting(&NODES, longest, area.width), rows.collect(), screen.row);
}

/// The newest points in `cells` cells, each as high as its value within what is shown; a drift is coloured.
fn sparkline(points: &[Point], cells: usize) -> Line<'static> {
    if points.len() < 2 {
        return Line::from("–").dim();
    }
    // Neighbours share a cell where there are more points than cells.
    let size = points.len().div_ceil(cells.max(1));
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

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    const OVERVIEW: &str = r#"{
        "at": 1000000, "leader": "coordinator-7c9f", "term": 1796031842567, "workers": [], "lag": 12345, "unowned": 0,
        "domains": [{"name": "sensors", "task": "Classification", "events": 123456, "labels": 99, "recent_accuracy": 0.9734,
            "drifts": 3, "lag": 12345, "partitions": []}],
        "answer_p99_seconds": 1.2345, "events_per_second": 98765.4, "requests_per_second": null, "success_rate": null, "firing": 0,
        "nodes": [{"id": "gateway-5d8", "role": "gateway", "memory_bytes": 123456789, "memory_limit": null, "latency_seconds": 0.5,
            "started_at": 400000, "restarts": 17}],
        "details": {}}"#;

    fn screen(width: u16, page: Page, trouble: Option<&str>) -> String {
        let overview = Some(serde_json::from_str(OVERVIEW).unwrap());
        let look = Snapshot { overview, trouble: trouble.map(str::to_owned), ..Snapshot::default() };
        let mut terminal = Terminal::new(TestBackend::new(width, 24)).unwrap();
        let shown = Screen { page, ..Screen::default() };
        terminal.draw(|frame| draw(frame, &look, &shown, "http://127.0.0.1:8000", Duration::from_secs(1))).unwrap();
        let buffer = terminal.backend().buffer();
        let rows = buffer.content().chunks(width.into());
        rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>() + "\n").collect()
    }

    #[test]
    fn every_fact_is_whole_in_a_narrow_terminal() {
        for (width, page) in [(80, Page::Domains), (40, Page::Domains), (40, Page::Nodes)] {
            let text = screen(width, page, None);
            for fact in
                ["workers 0", "lag 12345", "events/s 98765.4", "p99 1234.5 ms", "restarts 17", "term 1796031842567"]
            {
                assert!(text.contains(fact), "{fact}, {width} columns:\n{text}");
            }
        }
    }

    #[test]
    fn a_table_drops_columns_and_keeps_the_others_whole() {
        let titles = |text: &str, first: &str| {
            let line = text.lines().find(|line| line.starts_with(first)).unwrap_or_else(|| panic!("{text}")).to_owned();
            line.split("  ").map(str::trim).filter(|title| !title.is_empty()).map(str::to_owned).collect::<Vec<_>>()
        };
        let (wide, narrow) = (screen(200, Page::Nodes, None), screen(40, Page::Nodes, None));
        assert_eq!(titles(&wide, "NODE"), NODES.map(|column| column.title));
        assert_eq!(titles(&narrow, "NODE"), ["NODE", "ROLE", "RESTARTS"]);
        assert!(narrow.contains("gateway-5d8") && narrow.contains("gateway "), "{narrow}");
        let (middle, narrow) = (screen(80, Page::Domains, None), screen(40, Page::Domains, None));
        assert_eq!(titles(&screen(200, Page::Domains, None), "DOMAIN"), DOMAINS.map(|column| column.title));
        assert!(titles(&middle, "DOMAIN").contains(&"EVENTS".to_owned()) && middle.contains("123456"), "{middle}");
        assert_eq!(titles(&narrow, "DOMAIN"), ["DOMAIN", "QUALITY", "EVENTS/S"]);
        let widths = |longest, room| fitting(&NODES, longest, room).first().map(|(_, width)| *width);
        assert_eq!((widths(5, 80), widths(28, 80), widths(99, 80)), (Some(16), Some(28), Some(40)), "names are whole");
    }

    #[test]
    fn an_error_is_told_to_its_cause() {
        let trouble = "no coordinator answers at http://127.0.0.1:8000: error sending request for url \
            (http://127.0.0.1:8000/api/v1/overview): client error (Connect): tcp connect error: Connection refused (os error 111)";
        for width in [80, 60] {
            let text = screen(width, Page::Domains, Some(trouble));
            let words: Vec<&str> = text.split_whitespace().collect();
            assert!(words.join(" ").contains("Connection refused (os error 111)"), "{text}");
        }
    }
}
