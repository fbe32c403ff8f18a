//! Measures every `*.csv.gz` stream of a folder (header `x0…,y`): `cargo run --release -p hebb-engine --example streams -- FOLDER`.

use std::io::Read;
use std::time::Instant;

use flate2::read::MultiGzDecoder;
use hebb_engine::{Entry, EntryId, Event, Features, Input, Label, Partition, PartitionConfig, Task};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("name a folder")?;
    let mut files: Vec<_> =
        std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?.into_iter().map(|file| file.path()).collect();
    files.sort();
    let mut sum = 0.0;
    let mut count = 0.0;
    println!(
        "{:<16} {:>8} {:>9} {:>7} {:>8} {:>10} {:>10}",
        "stream", "events", "accuracy", "kappa", "logloss", "events/s", "state kB"
    );
    for file in files.iter().filter(|file| file.to_string_lossy().ends_with(".csv.gz")) {
        let mut text = String::new();
        MultiGzDecoder::new(std::fs::File::open(file)?).read_to_string(&mut text)?;
        let mut partition = Partition::new(PartitionConfig::new(Task::Classification));
        let events: Vec<Entry> = text
            .lines()
            .skip(1)
            .enumerate()
            .filter_map(|(place, line)| {
                let (features, label) = line.rsplit_once(',')?;
                let values = features.split(',').map(|value| value.parse().ok()).collect::<Option<Vec<f64>>>()?;
                Some(Entry::Event(Event {
                    id: place.to_string(),
                    input: Input::Features(Features::Dense(values)),
                    label: Some(Label::Class(label.to_owned())),
                }))
            })
            .collect();
        let started = Instant::now();
        for (place, event) in events.iter().enumerate() {
            partition.apply(EntryId { at_ms: place as u64 + 1, seq: 0 }, event);
        }
        let seconds = started.elapsed().as_secs_f64();
        let statistics = partition.statistics();
        let name = file.file_name().map(|name| name.to_string_lossy().replace(".csv.gz", "")).unwrap_or_default();
        println!(
            "{name:<16} {:>8} {:>9.2} {:>7.3} {:>8.3} {:>10.0} {:>10}",
            statistics.events,
            statistics.accuracy * 100.0,
            statistics.kappa,
            statistics.log_loss,
            statistics.events as f64 / seconds,
            partition.snapshot().len() / 1024,
        );
        sum += statistics.accuracy * 100.0;
        count += 1.0;
    }
    println!("mean {:.2}", sum / count);
    Ok(())
}
