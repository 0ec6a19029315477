//! What a misspelt word may have been meant as.

/// The known word that one that nobody knows may have been meant as.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    // Longer words are typing errors of nothing, and the comparison's cost is quadratic.
    if word.len() > 32 {
        return None;
    }
    let lower = word.to_lowercase();
    let scored = known.iter().map(|k| (distance(&lower, k), *k));
    let (score, best) = scored.min_by_key(|(score, _)| *score)?;
    (score <= 2 && score < best.len() / 2 + 1).then_some(best)
}

/// How many characters must be added, removed or replaced to make `a` of `b` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_word_finds_its_neighbour() {
        let known = ["secrets", "sources", "shell"];
        assert_eq!(nearest("secret", &known), Some("secrets"));
        assert_eq!(nearest("Sources", &known), Some("sources"));
        assert_eq!(nearest("pipeline", &known), None);
        assert_eq!(nearest("", &known), None);
    }
}
