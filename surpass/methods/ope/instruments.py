"""Estimators for logs whose actions were confounded, through an instrument."""

from __future__ import annotations

from surpass.critics.fitted_q import Fourier
from surpass.critics.instruments import InstrumentModel
from surpass.forms import Estimator
from surpass.objectives.instruments import instrumental
from surpass.registry import system

__all__ = ["iv_ope"]


@system("iv-ope")
def iv_ope(features: Fourier | None = None, confounded: bool = True) -> Estimator:
    """IVMDP: doubly robust evaluation of a discounted problem through a binary instrument.

    Assumed, and not testable: given the state, the instrument is as good as random, moves the
    action, and touches reward and next state through the action only; and the effect of the action
    does not vary with the hidden cause in step with how the hidden cause moves the action.

    Args:
        features: of the state; None where states are one-hot.
        confounded: False gives the same estimator for actions that were not confounded.
    """
    return Estimator(
        instrumental(),
        {"iv": InstrumentModel(features, confounded=confounded)},
        unit="episode",
        needs=("instrument",) if confounded else (),
        assumptions="the instrument is as good as random given the state, and acts through the "
        "action only; effects do not vary with what is hidden"
        if confounded
        else "nothing hidden moves both action and outcome",
    )
