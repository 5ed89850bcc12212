"""Every measurement that a run logs: its name, what it means, when it moves, and the panel that draws it.

The page of this room, the dashboard's panels and the alarms' table are made from here (`rlcore.pages`).
"""

from typing import NamedTuple


class Measurement(NamedTuple):
    """One line of the page. In a name `{n}` is the number of an attempt, `{mode}` is greedy or sampled."""

    name: str
    means: str
    moves: str = ""
    """What it says when it moves, and what to do then."""
    panel: str = ""
    """`section / title` of the panel on dashboards that draws it, with others of that title; none draws it if empty."""


M = Measurement

MEASUREMENTS: dict[str, list[Measurement]] = {
    "Accuracy": [
        M(
            "train/t{n}",
            "share of trajectories whose attempt n is right",
            "`t1` falling below the base is sandbagging; both falling is collapse",
            panel="Training accuracy / accuracy of each attempt",
        ),
        M(
            "train/delta",
            "t of the last attempt − `t1`",
            "stays at 0: see copying. In stage I it should rise while `t1` stays",
            panel="Training accuracy / Δ",
        ),
        M(
            "train/i_to_c",
            "share of all trajectories that the last attempt mends",
            "should rise; without it there is no self-correction",
            panel="Training accuracy / flips",
        ),
        M(
            "train/c_to_i",
            "share of all trajectories that the last attempt spoils",
            "above `train/i_to_c`: over-correction; raise α or the reward of attempt 2",
            panel="Training accuracy / flips",
        ),
        M(
            "train/reward",
            "mean score of the last attempt, partial credit counted",
            "the checkpoint with the highest mean since the one before is kept as `best/`",
            panel="Training accuracy / reward of the last attempt",
        ),
        M(
            "train/sandbagging",
            "`t1` of the base's sampled evaluation − `train/t1`",
            "above 0.05: lower α (`bonus`) or raise β on attempt 1 (`kl`)",
            panel="Training accuracy / sandbagging: base t1 - t1",
        ),
        M(
            "eval/{mode}/t{n}",
            "as `train/t{n}`, on held-out problems",
            "what counts; training accuracy rising alone is memorising",
            panel="Held-out accuracy / accuracy of each attempt",
        ),
        M(
            "eval/{mode}/delta",
            "as `train/delta`, on held-out problems",
            "compare greedy with sampled: a gap is diversity, not skill",
            panel="Held-out accuracy / Δ",
        ),
        M("eval/{mode}/i_to_c", "as `train/i_to_c`, on held-out problems", panel="Held-out accuracy / flips"),
        M("eval/{mode}/c_to_i", "as `train/c_to_i`, on held-out problems", panel="Held-out accuracy / flips"),
    ],
    "Behaviour": [
        M(
            "train/answer_change",
            "share of neighbouring attempts whose answers differ",
            "towards 0 is copying: a longer stage I, a higher α",
            panel="Behaviour / copying: answers that change",
        ),
        M(
            "train/edit_ratio",
            "edit distance of first and last attempt over their joint length; 0 is a copy",
            "low with `answer_change` high: minimal edits; near 0.5: attempt 2 starts over",
            panel="Behaviour / copying: edit distance ratio",
        ),
        M(
            "train/truncated_t{n}",
            "share of attempt n cut off at `conversation.max_attempt_tokens`",
            "above 0.2: raise the limit; a short limit looks like a failing method",
            panel="Behaviour / truncated attempts",
        ),
        M(
            "train/tokens_t{n}",
            "mean tokens of attempt n",
            "steady growth is length creep: read trajectories",
            panel="Behaviour / tokens of each attempt",
        ),
        M(
            "train/attempts",
            "mean attempts of a conversation, where it may end early",
            "towards 1: the policy stops at once; towards the limit: it never trusts an answer",
        ),
        M(
            "train/verdict_right",
            "share of the policy's verdicts on its attempts that are right (kind `verify`)",
            "near the larger of t1 and 1 − t1: it always says the same",
        ),
        M(
            "train/dead_groups",
            "share of comparisons (group and attempt) whose rewards are all equal",
            "above 0.8: problems too easy or too hard; curate, or enlarge `batch.group`",
            panel="Behaviour / dead groups",
        ),
        M(
            "train/resampled",
            "groups sampled in place of dead ones, as share of a step's groups (`batch.resample`)",
            "towards the number of rounds: most problems teach nothing; curate",
        ),
        M(
            "train/unscored",
            "share of trajectories with an attempt that has no score",
            "any: rewards time out or crash; see `status` in the trajectories. Above `rewards.max_failed` "
            "the run stops",
            panel="Behaviour / reward failures",
        ),
        M("eval/{mode}/attempts", "as in training, on held-out problems"),
        M("eval/{mode}/verdict_right", "as in training, on held-out problems"),
        M(
            "eval/{mode}/answer_change",
            "as in training, on held-out problems",
            "greedy 0 with sampled above 0: attempt 2 differs by chance only",
        ),
        M("eval/{mode}/edit_ratio", "as in training, on held-out problems"),
        M("eval/{mode}/truncated_t{n}", "as in training, on held-out problems"),
        M("eval/{mode}/tokens_t{n}", "as in training, on held-out problems"),
        M(
            "eval/{mode}/pass@{n}_t{n}",
            "some of so many answers, all attempt t, is right (`evaluate.samples`)",
            "far above t: the policy can, but does not choose",
        ),
        M(
            "eval/{mode}/maj@{n}_t{n}",
            "the most frequent of so many answers is right",
            "no higher than t: the votes agree on what is wrong",
        ),
        M("eval/{mode}/unscored", "as in training, on held-out problems"),
        M(
            "train/histogram/{name}",
            "rewards and tokens of each attempt and the edit ratio, as histograms of the first rank's trajectories",
            "two humps in tokens: loops beside answers; a spike at edit ratio 0: copies",
        ),
        M("eval/histogram/{name}", "histograms of an evaluation"),
    ],
    "Rewards": [
        M(
            "rewards/{name}/{name}",
            "a reward's name and its counter's. `judge` counts `requests`, `retries`, `votes`, `cache_hits`,"
            " `prompt_tokens`, `completion_tokens`, and `failures`: attempts that it left without a score",
            "rising `retries` or `failures`: the judge's server cannot keep up",
        ),
    ],
    "The learner": [
        M(
            "learner/kl_t{n}",
            "KL of attempt n from the reference policy, nats a token",
            "attempt 1 must stay near 0 in stage I; above 1: raise β (`kl`) or lower `learner.lr`",
            panel="Learner / KL of each attempt from the reference",
        ),
        M(
            "learner/entropy_t{n}",
            "entropy of attempt n, nats a token",
            "a fall to a fifth: samples become equal and groups die; lower `learner.lr`, raise the upper end"
            " of `learner.clip`",
            panel="Learner / entropy of each attempt",
        ),
        M(
            "learner/mismatch_kl",
            "KL of sampler and learner before the first optimizer step",
            "above 0.1: weights are not published, or dtype or temperature differ",
            panel="Learner / sampler against learner, KL",
        ),
        M(
            "train/beta_t{n}",
            "β of attempt n, where the stage has a `kl_target`",
            "at ten times the stage's `kl`: the target cannot be held",
        ),
        M(
            "learner/mismatch_k1",
            "mean log-probability of the sampler − of the learner, before the first optimizer step",
            "signed: far from 0 means that one of them is always the surer",
        ),
        M(
            "learner/correction",
            "mean weight of the mismatch correction (`learner.correction`)",
            "far from 1: see `learner/mismatch_kl`",
        ),
        M(
            "learner/corrected",
            "share of tokens whose weight its bounds changed",
            "above 0.05: the sampler's weights are too old, or its precision too low",
        ),
        M(
            "learner/max_abs_logprob_gap",
            "largest difference of the two log-probabilities of one token",
            "grows with bfloat16 and long attempts; a jump is a bug in publication",
        ),
        M(
            "learner/loss",
            "policy loss + β · KL, as minimised",
            "its level says little; NaN says stop",
            panel="Learner / loss",
        ),
        M("learner/policy_loss", "without the KL term", panel="Learner / loss"),
        M(
            "learner/clip_fraction",
            "share of tokens whose gradient the clip took away",
            "above 0.2: `learner.minibatches` or `learner.lr` too high",
            panel="Learner / clipped tokens",
        ),
        M(
            "learner/grad_norm",
            "norm before clipping, mean over optimizer steps",
            "spikes before collapse: lower `learner.max_grad_norm`",
            panel="Learner / gradient norm",
        ),
        M(
            "learner/skipped",
            "optimizer steps passed over, their gradient was not finite",
            "any: lower `learner.lr`, or try float32",
            panel="Learner / optimizer steps passed over",
        ),
        M("learner/lr", "learning rate of the last optimizer step", panel="Learner / learning rate"),
        M("learner/tokens", "loss tokens of the step", "falls with shorter attempts and unscored ones"),
        M(
            "learner/left_out",
            "share of them in trajectories without gradient, which are not computed: advantage 0 and β 0. "
            "The learner's other figures are of the rest",
            "follows `train/dead_groups`; 1: nothing was learned",
        ),
        M(
            "learner/micro_batches",
            "forward passes on each rank",
            "many small ones: raise `learner.micro_batch_tokens`",
        ),
    ],
    "Supervised rounds": [
        M("sft/rows", "conversations learned", "few: sample more problems or more conversations of each"),
        M(
            "sft/kept",
            "their share of those sampled, or of the demonstrations given",
            "rises with each round of STaR while it works",
        ),
        M("sft/loss", "mean loss per learned token"),
    ],
    "Time": [
        M("time/step", "seconds of a step without evaluation and saving", panel="Time / seconds of each phase"),
        M(
            "time/rollout",
            "sampling and scoring",
            "the longest attempts decide; see `train/tokens_t{n}`",
            panel="Time / seconds of each phase",
        ),
        M("time/credit", "advantages", panel="Time / seconds of each phase"),
        M("time/learner", "forward, backward, optimizer", panel="Time / seconds of each phase"),
        M("time/publish", "weights to the rollout engine", panel="Time / seconds of each phase"),
        M("time/measure", "figures of the step, gathered from all ranks", panel="Time / seconds of each phase"),
    ],
}
"""By section of the page, in its order."""
