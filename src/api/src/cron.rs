//! Schedules in the five fields of cron, as Kubernetes reads them, with numbers only.

/// The fields, with their smallest and greatest numbers.
const FIELDS: [(&str, u32, u32); 5] =
    [("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12), ("day of the week", 0, 6)];

/// What is wrong with a schedule, if anything is.
pub(crate) fn problem(schedule: &str) -> Option<String> {
    let parts: Vec<&str> = schedule.split_whitespace().collect();
    if parts.len() != FIELDS.len() {
        return Some(format!("must have five fields, for example \"0 */6 * * *\"; it has {}", parts.len()));
    }
    let wrong =
        parts.iter().zip(FIELDS).find(|(part, (_, min, max))| !part.split(',').all(|item| is_item(item, *min, *max)));
    wrong.map(|(part, (name, min, max))| {
        format!("{part:?} is no {name}: *, numbers from {min} to {max}, ranges a-b, lists a,b and steps /n are known")
    })
}

/// `*`, `a` or `a-b`, with `/n` where it is more than one number.
fn is_item(item: &str, min: u32, max: u32) -> bool {
    let (range, step) = item.split_once('/').map_or((item, None), |(range, step)| (range, Some(step)));
    let within = |text: &str| number(text).filter(|number| (min..=max).contains(number));
    let spans = match range.split_once('-') {
        _ if range == "*" => true,
        Some((from, to)) => within(from).zip(within(to)).is_some_and(|(from, to)| from <= to),
        None => return step.is_none() && within(range).is_some(),
    };
    spans && step.is_none_or(|step| number(step).is_some_and(|step| (1..=max).contains(&step)))
}

fn number(text: &str) -> Option<u32> {
    (text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_that_kubernetes_takes_are_told_from_others() {
        for good in ["0 */6 * * *", "*/5 * * * *", "0,30 8-18/2 1-15 1,7 1-5", "59 23 31 12 6", " 0  0 * * 0 "] {
            assert_eq!(problem(good), None, "{good}");
        }
        for (bad, named) in [
            ("0 0 * *", "five fields"),
            ("@hourly", "five fields"),
            ("60 * * * *", "\"60\" is no minute"),
            ("* 24 * * *", "is no hour"),
            ("* * 0 * *", "is no day of the month"),
            ("* * * 13 *", "is no month"),
            ("* * * * 7", "is no day of the week"),
            ("*/0 * * * *", "is no minute"),
            ("5/5 * * * *", "is no minute"),
            ("9-3 * * * *", "is no minute"),
            ("1, * * * *", "is no minute"),
            ("+1 * * * *", "is no minute"),
            ("* * * JAN *", "is no month"),
        ] {
            let said = problem(bad).unwrap_or_default();
            assert!(said.contains(named), "{bad}: {said}");
        }
    }
}
