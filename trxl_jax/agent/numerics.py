"""How the agent multiplies: for which platform it is compiled, and in which precision."""

import dataclasses
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from trxl_jax.agent.cpu import products

_FLOAT32: np.dtype[Any] = np.dtype(np.float32)


@dataclasses.dataclass(frozen=True)
class Numerics:
    """The one place where the platform is chosen; `make_agent` makes it and every module of the agent gets it.

    Fields:
        platform: what is compiled for: cpu, gpu or tpu. It changes the order of sums, nothing else.
        dtype: of the factors of convolutions and matrix products; parameters, sums and results are float32.
        matmul_precision: how accelerators multiply float32 factors: JAX's names default, high or highest. With
            "default" JAX's own setting decides, which is bfloat16 on TPUs and TF32 on GPUs. CPUs know float32 only.
    """

    platform: str
    dtype: np.dtype[Any] = _FLOAT32
    matmul_precision: str = "default"

    def precise(self) -> AbstractContextManager[Any]:
        """A context in which products are traced with `matmul_precision`; their gradients need it as well."""
        if self.platform == "cpu" or self.matmul_precision == "default":
            return nullcontext()
        return jax.default_matmul_precision(self.matmul_precision)

    @property
    def cpu_float32(self) -> bool:
        """Whether the formulations of `agent/cpu` apply: they are for XLA's CPU backend, in float32."""
        return self.platform == "cpu" and self.dtype == _FLOAT32

    @property
    def accelerator(self) -> bool:
        """Whether the formulations of `agent/accelerator` apply: fewer kernels. That of the layers is for GPUs only."""
        return self.platform != "cpu"

    @property
    def full_precision(self) -> "Numerics":
        """The same platform with float32 factors."""
        return dataclasses.replace(self, dtype=_FLOAT32)

    def product(self, rows: jax.Array, weight: jax.Array) -> jax.Array:
        """`rows @ weight` of factors [..., in] and [in, out] cast to `dtype`; [..., out] in `dtype`."""
        rows, weight = rows.astype(self.dtype), weight.astype(self.dtype)
        return products.product(rows, weight) if self.platform == "cpu" else rows @ weight

    def dot_general(self, rows: jax.Array, weight: jax.Array, dimension_numbers: Any, precision: Any = None) -> Any:
        """The product of a Flax layer over the last axis of its inputs: [..., in] and [in, out] to [..., out]."""
        dot_general = products.dot_general if self.platform == "cpu" else jax.lax.dot_general
        return dot_general(rows, weight, dimension_numbers, precision)

    def cast_factors(self, inputs: jax.Array, kernel: jax.Array, bias: jax.Array, dtype: Any = None) -> Any:
        """Flax's `promote_dtype`, arrays [...], for layers that multiply in `dtype` and return float32.

        The bias stays float32, unlike with Flax's own: its gradient is a sum over the batch, which XLA takes in the
        cotangent's type. In bfloat16, a sum over 16,384 samples was 6% off.
        """
        return inputs.astype(self.dtype), kernel.astype(self.dtype), jnp.asarray(bias, jnp.float32)
