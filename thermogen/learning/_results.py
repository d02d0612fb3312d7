"""How a fit ends, and the closed form of one."""

from .. import sampling
from .._codes import code


class RESULTS(sampling.RESULTS):
    """Result codes of all rooms, those of estimates by Markov chains, and those of learning."""

    completed = code(
        "All steps of a stochastic loss were taken, which is its regular end. Whether more steps "
        "help is seen in the history, and by held-out data."
    )
    unfinished = code(
        "The fit was looked at, or stopped, before its end. Go on from its state with "
        "fit(..., state=)."
    )
    separable = code(
        "The model predicts every spin of every sample right from the others: larger parameters "
        "lower the loss for ever, and those returned are where the fit stopped. Add a penalty, "
        "such as penalty=thermogen.learning.L2(1e-3), or the ridge that Pseudolikelihood() has "
        "by default."
    )
    no_inverse = code(
        "No couplings of this approximation have these correlations: the covariances are not "
        "positive definite, or too strong for a pair of spins (`n_failed` counts these). Raise "
        "the pseudocount of `moments`, or learn with `Pseudolikelihood`."
    )
    diverged = code(
        "The sampled loss ended where no loss can be, or higher than it began and than free spins "
        "have: the chains could not follow the learning. Lower the learning rate "
        "(optimizer=optax.sgd(...)), or give the chains more sweeps between two steps."
    )
