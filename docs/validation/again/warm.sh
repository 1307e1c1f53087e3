#!/usr/bin/env bash
# warm.sh: what engines compile at their first start is compiled before the campaign, by both at once, as its baselines
# would: with their flags (memory aside), in the folders that will be theirs, under its load. `caches.reuse: engine` says
# in the ledger that launches share it. What fails here only starts cold later.
set -u
. /root/again/env.sh
[ ! -e "$STATE" ] || exit 1 # there is a campaign already
export LD_LIBRARY_PATH=/usr/local/nvidia/lib64:/usr/local/nvidia/lib
servers=()

place() { # ENGINE REPO: the folder that the campaign's worktree will have; vLLM's compiled code is known by it
    echo "$STATE/worktrees/h200/$1-$(git -C "$2" rev-parse HEAD | cut -c1-12)"
}

up() { # ENGINE REPO PACKAGES PORT ARGUMENT...
    local folder
    folder=$(place "$1" "$2")
    mkdir -p "$folder"
    cp -al "$2/." "$folder/"
    cd "$folder"
    PYTHONPATH=$3 setsid $PY -m "${@:5}" --host 127.0.0.1 --port "$4" >"/root/log/warm-$1.log" 2>&1 &
    servers+=($!)
    cd /root
}

load() { # ENGINE PORT PID
    until curl -sf -m 2 "http://127.0.0.1:$2/health" >/dev/null; do
        kill -0 "$3" && ((SECONDS < 170)) || return
        sleep 1
    done
    echo "$1: up after $SECONDS s"
    for length in 256 1024; do
        timeout 60 sotactl bench run "http://127.0.0.1:$2" --input-len $length --output-len 64 --num-prompts 32 --concurrency 16 --seed 99
    done
    echo "$1: warm after $SECONDS s"
}

up vllm /root/vllm_repo /root/s/vllm 8001 vllm.entrypoints.cli.main serve $MODEL --served-model-name $NAME \
    --max-model-len 4096 --dtype bfloat16 --attention-backend FLASH_ATTN --gpu-memory-utilization 0.3 \
    --load-format dummy --max-cudagraph-capture-size 32 --max-num-seqs 16
up sglang /root/sgl_repo /root/s/sgl 8002 sglang.launch_server --model-path $MODEL --served-model-name $NAME \
    --context-length 4096 --dtype bfloat16 --attention-backend fa3 --cuda-graph-max-bs 16 --disable-overlap-schedule \
    --disable-piecewise-cuda-graph --enable-fused-qk-norm-rope --grammar-backend none --load-format dummy \
    --mem-fraction-static 0.85 --max-total-tokens 65536 --sampling-backend pytorch --skip-server-warmup
load vllm 8001 "${servers[0]}" &
loads=($!)
load sglang 8002 "${servers[1]}" &
loads+=($!)
wait "${loads[@]}"
for server in "${servers[@]}"; do
    kill -9 -- "-$server"
done
rm -rf "$STATE"
for _ in $(seq 30); do
    [ "$(nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits | head -1)" -gt 100 ] || break
    sleep 1
done
echo "over after $SECONDS s"
