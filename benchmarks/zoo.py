"""Run initlint on the models of torchvision, timm and transformers, and on the shared cases; keep what it says.

    PYTHONPATH=. python benchmarks/zoo.py --shared ../shared --zoo timm --limit 40 --out /tmp/timm.jsonl
    PYTHONPATH=. python benchmarks/zoo.py --summary /tmp/*.jsonl

Needs an environment with the zoos installed as ``shared/ZOO.md`` says. Every model is built with its own initialisation in a
forked process, traced with inputs that initlint infers itself, and measured by a real forward and backward. One line of JSON for
each: status, coverage, findings, seconds, and predicted beside measured scales of every layer (see ``accuracy.py``).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import random
import re
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

#: Parameters of a model that still counts as tiny.
LARGEST = 80_000_000
#: The same where the widths are an architecture's own: with four layers, and with two.
MODEST, WIDEST = 120_000_000, 300_000_000
#: Tokens of a vocabulary that is cut, and the side of images (a multiple of patches of 14, 16 and 32).
VOCABULARY, CUT_IMAGE = 1000, 224
#: Its name, how it is built, and its inputs.
Model = tuple[str, Callable[[], Any], Any]
# The larger side of images in a tiny configuration whose patches were cut to 8.
_TINY_IMAGE = 64
# Wall seconds allowed for a processor second: a machine shared by many.
_WALL = 8


def harness(shared: Path) -> Any:
    """The enumeration of the shared harness."""
    sys.path.insert(0, str(shared / "zoo"))
    spec = importlib.util.spec_from_file_location("zoo_harness", shared / "zoo" / "harness.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def smallest(models: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The variant of fewest parameters of each model file, in the order of the list."""
    best: dict[str, dict[str, Any]] = {}
    for spec in models:
        if spec["kind"] not in best or spec["n"] < best[spec["kind"]]["n"]:
            best[spec["kind"]] = spec
    return [spec for spec in models if best[spec["kind"]] is spec]


def specs(zoo: str, shared: Path, limit: int, per_file: bool = False, own: bool = False) -> Iterator[Model]:
    """(name, build, inputs) for each model; inputs ``None`` where initlint is to infer them; ``own`` widths or tiny ones."""
    if zoo == "shared":
        for file in [*sorted((shared / "classics").glob("m*.py")), *sorted((shared / "bugs").glob("*/*.py"))][:limit]:
            yield f"{file.parent.name}/{file.stem}", *_from_file(file)
        return
    world = harness(shared)
    enumerated = world.ZOOS[zoo]()
    chosen = enumerated.specs[:limit]
    if per_file:
        chosen = smallest(chosen)
    for spec in chosen:
        if zoo == "timm" and not per_file and spec["n"] > 60e6:
            continue
        if zoo == "transformers":
            if enumerated.shrink.__name__ != "shrunk":
                shrink = enumerated.shrink

                def shrunk(cls: Any, rules: Any, default: Any = None, shrink: Any = shrink) -> Any:
                    config = shrink(cls, rules, default)
                    config = grouped(config, cls() if default is None else default) if own else config
                    return consistent(kept(config, cls, default))

                enumerated.shrink = shrunk

            yield spec["name"], (Wide if own else Tiny)(enumerated, spec, world.SHRINK), None
        else:
            yield spec["name"], partial(enumerated.build, spec), None


