"""The four networks in PyTorch."""

import numpy as np
import torch
from shared import SEED, main
from torch import nn

import fanin.torch as ft


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.head = nn.Linear(12, 32), nn.Linear(32, 32), nn.Linear(32, 10)

    def forward(self, x):
        return self.head(torch.relu(self.fc2(torch.relu(self.fc1(x)))))


class CNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.grouped = nn.Conv2d(8, 16, (3, 2), groups=4)
        self.depthwise = nn.Conv2d(16, 32, 3, groups=16)
        self.up = nn.ConvTranspose2d(32, 6, (3, 4), stride=2)
        self.head = nn.Linear(6, 10)

    def forward(self, x):  # (batch, height, width, channels), as the others take it
        x = torch.relu(self.stem(x.permute(0, 3, 1, 2)))
        x = torch.relu(self.depthwise(torch.relu(self.grouped(x))))
        return self.head(torch.relu(self.up(x)).mean((2, 3)))


class LSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.lstm, self.head = (
            nn.Embedding(20, 8),
            nn.LSTM(8, 16, batch_first=True),
            nn.Linear(16, 20),
        )

    def forward(self, x):
        return self.head(self.lstm(self.embedding(x))[0])


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.norm1, self.norm2 = nn.LayerNorm(16, eps=1e-5), nn.LayerNorm(16, eps=1e-5)
        self.fc1, self.fc2, self.head = nn.Linear(16, 64), nn.Linear(64, 16), nn.Linear(16, 20)

    def forward(self, x):
        x = self.embedding(x)
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.fc2(nn.functional.gelu(self.fc1(self.norm2(x))))
        return self.head(x)


NETWORKS = {"mlp": MLP, "cnn": CNN, "lstm": LSTM, "encoder": Encoder}


def run(name, recipe, batch):
    model = NETWORKS[name]()
    plan = ft.initialize(model, recipe, seed=SEED)
    parameters = dict(model.named_parameters())
    weights = {tensor.path: parameters[tensor.path].detach().numpy() for tensor in plan.tensors}
    with torch.no_grad():
        return plan, weights, np.asarray(model(torch.from_numpy(batch)))


if __name__ == "__main__":
    main(run)
