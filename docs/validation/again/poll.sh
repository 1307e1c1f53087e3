#!/usr/bin/env bash
# poll.sh SECONDS [STEP]: where the campaign stands, until it is closed or the time is over.
. /root/again/env.sh
until=$((SECONDS + $1))
while ((SECONDS < until)); do
    sotactl status --dir $STATE h200 | head -8
    sotactl events --dir $STATE --campaign h200 | tail -2 | cut -c1-160
    sotactl status --dir $STATE --json h200 | grep -q '"phase": "closed"' && break
    sleep "${2:-20}"
done
