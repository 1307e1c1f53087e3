#!/usr/bin/env bash
# poll.sh SECONDS [STEP]: where the campaign stands, until it is closed or the time is over.
. /root/again/env.sh
until=$((SECONDS + $1))
while ((SECONDS < until)); do
    sotactl status --dir $STATE --json h200 >/root/log/status.json 2>/root/log/status.err || cat /root/log/status.err
    $PY -c 'import json; s = json.load(open("/root/log/status.json")); print({k: s.get(k) for k in ("phase", "step", "round", "terminal")}, flush=True)'
    sotactl events --dir $STATE h200 2>/dev/null | tail -2 | cut -c1-160
    grep -q '"phase": *"closed"' /root/log/status.json && break
    sleep "${2:-20}"
done
