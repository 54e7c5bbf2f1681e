//! Which name somebody meant.

/// A message about an unknown name, with the nearest of the names it lists.
pub(super) fn explained(message: &str) -> String {
    let message = message.trim_end();
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
    let Some(found) = quoted.next().filter(|_| unknown) else { return message.to_string() };
    match quoted.min_by_key(|name| distance(found, name)).filter(|name| distance(found, name) <= most(found)) {
        Some(name) => format!("{message}; did you mean `{name}`?"),
        None => message.to_string(),
    }
}

/// Beyond so many changes a name is another one.
fn most(name: &str) -> usize {
    (name.chars().count() / 3).max(1) + 1
}

/// The least number of letters to insert, remove or replace (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (at, letter) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, other) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_told_if_it_is_near() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        let message = "unknown field `learning_rat`, expected one of `weight_decay`, `learning_rate`, `clip`";
        assert!(explained(message).ends_with("did you mean `learning_rate`?"), "{}", explained(message));
        let far = "unknown field `xyz`, expected one of `weight_decay`, `learning_rate`";
        assert_eq!(explained(far), far);
        assert_eq!(
            explained("invalid type: string \"`a`\", expected `b`"),
            "invalid type: string \"`a`\", expected `b`"
        );
    }
}
