//! `$(NAME)` in commands, arguments and values.

/// Replaces each `$(NAME)` that `lookup` knows. `$$` stands for `$`, and what is not known stays as it is.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => out.extend(["$(", name, ")"]),
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_expand_as_kubernetes_defines_it() {
        let cases = [
            ("$(A)", "one"),
            ("x$(A)y$(B)z", "xoneytwoz"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$one"),
            ("$(NONE)", "$(NONE)"),
            ("$A ${A} $", "$A ${A} $"),
            ("$(A", "$(A"),
            ("$$", "$"),
            ("$()", "$()"),
            ("ü$(A)ü", "üoneü"),
        ];
        let lookup = |name: &str| match name {
            "A" => Some("one".to_owned()),
            "B" => Some("two".to_owned()),
            _ => None,
        };
        for (text, expected) in cases {
            assert_eq!(expand(text, lookup), expected, "{text}");
        }
    }
}
