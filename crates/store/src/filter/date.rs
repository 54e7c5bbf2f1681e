//! Dates in filters to nanoseconds since 1970, and back.

/// What a date stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Date {
    /// A whole day of universal time: `start..end` in nanoseconds since 1970.
    Day { start: i64, end: i64 },
    /// One moment, in nanoseconds since 1970.
    Moment(i64),
}

const NANOSECONDS: i64 = 1_000_000_000;
const SECONDS_A_DAY: i64 = 86_400;

/// Reads `2024-05-01`, `2024-05-01T12:30`, `2024-05-01 12:30:15.25`, each of the latter also with `Z` or `+02:00`;
/// universal time without. `None` for anything else, and outside 1678..=2261.
pub(super) fn parse(text: &str) -> Option<Date> {
    let (day, time) = match text.find(['T', 't', ' ']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let days = parse_day(day)?;
    let start = (days * SECONDS_A_DAY).checked_mul(NANOSECONDS)?;
    let Some(time) = time else {
        return Some(Date::Day { start, end: start.checked_add(SECONDS_A_DAY * NANOSECONDS)? });
    };
    start.checked_add(parse_time(time)?).map(Date::Moment)
}

fn parse_day(text: &str) -> Option<i64> {
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || year.len() != 4 || month.len() > 2 || day.len() > 2 {
        return None;
    }
    let (year, month, day) = (number(year)?, number(month)?, number(day)?);
    let in_range = (1678..=2261).contains(&year) && (1..=12).contains(&month);
    (in_range && (1..=days_in_month(year, month)).contains(&day)).then(|| days_since_1970(year, month, day))
}

/// Nanoseconds since midnight of universal time; less than 0 or more than a day with an offset.
fn parse_time(text: &str) -> Option<i64> {
    let (clock, offset) = match text.find(['Z', 'z', '+', '-']) {
        Some(at) if text[at..].eq_ignore_ascii_case("z") => (&text[..at], 0),
        Some(at) => {
            let sign = if text.as_bytes()[at] == b'-' { -1 } else { 1 };
            let (hours, minutes) = text[at + 1..].split_once(':')?;
            (&text[..at], sign * (two_digits(hours, 23)? * 3600 + two_digits(minutes, 59)? * 60))
        }
        None => (text, 0),
    };
    let mut parts = clock.splitn(3, ':');
    let (hours, minutes) = (two_digits(parts.next()?, 23)?, two_digits(parts.next()?, 59)?);
    let (seconds, fraction) = match parts.next() {
        Some(part) => part.split_once('.').unwrap_or((part, "0")),
        None => ("00", "0"),
    };
    if fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let fraction = number(&format!("{fraction:0<9}"))?;
    let seconds = hours * 3600 + minutes * 60 + two_digits(seconds, 59)? - offset;
    Some(seconds * NANOSECONDS + fraction)
}

fn number(text: &str) -> Option<i64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn two_digits(text: &str, most: i64) -> Option<i64> {
    number(text).filter(|value| text.len() == 2 && *value <= most)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Counts in years that begin in March, so that the leap day is the last one.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year;
    days - 719_468
}

/// A moment as text that [`parse`] reads as the same moment; `None` when it has no such text.
pub(super) fn write(nanoseconds: i64) -> Option<String> {
    let (seconds, fraction) = (nanoseconds.div_euclid(NANOSECONDS), nanoseconds.rem_euclid(NANOSECONDS));
    let (days, second) = (seconds.div_euclid(SECONDS_A_DAY), seconds.rem_euclid(SECONDS_A_DAY));
    // Never behind the year that the days fall into, and few years before it.
    let mut year = 1970 + days.div_euclid(366).min(days.div_euclid(365));
    while days_since_1970(year + 1, 1, 1) <= days {
        year += 1;
    }
    let mut month = 12;
    while days_since_1970(year, month, 1) > days {
        month -= 1;
    }
    let day = days - days_since_1970(year, month, 1) + 1;
    let (hours, minutes, seconds) = (second / 3600, second / 60 % 60, second % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}");
    if fraction > 0 {
        text.push_str(format!(".{fraction:09}").trim_end_matches('0'));
    }
    text.push('Z');
    (parse(&text) == Some(Date::Moment(nanoseconds))).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let day = |days: i64| {
            let start = days * SECONDS_A_DAY * NANOSECONDS;
            Some(Date::Day { start, end: start + SECONDS_A_DAY * NANOSECONDS })
        };
        let moment = |seconds: i64| Some(Date::Moment(seconds * NANOSECONDS));
        let cases = [
            ("1970-01-01", day(0)),
            ("1969-12-31", day(-1)),
            ("2000-02-29", day(11_016)),
            ("2024-05-01", day(19_844)),
            ("2024-5-1", day(19_844)),
            ("2023-02-29", None),
            ("2100-02-29", None),
            ("2024-13-01", None),
            ("2024-05", None),
            ("0001-01-01", None),
            ("2400-01-01", None),
            ("2024-05-01T00:00:00Z", moment(1_714_521_600)),
            ("2024-05-01 12:30", moment(1_714_566_600)),
            ("2024-05-01T12:30:00+02:00", moment(1_714_559_400)),
            ("2024-05-01T12:30:00-00:30", moment(1_714_568_400)),
            ("1969-12-31T23:59:59.5", Some(Date::Moment(-NANOSECONDS / 2))),
            ("2024-05-01T24:00", None),
            ("2024-05-01T1:00", None),
            ("2024-05-01T", None),
            ("2024-05-01é", None),
            ("2024-05-01T12:30+é", None),
            ("2024-05-01T12:30:00.0123456789", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn moments_are_read_as_they_are_written() {
        let mut moment = i64::MIN;
        let mut written = 0;
        while let Some(next) = moment.checked_add(1_234_567_890_123_456_789 / 97) {
            if let Some(text) = write(moment) {
                assert_eq!(parse(&text), Some(Date::Moment(moment)), "{text}");
                written += 1;
            }
            moment = next;
        }
        assert!(written > 1400, "{written}");
        assert_eq!(write(1_714_521_600 * NANOSECONDS).as_deref(), Some("2024-05-01T00:00:00Z"));
    }
}
