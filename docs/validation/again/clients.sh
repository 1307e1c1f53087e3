#!/usr/bin/env bash
# clients.sh [ROUNDS]: our load generator beside vllm bench serve, on both servers of GPU 1.
. /root/again/env.sh
for server in vllm:8000 sglang:30000; do
    name=${server%:*}
    [ -e "/root/log/$name.up" ] || { echo "no server: $name" >>/root/log/clients.err; continue; }
    $PY $AGAIN/bench_clients.py "http://127.0.0.1:${server#*:}" --model $NAME --tokenizer $MODEL \
        --vllm-python $AGAIN/vllm-python --rounds "${1:-3}" --scenario 512/48:64:16 --scenario 2048/48:48:16 \
        >"/root/log/clients-$name.md" 2>>/root/log/clients.err
done
touch /root/log/clients.done
