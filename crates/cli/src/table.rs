//! Tables whose columns share the width of the terminal, and texts cut to fit.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::output::{Paint, Style};

/// Spaces between columns.
const GAP: usize = 2;
/// A column that may be cut keeps at least so many characters.
const LEAST: usize = 12;

/// Which end of a column its texts stand at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Texts.
    Left,
    /// Numbers.
    Right,
}

/// Where a text that is too long is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Never.
    No,
    /// In the middle: paths tell most at their ends.
    Middle,
    /// At the end.
    End,
}

/// A column.
#[derive(Debug, Clone)]
pub struct Column {
    title: String,
    align: Align,
    cut: Cut,
    style: Style,
}

impl Column {
    /// A column of texts.
    pub fn left(title: &str) -> Self {
        Self { title: title.to_string(), align: Align::Left, cut: Cut::No, style: Style::Plain }
    }

    /// A column of numbers.
    pub fn right(title: &str) -> Self {
        Self { align: Align::Right, ..Self::left(title) }
    }

    /// The same, cut where the terminal is too narrow.
    pub fn cut(self, cut: Cut) -> Self {
        Self { cut, ..self }
    }

    /// The same, in a style.
    pub fn style(self, style: Style) -> Self {
        Self { style, ..self }
    }
}

/// A table.
#[derive(Debug, Clone)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
    indent: usize,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: Vec<Column>) -> Self {
        Self { columns, rows: Vec::new(), indent: 0 }
    }

    /// The same table, moved to the right.
    pub fn indented(self, indent: usize) -> Self {
        Self { indent, ..self }
    }

    /// Adds a row, one text for each column.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells.into_iter().map(|cell| one_line(&cell)).collect());
    }

    /// The table as text, each line ended. `width` of `None` means that nothing is cut.
    pub fn render(&self, width: Option<usize>, paint: Paint) -> String {
        let widths = self.widths(width);
        let mut text = String::new();
        if self.columns.iter().any(|column| !column.title.is_empty()) {
            let titles: Vec<&str> = self.columns.iter().map(|column| column.title.as_str()).collect();
            self.line(&mut text, &titles, &widths, |_, cell| paint.style(Style::Dim, cell));
        }
        for row in &self.rows {
            let cells: Vec<&str> = row.iter().map(String::as_str).collect();
            self.line(&mut text, &cells, &widths, |column, cell| paint.style(column.style, cell));
        }
        text
    }

    fn line(&self, text: &mut String, cells: &[&str], widths: &[usize], styled: impl Fn(&Column, &str) -> String) {
        text.push_str(&" ".repeat(self.indent));
        let last = cells.len().saturating_sub(1);
        for (place, ((column, cell), width)) in self.columns.iter().zip(cells).zip(widths).enumerate() {
            let cell = cut_to(cell, *width, column.cut);
            let space = " ".repeat(width.saturating_sub(cell.width()));
            let styled = if cell.is_empty() { String::new() } else { styled(column, &cell) };
            match column.align {
                Align::Right => text.extend([space, styled]),
                Align::Left if place == last => text.push_str(&styled),
                Align::Left => text.extend([styled, space]),
            }
            if place < last {
                text.push_str(&" ".repeat(GAP));
            }
        }
        let end = text.trim_end_matches(' ').len();
        text.truncate(end);
        text.push('\n');
    }

    /// Widths of the columns: their own, then the widest that may be cut gives way until the line fits.
    fn widths(&self, limit: Option<usize>) -> Vec<usize> {
        let widest = |(place, column): (usize, &Column)| {
            let cells = self.rows.iter().filter_map(|row| row.get(place));
            cells.map(|cell| cell.width()).max().unwrap_or(0).max(column.title.width())
        };
        let mut widths: Vec<usize> = self.columns.iter().enumerate().map(widest).collect();
        let Some(limit) = limit else { return widths };
        let fixed = self.indent + GAP * widths.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + fixed > limit {
            let cuttable =
                self.columns.iter().zip(&mut widths).filter(|(column, width)| column.cut != Cut::No && **width > LEAST);
            match cuttable.map(|(_, width)| width).max() {
                Some(width) => *width -= 1,
                None => break,
            }
        }
        widths
    }
}

/// A text on one line without control characters, which could upset a terminal.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A text cut to `width` columns, an ellipsis where something is missing.
pub fn cut_to(text: &str, width: usize, cut: Cut) -> String {
    if cut == Cut::No || text.width() <= width {
        return text.to_string();
    }
    let room = width.saturating_sub(1);
    match cut {
        Cut::Middle => {
            let tail = take_width(text.chars().rev(), room.div_ceil(2));
            let head = take_width(text.chars(), room - tail.as_str().width().min(room));
            format!("{head}…{}", tail.chars().rev().collect::<String>())
        }
        Cut::End | Cut::No => format!("{}…", take_width(text.chars(), room).trim_end()),
    }
}

fn take_width(characters: impl Iterator<Item = char>, width: usize) -> String {
    let mut used = 0;
    let fits = |c: &char| {
        used += c.width().unwrap_or(0);
        used <= width
    };
    characters.take_while(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_where_they_tell_least() {
        assert_eq!(cut_to("/home/me/pictures/beach.jpg", 15, Cut::Middle), "/home/m…ach.jpg");
        assert_eq!(cut_to("a long caption", 7, Cut::End), "a long…");
        assert_eq!(cut_to("short", 7, Cut::End), "short");
        assert_eq!(cut_to("日本語の絵", 6, Cut::End), "日本…");
        assert_eq!(cut_to("anything", 3, Cut::No), "anything");
        assert_eq!(cut_to("anything", 0, Cut::Middle), "…");
    }

    #[test]
    fn columns_align_and_share_the_width() {
        let columns =
            vec![Column::right("score"), Column::left("path").cut(Cut::Middle), Column::left("caption").cut(Cut::End)];
        let mut table = Table::new(columns).indented(2);
        table.row(vec!["0.31".into(), "/a/quite/long/path/to/some/picture.png".into(), "red apple".into()]);
        table.row(vec!["0.3".into(), "b.png".into(), "a\nb".into()]);
        let wide = table.render(None, Paint::plain());
        let expected = "  score  path                                    caption\n   0.31  /a/quite/long/path/to/some/picture.png  red apple\n    0.3  b.png                                   a b\n";
        assert_eq!(wide, expected);
        let narrow = table.render(Some(40), Paint::plain());
        assert!(narrow.lines().all(|line| line.width() <= 40), "{narrow}");
        assert!(narrow.contains('…') && narrow.contains("red apple"));
    }

    #[test]
    fn a_terminal_too_narrow_for_anything_still_gets_a_table() {
        let mut table = Table::new(vec![Column::left("x").cut(Cut::End)]);
        table.row(vec!["something that is long".into()]);
        assert_eq!(table.render(Some(1), Paint::plain()).lines().count(), 2);
    }
}
