//! What commands print: one JSON document with `--json`, aligned text for people otherwise.

use std::fmt;
use std::io::{IsTerminal as _, Write as _};

use clap::builder::styling::{AnsiColor, Style};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::error::{ApiError, code};

/// For whom a command prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Whether text may carry colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// No escape sequences at all.
    Plain,
    /// ANSI colours.
    Colour,
}

impl Paint {
    /// Colours where standard output is a terminal and `NO_COLOR` is not set.
    #[must_use]
    pub fn for_stdout() -> Self {
        Self::of(std::io::stdout().is_terminal())
    }

    /// Colours where standard error is a terminal and `NO_COLOR` is not set.
    #[must_use]
    pub fn for_stderr() -> Self {
        Self::of(std::io::stderr().is_terminal())
    }

    fn of(terminal: bool) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if terminal && !refused { Self::Colour } else { Self::Plain }
    }

    /// `text` as something that went wrong.
    #[must_use]
    pub fn bad(self, text: &str) -> String {
        self.with(AnsiColor::Red.on_default().bold(), text)
    }

    /// `text` as something to look at.
    #[must_use]
    pub fn warn(self, text: &str) -> String {
        self.with(AnsiColor::Yellow.on_default(), text)
    }

    /// `text` as something that is well.
    #[must_use]
    pub fn good(self, text: &str) -> String {
        self.with(AnsiColor::Green.on_default(), text)
    }

    /// `text` as a heading.
    #[must_use]
    pub fn strong(self, text: &str) -> String {
        self.with(Style::new().bold(), text)
    }

    fn with(self, style: Style, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Colour => format!("{}{text}{}", style.render(), style.render_reset()),
        }
    }
}

/// `text` with control characters escaped. Peers choose names and details; they must not steer a terminal.
#[must_use]
pub fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for character in text.chars() {
        // The other characters here change the direction of the text around them.
        if character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            cleaned.extend(character.escape_default());
        } else {
            cleaned.push(character);
        }
    }
    cleaned
}

/// A column's heading, and the side its cells stand on.
#[derive(Debug, Clone, Copy)]
pub enum Column {
    /// Text.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
}

/// Text for people as it grows: lines, aligned fields and tables. What is put in is cleaned.
#[derive(Debug)]
pub struct Text {
    text: String,
    paint: Paint,
}

impl Text {
    /// No text yet.
    #[must_use]
    pub fn new(paint: Paint) -> Self {
        Self { text: String::new(), paint }
    }

    /// Whether colours are welcome.
    #[must_use]
    pub fn paint(&self) -> Paint {
        self.paint
    }

    /// A line.
    pub fn line(&mut self, line: impl fmt::Display) {
        self.text.push_str(&clean(&line.to_string()));
        self.text.push('\n');
    }

    /// A line that is taken as it is, colours included; the caller cleaned its parts.
    pub fn painted(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// An empty line between two things.
    pub fn gap(&mut self) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
    }

