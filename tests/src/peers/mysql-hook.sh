#!/bin/sh
# What people hang into QEMU's guest agent for MySQL: a client in the background that takes the read
# lock, waits at a FIFO, and unlocks when it is told through it. The usual one takes it on trust that
# the lock is there; this one waits until it is.
client() { mariadb --no-defaults -u root -S '@SOCKET@' -N -B "$@"; }
fifo='@DIRECTORY@/fifo' held='@DIRECTORY@/held'

case $1 in
freeze)
    rm -f "$fifo"
    : >"$held"
    mkfifo "$fifo" || exit 1
    {
        echo "FLUSH TABLES WITH READ LOCK; SELECT 'held';"
        read -r _ <"$fifo"
        echo 'UNLOCK TABLES;'
    } | client -n --unbuffered >"$held" &
    until grep -q held "$held"; do sleep 0.01; done
    # Until InnoDB's log is on the disk.
    until client -e 'SHOW ENGINE INNODB STATUS\G' |
        awk '/^Log sequence number/ { now = $NF } /^Log flushed up to/ { flushed = $NF } END { exit now != flushed }'; do
        sleep 0.01
    done
    ;;
thaw)
    [ -p "$fifo" ] || exit 1
    echo >"$fifo"
    ;;
esac
