//! Numbers as people read them: thousands separators, sizes, durations, parameter counts.

/// `1234567` as `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 picture`, `2 pictures`; the plural is the singular with an `s`.
pub fn counted(number: usize, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {noun}{ending}", count(number as u64))
}

/// Bytes in binary units: `512 B`, `1.5 KiB`, `605 MiB`.
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if number < 1024 {
        return format!("{number} B");
    }
    let mut value = number as f64 / 1024.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", three_digits(value), UNITS[unit])
}

/// Large counts in short: `5.7 M`, `151 M`, `2.5 B`.
pub fn short_count(number: u64) -> String {
    let value = number as f64;
    match number {
        0..=999 => number.to_string(),
        1_000..=999_499 => format!("{} K", three_digits(value / 1e3)),
        999_500..=999_499_999 => format!("{} M", three_digits(value / 1e6)),
        _ => format!("{} B", three_digits(value / 1e9)),
    }
}

/// One digit after the point below 100, none from there on.
fn three_digits(value: f64) -> String {
    if value < 99.95 { format!("{value:.1}") } else { format!("{value:.0}") }
}

/// Seconds: `4 ms`, `0.84 s`, `12.3 s`, `2 min 05 s`, `1 h 03 min`.
pub fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    if seconds < 0.0995 {
        format!("{:.0} ms", seconds * 1e3)
    } else if seconds < 9.995 {
        format!("{seconds:.2} s")
    } else if seconds < 59.95 {
        format!("{seconds:.1} s")
    } else if seconds < 3599.5 {
        let whole = seconds.round() as u64;
        format!("{} min {:02} s", whole / 60, whole % 60)
    } else {
        let minutes = (seconds.min(1e15) / 60.0).round() as u64;
        format!("{} h {:02} min", count(minutes / 60), minutes % 60)
    }
}

/// A time that is only guessed: whole seconds, `8 s`, `2 min 05 s`.
pub fn estimate(seconds: f64) -> String {
    if seconds < 59.5 { format!("{:.0} s", seconds.max(1.0)) } else { duration(seconds.round().max(60.0)) }
}

/// Items per second: `0.31/s`, `8.4/s`, `1,204/s`.
pub fn rate(items: usize, seconds: f64) -> String {
    let rate = per_second(items, seconds);
    if rate < 0.9995 {
        format!("{rate:.2}/s")
    } else if rate < 99.95 {
        format!("{rate:.1}/s")
    } else {
        format!("{}/s", count(rate.round() as u64))
    }
}

/// Items per second; 0 where no time passed.
pub fn per_second(items: usize, seconds: f64) -> f64 {
    if seconds > 0.0 { items as f64 / seconds } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ];
        for (number, expected) in cases {
            assert_eq!(count(number), expected);
        }
        assert_eq!((counted(1, "picture"), counted(2000, "picture")), ("1 picture".into(), "2,000 pictures".into()));
        let cases =
            [(999, "999"), (5_734_273, "5.7 M"), (151_277_313, "151 M"), (2_539_567_105, "2.5 B"), (999_999, "1.0 M")];
        for (number, expected) in cases {
            assert_eq!(short_count(number), expected);
        }
    }

    #[test]
    fn sizes() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1 << 20, "1.0 MiB"),
            (605 << 20, "605 MiB"),
            (u64::MAX, "16384 PiB"),
        ];
        for (number, expected) in cases {
            assert_eq!(bytes(number), expected);
        }
    }

    #[test]
    fn durations() {
        let cases = [
            (-1.0, "0 ms"),
            (0.0042, "4 ms"),
            (0.84, "0.84 s"),
            (9.999, "10.0 s"),
            (59.96, "1 min 00 s"),
            (125.4, "2 min 05 s"),
            (3780.0, "1 h 03 min"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(duration(seconds), expected, "{seconds}");
        }
        assert_eq!((estimate(0.2), estimate(7.6), estimate(59.7)), ("1 s".into(), "8 s".into(), "1 min 00 s".into()));
        assert_eq!(rate(10, 0.0), "0.00/s");
        assert_eq!((rate(84, 10.0), rate(12_040, 10.0)), ("8.4/s".into(), "1,204/s".into()));
    }
}
