//! Times relative to now, as people read them.

use chrono::{DateTime, TimeDelta, Utc};

/// A length of time in its two largest units: `95s`, `59m`, `2h5m`, `3d4h`. Negative ones are shown without sign.
#[must_use]
pub fn span(length: TimeDelta) -> String {
    let seconds = length.num_seconds().unsigned_abs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let joined = |large: u64, unit: char, small: u64, part: char| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small}{part}"),
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => joined(minutes, 'm', seconds % 60, 's'),
        600..7200 => format!("{minutes}m"),
        7200..172_800 => joined(hours, 'h', minutes % 60, 'm'),
        _ => joined(days, 'd', hours % 24, 'h'),
    }
}

/// `in 5m`, or `5m ago`.
#[must_use]
pub fn relative(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let left = at - now;
    if left > TimeDelta::zero() { format!("in {}", span(left)) } else { format!("{} ago", span(left)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_at_most_two_units() {
        for (seconds, expected) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (150, "2m30s"),
            (600, "10m"),
            (3540, "59m"),
            (7199, "119m"),
            (7500, "2h5m"),
            (7200, "2h"),
            (-7200, "2h"),
            (86_400, "24h"),
            (187_200, "2d4h"),
            (864_000, "10d"),
        ] {
            assert_eq!(span(TimeDelta::seconds(seconds)), expected, "{seconds}");
        }
    }

    #[test]
    fn time_is_ahead_or_past() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).expect("in range");
        assert_eq!(relative(now + TimeDelta::minutes(5), now), "in 5m");
        assert_eq!(relative(now - TimeDelta::minutes(5), now), "5m ago");
        assert_eq!(relative(now, now), "0s ago");
    }
}
