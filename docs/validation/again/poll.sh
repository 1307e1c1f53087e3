#!/usr/bin/env bash
# poll.sh SECONDS [FOLDER]: where the campaign stands, a line every half minute; at the end what run.sh packed, into FOLDER.
. /root/again/env.sh
until=$((SECONDS + $1))
waiting() { ((SECONDS < until)) && [ ! -d /root/brought ]; }
while waiting; do
    sotactl events --dir $STATE --campaign h200 2>&1 | tail -1 | cut -c1-150
    for _ in 1 2 3 4 5 6; do ! waiting || sleep 5; done
done
sotactl status --dir $STATE h200 2>&1 | head -9
[ ! -d /root/brought ] || [ -z "${2:-}" ] || cp /root/brought/* "$2"
