#!/usr/bin/env bash
# begin.sh: install sotad, start its daemon as a process of its own, submit the campaign.
set -eu
. /root/again/env.sh
$PY -m pip install -q --no-index --no-deps --no-compile --find-links $AGAIN/wheels $AGAIN/wheels/*.whl
until [ -e /root/log/vllm.committed ] && [ -e /root/log/sglang.committed ]; do sleep 0.2; done
sotad start --detach --dir $STATE
sotactl submit --dir $STATE $AGAIN/campaign.yaml
