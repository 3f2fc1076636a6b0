#!/bin/sh
# Installs swarmd on this machine, or removes it. Run as root.
set -eu

usage() {
    cat <<'TEXT'
install.sh [--from DIR] [--no-start]    install swarmd, swarmd-shim and swarmctl, and start the service
install.sh --uninstall                  stop the service and remove what was installed

  --from DIR    where the three programs are [default: ../target/release beside this script]
  --no-start    do not enable and start the service
TEXT
}

programs="swarmd swarmd-shim swarmctl"
here=$(cd "$(dirname "$0")" && pwd)
from="$here/../target/release"
start=yes
action=install
while [ $# -gt 0 ]; do
    case $1 in
        --from) from=${2:?--from needs a directory}; shift ;;
        --no-start) start=no ;;
        --uninstall) action=uninstall ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
    shift
done

say() { echo "install.sh: $*"; }
fail() { say "$*" >&2; exit 1; }
has_systemd() { [ -d /run/systemd/system ]; }

# DESTDIR puts everything below another root, to look at or to make a package of.
root=${DESTDIR:-}
[ -n "$root" ] || [ "$(id -u)" = 0 ] || fail "only root may do this"
bin=$root/usr/local/bin
unit=$root/etc/systemd/system/swarmd.service

install_all() {
    for program in $programs; do
        [ -x "$from/$program" ] || fail "$from/$program is missing: cargo build --release -p swarm-node -p swarm-worker-shim -p swarm-ctl"
    done
    if [ -z "$root" ] && ! getent group swarm >/dev/null; then
        groupadd --system swarm
        say "made the group swarm: its members may talk to the daemon, which is as good as being root"
    fi
    mkdir -p "$bin" "$(dirname "$unit")"
    for program in $programs; do
        # aside and renamed: a program that is running can be replaced, and is never half written
        install -m 0755 "$from/$program" "$bin/.$program.new"
        mv "$bin/.$program.new" "$bin/$program"
        say "installed $bin/$program"
    done
    install -m 0644 "$here/swarmd.service" "$unit"
    say "installed $unit"
    if [ -n "$root" ] || [ "$start" = no ]; then return; fi
    if ! has_systemd; then
        say "systemd does not run here: start $bin/swarmd as you start other daemons"
        return
    fi
    systemctl daemon-reload
    systemctl enable --quiet swarmd
    # also when it ran before, so that the new program is used; its containers go on
    systemctl restart swarmd
    say "swarmd runs; next: swarmctl init, or swarmctl join"
}

uninstall_all() {
    if [ -z "$root" ] && has_systemd && [ -e "$unit" ]; then
        systemctl disable --now --quiet swarmd
        say "stopped swarmd; containers that run and the tunnel between them (swarmd-tunnel) go on until they are ended or the machine stops"
    fi
    rm -f "$unit"
    for program in $programs; do rm -f "$bin/$program"; done
    if [ -z "$root" ] && has_systemd; then systemctl daemon-reload; fi
    say "removed $programs and the unit; kept: /var/lib/swarm (the state of this node), the group swarm"
}

"${action}_all"
