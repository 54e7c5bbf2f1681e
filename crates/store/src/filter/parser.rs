//! Filters as text.
//!
//! ```text
//! filter    = and { "or" and }
//! and       = not { "and" not }
//! not       = "not" not | "(" filter ")" | "true" | "false" | condition
//! condition = "exists" field | field "exists"
//!           | field ( "=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">=" ) value
//!           | field [ "not" ] "in" "(" [ value { "," value } ] ")"
//!           | field [ "not" ] "like" value
//! field     = key { "." key }
//! key       = word | quoted
//! value     = word | quoted
//! ```
//! Keywords may be in any case; a word that is one can only be a key or a value in quotes.

use super::date::{self, Date};
use super::lexer::{Placed, Token, is_keyword, tokens};
use super::path::parse_path;
use super::{Comparison, Filter, FilterPath, FilterSyntaxError, FilterValue, check_pattern};

/// Parentheses and `not` inside each other. Each takes at most two levels of the filter, which has fewer than 100.
const MAX_NESTING: usize = 48;

/// What a field is compared with.
pub(super) enum Operand {
    Value(FilterValue),
    /// A day of [`FilterPath::Modified`]: `start..end`.
    Day {
        start: i64,
        end: i64,
    },
}

impl Filter {
    /// Reads a filter such as `modality = image and year >= 2020 and not tag in (a, b)`; a text that begins with `{` is
    /// JSON, see [`from_json`](Self::from_json). `docs/filters.md` describes the language. What is read can be evaluated.
    ///
    /// # Errors
    /// A text that is none, with the place and what was expected there.
    pub fn parse(text: &str) -> Result<Self, FilterSyntaxError> {
        if text.trim_start().starts_with('{') {
            return Self::parse_json(text);
        }
        let mut parser = Parser { text, tokens: tokens(text)?, at: 0 };
        let filter = parser.filter(MAX_NESTING)?;
        if *parser.token() != Token::End {
            return parser.unexpected("\"and\", \"or\" or the end");
        }
        let whole = |reason| FilterSyntaxError::Text { text: text.to_owned(), start: 0, end: 0, reason };
        filter.check().map_err(|error| whole(error.to_string()))?;
        Ok(filter)
    }
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Placed>,
    at: usize,
}

