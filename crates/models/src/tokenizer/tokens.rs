//! A text taken apart for people and programs that count tokens or look at them.

/// One token of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its id in the model's vocabulary.
    pub id: u32,
    /// What it stands for: the part of the text where that is known, else what the vocabulary says, with a replacement character where a token
    /// ends inside a character.
    pub text: String,
    /// Whether the tokenizer put it around the text: begin and end tokens. The same token written out in a text isn't special.
    pub special: bool,
    /// The bytes of the text that it covers, `start..end`; `None` for special tokens, and where the text is cleaned before it is tokenised.
    pub bytes: Option<(usize, usize)>,
}

/// All tokens of a text, also those that the model doesn't read because there are too many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokenized {
    /// The tokens in order, begin and end tokens among them.
    pub tokens: Vec<Token>,
    /// As many as the model reads, begin and end tokens among them.
    pub limit: usize,
}

impl Tokenized {
    /// Whether the model doesn't read all of the text.
    pub fn truncated(&self) -> bool {
        self.tokens.len() > self.limit
    }

    /// The ids of the text itself, without what the tokenizer puts around it.
    pub fn text_ids(&self) -> Vec<u32> {
        self.tokens.iter().filter(|token| !token.special).map(|token| token.id).collect()
    }

    /// The ids of as much of the text as fits into `most` tokens, with what the tokenizer puts around it; the rest is left away at the
    /// beginning or at the end. `None` where `most` leaves no room for what is put around a text.
    pub fn shortened(&self, most: usize, keep: Kept) -> Option<Vec<u32>> {
        let special = |token: &&Token| token.special;
        let begin = self.tokens.iter().take_while(special).count();
        let end = self.tokens[begin..].iter().rev().take_while(special).count();
        let (body, end) = self.tokens[begin..].split_at(self.tokens.len() - begin - end);
        let room = most.checked_sub(begin + end.len())?;
        let away = body.len().saturating_sub(room);
        let body = match keep {
            Kept::Beginning => &body[..body.len() - away],
            Kept::End => &body[away..],
        };
        Some(self.tokens[..begin].iter().chain(body).chain(end).map(|token| token.id).collect())
    }
}

/// What is kept of a text that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Its beginning.
    Beginning,
    /// Its end.
    End,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_shortened_between_begin_and_end() {
        let token = |id, special| Token { id, text: String::new(), special, bytes: None };
        let mut tokens: Vec<Token> = (1..=5).map(|id| token(id, false)).collect();
        tokens.insert(0, token(90, true));
        tokens.push(token(91, true));
        let text = Tokenized { tokens, limit: 6 };
        assert!(text.truncated());
        assert_eq!(text.text_ids(), [1, 2, 3, 4, 5]);
        assert_eq!(text.shortened(4, Kept::Beginning).unwrap(), [90, 1, 2, 91]);
        assert_eq!(text.shortened(4, Kept::End).unwrap(), [90, 4, 5, 91]);
        assert_eq!(text.shortened(7, Kept::End).unwrap(), [90, 1, 2, 3, 4, 5, 91]);
        assert_eq!(text.shortened(2, Kept::End).unwrap(), [90, 91]);
        assert_eq!(text.shortened(1, Kept::End), None);
        let bare = Tokenized { tokens: Vec::new(), limit: 4 };
        assert_eq!(bare.shortened(4, Kept::End).unwrap(), Vec::<u32>::new());
    }
}
