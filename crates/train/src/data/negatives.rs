//! Hard negatives of captions: the same words in another order (NegCLIP; Yuksekgonul et al., 2023).
//!
//! The paper swaps nouns, adjectives and phrases that a tagger found. There is no tagger here: function words of four languages, numbers and
//! punctuation keep their places, and all other words, the content words, are put in another order. `a red apple on a blue plate` may become
//! `a blue plate on a red apple`, or `a plate red on a apple blue`; what is lost is grammar in some of them, not the test whether order matters.

use super::random::Random;

/// Articles, pronouns, prepositions, conjunctions and auxiliaries of English, French, Spanish and German, in lower case.
const FUNCTION_WORDS: &str = " a an the this that these those some any no not and or but nor so of in on at by for with without from to into onto over \
    under above below between behind beside near next through across against around up down off out as is are was were be been being am do does did \
    has have had can could will would shall should may might must it its he she they them his her their we our us you your i my me who whom whose which \
    what where when while there here than then very too also just about before after during \
    le la les l un une des du de d au aux ce cet cette ces et ou mais ni dans sur sous avec sans par pour en vers chez entre est sont était étaient être \
    a ont avait qui que qu quoi dont où il elle ils elles on nous vous je tu se s son sa ses leur leurs mon ma mes ne n pas plus très \
    el los las lo unos unas y o pero ni del al en con sin por para sobre bajo entre hacia desde hasta es son era eran ser está están se su sus mi mis \
    un una que quien cual donde muy más no \
    der die das den dem des ein eine einen einem einer eines und oder aber nicht kein keine in im an am auf unter über vor hinter neben zwischen mit ohne \
    von vom zu zum zur für aus bei nach um durch ist sind war waren sein wird werden hat haben hatte er sie es wir ihr ich du sich sehr auch \
    welche welcher welches wo wenn als wie ";

/// A piece of a text: a word, or what stands between words.
fn pieces(text: &str) -> Vec<(&str, bool)> {
    let mut found: Vec<(&str, bool)> = Vec::new();
    let mut start = 0;
    let mut last = None;
    for (at, character) in text.char_indices() {
        let is_word = character.is_alphanumeric();
        if last.is_some_and(|last| last != is_word) {
            found.push((&text[start..at], !is_word));
            start = at;
        }
        last = Some(is_word);
    }
    if let Some(is_word) = last {
        found.push((&text[start..], is_word));
    }
    found
}

fn is_content(word: &str) -> bool {
    let lower = word.to_lowercase();
    word.chars().any(char::is_alphabetic) && !FUNCTION_WORDS.contains(&format!(" {lower} "))
}

/// The text with its content words in another order; everything else keeps its place. `None` where no other order makes another text: fewer than two
/// different content words.
pub fn shuffled_words(text: &str, random: &mut Random) -> Option<String> {
    let pieces = pieces(text);
    let places: Vec<usize> =
        (0..pieces.len()).filter(|place| pieces[*place].1 && is_content(pieces[*place].0)).collect();
    let words: Vec<&str> = places.iter().map(|place| pieces[*place].0).collect();
    let first = words.first()?.to_lowercase();
    // Another case isn't another word: tokenizers of CLIP don't see it.
    words.iter().find(|word| word.to_lowercase() != first)?;
    let is_same = |order: &[usize]| {
        order.iter().zip(&words).all(|(other, word)| words[*other].to_lowercase() == word.to_lowercase())
    };
    let mut order: Vec<usize> = (0..words.len()).collect();
    // Half of all orders of two words are the same text again; a few tries nearly always suffice.
    for _ in 0..8 {
        random.shuffle(&mut order);
        if !is_same(&order) {
            break;
        }
    }
    if is_same(&order) {
        // Not all words are the same, so that some neighbours in this order differ.
        let place = (1..words.len())
            .find(|place| words[order[place - 1]].to_lowercase() != words[order[*place]].to_lowercase())?;
        order.swap(place - 1, place);
    }
    let mut result: Vec<&str> = pieces.iter().map(|(piece, _)| *piece).collect();
    for (place, other) in places.iter().zip(order) {
        result[*place] = words[other];
    }
    Some(result.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn negatives(text: &str) -> BTreeSet<Option<String>> {
        (0..50).map(|seed| shuffled_words(text, &mut Random::about(&[seed]))).collect()
    }

    #[test]
    fn content_words_change_places_and_function_words_stay() {
        let text = "A red apple, on the blue plate!";
        let found = negatives(text);
        assert!(found.len() > 10, "{found:?}");
        for negative in found {
            let negative = negative.unwrap();
            assert_ne!(negative, text);
            assert!(
                negative.starts_with("A ") && negative.contains(", on the ") && negative.ends_with('!'),
                "{negative}"
            );
            let words = |text: &str| {
                let mut words: Vec<String> = pieces(text).into_iter().map(|(piece, _)| piece.to_owned()).collect();
                words.sort();
                words
            };
            assert_eq!(words(&negative), words(text));
        }
    }

    #[test]
    fn two_words_are_always_swapped() {
        assert_eq!(negatives("horse riding"), BTreeSet::from([Some("riding horse".to_owned())]));
        assert_eq!(negatives("un visage de chien"), BTreeSet::from([Some("un chien de visage".to_owned())]));
        assert_eq!(negatives("ein Hund und das Haus"), BTreeSet::from([Some("ein Haus und das Hund".to_owned())]));
    }

    #[test]
    fn there_is_none_without_two_different_content_words() {
        for text in ["", "dog", "the dog", "dog dog", "Dog, dog", "of the", "12 34", "!?"] {
            assert_eq!(negatives(text), BTreeSet::from([None]), "{text}");
        }
    }

    #[test]
    fn the_seed_decides() {
        let text = "one small black cat sleeps beside two large white dogs";
        let with = |seed: u64| shuffled_words(text, &mut Random::about(&[seed]));
        assert_eq!(with(1), with(1));
        assert_ne!(with(1), with(2));
    }
}
