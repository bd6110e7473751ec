#!/bin/sh
# Installs what the tests of databases, Prometheus and the page need, where this machine has it not and
# lets us; else says which tests will skip. Starts none of the services it installs.
set -u

missing=
want() { # what shows that it is there; the package
    if ! sh -c "$1" >/dev/null 2>&1; then
        missing="$missing $2"
    fi
}
want 'command -v initdb || ls /usr/lib/postgresql/*/bin/initdb' postgresql
want 'command -v prometheus' prometheus
want 'command -v prometheus-alertmanager || command -v alertmanager' prometheus-alertmanager
want 'command -v chromium || command -v chromium-browser || command -v google-chrome' chromium
want 'command -v cc' gcc
want 'test -e /usr/include/stdio.h' libc6-dev
[ -z "$missing" ] && exit 0

skip() {
    echo "Not installed:$missing ($1); the tests that need them will skip." >&2
    exit 0
}
command -v apt-get >/dev/null || skip 'this machine has no apt-get'
as_root=
if [ "$(id -u)" != 0 ]; then
    if ! sudo -n true >/dev/null 2>&1; then
        skip 'neither root nor sudo without a password'
    fi
    as_root=sudo
fi

echo "Installing for the tests:$missing"
# Debian asks policy-rc.d before it starts a service; 101 says no. One that is there already is the machine's own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null && $as_root chmod 755 "$policy"
    trap '$as_root rm -f "$policy"' EXIT
    trap 'exit 1' INT TERM
fi
log=$(mktemp)
install() {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120 \
        --no-install-recommends -y install $missing >"$log" 2>&1 </dev/null
}
if ! install; then
    # The lists may be old or absent.
    $as_root apt-get -o Dpkg::Use-Pty=0 update >"$log" 2>&1 </dev/null && install || {
        tail -3 "$log" >&2
        rm -f "$log"
        skip 'apt-get failed'
    }
fi
rm -f "$log"
