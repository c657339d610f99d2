//! The form of the data files: comments, settings, tests; and how a file is written when it is blessed.
//!
//! ```text
//! # A comment.
//! [bits=32 cpl=0]
//! input => expected; expected
//! input => {
//!   expected
//!   expected
//! }
//! ```
//!
//! Settings hold up to the next ones. What is expected is on the input's line if there is room for it.

use std::fmt::Write;

/// Longest line that a result shares with its input, in characters.
const LINE: usize = 128;

/// What an input became.
pub struct Produced {
    /// The input as it is to be written.
    pub input: String,
    /// The result, line by line.
    pub output: Vec<String>,
}

/// A test as it is written.
struct Test<'a> {
    input: &'a str,
    /// None if it was never blessed.
    expected: Option<Vec<&'a str>>,
}

/// The test that begins with `line`, further lines of which are taken from `lines`.
fn test<'a>(line: &'a str, lines: &mut dyn Iterator<Item = (usize, &'a str)>) -> Result<Test<'a>, String> {
    let Some((input, expected)) = line.split_once(" =>") else {
        return Ok(Test { input: line.trim(), expected: None });
    };
    let expected = match expected.trim() {
        "{" => {
            let block: Vec<&str> = lines.map(|(_, line)| line.trim()).take_while(|line| *line != "}").collect();
            if block.iter().any(|line| line.contains(" => ")) {
                return Err(format!("`{}`: no `}}` behind its lines", input.trim()));
            }
            block
        }
        "" => Vec::new(),
        line => line.split("; ").collect(),
    };
    Ok(Test { input: input.trim(), expected: Some(expected) })
}

/// A test's text in a file.
fn written(produced: &Produced) -> String {
    let Produced { input, output } = produced;
    let line = format!("{input} => {}", output.join("; "));
    if line.chars().count() <= LINE {
        return format!("{}\n", line.trim_end());
    }
    let mut text = format!("{input} => {{\n");
    for line in output {
        let _ = writeln!(text, "  {line}");
    }
    text + "}\n"
}

/// Runs the tests of the file `text`. Returns the file as it would be blessed, and a report of each test that gave something else.
///
/// # Errors
///
/// A line that is no test, or an input that nothing can be made of.
pub fn run(
    text: &str,
    produce: fn(&[String], &str) -> Result<Produced, String>,
) -> Result<(String, Vec<String>), String> {
    let (mut blessed, mut differences) = (String::new(), Vec::new());
    let mut settings = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        if let Some(words) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            settings = words.split_whitespace().map(str::to_owned).collect();
        }
        if line.trim().is_empty() || line.starts_with(['#', '[']) {
            let _ = writeln!(blessed, "{line}");
            continue;
        }
        let at = |error: String| format!("line {}: {error}", index + 1);
        let test = test(line, &mut lines).map_err(at)?;
        let produced = produce(&settings, test.input).map_err(at)?;
        let expected = test.expected.unwrap_or_default();
        if produced.output != expected || produced.input != test.input {
            let list = |lines: &[&str]| lines.iter().map(|line| format!("    {line}\n")).collect::<String>();
            let found: Vec<&str> = produced.output.iter().map(String::as_str).collect();
            differences.push(format!(
                "line {}: {}\n  expected\n{}  found (of `{}`)\n{}",
                index + 1,
                test.input,
                list(&expected),
                produced.input,
                list(&found)
            ));
        }
        blessed += &written(&produced);
    }
    Ok((blessed, differences))
}
