"""Three audits as pages: a deep MLP that fades, a ResNet with one scaled layer, GPT-2 small as published.

    python examples/audit_pages.py reports docs

writes ``mlp.html``, ``resnet.html`` and ``gpt2.html`` into one folder, and pictures of their first screens,
taken by Chromium, into another (if one is named). Needs torch and transformers.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

import fanin.torch as ft


def mlp() -> tuple:
    """Thirty layers of 128 ReLU units, drawn for layers that have none (LeCun's variance)."""
    torch.manual_seed(0)
    layers = [layer for _ in range(29) for layer in (nn.Linear(128, 128), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(128, 10))
    ft.initialize(model, "lecun_normal", seed=0)
    return model, torch.randn(64, 128)


class Block(nn.Module):
    """Two convolutions with normalization, and a skip around them."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.skip = nn.Conv2d(n_in, n_out, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.skip(x))


class ResNet(nn.Module):
    """ResNet-20 for images of 32 x 32 pixels (He et al. 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        widths = ((16, 16, 1), (16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 32, 1),
                  (32, 64, 2), (64, 64, 1), (64, 64, 1))  # fmt: skip
        self.blocks = nn.Sequential(*(Block(*width) for width in widths))
        self.fc = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(functional.relu(self.bn(self.conv(x))))
        return self.fc(x.mean((2, 3)))


def resnet() -> tuple:
    """ResNet-20 whose last layer is a hundred times too large."""
    model = ResNet()
    ft.initialize(model, "he_normal", seed=0)
    with torch.no_grad():
        model.fc.weight *= 100
    torch.manual_seed(0)
    images, labels = torch.randn(64, 3, 32, 32), torch.randint(10, (64,))
    return model, images, lambda output, batch: functional.cross_entropy(output, labels)


def gpt2() -> tuple:
    """GPT-2 small as published, on 64 random tokens."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    tokens = torch.randint(50257, (2, 64))

    def loss(output: object, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return functional.cross_entropy(
            output.logits[:, :-1].flatten(0, 1), batch["input_ids"][:, 1:].flatten()
        )

    return GPT2LMHeadModel(GPT2Config()), {"input_ids": tokens}, loss


def photograph(page: Path, picture: Path) -> None:
    """The first screen of a page, as Chromium shows it."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("pictures need chromium or google-chrome in the path")
    with tempfile.TemporaryDirectory() as profile:
        arguments = (
            *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1200,1700"),
            *(f"--user-data-dir={profile}", f"--screenshot={picture.resolve()}", page.resolve().as_uri()),
        )
        subprocess.run([browser, *arguments], check=True, capture_output=True)


def main(folder: str = "reports", pictures: str = "") -> None:
    """Audit the three models and write their pages."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for build in (mlp, resnet, gpt2):
        start = time.perf_counter()
        report = ft.audit(*build())
        place = Path(folder) / f"{build.__name__}.html"
        report.save(place)
        took = time.perf_counter() - start
        print(f"{place} ({place.stat().st_size / 1e3:.0f} kB, {took:.1f} s): {report.verdict}")
        if pictures:
            photograph(place, Path(pictures) / f"audit_{build.__name__}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
