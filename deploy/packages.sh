# Sourced by quickstart and test: what skein needs from the box's package manager.
#
#   packages_install build|test
#
# Installs what is missing and nothing else; asks for sudo only when something is missing and the user
# is not root. The lists are kept for Debian and Ubuntu, where they are tested; other package managers
# get their names for the same things, tried once, and a clear word where that is not enough.
# shellcheck shell=bash

say() {
    printf '\n== %s\n' "$*"
}

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# Words joined by | are alternatives: any of them will do, the first is installed.
APT_BUILD="gcc libc6-dev make cmake ninja-build ccache pkg-config|pkgconf libuv1-dev libprotobuf-c-dev
    protobuf-c-compiler libsodium-dev libopenblas-pthread-dev|libopenblas-dev|libopenblas-serial-dev
    libmdnsd-dev libmicrohttpd-dev libjansson-dev libpcre2-dev libutf8proc-dev
    libcurl4-openssl-dev|libcurl4-gnutls-dev"
APT_TEST="libcmocka-dev python3 clang clang-format clang-tidy shellcheck iproute2 tcpdump util-linux
    qemu-user"

DNF_BUILD="gcc make cmake ninja-build ccache pkgconf-pkg-config libuv-devel protobuf-c-devel
    protobuf-c-compiler libsodium-devel openblas-devel mdnsd-devel libmicrohttpd-devel jansson-devel
    pcre2-devel utf8proc-devel libcurl-devel"
DNF_TEST="libcmocka-devel python3 clang clang-tools-extra ShellCheck iproute tcpdump util-linux"

PACMAN_BUILD="gcc make cmake ninja ccache pkgconf libuv protobuf-c libsodium openblas mdnsd
    libmicrohttpd jansson pcre2 libutf8proc curl"
PACMAN_TEST="cmocka python clang shellcheck iproute2 tcpdump util-linux"

ZYPPER_BUILD="gcc make cmake ninja ccache pkgconf libuv-devel protobuf-c libprotobuf-c-devel
    libsodium-devel openblas_pthreads-devel libmdnsd-devel libmicrohttpd-devel libjansson-devel
    pcre2-devel utf8proc-devel libcurl-devel"
ZYPPER_TEST="libcmocka-devel python3 clang ShellCheck iproute2 tcpdump util-linux"

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "these packages are missing and there is no sudo; as root run: $*"
    fi
}

apt_has() {
    local name
    for name in ${1//|/ }; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] && return 0
    done
    return 1
}

apt_install() {
    local missing=() name
    for name in "$@"; do
        apt_has "$name" || missing+=("${name%%|*}")
    done
    if [ ${#missing[@]} -eq 0 ]; then
        echo "all packages are here"
        return
    fi
    echo "installing: ${missing[*]}"
    # A fresh box has no package lists; one with lists needs no update. The lock of an update that
    # runs by itself in the background is waited for.
    if ! apt-cache show "${missing[@]}" >/dev/null 2>&1; then
        as_root apt-get -q -o DPkg::Lock::Timeout=120 update || fail "apt-get update failed"
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120 \
        install --no-install-recommends "${missing[@]}" </dev/null ||
        fail "apt-get could not install: ${missing[*]}"
}

# Tries once; what is really missing is named by cmake afterwards.
other_install() {
    echo "this box has no apt-get; trying: $*"
    as_root "$@" </dev/null ||
        echo "that did not work; what is missing is named below, please install it by hand"
}

packages_install() {
    local build test
    if command -v apt-get >/dev/null; then
        build=$APT_BUILD test=$APT_TEST
    elif command -v dnf >/dev/null; then
        build=$DNF_BUILD test=$DNF_TEST
    elif command -v pacman >/dev/null; then
        build=$PACMAN_BUILD test=$PACMAN_TEST
    elif command -v zypper >/dev/null; then
        build=$ZYPPER_BUILD test=$ZYPPER_TEST
    else
        echo "no known package manager; what is missing is named below"
        return
    fi
    [ "$1" = test ] || test=
    # Lists of words.
    # shellcheck disable=SC2086
    if command -v apt-get >/dev/null; then
        apt_install $build $test
    elif command -v dnf >/dev/null; then
        other_install dnf -y install $build $test
    elif command -v pacman >/dev/null; then
        other_install pacman -S --needed --noconfirm $build $test
    else
        other_install zypper --non-interactive install $build $test
    fi
}

# configure PRESET OPTION…: Ninja where it is there; another generator's build folder is started anew.
configure() {
    local preset=$1 generator=()
    shift
    if command -v ninja >/dev/null; then
        generator=(-G Ninja)
        if [ -f "build/$preset/CMakeCache.txt" ] && [ ! -f "build/$preset/build.ninja" ]; then
            rm -rf "build/$preset"
        fi
    fi
    cmake --version | head -1 | awk '{ split($3, v, "."); exit !(v[1] > 3 || (v[1] == 3 && v[2] >= 25)) }' ||
        fail "cmake 3.25 or newer is needed (Debian 12, Ubuntu 24.04); this is $(cmake --version | head -1)"
    mkdir -p build
    cmake --preset "$preset" "${generator[@]}" "$@" >"build/configure-$preset.log" 2>&1 || {
        tail -40 "build/configure-$preset.log" >&2
        fail "cmake could not configure the build; its words are above"
    }
}
