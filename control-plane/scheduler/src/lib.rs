//! Filters, scores and the binding loop.
