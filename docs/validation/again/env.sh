# Sourced by the others: the machine reaches nothing outside it, and everything of the run lies below /root.
export HOME=/root HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 DO_NOT_TRACK=1 TOKENIZERS_PARALLELISM=false
export VLLM_NO_USAGE_STATS=1 VLLM_USE_FLASHINFER_SAMPLER=0 PYTHONPYCACHEPREFIX=/root/pyc PYTHONDONTWRITEBYTECODE= PYTHONUNBUFFERED=1
export CUDA_HOME=/usr/local/cuda-13.0
export PATH=/opt/torch/.venv/bin:$PATH:/usr/local/cuda-13.0/bin
PY=/opt/torch/.venv/bin/python3 MODEL=/root/s/model NAME=qwen3-8b-dummy STATE=/root/state AGAIN=/root/again
mkdir -p /root/log

install_sotad() {
    $PY -m pip install -q --no-index --no-deps --no-compile --find-links $AGAIN/wheels $AGAIN/wheels/*.whl
}