class Tiny:
    """Builds a transformers model from a tiny configuration: first the one that the harness picks."""

    def __init__(self, enumerated: Any, spec: dict[str, Any], rules: dict[str, int]) -> None:
        self.enumerated, self.spec, self.rules = enumerated, spec, rules

    def ready(self) -> None:
        """Choose a configuration: the harness tries each with inputs of its own, which is no part of an analysis."""
        if "cfg" in self.spec:
            return
        try:
            self.enumerated.prepare(self.spec)
        except RuntimeError:  # none of the harness's configurations builds
            if next(self.others(), None) is None:
                raise

    def __call__(self) -> Any:
        self.ready()
        return self.enumerated.build(self.spec)

    def others(self) -> Iterator[Callable[[], Any]]:
        """Other tiny configurations: shrinking every size on its own makes some that contradict themselves.

        All widths divided by one number (sums and multiples stay what they are), with few layers and with all; then all
        layers at small widths (indices of layers stay valid), few layers at the widths of the default, and the default
        itself; of both classes, none larger than ``LARGEST`` parameters.
        """
        import torch

        kind = self.enumerated.cm[self.spec["name"]]
        deep = {k: v for k, v in self.rules.items() if "layer" not in k and k not in ("depth", "num_blocks")}
        few = {k: v for k, v in self.rules.items() if k not in deep or k == "vocab_size"}
        makers: tuple[tuple[str, Callable[[], Any]], ...] = (
            ("in proportion, few layers", lambda: divided(kind(), layers=2)),
            ("in proportion", lambda: divided(kind())),
            ("fewer heads, few layers", lambda: divided(kind(), layers=2, fewer=True)),
            ("fewer heads", lambda: divided(kind(), fewer=True)),
            ("all layers", lambda: self.enumerated.shrink(kind, deep)),
            ("few layers", lambda: self.enumerated.shrink(kind, few)),
            ("default", lambda: self.enumerated.shrink(kind, {})),
        )
        for name in self.spec["classes"][:2]:
            for tag, make in makers:
                try:
                    other = {**self.spec, "cls": name, "cfg": make(), "cfg_tag": tag}
                    with torch.device("meta"):
                        size = sum(p.numel() for p in self.enumerated.build(other).parameters())
                except Exception:  # does not build: no tiny configuration
                    continue
                if size <= LARGEST:
                    self.spec.update(other)
                    yield partial(self.enumerated.build, other)


class Wide:
    """Builds a transformers model at the widths of its own default configuration, with few layers and a small vocabulary.

    Starts such as N(0, .02) are meant for those widths: in a configuration of width 32 they are six times too small.
    Four layers where that is at most ``MODEST`` parameters, else two; nothing larger than ``WIDEST``; all layers where
    no fewer build. Experts are fewer too, and images smaller: neither is the width of a layer.
    """

    def __init__(self, enumerated: Any, spec: dict[str, Any], rules: dict[str, int]) -> None:
        self.enumerated, self.spec, self.rules = enumerated, spec, rules
        self.left = self._candidates()

    def __call__(self) -> Any:
        return self.enumerated.build(self._next(next(self.left)))

    def others(self) -> Iterator[Callable[[], Any]]:
        """Other classes and configurations, where the first does not run."""
        for spec in self.left:
            yield partial(self.enumerated.build, self._next(spec))

    def _next(self, spec: dict[str, Any]) -> dict[str, Any]:
        self.spec.update(spec)
        return spec

    def _candidates(self) -> Iterator[dict[str, Any]]:
        import torch

        why = []
        for name in self.spec["classes"][:2]:
            for sides in (CUT_IMAGE, None):
                for layers in (4, 2, None):
                    depth = f"{layers} layers" if layers else "all layers"
                    try:
                        config = own_widths(self.enumerated, self.spec["name"], self.rules, layers, sides)
                        spec = {**self.spec, "cls": name, "cfg": config, "cfg_tag": f"own widths, {depth}"}
                        with torch.device("meta"):
                            size = sum(p.numel() for p in self.enumerated.build(spec).parameters())
                    except Exception as error:  # does not build from such a configuration
                        why.append(f"{name}: {type(error).__name__}: {str(error)[:80]}")
                        continue
                    if size <= (WIDEST if layers == 2 else MODEST):
                        yield spec
                        break
                    why.append(f"{name}: {size / 1e6:.0f} M parameters with {depth}")
        raise RuntimeError("; ".join(why) or "no other")


def own_widths(enumerated: Any, name: str, rules: dict[str, int], layers: int | None, side: int | None) -> Any:
    """The default configuration of an architecture with fewer layers (all: None), experts, tokens, and smaller images."""
    few = {k: layers for k in rules if ("layer" in k and k != "vocab_size") or k in ("depth", "num_blocks")}
    few = {k: v for k, v in few.items() if v is not None}
    few |= {k: v for k, v in rules.items() if "expert" in k and "size" not in k}
    few |= {"n_group": 1, "topk_group": 1, "moe_topk": 2, "first_k_dense_replace": 1, "vocab_size": VOCABULARY}
    if side is not None:
        few["image_size"] = side
    return enumerated.shrink(enumerated.cm[name], few)


def grouped(config: Any, default: Any) -> Any:
    """A shortened configuration with the key and value heads of its default: the harness makes them few in any case."""
    for name, value in vars(default).items():
        if ("key_value_heads" in name or "kv_heads" in name) and isinstance(value, int):
            setattr(config, name, value)
    return config