    /// A key and a value on each line, the values below each other. Fields without a value are left out.
    pub fn fields<'a>(&mut self, fields: impl IntoIterator<Item = (&'a str, Option<String>)>) {
        let present: Vec<_> = fields.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        let width = present.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
        for (key, value) in present {
            let key = self.paint.strong(&format!("{key:width$}"));
            self.painted(&format!("{key}  {}", clean(&value)));
        }
    }

    /// A table; `empty` stands there instead where there are no rows.
    pub fn table(&mut self, columns: &[Column], rows: impl IntoIterator<Item = Vec<String>>, empty: &str) {
        let mut table = Table::new();
        // Wide rows stay whole, so that output can be searched and cut by column.
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(columns.iter().map(|column| match column {
            Column::Left(name) | Column::Right(name) => *name,
        }));
        for row in rows {
            table.add_row(row.iter().map(|cell| clean(cell)));
        }
        if table.is_empty() {
            self.line(empty);
            return;
        }
        for (place, column) in columns.iter().enumerate() {
            if let Some(drawn) = table.column_mut(place) {
                drawn.set_padding((0, 2));
                if matches!(column, Column::Right(_)) {
                    drawn.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        for (place, line) in table.lines().enumerate() {
            let line = line.trim_end();
            let line = if place == 0 { self.paint.strong(line) } else { line.to_owned() };
            self.painted(&line);
        }
    }

    /// The text.
    #[must_use]
    pub fn into_string(self) -> String {
        self.text
    }
}

/// An answer that people can read.
pub trait Render {
    /// Writes it to `out`.
    fn render(&self, out: &mut Text);
}

/// Prints `answer` to standard output in the asked format.
///
/// # Errors
/// [`code::FILE`] when standard output cannot be written; a reader that went away (`| head`) is no error.
pub fn print<T: Serialize + Render>(format: Format, answer: &T) -> Result<(), ApiError> {
    match format {
        Format::Json => print_json(answer),
        Format::Text => {
            let mut text = Text::new(Paint::for_stdout());
            answer.render(&mut text);
            write_stdout(text.text.as_bytes())
        }
    }
}

/// Prints `answer` as one JSON document.
///
/// # Errors
/// As [`print()`].
pub fn print_json<T: Serialize>(answer: &T) -> Result<(), ApiError> {
    let mut text = serde_json::to_vec_pretty(answer)
        .map_err(|error| ApiError::new(code::BAD_ANSWER, format!("the answer cannot be written as JSON: {error}")))?;
    text.push(b'\n');
    write_stdout(&text)
}

/// Writes `bytes` to standard output.
///
/// # Errors
/// As [`print()`].
pub fn write_stdout(bytes: &[u8]) -> Result<(), ApiError> {
    write_more(bytes).map(|_| ())
}

/// Whether somebody still reads what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// As far as is known.
    There,
    /// Nobody: printing more makes no sense.
    Gone,
}

/// Writes `bytes` to standard output, for output that goes on until its reader goes.
///
/// # Errors
/// As [`print()`].
pub fn write_more(bytes: &[u8]) -> Result<Reader, ApiError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(ApiError::new(code::FILE, format!("standard output cannot be written: {error}"))),
    }
}

/// `count` and `singular` or `plural`: `1 file`, `3 files`.
#[must_use]
pub fn count(count: u64, singular: &str, plural: &str) -> String {
    format!("{count} {}", if count == 1 { singular } else { plural })
}

/// The items in a row with commas; `-` where there are none.
pub fn list<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() { "-".to_owned() } else { items.join(", ") }
}

/// The value as text; `-` where there is none.
pub fn or_dash<T: fmt::Display>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_numbers_right_and_clean_cells() {
        let mut text = Text::new(Paint::Plain);
        let rows = [vec!["site".to_owned(), "17 B".to_owned()], vec!["a\x1b[31mb".to_owned(), "935.0 MiB".to_owned()]];
        text.table(&[Column::Left("NAME"), Column::Right("SIZE")], rows, "nothing");
        assert_eq!(text.into_string(), "NAME               SIZE\nsite               17 B\na\\u{1b}[31mb  935.0 MiB\n");
    }

    #[test]
    fn empty_tables_say_so_and_missing_fields_are_left_out() {
        let mut text = Text::new(Paint::Plain);
        text.table(&[Column::Left("NAME")], [], "no Channels yet");
        text.fields([("name", Some("x".to_owned())), ("target", None), ("id", Some("y".to_owned()))]);
        assert_eq!(text.into_string(), "no Channels yet\nname  x\nid    y\n");
    }

    #[test]
    fn terminals_are_not_steered_by_what_peers_send() {
        assert_eq!(clean("a\x1b]0;x\x07\u{202e}b\n"), "a\\u{1b}]0;x\\u{7}\\u{202e}b\\n");
        assert_eq!(clean("Grüße, 世界"), "Grüße, 世界");
    }
}
