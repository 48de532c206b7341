"""How one engine sends full weights to the others: who has which rank, where they meet, and what is sent.

It is told in the words of vLLM's NCCL weight transfer, but needs neither vLLM nor torch; `nccl.py` carries it out.
"""

from dataclasses import dataclass
from typing import Any

PACKED_BYTES = 2**28
"""Tensors travel packed together, some more than this at a time. Two such packages, and what they are made of, lie on
each GPU beside all that the engine has taken of it: vLLM's own 1 GiB would be too much for some."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SentTensor:
    """`dtype` is torch's name for the type, such as "bfloat16"."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Channel:
    """One broadcast of `tensors`, in their order, from one engine to `num_receivers` others; receivers count from 0.

    The sender is rank 0, with one of its GPUs, and listens at `address` and `port` until all are there. Each GPU of a
    receiver is a rank: with two GPUs per engine, receiver 0 has the ranks 1 and 2, receiver 1 the ranks 3 and 4. The
    sender receives nothing, since one GPU cannot be two ranks.
    """

    address: str
    port: int
    num_receivers: int
    gpus_per_engine: int
    tensors: tuple[SentTensor, ...]

    @property
    def world_size(self) -> int:
        """Ranks, the sender's included."""
        return 1 + self.num_receivers * self.gpus_per_engine

    @property
    def meeting(self) -> dict[str, Any]:
        """What both ends must agree on: the fields that vLLM's NCCLTrainerInitInfo and NCCLWeightTransferInitInfo
        share."""
        return {
            "master_address": self.address,
            "master_port": self.port,
            "world_size": self.world_size,
            "packed": True,
            "packed_buffer_size_bytes": PACKED_BYTES,
        }

    def init_info(self, receiver: int) -> dict[str, Any]:
        """The fields of NCCLWeightTransferInitInfo; vLLM adds to `rank_offset` the place of each GPU in its engine."""
        assert 0 <= receiver < self.num_receivers
        return {**self.meeting, "rank_offset": 1 + receiver * self.gpus_per_engine}

    @property
    def update_info(self) -> dict[str, Any]:
        """The fields of NCCLWeightTransferUpdateInfo."""
        return {
            "names": [tensor.name for tensor in self.tensors],
            "dtype_names": [tensor.dtype for tensor in self.tensors],
            "shapes": [list(tensor.shape) for tensor in self.tensors],
        }
