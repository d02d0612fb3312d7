"""Result codes of estimates by Markov chains."""

from .. import _solution
from .._codes import code


class RESULTS(_solution.RESULTS):
    """Result codes of all rooms, and those of estimates by Markov chains."""

    few_weights = code(
        "A few chains carry the weight of all, so that neither the estimate nor its spread means "
        "anything. Take more rungs, then more chains; where chains freeze, tempering "
        "(`multi_histogram_reweighting`) or cluster moves."
    )
    not_relaxed = code(
        "At some rung chains differ by more than each of them varies, or all drift: they have not "
        "relaxed. Take more sweeps and burn_in, or more rungs; where chains freeze, tempering "
        "(`multi_histogram_reweighting`) or cluster moves."
    )
    no_overlap = code(
        "Neighbouring rungs share too few energies, so that their ratio of Z is unknown. Add rungs "
        "between those that are there, or take more sweeps."
    )
    disagree = code(
        "Independent estimates differ by more than their errors allow: some have missed what "
        "others found, or they are of different models. Look at each; take more rungs and chains."
    )
    no_crossing = code(
        "The curves of two sizes do not cross where they were measured, or not beyond their "
        "errors. Look at them: move or widen the range of beta, or take more draws. Where there "
        "is no transition there is no crossing."
    )
