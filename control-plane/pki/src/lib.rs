//! Keys, certificates, join tokens and TLS settings.
