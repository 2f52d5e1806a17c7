//! Guesses what was meant by a word that is not known.
//!
//! Pure.

/// The known word that is nearest, if any is near enough to be what was meant.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let allowed = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `, did you mean "x"?`, or nothing.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, known).map_or_else(String::new, |near| format!(", did you mean \"{near}\"?"))
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let fields = ["apiVersion", "kind", "metadata", "spec", "status"];
        for (word, meant) in [
            ("apiVerison", Some("apiVersion")),
            ("Kind", Some("kind")),
            ("sepc", Some("spec")),
            ("apiversion", Some("apiVersion")),
            ("data", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, fields), meant, "{word}");
        }
        assert_eq!(nearest("pod", ["Node", "Pod", "PodTemplate"]), Some("Pod"));
    }
}
