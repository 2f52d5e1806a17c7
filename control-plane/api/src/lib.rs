//! Kinds, defaults, validation, selectors, quantities, patches.
