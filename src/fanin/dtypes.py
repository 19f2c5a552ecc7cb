"""The dtypes a tensor can have, and what each can hold."""

import re
from typing import Any

import numpy as np

from fanin._types import Array, Dtype
from fanin.errors import DtypeError, near

# Made by ml_dtypes, which is imported when one of them is named.
EXTENDED = (
    "bfloat16",
    "float8_e4m3fn",
    "float8_e5m2",
    "float8_e4m3fnuz",
    "float8_e5m2fnuz",
)
# What is set in every NaN and infinity, and in no other value.
EXPONENT = {"float16": 0x7C00, "bfloat16": 0x7F80, "float8_e5m2": 0x7C, "float8_e4m3fn": 0x7F}
CACHED = 1 << 18  # elements that a core's caches hold between two operations on them
NATIVE = ("float16", "float32", "float64")
KNOWN = (*NATIVE, *EXTENDED)


def as_dtype(dtype: Dtype) -> np.dtype[Any]:
    """A NumPy dtype from a name, a type or a dtype, ml_dtypes included."""
    dtype = getattr(dtype, "as_numpy_dtype", dtype)  # TensorFlow's
    name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", None)
    if name in EXTENDED:
        import ml_dtypes

        extended: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return extended
    # `a` is a name that NumPy has retired
    if isinstance(dtype, str) and not re.fullmatch(r"[<>=|]?(?!a\d*$)[A-Za-z]\w*(\[\w+\])?", dtype, re.ASCII):
        raise _unknown(dtype)
    try:
        found: np.dtype[Any] = np.dtype(dtype)
    except (TypeError, ValueError) as error:
        raise _unknown(dtype) from error
    if not found.isnative:
        raise DtypeError(f"`dtype` {found} has swapped bytes; pass {found.newbyteorder('=')}")
    return found


def _unknown(dtype: Dtype) -> DtypeError:
    hint = near(dtype, KNOWN) if isinstance(dtype, str) else f"expected one of {', '.join(KNOWN)}"
    return DtypeError(f"`dtype` {dtype!r} is unknown; {hint}")


def is_floating(dtype: np.dtype[Any]) -> bool:
    return dtype.name in KNOWN


def is_numeric(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "biufc" or dtype.type.__module__ == "ml_dtypes"


def held(value: Any, dtype: np.dtype[Any], what: str) -> Array:
    """A number or an array in a dtype that can hold it: integers exactly, floats in range."""
    if not is_numeric(dtype):
        raise DtypeError(f"`dtype` {dtype} is not numeric")
    values = np.asarray(value)
    real = dtype.kind == "f" or "float" in dtype.name
    if real or dtype.kind == "c":
        wrong, cast = _as_floats(values, dtype)
    else:
        wrong, cast = _as_integers(values, dtype)
    if wrong.any():
        bad = values[np.nonzero(wrong)][0] if values.ndim else value
        raise DtypeError(f"{what} {bad} does not fit `dtype` {dtype}")
    return cast


def _as_floats(values: Array, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Where values are beyond a floating or complex dtype, and the values in it."""
    if values.dtype.kind == "c" and dtype.kind != "c":
        return np.ones(values.shape, bool), values
    if values.dtype == object:  # a Python integer beyond 64 bits
        try:
            values = values.astype(np.float64)
        except OverflowError:
            return np.ones(values.shape, bool), values
    with np.errstate(all="ignore"):
        cast = values.astype(dtype)
        seen = cast if dtype.kind in "fc" else cast.astype(np.float64)
        wide = values if values.dtype.kind in "biufc" else values.astype(np.float64)
    wrong: Array = (np.isfinite(wide) != np.isfinite(seen)) | (np.isinf(wide) != np.isinf(seen))
    return wrong, cast


def _as_integers(values: Array, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Where values are no integers of a dtype, and the values in it."""
    if values.dtype.kind not in "biufO":
        return np.ones(values.shape, bool), values
    low, high = (0, 1) if dtype.kind == "b" else _integer_range(dtype)
    if values.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            wrong = ~np.isfinite(values) | (values != np.floor(values))
            wrong |= (values < float(low)) | (values >= float(high) + 1.0)
    else:
        wrong = np.asarray((values < low) | (values > high), bool)
    cast = values if wrong.any() else values.astype(dtype)
    return np.asarray(wrong), cast


def _integer_range(dtype: np.dtype[Any]) -> tuple[int, int]:
    limits: Any
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
    else:
        import ml_dtypes

        limits = ml_dtypes.iinfo(dtype)  # type: ignore[no-untyped-call]
    return int(limits.min), int(limits.max)


def check_drawable(dtype: np.dtype[Any]) -> None:
    """Random draws are floating: an integer or complex dtype is an error."""
    if dtype.kind == "c":
        raise DtypeError(f"`dtype` {dtype} is complex, which is not supported yet; draw two real tensors")
    if not is_floating(dtype):
        raise DtypeError(
            f"`dtype` {dtype} cannot hold a random draw; expected one of {', '.join(KNOWN)} "
            f"(Zeros, Ones and Constant take every numeric dtype)"
        )


def largest(dtype: np.dtype[Any]) -> float:
    """The largest finite value."""
    if dtype.name in EXTENDED:
        import ml_dtypes

        return float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]
    return float(np.finfo(dtype).max)


def check_range(dtype: np.dtype[Any], reach: float, what: str) -> None:
    """Values up to ``reach`` must fit, since nothing saturates."""
    if reach > largest(dtype):
        raise DtypeError(
            f"{what} reaches {reach:g}, beyond {dtype.name}'s largest value {largest(dtype):g}; "
            f"use a wider dtype or a smaller scale"
        )


def is_finite(values: Array) -> bool:
    """Whether there is no NaN and no infinity among floats; integers have none.

    >>> is_finite(np.array([1e300, -2.0])), is_finite(np.array([1, np.inf], np.float16))
    (True, False)
    """
    if values.dtype.kind not in "fcV" and "float" not in values.dtype.name:
        return True
    flat = values.reshape(-1)
    return all(_is_finite(flat[at : at + CACHED]) for at in range(0, flat.size, CACHED))


def _is_finite(part: Array) -> bool:
    """The same of what the caches hold, in one pass where a few operations tell."""
    mask = EXPONENT.get(part.dtype.name)
    if mask is not None:
        return bool(np.bitwise_and(part.view(f"u{part.itemsize}"), mask).max() < mask)
    with np.errstate(all="ignore"):
        if part.dtype in (np.float32, np.float64) and np.isfinite(np.dot(part, part)):
            return True  # squares of what is finite may be infinite, others cannot be finite
    return bool(np.isfinite(part).all())
