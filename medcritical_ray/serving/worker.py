"""What vLLM's workers, one for each GPU or one for the CPU, can do beyond their own: take a policy's weights."""

import os
import threading
import time
from pathlib import Path
from typing import Any

from medcritical_ray.engines.weights import check_names, checkpoint_names, decode_weights, read_blobs, with_output_head

WATCH_S = 1.0


class PolicyWorker:
    """Mixed into vLLM's worker class, whose fields it uses (`worker_extension_cls`)."""

    model_runner: Any
    model_config: Any

    def end_with(self, pid: int) -> None:
        """Has this process end soon after another one, however that ends: else an engine would be orphaned."""

        def watch() -> None:
            while _is_alive(pid):
                time.sleep(WATCH_S)
            os._exit(1)

        threading.Thread(target=watch, name="end-with-server", daemon=True).start()

    def take_policy(self, model_dir: str, first_dir: str) -> None:
        """Reads full weights from a directory into the running engine, which started with those of `first_dir`.

        Raises UserError, and keeps what it has, if their tensors are not of the same names.
        """
        directory = Path(model_dir)
        tied = bool(self.model_config.hf_text_config.tie_word_embeddings)
        check_names(str(directory), checkpoint_names(directory), checkpoint_names(Path(first_dir)), tied=tied)
        weights = with_output_head(decode_weights(read_blobs(directory)), tied=tied)
        self.model_runner.reload_weights(weights_iterator=list(weights.items()))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
