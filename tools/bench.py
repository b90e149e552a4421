"""How fast, and how much memory: ``python tools/bench.py``. Figures for a person to read; no test depends on them."""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PROMPT = "Fact: the capital of the state containing Dallas is"
SCRIPT = str(Path(sys.executable).with_name("mi-workshop"))


def whole_process(*command: str, runs: int = 5) -> str:
    """Median and range of wall time, and peak memory of the largest run so far."""
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)
    return f"{statistics.median(seconds):6.2f} s ({min(seconds):.2f}–{max(seconds):.2f}), peak {peak:.0f} MB"


def ratio(model: Any = None, runs: int = 20, warm: int = 3) -> str:
    """``trace`` against ``circuit_tracer.attribute`` in one process, in turns."""
    from circuit_tracer.attribution.attribute import attribute

    import mi_workshop as mi

    model = model or mi.load("atlas")
    tokens = model.tokens(PROMPT)
    kept = None if model.world is not None else 8192
    calls = {
        "circuit-tracer": lambda: attribute(tokens, model.replacement, batch_size=256, max_feature_nodes=kept),
        "trace": lambda: mi.trace(model, PROMPT, batch_size=256),
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(runs + warm):
        for name, call in calls.items():
            start = time.perf_counter()
            done = call()
            if i >= warm:
                seconds[name].append(time.perf_counter() - start)
    ours, theirs = (statistics.median(seconds[n]) for n in ("trace", "circuit-tracer"))
    size = f"{done.nodes.activation.notna().sum():,} features, {len(done.links):,} links"
    return f"{ours * 1000:.0f} ms against {theirs * 1000:.0f} ms: {ours / theirs:.2f}×, {(ours - theirs) * 1000:.0f} ms more ({size})"


def tiny_gemma() -> Any:
    """The stand-in Hub's model (tests/hub_help.py)."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import hub_help

    import mi_workshop as mi

    with tempfile.TemporaryDirectory() as folder:
        server = hub_help.Hub(hub_help.build(Path(folder) / "hub"))
        with hub_help.connected(server, Path(folder) / "home"):
            return mi.load("gemma-2-2b", device="cpu")


def mid_sized(layers: int = 8, d_model: int = 256, width: int = 2048) -> Any:
    """A random model with thousands of active features per prompt, Atlas' words."""
    import torch
    from transformer_lens import HookedTransformerConfig

    import mi_workshop as mi
    from mi_workshop.models.embedded import TransformerLensReplacementModel, transcoder_object
    from mi_workshop.models.pretrained import no_features

    torch.manual_seed(0)
    atlas = mi.load("atlas")
    config = HookedTransformerConfig(
        n_layers=layers, d_model=d_model, n_ctx=64, d_head=d_model // 8, n_heads=8, d_mlp=4 * d_model, d_vocab=len(atlas.tokenizer),
        act_fn="gelu", normalization_type="RMS", gated_mlp=True, positional_embedding_type="rotary", rotary_dim=d_model // 8,
        device="cpu", seed=0, initializer_range=d_model**-0.5,
    )  # fmt: skip
    weights = {
        "W_enc": torch.randn(layers, width, d_model) * d_model**-0.5, "b_enc": torch.zeros(layers, width),
        "threshold": torch.full((layers, width), 2.0), "b_dec": torch.zeros(layers, d_model),
    }  # fmt: skip
    weights |= {f"W_dec_{layer}": torch.randn(width, 1, d_model) * 0.05 for layer in range(layers)}
    network = TransformerLensReplacementModel.from_config(config, transcoder_object("plt", weights, "random"))
    network.tokenizer = atlas.tokenizer
    return mi.Model("random", network.eval(), atlas.tokenizer, atlas.world, "plt", no_features)


def sweeps(runs: int = 10) -> str:
    """``sweep`` against TransformerLens' own patching functions in one process, in turns: layers × positions, and × heads."""
    import torch
    from transformer_lens import patching

    import mi_workshop as mi
    from mi_workshop.counterfactual import sweep

    model, donor = mi.load("atlas"), PROMPT.replace("Dallas", "Oakland")
    network, tokens = model.replacement, model.tokens(PROMPT)[None]
    ids = [model.token_id(word) for word in ("Austin", "Sacramento")]
    setters = {
        "resid_post": (patching.layer_pos_patch_setter, ["layer", "pos"]),
        "z": (patching.layer_pos_head_vector_patch_setter, ["layer", "pos", "head"]),
    }
    said = []
    for kind, (setter, axes) in setters.items():
        seconds: dict[str, list[float]] = {"theirs": [], "ours": []}
        for i in range(runs + 2):
            start = time.perf_counter()
            with torch.no_grad():
                _, cache = network.run_with_cache(model.tokens(donor)[None])
                patching.generic_activation_patch(
                    network,
                    tokens,
                    cache,
                    lambda x: x[0, -1, ids[0]] - x[0, -1, ids[1]],
                    setter,
                    kind,
                    index_axis_names=axes,
                )
            middle = time.perf_counter()
            sweep(model, PROMPT, donor, kind=kind, metric="logit_diff", progress=False)
            if i >= 2:  # the first ones warm up
                seconds["theirs"].append(middle - start)
                seconds["ours"].append(time.perf_counter() - middle)
        theirs, ours = (statistics.median(seconds[n]) for n in ("theirs", "ours"))
        said.append(f"{kind} {ours * 1000:.0f} ms against {theirs * 1000:.0f} ms: {theirs / ours:.1f}× as fast")
    return "; ".join(said)


def saliency(runs: int = 60) -> str:
    """``attribute`` against Captum called directly, in one process, in turns, on a picture that is already an array; both end with one score
    per pixel."""
    import warnings

    import torch
    from captum import attr

    import mi_workshop as mi

    model = mi.load("scenes-cnn")
    net, picture = model.module, model.world.sample(1, "validation")[0].image
    warnings.simplefilter("ignore")
    to = {"target": 1}
    methods = {
        "gradient": lambda x, b: attr.Saliency(net).attribute(x, abs=False, **to),
        "gradient_x_input": lambda x, b: attr.InputXGradient(net).attribute(x, **to),
        "guided_backprop": lambda x, b: attr.GuidedBackprop(net).attribute(x, **to),
        "smoothgrad": lambda x, b: attr.NoiseTunnel(attr.Saliency(net)).attribute(
            x, nt_type="smoothgrad", nt_samples=32, stdevs=0.15 * float(x.max() - x.min()), abs=False, **to
        ),
        "integrated_gradients": lambda x, b: attr.IntegratedGradients(net).attribute(  # with its gap, as ours
            x, b, n_steps=64, return_convergence_delta=True, **to
        )[0],
        "gradient_shap": lambda x, b: attr.GradientShap(net).attribute(x, b, n_samples=64, stdevs=0.0, **to),
        "occlusion": lambda x, b: attr.Occlusion(net).attribute(
            x, (3, 8, 8), (3, 4, 4), b, perturbations_per_eval=64, **to
        ),
    }  # fmt: skip

    def direct(method: str) -> Any:
        x = model.pixels(picture)
        found = methods[method](x, torch.full_like(x, 0.5)).detach()[0]
        return (
            found.abs().amax(0) if method in ("gradient", "smoothgrad", "guided_backprop") else found.sum(0)
        ).numpy()

    said = []
    for method in methods:
        seconds: dict[str, list[float]] = {"theirs": [], "ours": []}
        for i in range(runs + 3):
            start = time.perf_counter()
            direct(method)
            middle = time.perf_counter()
            mi.attribute(model, picture, 1, method)
            if i >= 3:  # the first ones warm up
                seconds["theirs"].append(middle - start)
                seconds["ours"].append(time.perf_counter() - middle)
        theirs, ours = (statistics.median(seconds[n]) for n in ("theirs", "ours"))
        said.append(f"  {method:21} {ours * 1000:6.2f} ms, Captum alone {theirs * 1000:6.2f} ms: {ours / theirs:.2f}×")
    return "\n".join(["", *said])


if __name__ == "__main__":
    print("import mi_workshop   ", whole_process(sys.executable, "-c", "import mi_workshop"))
    print("mi-workshop trace    ", whole_process(SCRIPT, "trace", PROMPT))
    with tempfile.TemporaryDirectory() as folder:
        print("mi-workshop demo     ", whole_process(SCRIPT, "demo", "--out", f"{folder}/dallas.html"))
    print("trace / attribute    ", ratio())
    print("  the same, tiny Gemma", ratio(tiny_gemma(), runs=10))
    print("  the same, mid-sized ", ratio(mid_sized(), runs=5, warm=1))
    print("sweep / patching     ", sweeps())
    print("attribute / Captum   ", saliency())
