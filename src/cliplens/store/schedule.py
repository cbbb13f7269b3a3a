"""Check that SAELens' trainer and the provider that feeds it agree on the batch size.

`SAETrainer` counts rows but plans its learning rate in steps of `train_batch_size_samples`. With smaller batches the
schedule ends early, and the rest of the training runs at rate 0. SAELens calls `next(provider)` without arguments, so
the trainer is looked up among the callers.
"""

import sys

from cliplens.errors import MismatchError

_DEPTH = 12


def check_trainer(batch_size: int) -> bool:
    """Compare the batch size of a provider with that of the calling trainer; return whether there is a trainer.

    Raises:
        MismatchError: the trainer has another batch size.
    """
    frame = sys._getframe(1)
    for _ in range(_DEPTH):
        if frame.f_back is None:
            return False
        frame = frame.f_back
        if frame.f_code.co_name != "fit":
            continue
        told = getattr(getattr(frame.f_locals.get("self"), "cfg", None), "train_batch_size_samples", None)
        if told is None:
            continue
        if told != batch_size:
            raise MismatchError(
                expected=f"train_batch_size_samples={batch_size}, the provider's batch_size",
                found=f"train_batch_size_samples={told}: the learning rate would follow steps of another size",
                fix=f"make the provider with batch_size={told}, or set train_batch_size_samples={batch_size}",
            )
        return True
    return False
