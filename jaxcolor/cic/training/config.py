"""What a run of training depends on besides its photos."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from jaxcolor.cic.training.crops import LEAST_SHARE
from jaxcolor.color.palette import rebalancing_weights


@dataclass(frozen=True)
class TrainingConfig:
    """Everything a run depends on besides the photos.

    The learning rate rises linearly over ``warmup`` steps, stays, and falls linearly to 0 over the last ``decay``
    steps; a run may be resumed with another ``steps``. ``average`` is the decay of the moving average of the weights.
    A gradient longer than ``gradient_norm`` is cut to it.

    With the ``optimiser`` "muon", learning rate and weight decay are Muon's for the kernels. "adam" is that of Zhang et
    al. 2016: β = 0.9 and 0.99, and the weight decay is part of the gradient of the kernels; theirs were a learning
    rate of 3e-5 and a weight decay of 1e-3.

    With the ``precision`` "bfloat16" convolutions are computed in it (see :class:`~jaxcolor.cic.network.CICNetwork`);
    weights, statistics, loss, optimiser and average stay in float32.

    ``uniform_share`` is λ of the class rebalancing (Zhang et al. 2016: 1/2; 1 switches it off). With ``rebalance``
    "loss" the class weights w multiply the loss, as published; its minimiser is p w / Σ p w where that of the plain
    loss is p. With "prediction" the loss is plain, its gradients vary less, and the weights multiply what the network
    predicts (Menon et al. 2021, "Long-tail learning via logit adjustment").

    A crop covers at least ``least_share`` of its photo's sides. With a teacher, ``teacher_share`` of the loss is the
    cross-entropy of its distribution instead of the truth's.

    >>> float(TrainingConfig(warmup=10, learning_rate=0.03).rate(jnp.int32(4))) == float(jnp.float32(0.015))
    True
    """

    width: float = 0.25
    size: int = 128
    batch: int = 32
    steps: int = 20_000
    learning_rate: float = 0.03
    warmup: int = 100
    decay: int = 4_000
    weight_decay: float = 0.02
    gradient_norm: float = 1.0
    uniform_share: float = 0.5
    rebalance: Literal["loss", "prediction"] = "prediction"
    average: float = 0.999
    least_share: float = LEAST_SHARE
    teacher_share: float = 0.5
    seed: int = 0
    optimiser: Literal["muon", "adam"] = "muon"
    precision: Literal["float32", "bfloat16"] = "float32"

    @property
    def half(self) -> bool:
        """Whether convolutions are computed in half precision."""
        return self.precision == "bfloat16"

    def rate(self, step: jax.Array) -> jax.Array:
        """Learning rate at a step."""
        rise, fall = (step + 1) / self.warmup, (self.steps - step) / self.decay
        return self.learning_rate * jnp.clip(jnp.minimum(rise, fall), 0.0, 1.0)

    def class_weights(self, prior: jax.Array) -> jax.Array:
        """Those that multiply the loss, ``[313]``."""
        return rebalancing_weights(prior, self.uniform_share if self.rebalance == "loss" else 1.0)
