//! Selectors by label and by field.

mod fields;
mod labels;

pub use fields::FieldSelector;
pub use labels::{LabelSelector, Requirement};
