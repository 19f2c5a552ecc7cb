"""All methods by name, and what every one of them promises: all or nothing, and a plan."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from fanin.calibrate.engine import Engine
from fanin.calibrate.forward import Outcome, krahenbuhl_within, lsuv, weight_norm
from fanin.calibrate.gradients import jacobian, krahenbuhl_between
from fanin.calibrate.graph import analytic
from fanin.calibrate.heads import head
from fanin.calibrate.residual import residual_scaling
from fanin.calibrate.result import Calibration
from fanin.calibrate.store import Store
from fanin.errors import ArgumentError, UnknownNameError, near
from fanin.plan import Plan

Method = Callable[..., Outcome]
METHODS: dict[str, Method] = {
    method.__name__: method
    for method in (
        lsuv,
        weight_norm,
        krahenbuhl_within,
        krahenbuhl_between,
        analytic,
        jacobian,
        residual_scaling,
        head,
    )
}
WITHOUT_DATA = ("analytic", "residual_scaling")  # only shapes count


def checked(name: str, options: Mapping[str, Any], batch: Any) -> Method:
    """The method of a name; before anything runs, its options are looked at.

    Raises
    ------
    UnknownNameError, ArgumentError

    Examples
    --------
    >>> checked("lsuv", {"targets": 1.0}, ())
    Traceback (most recent call last):
    fanin.errors.ArgumentError: lsuv takes no `targets`; it takes head, per_channel, target
    """
    if name not in METHODS:
        raise UnknownNameError(f"no method {name!r}; {near(name, METHODS)}")
    if batch is None and name not in WITHOUT_DATA:
        raise ArgumentError(f"{name} looks at a batch: `batch` must not be None")
    words = inspect.signature(METHODS[name]).parameters.values()
    taken = sorted(word.name for word in words if word.kind is word.KEYWORD_ONLY)
    for option in options:
        if option not in taken:
            raise ArgumentError(f"{name} takes no `{option}`; it takes {', '.join(taken) or 'nothing'}")
    return METHODS[name]


def calibrated(
    engine: Engine, method: str, plan: Plan | None, options: Mapping[str, Any], model: Any = None
) -> Calibration:
    """Calibrate a model: after an error it has its old bytes.

    Parameters
    ----------
    engine : Engine
    method : str
        A key of `METHODS`.
    plan : Plan, optional
        That made the model's values.
    options : mapping
        The method's own.
    model : object
        What the result calls its model.
    """
    store = Store(engine)
    try:
        outcome = METHODS[method](engine, store, **options)
        made = None if plan is None or store.replaced else store.planned(plan, method)
    except BaseException:
        store.undo()
        raise
    return Calibration(
        method=method,
        measure=outcome.measure,
        scales=outcome.scales,
        left_out=outcome.left_out,
        factors={name: each for name, each in store.factors.items() if name not in store.replaced},
        constants=store.constants,
        replaced=store.replaced,
        plan=made,
        _undo=store.undo,
        model=model,
    )
