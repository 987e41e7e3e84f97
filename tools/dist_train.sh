#!/usr/bin/env bash
# Train with several processes, one per GPU, as with mmdet's script:
#
#   tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
#
# On several machines call it on each; NNODES, NODE_RANK, MASTER_ADDR and PORT
# say how many there are, which this is, and where the first one listens.
# Without a GPU add --cfg-options env_cfg.dist_cfg.backend=gloo.

if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [arguments of tools/train.py]" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
export PYTHONPATH="$(dirname "$here")${PYTHONPATH:+:$PYTHONPATH}"
exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --nproc_per_node="$2" \
    --master_port="${PORT:-29500}" \
    "$here/train.py" "$1" --launcher pytorch "${@:3}"