impl Parser<'_> {
    /// The last token is `End`, which is never passed.
    fn placed(&self) -> &Placed {
        &self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn token(&self) -> &Token {
        &self.placed().token
    }

    fn error<T>(&self, start: usize, end: usize, reason: String) -> Result<T, FilterSyntaxError> {
        Err(FilterSyntaxError::Text { text: self.text.to_owned(), start, end, reason })
    }

    fn unexpected<T>(&self, expected: &str) -> Result<T, FilterSyntaxError> {
        let Placed { start, end, .. } = *self.placed();
        let found = match self.token() {
            Token::End => "the end".to_owned(),
            Token::Word(word) if is_keyword(word) => format!("the word {word:?}, which has a meaning (quote it)"),
            Token::Word(_) | Token::Quoted(_) | Token::Symbol(_) => format!("{:?}", &self.text[start..end]),
        };
        self.error(start, end, format!("expected {expected}, found {found}"))
    }

    fn is_keyword(&self, keyword: &str) -> bool {
        matches!(self.token(), Token::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    /// Passes the keyword if it is next.
    fn keyword(&mut self, keyword: &str) -> bool {
        let found = self.is_keyword(keyword);
        self.at += usize::from(found);
        found
    }

    fn symbol(&mut self, symbol: &str) -> bool {
        let found = matches!(self.token(), Token::Symbol(found) if *found == symbol);
        self.at += usize::from(found);
        found
    }

    fn filter(&mut self, nesting: usize) -> Result<Filter, FilterSyntaxError> {
        let mut parts = vec![self.conjunction(nesting)?];
        while self.keyword("or") {
            parts.push(self.conjunction(nesting)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Filter::Or(parts) })
    }

    fn conjunction(&mut self, nesting: usize) -> Result<Filter, FilterSyntaxError> {
        let mut parts = vec![self.negation(nesting)?];
        while self.keyword("and") {
            parts.push(self.negation(nesting)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Filter::And(parts) })
    }

    fn negation(&mut self, nesting: usize) -> Result<Filter, FilterSyntaxError> {
        let (start, end) = (self.placed().start, self.placed().end);
        let deeper = nesting.checked_sub(1);
        let too_deep = || format!("parentheses and \"not\" are nested deeper than {MAX_NESTING}");
        if self.keyword("not") {
            let Some(nesting) = deeper else { return self.error(start, end, too_deep()) };
            return Ok(self.negation(nesting)?.negated());
        }
        if self.symbol("(") {
            let Some(nesting) = deeper else { return self.error(start, end, too_deep()) };
            let filter = self.filter(nesting)?;
            return if self.symbol(")") { Ok(filter) } else { self.unexpected("\"and\", \"or\" or \")\"") };
        }
        if self.keyword("true") {
            return Ok(Filter::And(Vec::new()));
        }
        if self.keyword("false") {
            return Ok(Filter::Or(Vec::new()));
        }
        self.condition()
    }

    fn condition(&mut self) -> Result<Filter, FilterSyntaxError> {
        if self.keyword("exists") {
            return Ok(Filter::Exists { path: self.path()? });
        }
        let path = self.path()?;
        if self.keyword("exists") {
            return Ok(Filter::Exists { path });
        }
        let negated = self.keyword("not");
        let condition = if self.keyword("in") {
            self.list(path)?
        } else if self.keyword("like") {
            self.like(path)?
        } else if negated {
            return self.unexpected("\"in\" or \"like\"");
        } else {
            let op = self.comparison()?;
            compare(path.clone(), op, self.value(&path)?)
        };
        Ok(if negated { condition.negated() } else { condition })
    }

    /// A field: words and quoted keys without space between them.
    fn path(&mut self) -> Result<FilterPath, FilterSyntaxError> {
        let start = self.placed().start;
        let mut end = start;
        while self.placed().start == end && self.is_name() {
            end = self.placed().end;
            self.at += 1;
        }
        if end == start {
            return self.unexpected("a field such as modality or year");
        }
        parse_path(&self.text[start..end]).or_else(|reason| self.error(start, end, reason))
    }

    fn is_name(&self) -> bool {
        match self.token() {
            Token::Word(word) => !is_keyword(word),
            Token::Quoted(_) => true,
            Token::Symbol(_) | Token::End => false,
        }
    }

    fn comparison(&mut self) -> Result<Comparison, FilterSyntaxError> {
        let Token::Symbol(symbol) = self.token() else { return self.no_comparison() };
        let op = match *symbol {
            "=" | "==" => Comparison::Equal,
            "!=" | "<>" => Comparison::NotEqual,
            "<" => Comparison::Less,
            "<=" => Comparison::LessOrEqual,
            ">" => Comparison::Greater,
            ">=" => Comparison::GreaterOrEqual,
            _ => return self.no_comparison(),
        };
        self.at += 1;
        Ok(op)
    }

    fn no_comparison<T>(&self) -> Result<T, FilterSyntaxError> {
        self.unexpected("a comparison (= != < <= > >=), \"in\", \"like\" or \"exists\"")
    }

    fn list(&mut self, path: FilterPath) -> Result<Filter, FilterSyntaxError> {
        if !self.symbol("(") {
            return self.unexpected("\"(\" and a list of values");
        }
        let mut operands = Vec::new();
        while !self.symbol(")") {
            if !operands.is_empty() && !self.symbol(",") {
                return self.unexpected("\",\" or \")\"");
            }
            operands.push(self.value(&path)?);
        }
        Ok(any_of(path, operands))
    }

    fn like(&mut self, path: FilterPath) -> Result<Filter, FilterSyntaxError> {
        let Placed { start, end, .. } = *self.placed();
        let pattern = self.text_value("a pattern such as '%cat%'")?;
        check_pattern(&pattern).or_else(|reason| self.error(start, end, format!("the filter {reason}")))?;
        Ok(Filter::Like { path, pattern })
    }

    fn text_value(&mut self, expected: &str) -> Result<String, FilterSyntaxError> {
        let text = match self.token() {
            Token::Quoted(text) => text.clone(),
            Token::Word(word) if !is_keyword(word) => word.clone(),
            _ => return self.unexpected(expected),
        };
        self.at += 1;
        Ok(text)
    }

    fn value(&mut self, path: &FilterPath) -> Result<Operand, FilterSyntaxError> {
        let Placed { start, end, .. } = *self.placed();
        let quoted = matches!(self.token(), Token::Quoted(_));
        for truth in [true, false] {
            if matches!(path, FilterPath::Metadata(_)) && self.keyword(if truth { "true" } else { "false" }) {
                return Ok(Operand::Value(FilterValue::Bool(truth)));
            }
        }
        let text = self.text_value("a value")?;
        operand(path, text, quoted).or_else(|reason| self.error(start, end, reason))
    }
}

/// What a text means as a value of this field. The error says what was expected.
pub(super) fn operand(path: &FilterPath, text: String, quoted: bool) -> Result<Operand, String> {
    match path {
        FilterPath::Id | FilterPath::Modality | FilterPath::Uri | FilterPath::Name => {
            Ok(Operand::Value(FilterValue::Text(text)))
        }
        FilterPath::Metadata(_) => {
            let number = if quoted { None } else { number(&text) };
            Ok(Operand::Value(number.unwrap_or(FilterValue::Text(text))))
        }
        FilterPath::Size => match number(&text).or_else(|| with_unit(&text)) {
            Some(bytes) => Ok(Operand::Value(bytes)),
            None => Err(format!("expected a number of bytes such as 1000, 10kB, 2MB or 1GiB, found {text:?}")),
        },
        FilterPath::Modified => match (number(&text), date::parse(&text)) {
            (Some(nanoseconds), _) => Ok(Operand::Value(nanoseconds)),
            (None, Some(Date::Day { start, end })) => Ok(Operand::Day { start, end }),
            (None, Some(Date::Moment(moment))) => Ok(Operand::Value(FilterValue::Integer(moment))),
            (None, None) => Err(format!(
                "expected a date such as 2024-05-01 or '2024-05-01T12:30:00Z' (1678 to 2261), or nanoseconds since \
                 1970, found {text:?}"
            )),
        },
    }
}

/// Words that begin as numbers do; `inf` and `nan` are texts.
fn number(word: &str) -> Option<FilterValue> {
    let digits = word.trim_start_matches(['+', '-']).trim_start_matches('.');
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if let Ok(number) = word.parse::<i64>() {
        return Some(FilterValue::Integer(number));
    }
    word.parse::<f64>().ok().filter(|number| number.is_finite()).map(FilterValue::Number)
}

fn with_unit(word: &str) -> Option<FilterValue> {
    const UNITS: [(&str, f64); 6] =
        [("KiB", 1024.0), ("MiB", 1_048_576.0), ("GiB", 1_073_741_824.0), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9)];
    let found = UNITS.iter().find_map(|(unit, bytes)| {
        let at = word.len().checked_sub(unit.len()).filter(|at| word.is_char_boundary(*at))?;
        word[at..].eq_ignore_ascii_case(unit).then(|| (word[..at].trim_end(), *bytes))
    });
    let (digits, unit) = found?;
    let bytes = match number(digits)? {
        FilterValue::Integer(count) => count as f64 * unit,
        FilterValue::Number(count) => count * unit,
        FilterValue::Bool(_) | FilterValue::Text(_) => return None,
    };
    let whole = bytes.fract() == 0.0 && bytes.abs() < (1i64 << 53) as f64;
    Some(if whole { FilterValue::Integer(bytes as i64) } else { FilterValue::Number(bytes) })
}

/// A comparison; with a day, one that is true for the whole of it.
pub(super) fn compare(path: FilterPath, op: Comparison, operand: Operand) -> Filter {
    let at = |op, moment: i64| Filter::compare(path.clone(), op, moment);
    match operand {
        Operand::Value(value) => Filter::Compare { path, op, value },
        Operand::Day { start, end } => match op {
            Comparison::Equal => Filter::And(vec![at(Comparison::GreaterOrEqual, start), at(Comparison::Less, end)]),
            Comparison::NotEqual => Filter::Or(vec![at(Comparison::Less, start), at(Comparison::GreaterOrEqual, end)]),
            Comparison::Less => at(Comparison::Less, start),
            Comparison::LessOrEqual => at(Comparison::Less, end),
            Comparison::Greater => at(Comparison::GreaterOrEqual, end),
            Comparison::GreaterOrEqual => at(Comparison::GreaterOrEqual, start),
        },
    }
}

/// A value equals one of these, or lies in one of these days.
pub(super) fn any_of(path: FilterPath, operands: Vec<Operand>) -> Filter {
    let (mut values, mut days) = (Vec::new(), Vec::new());
    for operand in operands {
        match operand {
            Operand::Value(value) => values.push(value),
            day @ Operand::Day { .. } => days.push(compare(path.clone(), Comparison::Equal, day)),
        }
    }
    let list = Filter::In { path, values };
    if days.is_empty() {
        return list;
    }
    if !matches!(&list, Filter::In { values, .. } if values.is_empty()) {
        days.push(list);
    }
    if days.len() == 1 { days.remove(0) } else { Filter::Or(days) }
}
