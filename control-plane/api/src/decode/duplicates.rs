//! Finds keys that occur twice in one JSON object.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};

/// `duplicate field "metadata.name"` for each key that occurs again in its object.
pub(crate) fn find(json: &[u8]) -> Result<Vec<String>, serde_json::Error> {
    let mut found = Found {
        path: String::new(),
        duplicates: Vec::new(),
    };
    Walk(&mut found).deserialize(&mut serde_json::Deserializer::from_slice(json))?;
    Ok(found.duplicates)
}

struct Found {
    path: String,
    duplicates: Vec<String>,
}

struct Walk<'a>(&'a mut Found);

#[derive(Deserialize, PartialEq, Eq, Hash)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

macro_rules! pass {
    ($($method:ident: $type:ty),*) => {$(
        fn $method<E>(self, _: $type) -> Result<(), E> {
            Ok(())
        }
    )*};
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    pass!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let length = self.0.path.len();
        for index in 0.. {
            self.0.path.push_str(&format!("[{index}]"));
            let item = items.next_element_seed(Walk(self.0))?;
            self.0.path.truncate(length);
            if item.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let length = self.0.path.len();
        let mut seen = HashSet::new();
        while let Some(Key(key)) = entries.next_key::<Key<'de>>()? {
            if length > 0 {
                self.0.path.push('.');
            }
            self.0.path.push_str(&key);
            if !seen.insert(key) {
                self.0
                    .duplicates
                    .push(format!("duplicate field {:?}", self.0.path));
            }
            entries.next_value_seed(Walk(self.0))?;
            self.0.path.truncate(length);
        }
        Ok(())
    }
}
