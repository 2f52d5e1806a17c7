//! Content-addressed image store, imports, layers.
