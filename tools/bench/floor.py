"""The floor of a step: its convolutions and matrix products alone, forward and backward, in the engine's layout.

On a GPU they are one CUDA graph, with the fastest algorithms that cuDNN finds: its measured roofline.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import worker
from bnstudy import run
from bnstudy.engine.device import prepare
from bnstudy.engine.fast_cpu import product
from bnstudy.params import load_runtime


def graphed(step: Callable[[], None]) -> Callable[[], None]:
    """`step` as one CUDA graph: no launches between its kernels."""
    with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
        for _ in range(3):  # cuDNN tries its algorithms, which a capture may not do
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def main() -> None:
    parser = worker.parser(__doc__)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    options = parser.parse_args()
    runtime = {"device": options.device, "threads": "all", "deterministic": False}
    device = prepare(load_runtime().model_copy(update=runtime))
    n, dtype = options.batch_size, getattr(torch, options.precision)

    def random(*shape: int) -> Tensor:
        """[A, B, …], channels last in memory."""
        values = torch.randn(shape[0], *shape[2:], shape[1], dtype=dtype, device=device)
        return values.movedim(-1, 1).requires_grad_()

    x1 = random(n, 1, 28, 28).requires_grad_(False)  # images need no gradient
    layers: list[tuple[Callable[..., Tensor], Tensor, Tensor, Tensor]] = [  # function, inputs, weights, gradient
        (lambda x, w: F.conv2d(x, w, padding=2), x1, random(16, 1, 5, 5), random(n, 16, 28, 28)),
        (lambda x, w: F.conv2d(x, w, padding=2), random(n, 32, 14, 14), random(32, 32, 5, 5), random(n, 32, 14, 14)),
        (product, random(n, 64, 7, 7), random(1024, 64, 7, 7), random(n, 1024)),
        (F.linear, random(n, 2048), random(10, 2048), random(n, 10)),
    ]

    def step() -> None:
        for function, x, w, gradient in layers:
            torch.autograd.grad(function(x, w), [t for t in (x, w) if t.requires_grad], gradient)

    with FlopCounterMode(display=False) as counter:
        step()
    call = graphed(step) if options.device == "cuda" else step

    def steps() -> Iterator[None]:
        while True:
            call()
            yield

    worker.report(options.device, step_s=worker.timed(steps(), options), flop=counter.get_total_flops())


if __name__ == "__main__":
    run(main)
