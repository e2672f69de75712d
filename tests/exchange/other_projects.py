"""The style networks of other projects, written anew from what they compute, as functions of their weights."""

import torch
import torch.nn.functional as F

ENDINGS = {
    "pytorch-examples": ("deconv1.conv2d", "deconv2.conv2d", "deconv3.conv2d"),
    "gordicaleksa": ("up1.conv2d.conv2d", "up2.conv2d.conv2d", "up3.conv2d"),
    "yakhyo": ("upsample_conv1.conv2d", "upsample_conv2.conv2d", "upsample_conv3.conv2d"),
}


def random_weights(project, features=32, blocks=5):
    """Weights in a project's names, of the sizes that training gives them."""
    one, two, four = features, 2 * features, 4 * features
    convolutions = {"conv1.conv2d": (3, one, 9), "conv2.conv2d": (one, two, 3), "conv3.conv2d": (two, four, 3)}
    norms = {"in1": one, "in2": two, "in3": four, "in4": two, "in5": one}
    for block in range(1, blocks + 1):
        for part in (1, 2):
            convolutions[f"res{block}.conv{part}.conv2d"] = (four, four, 3)
            norms[f"res{block}.in{part}"] = four
    sides = (four, two, 3), (two, one, 3), (one, 3, 9)
    convolutions |= dict(zip(ENDINGS[project], sides, strict=True))
    weights = {}
    for name, (inputs, outputs, kernel) in convolutions.items():
        weights[f"{name}.weight"] = torch.randn(outputs, inputs, kernel, kernel) / (kernel * inputs**0.5)
        weights[f"{name}.bias"] = torch.randn(outputs)
    for name, channels in norms.items():
        weights[f"{name}.weight"] = torch.empty(channels).uniform_(0.5, 1.5)
        weights[f"{name}.bias"] = torch.empty(channels).uniform_(-0.5, 0.5)
    last, contrast, middle = ENDINGS[project][-1], *((1, 0) if project == "gordicaleksa" else (70, 127))
    weights[f"{last}.weight"] *= contrast
    weights[f"{last}.bias"] = middle + contrast * torch.randn(3) / 5
    return weights


def stylized(project, weights, photos):
    """What the project makes of RGB in [0, 1], N×3×H×W, likewise; of sides that 4 does not divide, up to 3 px more."""

    def convolved(x, name, stride=1):
        kernels = weights[f"{name}.weight"]
        reflected = F.pad(x, [kernels.shape[-1] // 2] * 4, mode="reflect")
        return F.conv2d(reflected, kernels, weights[f"{name}.bias"], stride)

    def normed(x, name):
        return F.instance_norm(x, weight=weights[f"{name}.weight"], bias=weights[f"{name}.bias"])

    def doubled(x):
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    mean, std = (torch.tensor(each).view(3, 1, 1) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = (photos - mean) / std if project == "gordicaleksa" else photos * 255
    for number, stride in ((1, 1), (2, 2), (3, 2)):
        x = normed(convolved(x, f"conv{number}.conv2d", stride), f"in{number}").relu()
    blocks = {key.partition(".")[0] for key in weights if key.startswith("res")}
    for block in sorted(blocks):
        inner = normed(convolved(x, f"{block}.conv1.conv2d"), f"{block}.in1").relu()
        inner = normed(convolved(inner, f"{block}.conv2.conv2d"), f"{block}.in2")
        x = inner + x + x if project == "yakhyo" else inner + x
    first, second, last = ENDINGS[project]
    x = normed(convolved(doubled(x), first), "in4").relu()
    x = normed(convolved(doubled(x), second), "in5").relu()
    x = convolved(x, last)
    return (x * std + mean if project == "gordicaleksa" else x / 255).clamp(0, 1)
