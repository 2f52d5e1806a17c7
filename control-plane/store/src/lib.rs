//! Versioned keys, transactions, watch history.
