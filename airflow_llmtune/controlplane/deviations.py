"""Katib's faults: the control plane repairs them, and shows them as they are with ``strict``.

Each has a test that runs in both modes, marked ``both_modes("<id>")``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Deviation:
    id: str
    katib: str
    """What Katib does, and the control plane when it is strict."""
    default: str


DEVIATIONS = (
    Deviation(
        "not-a-number-is-best",
        "A Trial whose objective is no number (`loss=nan` is reported as an empty text) succeeds, becomes the optimum, "
        "and stalls the search.",
        "Values that are no finite number are passed over; a Trial without any other is MetricsUnavailable.",
    ),
    Deviation(
        "job-cannot-be-created",
        "A Trial whose job the API server refuses (`backoffLimit: -1`, a PyTorchJob without a container `pytorch`) is "
        "tried again for ever.",
        "It is Failed, with the server's words, when its job is still refused (with 400, 422, or 403 by a webhook) "
        "five seconds after its start.",
    ),
    Deviation(
        "metrics-never-reported",
        "A Trial whose job succeeded without reporting any metric stays Running for ever.",
        "It is MetricsUnavailable as soon as no pod is left that could report.",
    ),
    Deviation(
        "early-stopped-observation-lost",
        "The job of an early-stopped Trial is deleted before its metrics are stored, unless it is retained; such "
        "Trials hold back new ones, so the search can stall.",
        "The metrics are stored first, then the job is deleted.",
    ),
    Deviation(
        "early-stopped-stays-running",
        "An early-stopped Trial keeps its condition Running and has no completionTime.",
        "Running becomes False and completionTime is set.",
    ),
    Deviation(
        "unavailable-not-counted",
        "Trials without metrics are left out of the budget, so there can be more Trials than maxTrialCount.",
        "They are counted: there are never more Trials than maxTrialCount.",
    ),
    Deviation(
        "deleted-trials-return-together",
        "When several Trials were deleted, all come back at once, even beyond parallelTrialCount.",
        "No more come back at once than may run.",
    ),
    Deviation(
        "only-trial-deleted",
        "When all Trials of an Experiment are deleted, the counters stay as they were and none is made again.",
        "They come back, as a single deleted Trial does.",
    ),
    Deviation(
        "leftovers-run-on",
        "Trials that run when the goal is reached or too many have failed run on to their end; counters and optimum "
        "change after completionTime.",
        "They become Killed before the end of the Experiment shows, and their jobs are deleted, retained or not.",
    ),
    Deviation(
        "suggestion-failed-without-completion-time",
        "An Experiment whose Suggestion has failed has no completionTime.",
        "It has one.",
    ),
    Deviation(
        "completed-without-limit-restarts",
        "Without maxTrialCount a completed Experiment is marked Restarting at every look, and completed again at once.",
        "It stays completed.",
    ),
    Deviation(
        "mean-for-median",
        "The early stopping rule of `medianstop` is the mean of the other Trials.",
        "It is their median.",
    ),
    Deviation(
        "namespaces-mixed",
        "The algorithm is told the Trials of all Experiments of the same name, whatever their namespace.",
        "It is told those of its own namespace.",
    ),
    Deviation(
        "search-end-hangs",
        "When an algorithm has nothing more to suggest (grid, hyperband) the Experiment stays Running for ever.",
        "It succeeds with reason ExperimentSuggestionEndReached when its last Trial has ended.",
    ),
    Deviation(
        "hyperband-stops-at-the-second-rung",
        "`hyperband` answers with as many parameter sets as a rung of the requested size promotes, never the number "
        "that was requested: the Experiment stays Running after the first rung.",
        "Rungs have the sizes of the paper; fewer sets than requested are taken, and more asked for when a rung ends.",
    ),
    Deviation(
        "resample-probability-fails",
        "`pbt` with `resample_probability` fails: the setting is compared as a text.",
        "It is the share of parameters that are drawn anew.",
    ),
    Deviation(
        "exploit-keeps-worse-checkpoint",
        "A member of a `pbt` population that is replaced gets the better one's parameters and goes on from its own "
        "checkpoint.",
        "It goes on from the better one's checkpoint, which is its parent then.",
    ),
    Deviation(
        "population-without-volume",
        "`pbt` is accepted without `resumePolicy: FromVolume`, and with a name too long for its labels; then no pod "
        "starts.",
        "The Suggestion fails, and says what to change.",
    ),
    Deviation(
        "distributions-ignored",
        "`cmaes` and `sobol` search every parameter evenly, whatever its distribution.",
        "The distribution is honoured.",
    ),
    Deviation(
        "doubles-in-logarithms",
        "`bayesianoptimization` searches every double in logarithms and every int evenly; a double whose `min` is not "
        "positive makes each call fail, and the call is repeated without end.",
        "The distribution is honoured.",
    ),
    Deviation(
        "normal-distributions-fail",
        "`normal` and `logNormal` pass the check of `grid` and `multivariate-tpe`, then each call fails, and is "
        "repeated without end.",
        "`multivariate-tpe` draws from them inside the bounds; for the values of a `grid` they do not matter.",
    ),
    Deviation(
        "unusable-settings-accepted",
        "`bayesianoptimization` takes `acq_func` `EIps` and `PIps`, and fails at each call from the first result on; "
        "so it does from the first call with `acq_optimizer: lbfgs` on a `base_estimator` other than GP.",
        "The Suggestion fails, and says what to change.",
    ),
    Deviation(
        "one-call-repeats-a-point",
        "After its first call `tpe` answers with the same parameters several times when several are requested.",
        "They differ.",
    ),
    Deviation(
        "early-stopping-needs-numbers",
        "A value that is no number in a line with a metric of an early stopping rule ends the metrics collector: the "
        "Trial fails.",
        "Such a value is passed over.",
    ),
    Deviation(
        "early-stopping-needs-one-child",
        "A training whose shell runs more than one process, or none, when it is to be stopped early ends the metrics "
        "collector: the Trial fails.",
        "Every process that the shell runs is terminated.",
    ),
    Deviation(
        "event-files-know-no-early-stopping",
        "With TensorFlowEvent, early stopping rules end the metrics collector: the Trial fails.",
        "The rules are passed over.",
    ),
)
