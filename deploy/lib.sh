# Shared by the scripts of this folder: messages, Debian packages, the path of the binary.

target=x86_64-unknown-linux-gnu

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

need_root() {
    [ "$(id -u)" = 0 ] || die "this needs root (namespaces, mounts, cgroups): run it with sudo"
}

# need_packages COMMAND=PACKAGE...: installs the packages whose command is not there.
need_packages() {
    local missing=() pair
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null 2>&1 || [ -e "${pair%%=*}" ] || missing+=("${pair#*=}")
    done
    [ ${#missing[@]} = 0 ] && return
    command -v apt-get >/dev/null || die "please install: ${missing[*]} (this script can do so only where there is apt-get)"
    say "installing Debian packages: ${missing[*]}"
    apt-get update -qq </dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >/dev/null
}

need_rust() {
    command -v cargo >/dev/null || die "cargo is not there: install Rust from https://rustup.rs"
}
