#!/bin/sh
# The way of a vetted hook, from whoever builds it to a snapshot with it:
#
#   publisher:  build -> sign -> push
#   operator:   trust a key -> install by digest -> look -> grant -> snapshot
#
# usage: deploy.sh ROOT                     (as root; / for this machine's own installation)
#
#   MODULE      the component               (default: target/hooks/mysql.wasm, built by `make hooks`)
#   REPOSITORY  HOST[:PORT]/NAME            (default: a docker-registry on this machine, for this run)
#   SECRET      the publisher's secret key  (default: a new one, for this run)
#   SNAPSHOT    the snapshot's name         (default: none is taken; what it would freeze is printed)
#   STILLPOINT  the program                 (default: stillpoint)
#
# ROOT/etc/stillpoint has connections.toml and stillpoint.toml already: which database, which disks.
# For a registry with a login: `docker login HOST` first.
set -eu

root=${1:?usage: deploy.sh ROOT}
stillpoint=${STILLPOINT:-stillpoint}
here=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
module=${MODULE:-$here/target/hooks/mysql.wasm}
work=$(mktemp -d)
registry_pid=
trap 'if [ -n "$registry_pid" ]; then kill "$registry_pid"; fi; rm -rf "$work"' EXIT

say() { printf '\n# %s\n' "$*"; }
run() {
    printf '$ %s\n' "$*"
    "$@"
}

# A registry for this run, if none is named: the distribution's own, with its data in $work.
start_registry() {
    cat >"$work/registry.yml" <<END
version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: "127.0.0.1:0"}
END
    mkfifo "$work/log"
    docker-registry serve "$work/registry.yml" 2>"$work/log" >&2 &
    registry_pid=$!
    # It says where it listens. What it says after that is read, and not needed.
    exec 3<"$work/log"
    while read -r line <&3; do
        case $line in
        *'listening on '*)
            address=${line#*listening on }
            repository=${address%%\"*}/hooks/mysql
            cat <&3 >/dev/null &
            return
            ;;
        esac
    done
    echo "docker-registry did not start (apt-get install docker-registry)" >&2
    exit 1
}

# --- publisher ---------------------------------------------------------------------------------------

sign() {
    say "publisher: sign. The secret key stays here; the public one goes to the operators by a way they trust."
    secret=${SECRET:-$work/publisher.key}
    if [ ! -e "$secret" ]; then
        run "$stillpoint" hook keygen --no-password --secret "$secret" --public "$work/publisher.pub"
    else
        cp "${secret%.key}.pub" "$work/publisher.pub"
    fi
    cp "$module" "$work/hook.wasm"
    run "$stillpoint" hook sign --key "$secret" "$work/hook.wasm"
    if command -v minisign >/dev/null; then
        run minisign -Vm "$work/hook.wasm" -p "$work/publisher.pub" # anybody can check it
    fi
}

push() {
    say "publisher: push. A tag can be moved; the digest that is printed cannot."
    pushed=$("$stillpoint" --json hook push "$work/hook.wasm" "oci://$repository:stable")
    printf '%s\n' "$pushed"
    reference=$(printf '%s\n' "$pushed" | sed -n 's/.*"reference": "\(.*\)",*$/\1/p')
}

# --- operator ----------------------------------------------------------------------------------------

trust() {
    say "operator: trust this publisher, for this hook, and for a time."
    install -d "$root/etc/stillpoint/keys.d"
    install -m 644 "$work/publisher.pub" "$root/etc/stillpoint/keys.d/publisher.pub"
    printf 'hooks = ["mysql"]\nexpires = 2035-01-01\n' >"$root/etc/stillpoint/keys.d/publisher.toml"
    chmod 644 "$root/etc/stillpoint/keys.d/publisher.toml"
}

install_hook() {
    say "operator: install, by digest. Checked: digests, signature, revocations, that it is no way back."
    run "$stillpoint" --root "$root" hook install "$reference"
    run "$stillpoint" --root "$root" hook inspect mysql
}

grant() {
    say "operator: grant. Read it; what is not in it is denied. (An existing grant is never overwritten.)"
    run "$stillpoint" --root "$root" hook grant mysql
    run "$stillpoint" --root "$root" hook grant mysql --accept
}

snapshot() {
    if [ -n "${SNAPSHOT:-}" ]; then
        say "operator: snapshot, and nothing less than application-consistent."
        run "$stillpoint" --root "$root" snapshot --name "$SNAPSHOT" --require application
    else
        say "operator: what a snapshot would freeze (SNAPSHOT=name takes one)."
        run "$stillpoint" --root "$root" plan
    fi
}

if [ -n "${REPOSITORY:-}" ]; then
    repository=$REPOSITORY
else
    start_registry
fi
sign
push
trust
install_hook
grant
snapshot
