"""GSM8K: grade-school word problems (Cobbe et al. 2021, arXiv 2110.14168); `answer` ends in `#### ` and the number."""

from rlcore.entries import Source

GSM8K = Source(text="question", gold=("answer",), hub="openai/gsm8k", subset="main")
