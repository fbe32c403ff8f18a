//! What is on the screen and what a key does to it. Pure.

use hebb_node::coordinator::{DomainStatus, Overview};
use ratatui::crossterm::event::{KeyCode, KeyModifiers};

use super::source::Snapshot;

/// Which page is shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Page {
    /// The table of domains.
    #[default]
    Domains,
    /// One domain.
    Domain(String),
    /// The table of nodes.
    Nodes,
}

/// The order of the domains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// By name.
    #[default]
    Name,
    /// The longest queue first.
    Lag,
    /// The busiest first.
    Rate,
    /// The worst accuracy first.
    Accuracy,
    /// The most drifts first.
    Drifts,
}

impl Order {
    const ALL: [Order; 5] = [Order::Name, Order::Lag, Order::Rate, Order::Accuracy, Order::Drifts];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Order::Name => "name",
            Order::Lag => "lag",
            Order::Rate => "events/s",
            Order::Accuracy => "accuracy",
            Order::Drifts => "drifts",
        }
    }
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Go on.
    Stay,
    /// Leave.
    Quit,
}

/// What is on the screen.
#[derive(Clone, Debug, Default)]
pub struct Screen {
    /// The page.
    pub page: Page,
    /// The order of the domains.
    pub order: Order,
    /// Whether it is reversed.
    pub reversed: bool,
    /// The row that keys act on.
    pub row: usize,
}

impl Screen {
    /// The domain that is opened.
    pub fn opened(&self) -> Option<&str> {
        match &self.page {
            Page::Domain(name) => Some(name),
            Page::Domains | Page::Nodes => None,
        }
    }

    /// Keeps the row within what there is.
    pub fn follow(&mut self, look: &Snapshot) {
        self.row = self.row.min(self.rows(look).saturating_sub(1));
    }

    fn rows(&self, look: &Snapshot) -> usize {
        let Some(overview) = &look.overview else { return 0 };
        match &self.page {
            Page::Domains => overview.status.domains.len(),
            Page::Nodes => overview.nodes.len(),
            Page::Domain(name) => overview
                .status
                .domains
                .iter()
                .find(|domain| domain.name == *name)
                .map_or(0, |domain| domain.partitions.len()),
        }
    }

    /// Does what a key stands for.
    pub fn press(&mut self, key: KeyCode, modifiers: KeyModifiers, look: &Snapshot) -> Next {
        let last = self.rows(look).saturating_sub(1);
        match key {
            KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => return Next::Quit,
            KeyCode::Char('q') => return Next::Quit,
            KeyCode::Esc | KeyCode::Backspace | KeyCode::Left if self.page != Page::Domains => {
                self.open(Page::Domains);
            }
            KeyCode::Down | KeyCode::Char('j') => self.row = (self.row + 1).min(last),
            KeyCode::Up | KeyCode::Char('k') => self.row = self.row.saturating_sub(1),
            KeyCode::PageDown => self.row = (self.row + 10).min(last),
            KeyCode::PageUp => self.row = self.row.saturating_sub(10),
            KeyCode::Home | KeyCode::Char('g') => self.row = 0,
            KeyCode::End | KeyCode::Char('G') => self.row = last,
            KeyCode::Tab | KeyCode::Char('n') => {
                self.open(if self.page == Page::Nodes { Page::Domains } else { Page::Nodes });
            }
            KeyCode::Enter | KeyCode::Right if self.page == Page::Domains => {
                if let Some(overview) = &look.overview
                    && let Some(domain) = self.sorted(overview).get(self.row)
                {
                    self.open(Page::Domain(domain.name.clone()));
                }
            }
            KeyCode::Char('s') => {
                let place = Order::ALL.iter().position(|order| *order == self.order).unwrap_or(0);
                self.order = Order::ALL[(place + 1) % Order::ALL.len()];
                self.row = 0;
            }
            KeyCode::Char('r') => self.reversed = !self.reversed,
            _ => {}
        }
        Next::Stay
    }

    fn open(&mut self, page: Page) {
        self.page = page;
        self.row = 0;
    }

    /// The domains in the order that is wanted; equal ones by name.
    pub fn sorted<'a>(&self, overview: &'a Overview) -> Vec<&'a DomainStatus> {
        let mut domains: Vec<&DomainStatus> = overview.status.domains.iter().collect();
        domains.sort_by(|a, b| a.name.cmp(&b.name));
        let rate = |domain: &DomainStatus| {
            overview.details.get(&domain.name).and_then(|detail| detail.events_per_second).unwrap_or(0.0)
        };
        let accuracy = |domain: &DomainStatus| domain.recent_accuracy.unwrap_or(f64::INFINITY);
        match self.order {
            Order::Name => {}
            Order::Lag => domains.sort_by_key(|domain| std::cmp::Reverse(domain.lag)),
            Order::Rate => domains.sort_by(|a, b| rate(b).total_cmp(&rate(a))),
            Order::Accuracy => domains.sort_by(|a, b| accuracy(a).total_cmp(&accuracy(b))),
            Order::Drifts => domains.sort_by_key(|domain| std::cmp::Reverse(domain.drifts)),
        }
        if self.reversed {
            domains.reverse();
        }
        domains
    }
}
