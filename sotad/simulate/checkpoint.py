"""The model's weights against those of the checkpoint that lies beside its config."""

from __future__ import annotations

import json
from pathlib import Path

from sotad.simulate.architecture import Model
from sotad.simulate.shapes import prefill
from sotad.simulate.step import forward, weight_bytes

INDEX = "model.safetensors.index.json"
APART = 0.01  # of the checkpoint's bytes


def checked(config: Path, model: Model) -> list[str]:
    """A remark if the checkpoint's index says that its weights are of another size; none if there is no index."""
    path = (config if config.is_dir() else config.parent) / INDEX
    try:
        stated = json.loads(path.read_bytes())["metadata"]["total_size"]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{path}: no metadata.total_size in it ({error}), so the size of the weights is not checked"]
    if isinstance(stated, bool) or not isinstance(stated, (int, float)) or not stated > 0:
        return [f"{path}: metadata.total_size is {stated!r}, so the size of the weights is not checked"]
    held = weight_bytes(forward(model, prefill(1, 2)))
    if abs(held - stated) <= APART * stated:
        return []
    return [
        f"the checkpoint has {stated / 1e9:.2f} GB of weights, the model {held / 1e9:.2f} GB: a part is missing here"
    ]
