"""The color network beside its PyTorch twin: forward pass, the embedded one's prediction, and a step of training."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxcolor as jc
from jaxcolor.allocation import in_blocks, memory_kept
from jaxcolor.cic.network import CICNetwork, random_variables
from jaxcolor.cic.training.loop import TrainingConfig, initial_state, make_step
from jaxcolor.cic.training.step import largest_array
from jaxcolor.color.palette import ab_bins

from .timing import Table, compile_seconds, faster, measure, measure_in_turns

MISSING = "PyTorch is not installed, or its twin networks are not here (tests/ of the repository): its row is left out"

Way = Callable[[], object]


def tables(quick: bool, peers: bool) -> Iterator[Table]:
    """Forward pass at full width, prediction with the embedded weights, training step at a quarter of the width."""
    yield forward(1 / 16 if quick else 1.0, 64 if quick else 256, peers)
    yield prediction()
    yield training(1 / 16 if quick else 0.25, 32 if quick else 128, 4 if quick else 16, peers)


def forward(width: float, size: int, peers: bool) -> Table:
    """One image through the network, to its logits."""
    luminance = np.random.default_rng(0).uniform(0, 100, (1, size, size, 1)).astype(np.float32)
    title = f"CIC forward pass, width {width:g}, {size}², float32"
    return _beside_torch(
        title, {"jaxcolor": _jax_forward(width, luminance)}, partial(_torch_forward, width, luminance), peers
    )


def prediction() -> Table:
    """From the luminance of a photo to its distribution, with the embedded weights."""
    net = jc.CIC.load()
    luminance = jnp.asarray(np.random.default_rng(0).uniform(0, 100, (512, 512)), jnp.float32)

    def predict() -> None:
        jax.block_until_ready(net.predict(luminance).probabilities)

    table = Table("CIC.predict, embedded weights, a photo of 512²", {}, "jaxcolor")
    table.compile = {"jaxcolor": compile_seconds(predict)}
    table.rows = {"jaxcolor": measure(predict)}
    return table


def training(width: float, size: int, batch: int, peers: bool) -> Table:
    """Loss, gradient and optimiser of one batch.

    "jaxcolor" is the step of ``jaxcolor train``: from photos, with Muon and a moving average of the weights. The others
    do the same work as each other: luminance and dense targets are given, the optimiser is AdamW. The network is
    normalised at every convolution in all.
    """
    config = TrainingConfig(width=width, size=size, batch=batch)
    ways: dict[str, Way] = {
        "jaxcolor": _training_of_command(config),
        "jaxcolor, work of PyTorch's": _jax_training(config),
    }
    title = f"training step, width {width:g}, {batch} crops of {size}², float32"
    return _beside_torch(title, ways, partial(_torch_training, width, size, batch), peers)


def _beside_torch(title: str, ways: dict[str, Way], theirs: Callable[[Any], Way | None], peers: bool) -> Table:
    """Ours, and PyTorch's, which ``theirs`` makes, in the layout of memory that is the faster one."""
    table = Table(title, {}, "PyTorch", compile={name: compile_seconds(way) for name, way in ways.items()})
    if peers:
        layouts = {"channels first": "contiguous_format", "channels last": "channels_last"}
        made = {name: way for name, layout in layouts.items() if (way := theirs(layout)) is not None}
        if made:
            layout = faster(made)
            ways = ways | {"PyTorch": made[layout]}
            table.notes.append(f"PyTorch: {layout}, the faster of two layouts")
        else:
            table.notes.append(MISSING)
    with memory_kept():  # as in a training run
        table.rows = measure_in_turns(ways)
    return table


def _jax_forward(width: float, luminance: np.ndarray) -> Way:
    variables, image = random_variables(jax.random.key(0), width), jnp.asarray(luminance)
    run = jax.jit(CICNetwork(width).apply)

    def forward() -> object:
        # As in a prediction: on accelerators too, float32 is what the title says.
        with jax.default_matmul_precision("highest"):
            return jax.block_until_ready(run(variables, image))

    return forward


