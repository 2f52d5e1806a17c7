# Equals CI; edits nothing.
check:
    deploy/test

# Formats, and applies what clippy can repair by itself.
fix:
    cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
    cargo fmt --all
