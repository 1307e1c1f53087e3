#!/usr/bin/env bash
# warm.sh vllm|sglang: a server on GPU 1 that stays for the comparison of clients. vLLM's two other candidates are started
# and ended there once, so that their compiled code is in the engine's cache before the campaign asks for it.
. /root/again/env.sh
export CUDA_VISIBLE_DEVICES=1
serve() { # NAME PORT SERVER FLAGS...: started in the background, its process in $!
    local name=$1 port=$2 server=$3
    shift 3
    (cd "$place" && "$server" "$port" "$@" >"/root/log/warm-$name.log" 2>&1) &
}
once() { # the same, ended as soon as it is up
    serve "$@"
    local pid=$!
    up "http://127.0.0.1:$2/health" $pid 200
    kill $pid
    timeout 20 tail --pid=$pid -f /dev/null || kill -9 $pid
}
export MEMORY=0.3
place=/root
if [ "$1" = sglang ]; then
    until [ -e /root/log/warmed ]; do sleep 0.5; done # two that start at once on one GPU take each other's memory for their own
    serve sglang 30000 sglang_server
    up http://127.0.0.1:30000/health $! 300 && touch /root/log/sglang.up
    exit
fi
until [ -e /root/log/vllm.committed ]; do sleep 0.2; done
place=$(echo $STATE/worktrees/h200/vllm-*)
serve vllm 8000 vllm_server
up http://127.0.0.1:8000/health $! 300 && touch /root/log/vllm.up
once sync 8001 vllm_server --no-async-scheduling
SEQS=8 once seqs 8002 vllm_server
touch /root/log/warmed
