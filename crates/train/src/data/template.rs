//! Templates: what is said around a label or a caption, `a photo of a {}`.

use crate::error::{Error, Result};

/// What stands for the text.
const PLACE: &str = "{}";

/// Checks that every template has a place for the text.
///
/// # Errors
/// A template without `{}`.
pub fn check_templates(templates: &[String]) -> Result<()> {
    match templates.iter().find(|template| !template.contains(PLACE)) {
        Some(template) => Err(Error::Invalid(format!("template {template:?} has no {PLACE} where the text goes"))),
        None => Ok(()),
    }
}

/// A template with a text in its place.
pub fn filled(template: &str, text: &str) -> String {
    template.replace(PLACE, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_need_a_place() {
        assert!(check_templates(&["a photo of a {}".into(), "{}".into()]).is_ok());
        let error = check_templates(&["a photo".into()]).unwrap_err().to_string();
        assert_eq!(error, "template \"a photo\" has no {} where the text goes");
        assert_eq!(filled("a {}, {}", "cat"), "a cat, cat");
    }
}
