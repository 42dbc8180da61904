//! What the demo looks like: aligned, coloured on a terminal, plain in a pipe.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

/// Width of the names at the left.
const NAME_WIDTH: usize = 17;

/// Writes to standard output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Screen {
    colored: bool,
}

#[derive(Debug, Clone, Copy)]
enum Style {
    Bold,
    Dim,
    Green,
    Red,
    Cyan,
}

impl Screen {
    pub(crate) fn new(no_color: bool) -> Self {
        Self { colored: !no_color && std::io::stdout().is_terminal() }
    }

    /// Opens a chapter of the story.
    pub(crate) fn title(self, text: &str) {
        self.plain(&format!("\n{}", self.paint(Style::Bold, text)));
    }

    /// A fact at a place: a server, a topic, a table.
    pub(crate) fn hop(self, place: &str, fact: &str, after: Option<Duration>) {
        let after = after.map(|after| format!("  +{}", millis(after))).unwrap_or_default();
        let place = self.paint(Style::Cyan, &format!("{place:<NAME_WIDTH$}"));
        self.plain(&format!("  {place} {fact}{}", self.paint(Style::Dim, &after)));
    }

    /// A server or program that answers now.
    pub(crate) fn ready(self, name: &str, address: &str, version: &str, after: Duration) {
        let name = self.paint(Style::Cyan, &format!("{name:<NAME_WIDTH$}"));
        let version = self.paint(Style::Dim, version);
        self.plain(&format!("  {name} {:>7}  {address:<24} {version}", millis(after)));
    }

    /// A named detail of the fact above.
    pub(crate) fn detail(self, name: &str, value: &str) {
        let name = self.paint(Style::Dim, &format!("{name:<10}"));
        self.plain(&format!("  {:<NAME_WIDTH$}   {name} {value}", ""));
    }

    pub(crate) fn note(self, text: &str) {
        self.plain(&format!("  {}", self.paint(Style::Dim, text)));
    }

    /// A command that the user can copy.
    pub(crate) fn command(self, text: &str) {
        self.plain(&format!("    {}", self.paint(Style::Bold, text)));
    }

    pub(crate) fn good(self, text: &str) {
        self.plain(&format!("  {} {text}", self.paint(Style::Green, "ok")));
    }

    pub(crate) fn bad(self, text: &str) {
        self.plain(&format!("  {} {text}", self.paint(Style::Red, "NOT OK")));
    }

    /// A line of a program's log. Tells when nobody reads any more: it is what is shown when all else has been.
    pub(crate) fn log(self, program: &str, line: &str) -> io::Result<()> {
        let program = self.paint(Style::Dim, &format!("{program:<NAME_WIDTH$}|"));
        writeln!(io::stdout(), "{program} {line}")
    }

    /// A line as it is. A reader that has gone (`| head`, a closed terminal) is no error: what counts is the exit code.
    pub(crate) fn plain(self, text: &str) {
        let _ = writeln!(io::stdout(), "{text}");
    }

    fn paint(self, style: Style, text: &str) -> String {
        if !self.colored || text.is_empty() {
            return text.to_owned();
        }
        let code = match style {
            Style::Bold => 1,
            Style::Dim => 2,
            Style::Red => 31,
            Style::Green => 32,
            Style::Cyan => 36,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// `0.8 ms`, `12 ms`, `1.4 s`.
pub(crate) fn millis(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1e3;
    match millis {
        0.0..10.0 => format!("{millis:.1} ms"),
        10.0..1000.0 => format!("{millis:.0} ms"),
        _ => format!("{:.1} s", millis / 1e3),
    }
}

/// JSON on one line, its keys and numbers as they are; anything else as it is.
pub(crate) fn one_line(json: &str) -> String {
    if serde_json::from_str::<serde::de::IgnoredAny>(json).is_err() {
        return json.trim().to_owned();
    }
    let (mut line, mut in_string, mut escaped) = (String::with_capacity(json.len()), false, false);
    for c in json.chars() {
        if in_string {
            in_string = c != '"' || escaped;
            escaped = c == '\\' && !escaped;
        } else {
            in_string = c == '"';
            if c.is_whitespace() {
                continue;
            }
        }
        line.push(c);
        if !in_string && matches!(c, ',' | ':') {
            line.push(' ');
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short_to_read() {
        assert_eq!(millis(Duration::from_micros(840)), "0.8 ms");
        assert_eq!(millis(Duration::from_micros(12_400)), "12 ms");
        assert_eq!(millis(Duration::from_millis(1_440)), "1.4 s");
    }

    #[test]
    fn json_on_one_line_keeps_keys_numbers_and_strings() {
        let json = "{ \"b\" : [1.50,\n 2],\n\"a\":\"x  \\\" : y\" }";
        assert_eq!(one_line(json), "{\"b\": [1.50, 2], \"a\": \"x  \\\" : y\"}");
        assert_eq!(one_line(" not json "), "not json");
    }
}
