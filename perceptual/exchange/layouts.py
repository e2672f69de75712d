"""The names and scales of weights in other projects' style networks of the same architecture.

All of them have biases before norms, which the norms cancel, upsample by repeating pixels, and end without a tanh. They
differ in names, in the scale of input and output, and in how many times a residual block adds its input.
"""

from collections.abc import Iterator
from dataclasses import dataclass

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Layout:
    """The layout of one project.

    Attributes:
        repository: Of the project on GitHub.
        endings: Its names of the last three convolutions.
        mean: Of each channel: the network's input and output are (RGB in [0, 1] − mean) / std.
        std: See ``mean``.
        identities: How many times a residual block adds its input to the output of its layers.
    """

    repository: str
    endings: tuple[str, str, str]
    mean: tuple[float, float, float] = (0, 0, 0)
    std: tuple[float, float, float] = (1 / 255, 1 / 255, 1 / 255)
    identities: int = 1

    def convolutions(self, blocks: int) -> dict[str, str]:
        """The project's names of convolutions by ours, in a network with a number of residual blocks."""
        names = {f"encoder.{i}.0": f"conv{i + 1}.conv2d" for i in range(3)}
        for i in range(blocks):
            names |= {f"blocks.{i}.body.{place}": f"res{i + 1}.conv{j}.conv2d" for j, place in ((1, 0), (2, 3))}
        return names | dict(zip(("decoder.0.1", "decoder.1.1", "decoder.2"), self.endings, strict=True))

    def norms(self, blocks: int) -> Iterator[str]:
        """The project's names of norms, in order."""
        yield from ("in1", "in2", "in3")
        yield from (f"res{i + 1}.in{j}" for i in range(blocks) for j in (1, 2))
        yield from ("in4", "in5")


LAYOUTS = {
    "pytorch-examples": Layout(
        "pytorch/examples, fast_neural_style", ("deconv1.conv2d", "deconv2.conv2d", "deconv3.conv2d")
    ),
    "gordicaleksa": Layout(
        "gordicaleksa/pytorch-neural-style-transfer-johnson",
        ("up1.conv2d.conv2d", "up2.conv2d.conv2d", "up3.conv2d"),
        IMAGENET_MEAN,
        IMAGENET_STD,
    ),
    "yakhyo": Layout(
        "yakhyo/fast-neural-style-transfer",
        ("upsample_conv1.conv2d", "upsample_conv2.conv2d", "upsample_conv3.conv2d"),
        identities=2,
    ),
}
