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

    /// How many ids of the text itself the model reads.
    pub fn text_limit(&self) -> usize {
        let special = self.tokens.iter().filter(|token| token.special).count();
        self.limit.saturating_sub(special)
    }
}
