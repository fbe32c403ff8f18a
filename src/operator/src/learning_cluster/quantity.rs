//! Kubernetes quantities, as far as two of them must be compared: the API server writes `1000m` as `1`.

/// The number that a quantity stands for.
pub fn parse(text: &str) -> Option<f64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '-').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let factor = match &text[digits..] {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    Some(number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_quantities_have_equal_numbers() {
        assert_eq!(parse("1000m"), parse("1"));
        assert_eq!(parse("1024Mi"), parse("1Gi"));
        assert_eq!(parse("0.5"), parse("500m"));
        assert_eq!(parse("soon"), None);
        assert_eq!(parse("5x"), None);
    }
}
