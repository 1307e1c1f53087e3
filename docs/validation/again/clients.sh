#!/usr/bin/env bash
# clients.sh [ROUNDS]: a vLLM server with the flags of the campaign's baseline, and both clients on it in turn. Not beside
# a campaign: it takes the first GPU.
set -eu
. /root/again/env.sh
install_sotad
printf '#!/bin/sh\nPYTHONPATH=/root/s/vllm exec %s "$@"\n' $PY >/root/vllm-python
chmod +x /root/vllm-python
/root/vllm-python -m vllm.entrypoints.cli.main serve $MODEL --served-model-name $NAME --host 127.0.0.1 --port 8000 \
    --max-model-len 4096 --dtype bfloat16 --attention-backend FLASH_ATTN --gpu-memory-utilization 0.85 \
    --load-format dummy --max-num-seqs 16 >/root/log/clients-server.log 2>&1 &
server=$!
trap 'kill $server' EXIT
until curl -sf -m 2 http://127.0.0.1:8000/health >/dev/null; do kill -0 $server; sleep 1; done
for length in 256 1024; do # the first requests of a server are slower
    sotactl bench run http://127.0.0.1:8000 --input-len $length --output-len 64 --num-prompts 64 --concurrency 16 --seed 99
done
$PY $AGAIN/bench_clients.py http://127.0.0.1:8000 --model $NAME --tokenizer $MODEL --vllm-python /root/vllm-python \
    --rounds "${1:-3}" --scenario 256/64:128:16 --scenario 1024/32-96:96:16
