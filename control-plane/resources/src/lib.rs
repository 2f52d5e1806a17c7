//! The write path that all of the control plane shares.
