"""What the model reads from a config.json: parameters as published, layers, formats, and what it refuses."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sotad.simulate.architecture import Attention, Model
from sotad.simulate.config import families, parse, read
from sotad.simulate.errors import SimulateError
from sotad.simulate.step import parameters

MODELS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("simulate_models.yaml").read_text())
LLAMA = MODELS["Llama-3.1-8B"]["config"]


def model(name: str, **changes: Any) -> Model:
    return parse({**MODELS[name]["config"], **changes}, name)


def labels(found: Model) -> dict[str, int]:
    return dict(Counter(layer.label for layer in found.layers))


@pytest.mark.parametrize("name", [name for name, facts in MODELS.items() if "exact" in facts])
def test_every_tensor_is_counted(name: str) -> None:
    """The count of parameters is that of the checkpoint, to the last one."""
    assert parameters(model(name))[0] == MODELS[name]["exact"]


@pytest.mark.parametrize("name", [name for name, facts in MODELS.items() if "published" in facts])
def test_totals_are_those_of_the_model_card(name: str) -> None:
    """Total parameters within 1 % of what is published, and those per token within 12 % (they are rounded a lot)."""
    facts, found = MODELS[name], model(name)
    total, active = parameters(found)
    active -= 0 if facts["table"] else found.vocab * found.hidden
    assert total / 1e9 == pytest.approx(facts["published"][0], rel=0.01)
    assert active / 1e9 == pytest.approx(facts["published"][1], rel=0.12)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("DeepSeek-V3", {"MLA + dense": 3, "MLA + MoE": 58}),
        ("gpt-oss-20b", {"GQA window 128 + MoE": 12, "GQA + MoE": 12}),
        ("gemma-3-27b-it", {"GQA window 1024 + dense": 52, "GQA + dense": 10}),
        ("gemma-2-9b", {"GQA window 4096 + dense": 21, "GQA + dense": 21}),
        ("Qwen3-Next-80B-A3B", {"GDN + MoE": 36, "GQA + MoE": 12}),
        ("Kimi-Linear-48B-A3B", {"KDA + dense": 1, "KDA + MoE": 19, "MLA + MoE": 7}),
        ("Nemotron-3-Nano-30B-A3B", {"Mamba2": 23, "MoE": 23, "GQA": 6}),
        ("Llama-4-Scout-17B-16E", {"GQA chunk 8192 + MoE": 36, "GQA + MoE": 12}),
        ("Qwen2.5-7B", {"GQA + dense": 28}),
        ("Mistral-7B-v0.1", {"GQA window 4096 + dense": 32}),
    ],
)
def test_each_layer_gets_its_own_template(name: str, expected: dict[str, int]) -> None:
    """Dense first layers, windows, chunks and recurrent layers lie where the config puts them."""
    assert labels(model(name)) == expected


def test_the_full_layers_of_an_interval_are_the_last_of_each() -> None:
    """Of every four layers of Qwen3-Next the fourth has softmax attention."""
    kinds = [layer.label[:3] for layer in model("Qwen3-Next-80B-A3B").layers[:8]]
    assert kinds == ["GDN", "GDN", "GDN", "GQA"] * 2


def test_layer_types_win_over_the_family() -> None:
    """A list of layer types is followed, whatever the family's own pattern is."""
    kinds = ["full_attention", "sliding_attention"] * 18
    found = model("Qwen3-8B", layer_types=kinds, sliding_window=512)
    assert labels(found) == {"GQA + dense": 18, "GQA window 512 + dense": 18}


def test_mlp_only_layers_and_sparse_step_choose_dense_layers() -> None:
    """Layers named as MLP-only, and those between the sparse ones, are dense."""
    assert labels(model("Qwen3-30B-A3B", mlp_only_layers=[0, 5])) == {"GQA + dense": 2, "GQA + MoE": 46}
    assert labels(model("Qwen3-30B-A3B", decoder_sparse_step=2)) == {"GQA + dense": 24, "GQA + MoE": 24}


def test_multi_query_attention() -> None:
    """One key/value head is MQA, and as many as query heads is MHA."""
    assert labels(parse({**LLAMA, "num_key_value_heads": 1})) == {"MQA + dense": 32}
    assert labels(parse({**LLAMA, "num_key_value_heads": None})) == {"MHA + dense": 32}


def test_the_class_defaults_that_were_taken_are_said() -> None:
    """Gemma 3's text_config leaves out heads and vocabulary: both are filled in, and the answer says so."""
    inner = {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34}
    found = parse({"model_type": "gemma3", "text_config": {**inner, "sliding_window": 1024}, "vision_config": {"a": 1}})
    assert parameters(found)[0] / 1e9 == pytest.approx(3.88, rel=0.005)
    assert "head_dim" in found.warnings[0]
    assert found.unmodelled == ["vision_config: the encoder of images or audio is not in the step"]


@pytest.mark.parametrize(
    ("quantised", "expected"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, {"attention": "fp8_block", "experts": "fp8_block"}),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, {"attention": "int4", "mlp": "int4"}),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, {"attention": "int8"}),
        (
            {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]},
            {"attention": "bf16", "experts": "mxfp4"},
        ),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]}, {"mlp": "nvfp4"}),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, {"mlp": "fp8"}),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, {"mlp": "nf4"}),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, {"mlp": "int8"}),
        (
            {
                "quant_method": "compressed-tensors",
                "ignore": ["re:.*self_attn.*", "lm_head"],
                "config_groups": {
                    "group_0": {"weights": {"num_bits": 8, "type": "float"}, "input_activations": {"num_bits": 8}}
                },
            },
            {"attention": "bf16", "mlp": "fp8", "experts": "fp8"},
        ),
    ],
)
def test_quantisation_of_the_config(quantised: dict[str, Any], expected: dict[str, str]) -> None:
    """The config's quantisation decides the format of each part, except for what it leaves as it is."""
    names = parse({**LLAMA, "quantization_config": quantised}).formats.names()
    assert expected.items() <= names.items()
    assert names["lm_head"] == "bf16"


