//! "Did you mean": the nearest of a set of names.

/// Number of insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`, where no part is
/// edited twice (optimal string alignment).
pub(super) fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row[j] = best;
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// The candidate nearest to `word`, if any is near enough to be a likely slip: one edit for every three characters
/// of `word`, at least one, at most three. The first of equals wins; case counts only between equals.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().count();
    // A word much longer than any name cannot be near one, and must not cost quadratic time.
    if !(2..=64).contains(&length) {
        return None;
    }
    let limit = (length / 3).clamp(1, 3);
    let folded = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| ((distance(&folded, &candidate.to_lowercase()), distance(word, candidate)), candidate))
        .filter(|((edits, _), _)| *edits <= limit)
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        let rows = [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kernel", "kernel", 0),
            ("krenel", "kernel", 1),
            ("kernal", "kernel", 1),
            ("kernl", "kernel", 1),
            ("kkernel", "kernel", 1),
            ("nograpic", "nographic", 1),
            ("sitting", "kitten", 3),
            ("ca", "abc", 3),
            ("größe", "große", 1),
        ];
        for (a, b, expected) in rows {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn nearest_names() {
        let names = ["kernel", "initrd", "append", "m", "D", "d", "nographic", "no-reboot"];
        let rows = [
            ("krenel", Some("kernel")),
            ("KERNEL", Some("kernel")),
            ("no-grahpic", Some("nographic")),
            ("noreboot", Some("no-reboot")),
            ("xyzzy", None),
            ("x", None),
            ("", None),
        ];
        for (word, expected) in rows {
            assert_eq!(nearest(word, names), expected, "{word}");
        }
        assert_eq!(nearest(&"k".repeat(100_000), names), None);
    }
}
