"""What the networks learn: data sets, split and scaled the same way for every initializer."""

import csv
import math
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from fanin.errors import ArgumentError, UnknownNameError, near

Features = NDArray[np.float32]
Labels = NDArray[np.int32]

# Fewest examples of a class for a 60 / 20 / 20 split to put one of them in every part.
MIN_PER_CLASS = 5
NAMES = ("digits", "halves", "spirals")
HALF = 5  # the first class of the second half


@dataclass(frozen=True, eq=False)
class Task:
    """A classification problem in three parts: to train on, to choose by, to report on.

    Attributes
    ----------
    name : str
    train, validation, test : tuple of (features, labels)
        60, 20 and 20 % of the examples, classes in equal shares. Features are float32 with zero
        mean and, over all of them, unit mean square on the training part.
    n_classes : int
    before : Task, optional
        One of other classes and the same features, for starts that have learned before.
    """

    name: str
    train: tuple[Features, Labels]
    validation: tuple[Features, Labels]
    test: tuple[Features, Labels]
    n_classes: int
    before: "Task | None" = None

    @property
    def n_features(self) -> int:
        """Number of inputs of the network."""
        return int(self.train[0].shape[1])


def load(name: str | Path) -> Task:
    """The task called ``name``: ``"digits"``, ``"halves"``, ``"spirals"``, or the path of a CSV file.

    Parameters
    ----------
    name : str or Path
        ``"digits"`` are the 1797 handwritten digits of 8 x 8 pixels that come with
        scikit-learn; ``"halves"`` are those from 5 to 9, and before those from 0 to 4; ``"spirals"`` are
        three noisy spiral arms in the plane; anything that ends in ``.csv`` is read as one example per line,
        the label in the last column.

    Examples
    --------
    >>> task = load("digits")
    >>> task.n_features, task.n_classes
    (64, 10)
    >>> len(task.train[1]), len(task.validation[1]), len(task.test[1])
    (1078, 359, 360)
    """
    if str(name).lower().endswith(".csv"):
        return _split(str(name), *read_csv(Path(name)), per_column=True)
    if name == "digits":
        features, labels = load_digits(return_X_y=True)
        return _split("digits", features, labels, per_column=False)
    if name == "halves":
        features, labels = load_digits(return_X_y=True)
        late = labels >= HALF
        before = _split("digits 0 to 4", features[~late], labels[~late], per_column=False)
        after = _split("digits 5 to 9", features[late], labels[late] - HALF, per_column=False)
        return replace(after, before=before)
    if name == "spirals":
        return _split("spirals", *spirals(), per_column=False)
    raise UnknownNameError(
        f"task {str(name)!r}; expected {', '.join(NAMES)} or the path of a .csv file "
        f"({near(str(name), NAMES)})"
    )


def spirals(
    n_per_arm: int = 400, arms: int = 3, noise: float = 0.08
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    r"""Noisy spiral arms in the plane, always the same ones.

    .. math:: x = r \, (\cos\theta, \sin\theta) + \epsilon,\quad
              \theta = 4 r + 2 \pi k / \mathrm{arms},\quad 0 < r < 1

    >>> points, arm = spirals()
    >>> points.shape, sorted(set(arm.tolist()))
    ((1200, 2), [0, 1, 2])
    """
    rng = np.random.default_rng(0)
    radius = np.tile(np.sqrt(np.linspace(0.01, 1, n_per_arm)), arms)
    arm = np.repeat(np.arange(arms), n_per_arm)
    angle = 4 * radius + 2 * np.pi * arm / arms
    points = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return points + noise * rng.normal(size=points.shape), arm


def read_csv(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Features and class numbers of a CSV file: numbers, then the label in the last column.

    The first line may be a header: it is one when none of its features is a number.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except OSError as error:
        raise ArgumentError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{path}: not UTF-8 text; save it as a UTF-8 CSV file") from error
    if rows and len(rows[0][1]) > 1 and not any(_is_number(cell) for cell in rows[0][1][:-1]):
        rows = rows[1:]
    if not rows:
        raise ArgumentError(f"{path}: no data; expected one example per line, label last")

    n_columns = len(rows[0][1])
    if n_columns < 2:
        raise ArgumentError(
            f"{path}, line {rows[0][0]}: 1 column; expected features and then a label, separated by commas"
        )
    for line, row in rows:
        if len(row) != n_columns:
            raise ArgumentError(
                f"{path}, line {line}: {len(row)} columns; expected {n_columns}, as in line {rows[0][0]}"
            )
        for column, cell in enumerate(row[:-1], 1):
            if not (_is_number(cell) and math.isfinite(float(cell))):
                raise ArgumentError(
                    f"{path}, line {line}, column {column}: {cell!r}; expected a finite number "
                    "(only the last column, the label, may be text)"
                )
        if not row[-1].strip():
            raise ArgumentError(f"{path}, line {line}: no label in the last column")

    names = [row[-1].strip() for _, row in rows]
    counts = Counter(names)
    if len(counts) < 2:
        raise ArgumentError(
            f"{path}: every label is {names[0]!r}; expected at least 2 classes in the last column"
        )
    rare, count = min(counts.items(), key=lambda item: item[1])
    if count < MIN_PER_CLASS:
        line = rows[names.index(rare)][0]
        raise ArgumentError(
            f"{path}, line {line}: label {rare!r} occurs {count} "
            f"{'time' if count == 1 else 'times'}; expected at least {MIN_PER_CLASS} examples of "
            "each class (is the last column a label, not a measurement?)"
        )
    features = np.array([[float(cell) for cell in row[:-1]] for _, row in rows])
    return features, np.unique(names, return_inverse=True)[1].astype(np.int64)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _split(name: str, features: NDArray[Any], labels: NDArray[Any], *, per_column: bool) -> Task:
    """Split 60 / 20 / 20 and scale by the training part.

    Columns of one unit (pixels, coordinates) share one scale; columns of a table get their own.
    """
    train_x, rest_x, train_y, rest_y = train_test_split(
        features, labels, test_size=0.4, stratify=labels, random_state=0
    )
    validation_x, test_x, validation_y, test_y = train_test_split(
        rest_x, rest_y, test_size=0.5, stratify=rest_y, random_state=0
    )
    mean = train_x.mean(axis=0)
    spread = (train_x - mean).std(axis=0 if per_column else None, keepdims=True)
    spread[spread == 0] = 1  # a constant column stays zero

    def part(x: NDArray[Any], y: NDArray[Any]) -> tuple[Features, Labels]:
        return ((x - mean) / spread).astype(np.float32), y.astype(np.int32)

    return Task(
        name=name,
        train=part(train_x, train_y),
        validation=part(validation_x, validation_y),
        test=part(test_x, test_y),
        n_classes=int(labels.max()) + 1,
    )
