# Runs QEMU's guest agent where it can see no file system but the lab's and the one it is installed
# on: it thaws whatever it finds mounted, and other labs on this machine may be frozen at this moment.
set -eu
lab=$1
shift
awk -v lab="$lab/" '$1 ~ "^/dev/" && $2 != "/" && index($2, lab) != 1 { print $2 }' /proc/self/mounts |
    tac | while read -r mount; do umount -l "$mount"; done
exec qemu-ga "$@"
