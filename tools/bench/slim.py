"""The original's network in the original's framework: TF-slim 1.1.0 on TensorFlow 2.13.1, graph and feed_dict.

Runs in an environment of its own, .venv-slim, on the CPU. The averages are updated in the forward pass.
"""

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import tensorflow.compat.v1 as tf
import tf_slim as slim

import worker

PREPARED = Path("data/prepared")


def network(pixels_ND: tf.Tensor, is_training: tf.Tensor) -> tf.Tensor:
    """float32 [N, 784] in [0, 1] -> logits [N, 10]: beta without gamma, also on the logits."""
    norm = {"decay": 0.95, "updates_collections": None, "is_training": is_training}
    with slim.arg_scope(
        [slim.conv2d, slim.fully_connected],
        weights_initializer=tf.truncated_normal_initializer(stddev=0.1),
        normalizer_fn=slim.batch_norm,
        normalizer_params=norm,
        activation_fn=tf.nn.crelu,
    ):
        x = tf.reshape(pixels_ND, [-1, 28, 28, 1])
        x = slim.max_pool2d(slim.conv2d(x, 16, 5, scope="conv1"), 2)
        x = slim.max_pool2d(slim.conv2d(x, 32, 5, scope="conv2"), 2)
        x = slim.fully_connected(slim.flatten(x), 1024, scope="fc1")
        x = slim.dropout(x, 0.7, is_training=is_training)
        return slim.fully_connected(x, 10, activation_fn=None, scope="logits")


def split(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels, float32 [N, 784] in [0, 1], and one-hot labels, float32 [N, 10]."""
    images_NHW, labels_N = (np.load(PREPARED / f"{name}_{what}.npy") for what in ("images", "labels"))
    pixels_ND = images_NHW.reshape(-1, 784).astype(np.float32) * np.float32(1 / 255)
    return pixels_ND, np.eye(10, dtype=np.float32)[labels_N]


def batches(pixels_ND: np.ndarray, labels_NK: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Epoch after epoch, each shuffled whole as the original's `next_batch` did."""
    while True:
        order = np.random.permutation(len(pixels_ND))  # noqa: NPY002 (the original's)
        pixels_ND, labels_NK = pixels_ND[order], labels_NK[order]
        for start in range(0, len(order) - size + 1, size):
            yield pixels_ND[start : start + size], labels_NK[start : start + size]


def main() -> None:
    options = worker.parser(__doc__).parse_args()
    tf.disable_v2_behavior()
    tf.set_random_seed(0)
    pixels = tf.placeholder(tf.float32, [None, 784])
    labels = tf.placeholder(tf.float32, [None, 10])
    is_training = tf.placeholder(tf.bool)
    logits = network(pixels, is_training)
    loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(logits=logits, labels=labels))
    correct = tf.reduce_sum(tf.cast(tf.equal(tf.argmax(logits, 1), tf.argmax(labels, 1)), tf.int32))
    step = tf.Variable(0, trainable=False)
    rate = tf.train.exponential_decay(0.1, step, 1000, 0.95, staircase=True)
    update = slim.learning.create_train_op(loss, tf.train.AdagradOptimizer(rate), step)
    test_x, test_y = split("test")
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())

        def train() -> Iterator[float]:
            for x, y in batches(*split("train"), options.batch_size):
                yield session.run(update, {pixels: x, labels: y, is_training: True})

        def test() -> float:
            parts = [slice(start, start + 1000) for start in range(0, len(test_x), 1000)]
            feeds = [{pixels: test_x[part], labels: test_y[part], is_training: False} for part in parts]
            return sum(int(session.run(correct, feed)) for feed in feeds) / len(test_x)

        step_s = worker.timed(train(), options)
        accuracy, evaluation_s = test(), worker.seconds_of(test, "cpu") / len(test_x)
    versions = {name: version(name) for name in ("tensorflow-cpu", "tf-slim")}
    worker.report("cpu", step_s=step_s, accuracy=accuracy, evaluation_s=evaluation_s, versions=versions)


if __name__ == "__main__":
    main()
