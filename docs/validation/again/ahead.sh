#!/usr/bin/env bash
# ahead.sh: what the engines compile at their first start and needs no GPU is compiled beside the preflight: bytecode, and
# SGLang's own kernels (kernels.py). `caches.reuse: engine` says in the ledger that launches share it. What fails here is
# compiled at that start.
set -u
. /root/again/env.sh
export CUDA_VISIBLE_DEVICES= # nothing foreign is on the GPU while the campaign leases it
site=$($PY -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
PYTHONPATH=/root/s/sgl $PY $AGAIN/kernels.py &
$PY -m compileall -q -j 0 /root/s/vllm /root/s/sgl "$site"/{torch,torchvision,torchaudio,transformers,triton,scipy,sympy,networkx,numpy}
echo "bytecode after $SECONDS s"
wait
echo "over after $SECONDS s"