@pytest.mark.parametrize(
    "more", [{"quant_method": "modelopt", "quant_algo": "W4A8_AWQ"}, {"quant_method": "bitsandbytes"}]
)
def test_quantisation_that_does_not_tell_its_format(more: dict[str, Any]) -> None:
    """A method whose bits are not known is refused, not taken for another."""
    with pytest.raises(SimulateError, match="give --dtype"):
        parse({**LLAMA, "quantization_config": more})


def test_scales_count_as_bytes() -> None:
    """A quantised weight takes the bytes of its scales too."""
    formats = parse(LLAMA, dtype="mxfp4").formats
    assert formats.mlp.bytes == pytest.approx(0.53125)
    assert formats.base.name == "bf16"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "hyena"}, "model_type 'hyena' is not known"),
        ({"model_type": "hyena", "hyena_state_order": 3}, "hyena_state_order"),
        ({"compress_ratios": [4, 128]}, "CSA/HCA"),
        ({"layer_types": ["full_attention"] * 31}, "layer_types has 31 entries for 32 layers"),
        ({"layer_types": ["retention"] * 32}, "layer_types has retention"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": "4096"}, "hidden_size is '4096', not a whole number"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0, below 1"),
        ({"num_attention_heads": True}, "num_attention_heads is True"),
        ({"num_key_value_heads": 5}, "32 attention heads cannot share 5"),
        ({"quantization_config": {"quant_method": "magic"}}, "'magic' is not known"),
        ({"quantization_config": {"quant_method": "gptq", "bits": -3}}, "-3 bits per weight"),
        ({"quantization_config": {"quant_method": "fp8", "weight_block_size": [0, 0]}}, "of the wrong kind"),
        ({"quantization_config": [1]}, "quantization_config is [1], not an object"),
        ({"num_hidden_layers": 10**9}, "above 10000"),
        ({"torch_dtype": "complex64"}, "dtype 'complex64' is not known"),
        ({"num_local_experts": 4, "num_experts_per_tok": 8}, "8 experts per token, but there are 4"),
    ],
)
def test_what_cannot_be_modelled_is_refused(changes: dict[str, Any], said: str) -> None:
    """An unknown architecture, a missing key or an impossible number ends with a message that names it."""
    with pytest.raises(SimulateError, match=said.replace("(", r"\(").replace("[", r"\[")):
        parse({**LLAMA, **changes})


def test_an_unknown_architecture_by_its_keys_is_marked() -> None:
    """With assume an unknown model_type is modelled by its keys, and what they do not cover is listed."""
    found = parse({**LLAMA, "model_type": "hyena", "hyena_state_order": 3}, assume=True)
    assert "--assume" in found.warnings[0]
    assert found.unmodelled == ["hyena_state_order: no template covers it"]


@pytest.mark.parametrize(
    ("text", "said"), [("{", "not JSON"), ("[]", "no JSON object"), ("\xff", "not JSON"), ("[" * 99999, "not JSON")]
)
def test_files_that_are_no_config(tmp_path: Path, text: str, said: str) -> None:
    """A file that is not a JSON object is refused by name."""
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(SimulateError, match=f"config.json: .*{said}"):
        read(tmp_path)


def test_the_hash_is_of_the_file(tmp_path: Path) -> None:
    """Two files of one model have two hashes; the name is the folder's."""
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    first = read(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA, indent=1))
    assert first.config_hash != read(tmp_path / "config.json").config_hash
    assert first.name == tmp_path.name


NAMES = """quantization_config quant_method bits config_groups weights num_bits weight_block_size linear_attn_config
    num_heads head_dim full_attn_layers layer_types mlp_only_layers model_type moe_layer_freq attn_layer_indices
    no_rope_layers rope_parameters partial_rotary_factor text_config"""
names = st.sampled_from(NAMES.split())
plain = st.none() | st.booleans() | st.integers(-5, 10**10) | st.floats() | st.text(max_size=5)
odd = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=6
)


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(sorted(MODELS)), data=st.data())
def test_any_value_is_modelled_or_refused(name: str, data: st.DataObject) -> None:
    """Whatever a key holds, the answer is a model or a SimulateError, never another exception."""
    config = MODELS[name]["config"]
    key = data.draw(st.sampled_from(sorted(config)) | names)
    try:
        found = parse({**config, key: data.draw(odd)}, name)
    except SimulateError:
        return
    assert parameters(found)[0] >= 0


def test_every_family_takes_a_plain_config() -> None:
    """No entry of families.yaml breaks a config with the usual keys."""
    extra = {
        "linear_num_key_heads": 4,
        "linear_num_value_heads": 8,
        "linear_key_head_dim": 64,
        "linear_value_head_dim": 64,
        "mamba_n_heads": 8,
        "mamba_d_head": 64,
        "mamba_d_state": 16,
    }
    for family in families():
        found = parse({**LLAMA, **extra, "model_type": family, "sliding_window": 64})
        assert len(found.layers) == 32
        assert any(isinstance(layer.mixer, Attention) for layer in found.layers) or family in (
            "granitemoehybrid",
            "bamba",
            "nemotron_h",
        )
