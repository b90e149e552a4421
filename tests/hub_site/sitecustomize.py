"""Put this folder on PYTHONPATH and TransformerLens takes Gemma's sizes from the configuration file, as it does for GPT-2 and Qwen.

TransformerLens has the sizes of google/gemma-2-2b written down (26 layers, 2,304 wide) and never looks at the file, so a small model
under that name needs this one change of its table. Nothing of mi_workshop and nothing else of TransformerLens is touched.
"""

import importlib.abc
import importlib.util
import sys

NAME = "transformer_lens.loading_from_pretrained"


def patch(module):
    """Wrap the module's ``convert_hf_model_config``."""
    original = module.convert_hf_model_config

    def convert(name, **options):
        found = original(name, **options)
        if not str(name).startswith("google/gemma-2-2b"):
            return found
        file = module.AutoConfig.from_pretrained(name, **options)
        return found | {
            "d_model": file.hidden_size, "d_head": file.head_dim, "n_heads": file.num_attention_heads, "d_mlp": file.intermediate_size,
            "n_layers": file.num_hidden_layers, "n_key_value_heads": file.num_key_value_heads, "d_vocab": file.vocab_size,
            "attn_types": ["global", "local"] * (file.num_hidden_layers // 2), "window_size": file.sliding_window,
        }  # fmt: skip

    module.convert_hf_model_config = convert


class Finder(importlib.abc.MetaPathFinder):
    """Patches the module once, when it is first imported."""

    def find_spec(self, name, path, target=None):
        if name != NAME:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            patch(module)

        spec.loader.exec_module = exec_module
        return spec


if globals().get("INSTALL", True):
    sys.meta_path.insert(0, Finder())