#: Sizes of layers, by the customary names; what measures images, sequences or windows is none.
_WIDTH = re.compile(r"hidden|dim|embed|channels|width|intermediate|ffn|d_model|d_ff|d_kv|inner|rank|proj|d_state|size")
_NO_WIDTH = re.compile(
    r"image|patch_size|patches|kernel|vocab|position|window|mel|sampl|length|stride|factor|feature_size|chunk|block|crop|grid|batch|"
    r"^num_|^n_|num_channels|in_channels|in_chans|_id$|_index$|step|layer_idx|bins|tokens|queries|temporal|drop|levels"
)
_LAYERS = re.compile(r"^(depth|num_hidden_layers|n_layers?|num_layers|(en|de)coder_layers|num_(en|de)coder_layers)$")
_HEADS = re.compile(r"^heads?$|(^|_)n_heads?$|_heads$")
_EXPERTS, _FEW_EXPERTS = re.compile(r"(num|n)_(local_|routed_)?experts$"), 8
_OF_A_HEAD = re.compile(r"head_dim|d_head|d_kv|head_size|qk_|v_head|rope|rotary|state")
# The divisor of parts of a configuration that have no heads.
_FEWEST_HEADS = 8
# Narrower than this nothing is divided; a head keeps at least four columns.
_NARROW, _HEAD = 32, 4


def divided(config: Any, layers: int | None = None, fewer: bool = False) -> Any:
    """A configuration with all widths divided by one power of two: what was a sum or a multiple of others stays so.

    With ``fewer`` the numbers of heads are divided too, the widths of a head stay, and there are fewer experts.
    """
    parts = list(_parts(config))
    fits = _fewer_heads if fewer else _divisible
    by = next(n for n in (32, 16, 8, 4, 2, 1) if all(fits(part, n) for part in parts))
    for part in parts:
        for name, value in list(vars(part).items()):
            if layers is not None and _LAYERS.match(name) and isinstance(value, int) and value > layers:
                for other, values in list(vars(part).items()):  # a list with an entry for each layer
                    if isinstance(values, list) and len(values) == value:
                        setattr(part, other, _some(values, layers))
                setattr(part, name, layers)
            elif "vocab" in name and isinstance(value, int) and value > 128:
                setattr(part, name, 128)
            elif name.endswith(("token_id", "token_index")) and isinstance(value, int) and value >= 128:
                setattr(part, name, 96 + sum(map(ord, name)) % 31)
            elif fewer and _EXPERTS.search(name) and isinstance(value, int):
                setattr(part, name, min(value, _FEW_EXPERTS))
            elif fewer and _HEADS.search(name):
                setattr(part, name, value // by if isinstance(value, int) else value)
            elif _is_width(name) and not (fewer and _OF_A_HEAD.search(name)):
                setattr(part, name, _over(value, by))
    return consistent(config)


def _fewer_heads(config: Any, by: int) -> bool:
    """Whether all numbers of heads are multiples of a divisor; one part with none must keep its widths' heads."""
    counts = [v for n, v in vars(config).items() if _HEADS.search(n) and isinstance(v, int)]
    return all(v % by == 0 for v in counts) if counts else by <= _FEWEST_HEADS


def _parts(config: Any) -> Iterator[Any]:
    yield config
    for value in vars(config).values():
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            yield from _parts(value)


def _some(values: list[Any], count: int) -> list[Any]:
    """As many entries, one of each kind first."""
    first = list(dict.fromkeys(values.index(v) for v in values))[:count]
    return [values[i] for i in sorted(first)] if len(first) == count else values[:count]


def _is_width(name: str) -> bool:
    return bool(_WIDTH.search(name)) and not _NO_WIDTH.search(name)


def _over(value: Any, by: int) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_over(v, by) for v in value)
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= _NARROW and value % by == 0
    return value // by if whole else value


