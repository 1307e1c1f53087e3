# Sourced by the others: the machine reaches nothing outside it, and everything of the run lies below /root.
export HOME=/root HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 DO_NOT_TRACK=1 TOKENIZERS_PARALLELISM=false
export VLLM_NO_USAGE_STATS=1 VLLM_USE_FLASHINFER_SAMPLER=0 PYTHONPYCACHEPREFIX=/root/pyc PYTHONUNBUFFERED=1
export CUDA_HOME=/usr/local/cuda-13.0 # as the campaign has it: it is part of the key of compiled code
export PATH=/opt/torch/.venv/bin:$PATH:/usr/local/cuda-13.0/bin
PY=/opt/torch/.venv/bin/python3 MODEL=/root/s/model NAME=qwen3-8b-dummy STATE=/root/state AGAIN=/root/again
mkdir -p /root/log

# vllm_server PORT FLAGS..., sglang_server PORT FLAGS...: the commands of the campaign's baselines.
vllm_server() {
    local port=$1
    shift
    PYTHONPATH=/root/s/vllm exec $PY -m vllm.entrypoints.cli.main serve $MODEL --served-model-name $NAME --host 127.0.0.1 --port "$port" \
        --max-model-len 4096 --dtype bfloat16 --attention-backend FLASH_ATTN --gpu-memory-utilization "${MEMORY:-0.85}" \
        --load-format dummy --max-num-seqs "${SEQS:-16}" "$@"
}
sglang_server() {
    local port=$1
    shift
    PYTHONPATH=/root/s/sgl exec $PY -m sglang.launch_server --model-path $MODEL --served-model-name $NAME --host 127.0.0.1 --port "$port" \
        --enable-metrics --context-length 4096 --dtype bfloat16 --attention-backend fa3 --cuda-graph-max-bs 16 \
        --disable-overlap-schedule --disable-piecewise-cuda-graph --enable-fused-qk-norm-rope --grammar-backend none \
        --load-format dummy --mem-fraction-static "${MEMORY:-0.85}" --sampling-backend pytorch --skip-server-warmup "$@"
}

# up URL PID SECONDS: whether it answers before its process or the time ends.
up() {
    local until=$((SECONDS + $3))
    while ((SECONDS < until)); do
        curl -sf -m 2 "$1" >/dev/null && return
        kill -0 "$2" 2>/dev/null || return 1
        sleep 0.5
    done
    return 1
}
