# Clean up a lab, whatever became of the program that made it: thaw, end processes, unmount, detach
# loop devices, remove the directory. Started before anything is mounted; waits until its standard
# input ends (the program has died, or wants it so) or its time is over.
#
# Everything of a lab is found by its directory, which no other lab shares: mounts below it, loop
# devices on files below it, processes with STILLPOINT_LAB in their environment. So nothing has to
# be registered, and nothing that was forgotten stays.
set -u
lab=$1
seconds=$2
maker=$3
log=$4

# A cgroup of its own: it survives whatever is done to the maker's.
unified=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/self/mounts)
cgroup=
if [ -n "$unified" ] && mkdir "$unified/stillpoint-watchdog-$$" 2>/dev/null; then
    cgroup=$unified/stillpoint-watchdog-$$
    echo $$ >"$cgroup/cgroup.procs"
fi

mounts() { awk -v lab="$lab/" 'index($5, lab) == 1 { print $5 }' /proc/self/mountinfo | tac; }
loops() { losetup -l -n -O NAME,BACK-FILE | awk -v lab="$lab/" 'index($2, lab) == 1 { print $1 }'; }
processes() {
    for environment in $(grep -lszxF "STILLPOINT_LAB=$lab" /proc/[0-9]*/environ 2>/dev/null); do
        process=${environment#/proc/}
        process=${process%/environ}
        [ "$process" != $$ ] && [ "$process" != "$maker" ] && echo "$process"
    done
}
# Who still has something open there.
holders() {
    find /proc/[0-9]*/fd /proc/[0-9]*/cwd -lname "$lab/*" 2>/dev/null |
        cut -d/ -f3 | sort -u | while read -r process; do
        [ "$process" != $$ ] && [ "$process" != "$maker" ] && echo "$process"
    done
}
# EINVAL says that it is not frozen, which is what is wanted.
thaw() { mounts | while read -r mount; do fsfreeze -u "$mount" 2>/dev/null; done; }

clean() {
    round=0
    while [ $round -lt 200 ]; do
        # A freeze that is under way completes, and is thawed in the next round.
        thaw
        for process in $(processes); do kill -KILL "$process" 2>/dev/null; done
        # Deepest first; an image is free for its host's unmounting once its loop device is.
        mounts | while read -r mount; do umount "$mount" 2>/dev/null; done
        for loop in $(loops); do losetup -d "$loop" 2>/dev/null; done
        if [ -z "$(mounts)" ] && [ -z "$(loops)" ] && [ -z "$(processes)" ]; then
            return 0
        fi
        round=$((round + 1))
        if [ $round -gt 40 ]; then
            for process in $(holders); do kill -KILL "$process" 2>/dev/null; done
        fi
        sleep 0.05
    done
    return 1
}

timeout "$seconds" cat >/dev/null
ended=$?
if [ $ended -eq 124 ]; then
    echo "the lab $lab outlived its $seconds s" >&2
    thaw
    # Its pipe is open, so the maker lives and this is still its process id.
    kill -KILL "$maker" 2>/dev/null
fi
if clean; then
    rm -rf "$lab"
    # What it says about a lab that was too slow stays for whoever wonders.
    [ -s "$log" ] || rm -f "$log"
    result=0
else
    {
        echo "the lab $lab could not be cleaned up:"
        mounts
        loops
        processes
    } >&2
    result=1
fi
if [ -n "$cgroup" ]; then
    echo $$ >"$unified/cgroup.procs"
    rmdir "$cgroup"
fi
exit $result
