"""Layers divided among GPUs, and what they have to tell each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from sotad.simulate.architecture import Attention, DeltaNet, Dense, Layer, Mamba2, Mixer, Mla, Mlp, Model, Moe
from sotad.simulate.errors import SimulateError
from sotad.simulate.ops import Op, Setting


@dataclass(frozen=True, slots=True)
class Layout:
    """``tp`` GPUs share each layer of one replica; ``dp`` replicas share the requests; ``pp`` stages share the layers.

    ``ep`` = 1: every replica has all experts, each cut ``tp`` ways. Else the experts are divided ``ep`` ways over all
    tp * dp GPUs of a stage, and cut tp * dp / ep ways.
    """

    tp: int = 1
    dp: int = 1
    ep: int = 1
    pp: int = 1

    @property
    def gpus(self) -> int:
        """GPUs in all."""
        return self.tp * self.dp * self.pp

    @property
    def expert_cut(self) -> int:
        """GPUs that share one expert."""
        return self.tp if self.ep == 1 else self.tp * self.dp // self.ep

    def as_json(self) -> dict[str, int]:
        """The four sizes and their product."""
        return {"tp": self.tp, "dp": self.dp, "ep": self.ep, "pp": self.pp, "gpus": self.gpus}


def checked(layout: Layout, model: Model) -> None:
    """Nothing, if the model can be divided like that.

    Raises:
        SimulateError: a size is not positive, or heads, experts or layers cannot be divided so.
    """
    for name in ("tp", "dp", "ep", "pp"):
        if getattr(layout, name) < 1:
            raise SimulateError(f"{name} is {getattr(layout, name)}: it must be at least 1")
    if layout.ep > 1 and layout.tp * layout.dp % layout.ep:
        raise SimulateError(f"ep {layout.ep} does not divide tp * dp = {layout.tp * layout.dp}")
    if layout.pp > len(model.layers):
        raise SimulateError(f"pp {layout.pp}: the model has {len(model.layers)} layers")
    for layer in dict.fromkeys(model.layers):
        shard(layer, layout)


def shard(layer: Layer, layout: Layout) -> Layer:
    """What of the layer lies on one GPU.

    Raises:
        SimulateError: it cannot be divided evenly.
    """
    return Layer(_mixer(layer.mixer, layout.tp), _mlp(layer.mlp, layout), layer.norms)


def _mixer(mixer: Mixer | None, tp: int) -> Mixer | None:
    match mixer:
        case Attention():
            kv = _among(mixer.kv_heads, tp, "key/value heads", copies=True)
            return replace(mixer, heads=_among(mixer.heads, tp, "attention heads"), kv_heads=kv)
        case Mla():
            return replace(mixer, heads=_among(mixer.heads, tp, "attention heads"))
        case DeltaNet():
            keys = _among(mixer.key_heads, tp, "linear key heads")
            return replace(mixer, key_heads=keys, value_heads=_among(mixer.value_heads, tp, "linear value heads"))
        case Mamba2():
            groups = _among(mixer.groups, tp, "Mamba groups", copies=True)
            return replace(mixer, heads=_among(mixer.heads, tp, "Mamba heads"), groups=groups)
        case None:
            return None


def _mlp(mlp: Mlp | None, layout: Layout) -> Mlp | None:
    if isinstance(mlp, Dense):
        return replace(mlp, width=_among(mlp.width, layout.tp, "MLP columns"))
    if isinstance(mlp, Moe):
        shared = mlp.shared and replace(mlp.shared, width=_among(mlp.shared.width, layout.tp, "MLP columns"))
        local = _among(mlp.experts, layout.ep, "experts")
        return replace(mlp, width=_among(mlp.width, layout.expert_cut, "expert columns"), local=local, shared=shared)
    return None


def _among(count: int, ways: int, what: str, copies: bool = False) -> int:
    """An even share; with ``copies`` there may be more takers than things, and each gets one."""
    if copies and ways > count and ways % count == 0:
        return 1
    if count % ways:
        raise SimulateError(f"{count} {what} cannot be divided among {ways} GPUs")
    return count // ways


def messages(layer: Layer, layout: Layout, s: Setting) -> Iterator[Op]:
    """What one layer sends: an all-reduce after each part cut ``tp`` ways, all-to-alls where tokens go to experts."""
    reduced = (layer.mixer is not None) + (layer.mlp is not None)
    routed = isinstance(layer.mlp, Moe) and layout.ep > 1 and layout.dp > 1
    size = s.tokens * s.hidden * s.act
    if layout.tp > 1:
        wire = 2 * (layout.tp - 1) / layout.tp * size
        for place in ("attention", "mlp")[: reduced - routed]:
            name = f"all_reduce_{place}" if reduced == 2 else "all_reduce"
            yield _message(name, f"[{s.tokens} x {s.hidden}] over {layout.tp} GPUs", wire)
    if routed and isinstance(layer.mlp, Moe):
        rows = s.tokens * layer.mlp.per_token / layout.tp
        wire = rows * s.hidden * s.act * (layout.ep - 1) / layout.ep
        for name in ("all_to_all_dispatch", "all_to_all_combine"):
            yield _message(name, f"[{rows:g} x {s.hidden}] over {layout.ep} GPUs", wire)


def between(model: Model, layout: Layout, s: Setting) -> Iterator[Op]:
    """What stages of the pipeline hand on, and the gathering of the logits."""
    if layout.pp > 1:
        count = layout.pp - 1
        yield _message("send", f"{count} x [{s.tokens} x {s.hidden}]", count * s.tokens * s.hidden * s.act)
    if layout.tp > 1:
        wire = s.batch.sequences * model.vocab * s.act * (layout.tp - 1) / layout.tp
        yield _message("all_gather_logits", f"[{s.batch.sequences} x {model.vocab}] over {layout.tp} GPUs", wire)


def _message(name: str, shape: str, wire: float) -> Op:
    return Op(name, "communication", shape, 0.0, "", comm_bytes=wire)


def factorings(gpus: int, moe: bool) -> Iterator[Layout]:
    """Every way to use that many GPUs with tp, dp and pp; mixtures of experts also with experts over all of a stage."""
    sizes = [size for size in range(1, gpus + 1) if gpus % size == 0]
    for tp in sizes:
        for dp in (size for size in sizes if gpus % (tp * size) == 0):
            pp = gpus // (tp * dp)
            yield Layout(tp, dp, 1, pp)
            if moe and tp * dp > 1:
                yield Layout(tp, dp, tp * dp, pp)