def _divisible(config: Any, by: int) -> bool:
    """Whether heads still divide their widths, with at least ``_HEAD`` columns each, an even number."""
    names = (
        "num_attention_heads",
        "n_head",
        "n_heads",
        "num_heads",
        "encoder_attention_heads",
        "decoder_attention_heads",
    )
    heads = [_of(config, n) for n in names]
    width = next(
        (w for n in ("hidden_size", "d_model", "n_embd", "embed_dim", "dim") if (w := getattr(config, n, None))), None
    )
    own = getattr(config, "head_dim", None)
    if isinstance(own, int):
        return own < _NARROW or (own % by == 0 and own // by >= _HEAD)
    for count in heads:
        for n, wide in zip(_row(count), _row(width), strict=False):
            if wide % (by * n) or wide // (by * n) < _HEAD or wide // (by * n) % 2:
                return by == 1
    return True


def _of(config: Any, name: str) -> Any:
    try:
        return getattr(config, name, None)
    except Exception:  # an attribute that differs from layer to layer
        return None


def _row(value: Any) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [v for v in values if isinstance(v, int)]


def kept(config: Any, cls: Any, default: Any) -> Any:
    """A shrunk part of a configuration with what its whole sets in it: the harness starts from the part's own defaults.

    A detector asks its backbone for three feature maps; without them no forward runs.
    """
    if default is None:
        return config
    plain = vars(cls())
    for name, value in vars(default).items():
        own = name in plain and plain[name] == value
        shrunk = name in plain and vars(config).get(name) != plain[name]
        if not own and not shrunk:
            setattr(config, name, value)
    return config


def consistent(config: Any) -> Any:
    """A shrunk configuration with rotary sizes that fit its shrunk heads, and tokens for its images: none runs otherwise."""
    for name, value in list(vars(config).items()):
        if value is None and re.match(r"(image|video|audio)_token_(id|index)$", name):
            setattr(config, name, 96 + sum(map(ord, name)) % 31)
    sides = getattr(config, "image_size", None)
    if isinstance(sides, list) and getattr(config, "patch_size", None) == 8 and max(sides) > _TINY_IMAGE:
        config.image_size = [side * _TINY_IMAGE // max(sides) for side in sides]  # as the harness cuts a single number
    heads = getattr(config, "num_attention_heads", None) or getattr(config, "n_head", None)
    hidden = getattr(config, "hidden_size", None) or getattr(config, "n_embd", None)
    width = getattr(config, "head_dim", None)
    if not isinstance(width, int) and isinstance(heads, int) and isinstance(hidden, int):
        width = hidden // heads
    if not isinstance(width, int):
        return config
    try:
        if width == type(config)().head_dim:  # heads of the architecture's own width: all that depends on it fits
            return config
    except Exception:  # no defaults, or none of the kind
        pass
    if isinstance(getattr(config, "rotary_dim", None), int):
        config.rotary_dim = min(config.rotary_dim, width)
    for name in ("rope_parameters", "rope_scaling"):
        rope = getattr(config, name, None)
        if not isinstance(rope, dict):
            continue
        declared = "mrope_section" in getattr(type(config), "ignore_keys_at_rope_validation", ())
        sections = rope.get("mrope_section", [16, 24, 24] if declared else None)
        if sections:
            turned = int(width * rope.get("partial_rotary_factor", 1.0)) // 2
            parts = [turned * n // sum(sections) for n in sections[1:]]
            rope["mrope_section"] = [turned - sum(parts), *parts]
    return config


def _from_file(file: Path) -> tuple[Callable[[], Any], Any]:
    spec = importlib.util.spec_from_file_location(f"case_{file.parent.name}_{file.stem}".replace("-", "_"), file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Model, module.example_inputs()


def describe(name: str, build: Callable[[], Any], inputs: Any, measure: bool = True) -> dict[str, Any]:
    """What initlint says of one model, as plain data."""
    import initlint

    start, cpu = time.perf_counter(), time.process_time()
    run = initlint.check(build, inputs=inputs, name=name, measure=measure, seed=0)
    report = run.models[0]
    facts = report.facts
    rows = [
        {
            "layer": row.name,
            "kind": row.kind,
            "forward": row.signal.forward_std,
            "measured_forward": row.signal.measured_forward_std,
            "gradient": row.signal.gradient_std,
            "measured_gradient": row.signal.measured_gradient_std,
            "why": row.undetermined,
        }
        for row in report.rows
    ]
    return {
        "name": name,
        "status": facts.status,
        "reason": facts.reason,
        "method": facts.trace.method,
        "coverage": facts.trace.coverage,
        "ran": facts.trace.ran,
        "not_reached": len(facts.trace.not_reached),
        "not_reached_names": list(facts.trace.not_reached[:5]),
        "notes": list(facts.trace.notes[:3]),
        "inputs": [f"{i.name}: {i.dtype}{list(i.shape)} ({i.origin})" for i in facts.inputs],
        "unsupported": list(facts.trace.unsupported),
        "seconds": round(time.perf_counter() - start, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "parameters": sum(math.prod(p.shape) for p in facts.parameters if p.kind == "parameter"),
        "nodes": len(facts.nodes),
        "ops": dict(Counter(n.attrs.get("name", n.op) for n in facts.nodes if n.op == "opaque")),
        "findings": [
            {
                "code": f.code,
                "severity": f.severity.label,
                "message": f.message,
                "effect": f.effect,
                "n": len(f.parameters),
                "parameters": list(f.parameters[:3]),
            }
            for f in run.findings
        ],
        "rows": rows,
    }


#: A batch norm over fewer values than this says little of itself: the mean of 1 / variance over channels does not settle.
#: Models in which the inferred input leaves one with fewer are measured on as many images, of at least ``SIDE`` pixels.
FEWEST, SIDE = 16, 128


def keep(name: str, build: Callable[[], Any], inputs: Any, folder: Path, measure: bool = True) -> dict[str, Any]:
    """Trace and measure one model, and keep what was found as JSON."""
    from initlint.codec import to_plain
    from initlint.options import ProbeOptions
    from initlint.probe import pipeline

    options = ProbeOptions(seed=0, measure=measure)
    facts = pipeline.analyse(build, name=name, options=options, inputs=inputs)
    found = facts.inputs
    if inputs is None and few(facts) and len(found) == 1 and len(found[0].shape or ()) == 4:
        import torch

        _, channels, *sides = found[0].shape or ()
        torch.manual_seed(0)
        images = torch.randn(FEWEST, channels, *(max(side, SIDE) for side in sides))
        again = pipeline.analyse(build, name=name, options=options, inputs=(images,))
        facts = again if again.trace.ran else facts
    (folder / f"{name.replace('/', '~')}.json").write_text(json.dumps(to_plain(facts, compact=True)))
    shapes = [list(i.shape or ()) for i in facts.inputs]
    return {"name": name, "status": facts.status, "reason": facts.reason, "ran": facts.trace.ran, "inputs": shapes}


def few(facts: Any) -> bool:
    """Whether a batch norm takes its statistics over too few values."""
    norms = [n for n in facts.nodes if n.op == "norm" and n.attrs.get("kind") == "batch" and n.attrs.get("training")]
    return any(isinstance(n.attrs.get("n"), int | float) and n.attrs["n"] < FEWEST for n in norms)


def isolated(
    name: str,
    build: Callable[[], Any],
    inputs: Any,
    timeout: int,
    folder: Path | None = None,
    measure: bool = True,
) -> dict[str, Any]:
    """``describe`` or ``keep`` in a forked process with a limit of processor seconds and memory.

    Processor seconds do not depend on what else the machine does; the wall clock is only a net under them.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        resource.setrlimit(resource.RLIMIT_AS, (14 << 30, 14 << 30))
        signal.alarm(_WALL * timeout)
        try:
            if isinstance(build, Tiny):
                build.ready()
            signal.setitimer(signal.ITIMER_PROF, timeout)
            data = (
                describe(name, build, inputs, measure) if folder is None else keep(name, build, inputs, folder, measure)
            )
            others: Iterator[Callable[[], Any]] = iter(())
            if isinstance(build, Tiny | Wide) and data["status"] == "partial" and sizes_at_fault(data["reason"]):
                others = build.others()
            for other in others:
                if isinstance(build, Tiny) and not runs(other, inputs):
                    continue
                again = (
                    describe(name, other, inputs, measure)
                    if folder is None
                    else keep(name, other, inputs, folder, measure)
                )
                if again["status"] == "analysed":
                    data = again
                    break
            if isinstance(build, Tiny | Wide):
                data["built"] = f"{build.spec['cls']}, {build.spec['cfg_tag']}"
        except BaseException as error:
            data = {
                "name": name,
                "status": "crashed",
                "reason": f"{type(error).__name__}: {str(error)[:300]}",
                "rows": [],
                "findings": [],
            }
        with os.fdopen(write, "w") as stream:
            json.dump(data, stream)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as stream:
        text = stream.read()
    os.waitpid(pid, 0)
    return (
        json.loads(text)
        if text
        else {"name": name, "status": "killed", "reason": f"over {timeout} s or crashed", "rows": [], "findings": []}
    )


def sizes_at_fault(reason: str) -> bool:
    """Whether another configuration may help: not where an object of the library is wanted, or there is no forward."""
    return "required positional argument" not in reason and "has no forward" not in reason


def runs(build: Callable[[], Any], inputs: Any) -> bool:
    """Whether inputs are found with which a model's forward passes: a third of the time of a whole analysis."""
    from initlint.errors import ProbeError
    from initlint.probe.inputs import find

    try:
        return inputs is not None or not find(build(), seed=0).notes
    except ProbeError:
        return False


def drawn(models: Iterable[Model], count: int, seed: int, apart: set[str]) -> list[Model]:
    """A random sample of the models that are not among those of earlier runs."""
    rest = [model for model in models if model[0] not in apart]
    return random.Random(seed).sample(rest, min(count, len(rest)))


def load(files: list[Path]) -> list[dict[str, Any]]:
    """Lines of earlier runs; the last line of a model counts."""
    found: dict[str, dict[str, Any]] = {}
    for file in files:
        for line in file.read_text().splitlines():
            data = json.loads(line)
            found[f"{file.stem}:{data['name']}"] = data
    return list(found.values())


def summary(models: list[dict[str, Any]]) -> None:
    """Coverage and false alarms, with the models that fail or are warned about."""
    states = Counter(m["status"] for m in models)
    ran = [m for m in models if m.get("ran")]
    print(
        f"{len(models)} models: {dict(states)}; ran {len(ran)}; full coverage {sum(m.get('coverage', 0) >= 0.999 for m in models)}"
    )
    for level in ("error", "warning"):
        hit = [m for m in models if any(f["severity"] == level for f in m["findings"])]
        print(f"{level}: {len(hit)} models ({len(hit) / max(1, len(models)):.1%})")
        codes = Counter(f["code"] for m in hit for f in m["findings"] if f["severity"] == level)
        print("   ", dict(codes))
    for model in models:
        bad = [f for f in model["findings"] if f["severity"] != "note"]
        if bad or model["status"] != "analysed" or not model.get("ran"):
            print(
                f"- {model['name']} [{model['status']} {model.get('method', '')} {model.get('coverage', 0):.2f}] {model.get('reason', '')[:150]}"
            )
            for f in bad:
                print(f"    {f['code']} {f['severity']}: {f['message'][:150]} | {f['effect'][:100]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--zoo", choices=("torchvision", "timm", "transformers", "shared"))
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--timeout", type=int, default=90)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--names", default="")
    parser.add_argument("--facts", type=Path, help="keep traced and measured models in DIR/ZOO, run no rules")
    parser.add_argument(
        "--unmeasured", action="store_true", help="without the real forward and backward: a third of the time"
    )
    parser.add_argument("--from", dest="first", type=int, default=0, help="of the models that --every leaves")
    parser.add_argument("--every", type=int, default=1, help="only each n-th model")
    parser.add_argument(
        "--widths",
        choices=("tiny", "own"),
        default="tiny",
        help="transformers: width 32, or the default configuration's",
    )
    parser.add_argument("--sample", type=int, help="only so many models, drawn with --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--apart", type=Path, nargs="*", default=[], help="none that these earlier runs have")
    parser.add_argument("--per-file", action="store_true", help="timm: the smallest variant of each model file")
    parser.add_argument("--again", action="store_true", help="also the models that --out has already")
    parser.add_argument("--summary", type=Path, nargs="*")
    arguments = parser.parse_args()
    if arguments.summary:
        summary(load(arguments.summary))
        return 0
    import torch

    torch.set_num_threads(1)
    wanted = set(filter(None, arguments.names.split(",")))
    done = set()
    if arguments.out and arguments.out.exists() and not arguments.again:
        done = {json.loads(line)["name"] for line in arguments.out.read_text().splitlines()}
    out = arguments.out.open("a") if arguments.out else sys.stdout
    folder = arguments.facts / arguments.zoo if arguments.facts else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    models = specs(arguments.zoo, arguments.shared, arguments.limit, arguments.per_file, arguments.widths == "own")
    if arguments.sample is not None:
        models = drawn(models, arguments.sample, arguments.seed, {m["name"] for m in load(arguments.apart)})
    for index, (name, build, inputs) in enumerate(models):
        if (wanted and name not in wanted) or index % arguments.every != arguments.first % arguments.every:
            continue
        if folder is not None and (folder / f"{name.replace('/', '~')}.json").exists():
            continue
        if name in done:
            continue
        data = isolated(name, build, inputs, arguments.timeout, folder, not arguments.unmeasured)
        out.write(json.dumps(data) + "\n")
        out.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
