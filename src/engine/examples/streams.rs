//! Measures every `*.csv.gz` stream of a folder (header `x0…,y`): `cargo run --release -p hebb-engine --example streams -- FOLDER`.
//! A number behind the folder has meta-learning run a cycle every so many events; then what it adopted is told too.

use std::io::Read;
use std::time::Instant;

use flate2::read::MultiGzDecoder;
use hebb_engine::{
    Control, Entry, EntryId, Event, Features, Input, Label, Outcome, Partition, PartitionConfig, Prediction, Task,
};

/// Bins of the calibration error.
const BINS: usize = 15;

/// Seconds that this thread ran: what other work does on the machine doesn't count. Wall time where the kernel doesn't say.
fn seconds(started: Instant) -> f64 {
    let ran = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let ran = ran.and_then(|text| text.split(' ').next().and_then(|nanoseconds| nanoseconds.parse::<f64>().ok()));
    ran.map_or_else(|| started.elapsed().as_secs_f64(), |nanoseconds| nanoseconds / 1e9)
}

/// How far confidence and accuracy are apart (Naeini, Cooper and Hauskrecht, AAAI 2015).
#[derive(Default)]
struct Calibration([(f64, f64); BINS], f64);

impl Calibration {
    fn insert(&mut self, confidence: f64, right: bool) {
        let (confidences, rights) = &mut self.0[((confidence * BINS as f64) as usize).min(BINS - 1)];
        *confidences += confidence;
        *rights += f64::from(u8::from(right));
        self.1 += 1.0;
    }

    fn error(&self) -> f64 {
        self.0.iter().map(|(confidences, rights)| (confidences - rights).abs()).sum::<f64>() / self.1
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("name a folder")?;
    let every = std::env::args().nth(2).map(|number| number.parse::<usize>()).transpose()?;
    let mut files: Vec<_> =
        std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?.into_iter().map(|file| file.path()).collect();
    files.sort();
    let program = Instant::now();
    let mut sums = [0.0; 4];
    let mut count = 0.0;
    println!(
        "{:<16} {:>8} {:>9} {:>7} {:>8} {:>7} {:>10} {:>7} {:>10}",
        "stream", "events", "accuracy", "kappa", "logloss", "ece", "events/s", "drifts", "state kB"
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
                    id: place.to_string().into(),
                    input: Input::Features(Features::Dense(values)),
                    label: Some(Label::Class(label.into())),
                }))
            })
            .collect();
        let mut calibration = Calibration::default();
        let mut adopted = 0;
        let started = seconds(program);
        for (place, event) in events.iter().enumerate() {
            let outcome = partition.apply(EntryId { at_ms: place as u64 + 1, seq: 0 }, event);
            let (Outcome::Answer(answer), Entry::Event(event)) = (outcome, event) else { continue };
            let right = answer.prediction == event.label.clone().map(Prediction::from);
            calibration.insert(f64::from(answer.confidence), right);
            if every.is_some_and(|every| (place + 1).is_multiple_of(every)) {
                let at = EntryId { at_ms: place as u64 + 1, seq: 1 };
                if let Outcome::Cycle(report) = partition.apply(at, &Entry::Control(Control::Cycle)) {
                    adopted += u32::from(report.adopted.is_some());
                }
            }
        }
        let taken = seconds(program) - started;
        let statistics = partition.statistics();
        let name = file.file_name().map(|name| name.to_string_lossy().replace(".csv.gz", "")).unwrap_or_default();
        println!(
            "{name:<16} {:>8} {:>9.2} {:>7.3} {:>8.3} {:>7.3} {:>10.0} {:>7} {:>10}",
            statistics.events,
            statistics.accuracy * 100.0,
            statistics.kappa,
            statistics.log_loss,
            calibration.error(),
            statistics.events as f64 / taken,
            statistics.drifts,
            partition.snapshot().len() / 1024,
        );
        if every.is_some() {
            println!("{:>27} adopted", adopted);
        }
        let figures = [statistics.accuracy * 100.0, statistics.kappa, statistics.log_loss, calibration.error()];
        for (sum, figure) in sums.iter_mut().zip(figures) {
            *sum += figure;
        }
        count += 1.0;
    }
    let [accuracy, kappa, log_loss, error] = sums.map(|sum| sum / count);
    println!("{:<16} {:>8} {accuracy:>9.2} {kappa:>7.3} {log_loss:>8.3} {error:>7.3}", "mean", "");
    Ok(())
}
