//! `hebb top`: the terminal dashboard of a running process or cluster.
//!
//! One task asks the coordinator; the terminal's thread draws what it said last and turns keys into what to show. What is
//! drawn is in `view`, what a key does in `screen`: both pure.

mod forward;
mod screen;
mod source;
mod view;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use tokio::sync::watch;

use self::forward::Target;
use self::screen::{Next, Screen};
use self::source::{Snapshot, Source};
use crate::cli::Outcome;
use crate::node::runtime;
use crate::output::{http_url, print_line};

#[derive(Args)]
pub struct Options {
    /// Address of a coordinator
    #[arg(long, default_value = "http://127.0.0.1:8000", env = "HEBB_COORDINATOR", value_parser = http_url)]
    url: String,
    /// Token of the internal endpoints, where the cluster has one
    #[arg(long, env = "HEBB_INTERNAL_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A LearningCluster on Kubernetes instead: reached by `kubectl port-forward`, with the token of its Secret
    #[arg(long)]
    cluster: Option<String>,
    /// Namespace of the LearningCluster
    #[arg(short, long, requires = "cluster")]
    namespace: Option<String>,
    /// Context of the kubeconfig
    #[arg(long, requires = "cluster")]
    context: Option<String>,
    /// Seconds between two looks
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    refresh: u64,
    /// Print a summary as JSON and exit
    #[arg(long)]
    summary: bool,
}

/// How long the terminal is left alone at most: a key is answered within this time, and so is a new look.
const TICK: Duration = Duration::from_millis(100);

pub fn run(options: Options) -> Outcome {
    let runtime = runtime()?;
    let target = match options.cluster {
        Some(cluster) => {
            runtime.block_on(Target::forwarded(&cluster, options.namespace.as_deref(), options.context.as_deref()))?
        }
        None => Target::direct(options.url, options.token),
    };
    let source = Source::new(&target)?;
    if options.summary {
        let summary = runtime.block_on(source.summary())?;
        return print_line(serde_json::to_string_pretty(&summary)?);
    }
    if !std::io::stdout().is_terminal() {
        return Err("this is no terminal; `hebb top --summary` prints JSON".into());
    }
    let refresh = Duration::from_secs(options.refresh);
    let (selected, mut chosen) = watch::channel(None);
    let (sender, looks) = watch::channel(Snapshot::default());
    let asking = runtime.spawn(async move {
        loop {
            let domain: Option<String> = chosen.borrow_and_update().clone();
            sender.send_replace(source.look(domain.as_deref()).await);
            tokio::select! {
                () = tokio::time::sleep(refresh) => {}
                // Another domain is opened: its history is wanted now.
                changed = chosen.changed() => if changed.is_err() { return },
            }
        }
    });
    let mut terminal = ratatui::try_init()?;
    let ended = show(&mut terminal, looks, &selected, target.name());
    ratatui::try_restore()?;
    asking.abort();
    ended
}

fn show(
    terminal: &mut ratatui::DefaultTerminal,
    mut looks: watch::Receiver<Snapshot>,
    selected: &watch::Sender<Option<String>>,
    target: &str,
) -> Outcome {
    let mut screen = Screen::default();
    let mut looked_at = Instant::now();
    let mut is_stale = true;
    loop {
        if looks.has_changed()? {
            looked_at = Instant::now();
            is_stale = true;
        }
        // Once a second, for the age of what is shown.
        if is_stale || looked_at.elapsed().subsec_millis() < TICK.as_millis() as u32 {
            let look = looks.borrow_and_update();
            screen.follow(&look);
            terminal.draw(|frame| view::draw(frame, &look, &screen, target, looked_at.elapsed()))?;
            is_stale = false;
        }
        if !event::poll(TICK)? {
            continue;
        }
        match event::read()? {
            Event::Key(key) if key.kind == KeyEventKind::Press => {
                let next = screen.press(key.code, key.modifiers, &looks.borrow());
                if matches!(next, Next::Quit) {
                    return Ok(());
                }
                let opened = screen.opened().map(str::to_owned);
                selected.send_if_modified(|before| {
                    let has_changed = *before != opened;
                    *before = opened;
                    has_changed
                });
                is_stale = true;
            }
            Event::Resize(..) => is_stale = true,
            _ => {}
        }
    }
}
