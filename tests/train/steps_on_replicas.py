"""Not a test: what steps do on some devices, with all that could go wrong between them.

Usage: steps_on_replicas.py RECORD.npz
"""

import dataclasses
import sys

import numpy as np

from tests.train.tiny_steps import VISIBLE, iterator_of, some_batches, steps_of, weights_of


def everything(cpu_devices):
    """Losses, weights, averages and skipped steps of every optimizer, by name."""
    found = {}
    for name in ("adamw", "sgd", "float16"):
        scaling = name == "float16"
        config = dataclasses.replace(
            VISIBLE,
            name="adamw" if scaling else name,
            accumulate_steps=2,
            clip="global_norm",
            clip_threshold=0.05,
            weight_decay=0.1,
        )
        options = {"ema_decay": 0.6, "loss_scaling": scaling}
        policy = "mixed_float16" if scaling else "float32"
        steps = steps_of(config, "ce+dice", cpu_devices, options, policy=policy)
        assert steps.strategy.num_replicas_in_sync == cpu_devices
        if scaling:
            steps.loss_scale.assign(1e30)  # which overflows in every step
        result = steps.train(iterator_of(steps, some_batches(6, size=4)), 0, 3)
        found[f"{name}/losses"] = result.losses
        found[f"{name}/skipped"] = np.array(result.skipped)
        found.update({f"{name}/weights/{k}": v for k, v in weights_of(steps.model).items()})
        averages = {f"{name}/average/{i}": a.numpy() for i, a in enumerate(steps.average.values)}
        found.update(averages)
        with steps.averaged():
            inside = weights_of(steps.model).values()
            for one, other in zip(inside, averages.values(), strict=True):
                np.testing.assert_array_equal(one, other)
        for path, value in weights_of(steps.model).items():
            np.testing.assert_array_equal(value, found[f"{name}/weights/{path}"])
    return found


if __name__ == "__main__":
    np.savez(sys.argv[1], **everything(cpu_devices=2))
