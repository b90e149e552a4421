"""Tiny random CLIP, ViT and ResNet as the Hub stores the real ones: the same architectures and kinds of files, under the real names.

CLIP's main revision has pickled weights only, as openai's has; its safetensors are in a pull request of the Hub's bot (folder ``…@pr-7``).
"""

import json
from pathlib import Path

CLIP, VIT, RESNET = "openai/clip-vit-base-patch32", "google/vit-base-patch16-224", "microsoft/resnet-50"
OWN, HEADLESS, BERT = "somebody/cats-vit", "somebody/headless-vit", "somebody/bert"
OPENAI = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
CLASSES = {i: f"thing {i}" for i in range(24)} | {
    0: "tabby, tabby cat",
    1: "Egyptian cat",
    2: "tiger",
    3: "goldfish, Carassius auratus",
}
# What the user reads for each fault, as patterns; the page of faults and the tests are made from this.
FAULTS = {
    "a type of model that is not known": r"somebody/bert \(of the type 'bert'\) is not known to TransformerLens, and models of pictures are clip, vit, resnet: choose another",
    "no trained classifier": r"somebody/headless-vit has no weights for classifier.bias: it is no trained ViTForImageClassification",
    "half precision": r"google/vit-base-patch16-224 runs in float32 here, not in bfloat16: leave dtype out",
    "a class like others": r"There is no target 'cat' in vit-base-patch16-224; did you mean 'tabby, tabby cat', 'Egyptian cat'.*\?",
    "a class like no other": r"There is no target 'zeppelin' in vit-base-patch16-224; there are 'tabby, tabby cat', .*, '…'",
    "another kind of array": r"A picture must be pixels of red, green and blue bytes \(an array \[y, x, 3\] of uint8\); this one is .* of float64. read_picture\(file\) makes one of any picture",
    "too narrow": r"A picture of 500 × 2 pixels is too long and narrow for clip-vit-base-patch32: cut a part out",
    "no query": r"The query is empty: try 'a photo of a cat'",
    "a long query": r"The query has 22 tokens, clip-vit-base-patch32 reads at most 16: shorten it",
    "a method that does not fit": r"guided_backprop changes how ReLU layers pass gradients back, and vit-base-patch16-224 has none here: choose gradient, .* or rollout",
}
SENTENCES = ["a photo of a cat", "a photo of a dog", "a large red circle", "two small blue squares", "photograph"] * 3


def build(root: Path) -> Path:
    """Write the repositories under ``root``."""
    import torch
    from transformers import (  # fmt: skip
        CLIPConfig,
        CLIPModel,
        ResNetConfig,
        ResNetForImageClassification,
        ViTConfig,
        ViTForImageClassification,
        ViTModel,
    )

    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    converted = root / f"{CLIP}@pr-7"
    words = _tokenizer(converted)
    text = size | {"vocab_size": words, "max_position_embeddings": 16, "bos_token_id": words - 2, "eos_token_id": 2}
    vision = size | {"image_size": 48, "patch_size": 12}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    _livelier(CLIPModel(config)).save_pretrained(converted)
    resized = {
        "do_resize": True,
        "size": 48,
        "resample": 3,
        "do_center_crop": True,
        "crop_size": 48,
        "do_normalize": True,
    }
    _write(
        converted / "preprocessor_config.json", resized | OPENAI | {"feature_extractor_type": "CLIPFeatureExtractor"}
    )
    for file in converted.iterdir():
        if file.suffix != ".safetensors":
            (root / CLIP).mkdir(parents=True, exist_ok=True)
            (root / CLIP / file.name).write_bytes(file.read_bytes())
    (root / CLIP / "pytorch_model.bin").write_bytes(b"not opened by anybody")

    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_normalize": True, "do_resize": True}
    plain = half | {"image_processor_type": "ViTImageProcessor", "size": {"height": 48, "width": 48}}
    vit = ViTConfig(**size, image_size=48, patch_size=12, id2label=CLASSES, initializer_range=0.3)
    for repo, net in (
        (VIT, ViTForImageClassification(vit)),
        (OWN, ViTForImageClassification(vit)),
        (HEADLESS, ViTModel(vit)),
    ):
        net.save_pretrained(root / repo)
        _write(root / repo / "preprocessor_config.json", plain)
    resnet = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="bottleneck", id2label=CLASSES
    )
    ResNetForImageClassification(resnet).save_pretrained(root / RESNET)
    crop = half | {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 48}, "crop_pct": 0.875}
    _write(root / RESNET / "preprocessor_config.json", crop)
    _write(root / BERT / "config.json", {"model_type": "bert"})
    return root


def _livelier(net):
    """Larger weights in the attention layers: as initialised they attend to everything alike."""
    import torch

    with torch.no_grad():
        for name, weight in net.named_parameters():
            if "_proj.weight" in name:
                weight *= 3
    return net


def _write(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _tokenizer(folder: Path) -> int:
    """Byte pairs as CLIP's: words end in </w>, start and end token have the highest ids. Returns how many there are."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizerFast

    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix=""))
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False
    )
    trained.train_from_iterator(SENTENCES, trainer)
    model = json.loads(trained.to_str())["model"]
    vocabulary = {t: i for i, t in enumerate([*letters, *(f"{c}</w>" for c in letters)])}
    for token in [*model["vocab"], "<|startoftext|>", "<|endoftext|>"]:
        vocabulary.setdefault(token, len(vocabulary))
    folder.mkdir(parents=True)
    _write(folder / "vocab.json", vocabulary)
    merges = [" ".join(m) if isinstance(m, list) else m for m in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    CLIPTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16).save_pretrained(
        folder
    )
    return len(vocabulary)
