"""A small convolutional network for images, and its ONNX nodes."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from onnx import TensorProto
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..features.graph import Graph
from ..settings import UserError, read_json

FINE = 64  # pixels a side, beyond which the first layer takes steps of two or more
LEAST_SIDE = 2  # of what a layer leaves
EPSILON = 1e-5
CONFIG, WEIGHTS = "config.json", "model.safetensors"  # of layers that were pretrained


class Block(nn.Module):
    """A convolution of 3 × 3, normalised over each image (Ulyanov et al., 2016), cut at 0, and halved.

    Normalised over the image and not over the batch: a row's score hangs on no other row, and a share of a batch
    gives its share of the gradient.
    """

    def __init__(self, inputs: int, outputs: int, step: int) -> None:
        super().__init__()
        # Without an offset, which the mean would take away again
        self.convolution = nn.Conv2d(inputs, outputs, 3, stride=step, padding=1, bias=False)
        self.norm = nn.InstanceNorm2d(outputs, eps=EPSILON, affine=True)

    def forward(self, values: Tensor) -> Tensor:
        normalised = self.norm(self.convolution(values))
        return nn.functional.max_pool2d(torch.relu(normalised), 2)

    def to_nodes(self, graph: Graph, values: str) -> str:
        """Add the block's nodes, float32, shape (n, outputs, side / 2, side / 2)."""
        weight = graph.constant(self.convolution.weight.detach().numpy())
        step = list(self.convolution.stride)
        answers = graph.add("Conv", values, weight, pads=[1] * 4, strides=step)
        scale, offset = (
            graph.constant(tensor.detach().numpy()) for tensor in (self.norm.weight, self.norm.bias)
        )
        normalised = graph.add("InstanceNormalization", answers, scale, offset, epsilon=EPSILON)
        cut = graph.add("Relu", normalised)
        return graph.add("MaxPool", cut, kernel_shape=[2, 2], strides=[2, 2])


class ConvNet(nn.Module):
    """Blocks of convolutions; what each of their last filters answers at most and on average, and how light each
    channel is, is summed up.

    Args:
        side: of the images, in pixels.
        channels: 1 or 3.
        widths: filters of each block; of small images fewer blocks are made.
        outputs: how many numbers come out.
    """

    def __init__(self, side: int, channels: int, widths: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        step = max(1, side // FINE)
        self.blocks, before, remaining_side = nn.ModuleList(), channels, -(-side // step)
        for width in widths:
            if remaining_side // 2 < LEAST_SIDE:
                break
            self.blocks.append(Block(before, width, 1 if len(self.blocks) else step))
            before, remaining_side = width, remaining_side // 2
        self.head = nn.Linear(2 * before + channels, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """From images, float, 0 to 1, shape (n, channels, side, side), to outputs, shape (n, outputs)."""
        values, light = images, images.mean((2, 3))
        for block in self.blocks:
            values = block(values)
        return self.head(torch.cat([values.amax((2, 3)), values.mean((2, 3)), light], 1))

    def to_nodes(self, graph: Graph, images: str) -> str:
        """Add the nodes from images, uint8, to the outputs, float32, shape (n, outputs)."""
        plain = graph.add("Cast", images, to=TensorProto.FLOAT)
        plain = graph.add("Mul", plain, graph.constant([[[[1 / 255]]]]))
        values = plain
        for block in self.blocks:
            values = block.to_nodes(graph, values)
        parts = [
            graph.add("Flatten", graph.add(operator, of), axis=1)
            for operator, of in (
                ("GlobalMaxPool", values),
                ("GlobalAveragePool", values),
                ("GlobalAveragePool", plain),
            )
        ]
        weight, bias = (
            graph.constant(tensor.detach().numpy()) for tensor in (self.head.weight, self.head.bias)
        )
        return graph.add("Gemm", graph.join(parts), weight, bias, transB=1)


def save_blocks(network: ConvNet, folder: Path) -> None:
    """Write what the blocks have learnt, for another network to start from."""
    (folder / CONFIG).write_text(json.dumps({"blocks": _shapes(network)}) + "\n", encoding="utf-8")
    save_file(network.blocks.state_dict(), folder / WEIGHTS)


def load_blocks(network: ConvNet, folder: str) -> None:
    """Let a network's blocks start from what others learnt.

    Raises:
        UserError: when nothing of `save_blocks` is there, or of another shape.
    """
    config = read_json(Path(folder, CONFIG))
    shapes = config.get("blocks") if isinstance(config, dict) else None
    if shapes != _shapes(network):
        raise UserError(
            f"{folder}: its layers are {shapes}, and networks.image.widths and the form of the images make "
            f"{_shapes(network)}; run `pretrain` again"
        )
    try:
        network.blocks.load_state_dict(load_file(Path(folder, WEIGHTS)))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{folder}: {WEIGHTS} cannot be read: {reason}") from None


def _shapes(network: ConvNet) -> list[list[int]]:
    """The shape of each block's filters."""
    return [list(block.convolution.weight.shape) for block in network.blocks]