def _training_of_command(config: TrainingConfig) -> Way:
    photos = np.random.default_rng(0).integers(0, 255, (config.batch, config.size, config.size, 3), np.uint8)
    # On the device, as the loop's loader puts them there while the step before is computed.
    batch = jax.device_put(photos)
    step = make_step(config, jnp.ones(len(ab_bins())))
    state = initial_state(config, jnp.full(len(ab_bins()), 1 / len(ab_bins())))

    def run() -> None:
        nonlocal state
        state, losses = step(state, batch)
        jax.block_until_ready((state, losses))

    return run


def _jax_training(config: TrainingConfig) -> Callable[[], None]:
    network, optimiser = CICNetwork(config.width, normalised=True), optax.adamw(1e-3)
    data = jax.device_put(_training_data(config.batch, config.size))

    def loss(params: Any, stats: Any, luminance: jax.Array, targets: jax.Array) -> tuple[jax.Array, Any]:
        variables = {"params": params, "batch_stats": stats}
        logits, updated = network.apply(variables, luminance, train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy(logits, targets).mean(), updated["batch_stats"]

    @partial(jax.jit, donate_argnums=(0, 1, 2), compiler_options=in_blocks(largest_array(config)))
    def step(params: Any, stats: Any, moments: Any, *data: jax.Array) -> tuple[Any, Any, Any]:
        gradient, stats = jax.grad(loss, has_aux=True)(params, stats, *data)
        updates, moments = optimiser.update(gradient, moments, params)
        return optax.apply_updates(params, updates), stats, moments

    variables = random_variables(jax.random.key(0), config.width, normalised=True)
    state = variables["params"], variables["batch_stats"], optimiser.init(variables["params"])

    def run() -> None:
        nonlocal state
        state = jax.block_until_ready(step(*state, *data))

    return run


def _training_data(batch: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Luminance ``[batch, size, size, 1]`` and distributions ``[batch, size / 4, size / 4, bins]``."""
    random = np.random.default_rng(0)
    targets = random.exponential(size=(batch, size // 4, size // 4, len(ab_bins()))).astype(np.float32)
    return random.uniform(0, 100, (batch, size, size, 1)).astype(np.float32), targets / targets.sum(-1, keepdims=True)


def _twin(width: float) -> Any:
    try:
        from tests.cic_twin import Twin
    except ImportError:
        return None
    return Twin(width)


def _torch_forward(width: float, luminance: np.ndarray, layout: str) -> Way | None:
    twin = _twin(width)
    if twin is None:
        return None
    import torch

    image, twin = _in_layout(torch.from_numpy(luminance).permute(0, 3, 1, 2), twin, layout)

    def forward() -> object:
        with torch.inference_mode():
            return twin.logits(image)

    return forward


def _in_layout(images: Any, network: Any, layout: str) -> tuple[Any, Any]:
    """Images and a network as they lie in memory in one of PyTorch's formats."""
    import torch

    form = getattr(torch, layout)
    return images.contiguous(memory_format=form), network.to(memory_format=form)


def _torch_training(width: float, size: int, batch: int, layout: str) -> Way | None:
    twin = _twin(width)
    if twin is None:
        return None
    import torch
    from torch import nn

    def normalised(block: nn.Sequential) -> nn.Sequential:
        layers: list[nn.Module] = []
        for layer in block:
            layers.append(layer)
            if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
                layers.append(nn.BatchNorm2d(layer.out_channels))
        return nn.Sequential(*layers)

    blocks = [normalised(getattr(twin, f"model{number}")) for number in range(1, 9)]
    luminance, targets = (torch.from_numpy(x).permute(0, 3, 1, 2) for x in _training_data(batch, size))
    luminance, network = _in_layout(luminance, nn.Sequential(*blocks).train(), layout)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)

    def step() -> None:
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(luminance), targets).backward()
        optimiser.step()

    return step
