#!/usr/bin/env bash
# run.sh: the whole campaign, by itself. The daemon is a process of its own; it is killed once, while a server of the gap
# decision starts, and started again. What is worth keeping is in /root/brought at the end, in pieces of 15 MiB.
set -eu
. /root/again/env.sh
began() { sotactl events --dir $STATE --campaign h200 --type candidate.launched --json | grep -q "\"launch\": *\"$1"; }
closed() { sotactl status --dir $STATE --json h200 | grep -q '"phase": *"closed"'; }
processes() { date +%T.%N; ps -eo pid,ppid,etimes,args | grep -E 'sotad|vllm|sglang' | grep -v grep | cut -c1-160; }

bash $AGAIN/ahead.sh >/root/log/ahead.txt 2>&1 &
$PY -m pip uninstall -q -y scikit-learn # transformers imports it where it is there: seconds a launch, and no engine needs it
bash $AGAIN/checkouts.sh vllm &
checkout=$!
bash $AGAIN/checkouts.sh sglang
install_sotad
wait $checkout
sotad start --detach --dir $STATE
sotactl submit --dir $STATE $AGAIN/campaign.yaml

until began gap/r0/b1 || closed; do sleep 2; done
{
    processes
    kill -9 "$(pgrep -f 'sotad.cli.daemon start')"
    sleep 3
    processes
    sotad start --detach --dir $STATE
    processes
} >/root/log/killed.txt 2>&1

sotactl watch --dir $STATE h200 >/root/log/watch.txt 2>&1 || true
{
    processes
    nvidia-smi || true
    ls -la /dev/shm
} >/root/log/after.txt 2>&1
sotad stop --dir $STATE
cp $MODEL/config.json /root/log/
mkdir /root/packing
tar -C /root -cz --exclude='*/worktrees' --exclude='*.sock' state log | split -b 15M - /root/packing/st.tgz.
mv /root/packing /root/brought
